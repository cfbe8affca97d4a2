"""The encoder: a transformer with one output for each label, its tokenizer, and the scores that the two give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers import logging as transformers_logging

from arxivclf.errors import ModelError, one_line
from arxivclf.model import batches, tokens
from arxivclf.model.devices import Device
from arxivclf.model.folder import TOKENIZER_FILES, fingerprint
from arxivclf.model.labels import Scores

# Larger batches were slower on every CPU measured: the activations fall out of the cache.
TOKENS_PER_BATCH = {"cpu": 4_096, "cuda": 65_536, "xla": 16_384}

_FEWEST_TOKENS = 8

# Bases that give the same logits for a mask (papers, 1, width, width) of booleans. Others take it for a bias, or for
# that of their local attention as well, and say nothing; they get the usual one.
_TAKE_READY_MASKS = ("albert", "bert", "camembert", "distilbert", "electra", "ernie", "roberta", "xlm-roberta")


class Backend(Protocol):
    """A faster way to compute the logits of one encoder."""

    name: str
    """The same for two that give the same logits on one machine."""

    def logits(self, token_ids: Sequence[list[int]], outputs: int, advance: Callable[[int], None]) -> Scores:
        """As `Encoder.logits`, for `outputs` outputs."""


@dataclass(frozen=True)
class Encoder:
    """A sequence classifier, one output for each label, and the tokenizer that it was made for.

    `softmax` says that its outputs exclude each other; else each is a sigmoid of its own. `tokenizing` is the same for
    two encoders that make the same token ids of a text; `tokenize` makes them, cut to `max_tokens`. Where `backend` is
    given, logits are computed by it, from the weights as they were when it was made; `backends` gives it to a model
    that is to label.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    device: Device
    softmax: bool
    tokenizing: str
    tokenize: tokens.OfTexts
    backend: Backend | None = None

    @classmethod
    def start(cls, base: Path, label_names: Sequence[str], max_tokens: int, device: Device) -> Encoder:
        """A base model with a head for the labels, a fresh one unless its own has that size: seed torch first."""
        names = dict(enumerate(label_names))
        return cls._load(
            base,
            max_tokens,
            device,
            num_labels=len(names),
            id2label=names,
            label2id={name: index for index, name in names.items()},
            problem_type="multi_label_classification",
            ignore_mismatched_sizes=True,
        )

    @classmethod
    def load(cls, folder: Path, max_tokens: int, device: Device) -> Encoder:
        """A trained model as it was saved."""
        return cls._load(folder, max_tokens, device)

    @classmethod
    def _load(cls, folder: Path, max_tokens: int, device: Device, **head: Any) -> Encoder:
        with _quietly():
            try:
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
                model = AutoModelForSequenceClassification.from_pretrained(
                    folder,
                    use_safetensors=True,
                    trust_remote_code=False,
                    local_files_only=True,
                    dtype=torch.float32,
                    **head,
                )
            # Each file has a library of its own behind it, and each library errors of its own.
            except Exception as error:
                raise ModelError(f"{folder}: cannot be loaded: {one_line(error)}") from None
        if tokenizer.pad_token_id is None:
            raise ModelError(f"{folder}: its tokenizer has no padding token")
        # A batch is up to 15 places wider than its papers.
        places = getattr(model.config, "max_position_embeddings", max_tokens) // batches.SCORING_WIDTHS
        limit = min(max_tokens, tokenizer.model_max_length, places * batches.SCORING_WIDTHS)
        if limit < _FEWEST_TOKENS:
            raise ModelError(f"{folder}: reads {limit} tokens of a paper, but {_FEWEST_TOKENS} at least are needed")
        if sorted(model.config.id2label) != list(range(model.config.num_labels)):
            raise ModelError(f"{folder}: the labels of its id2label are not numbered from 0 on")
        softmax = model.config.problem_type != "multi_label_classification" and model.config.num_labels > 1
        tokenizing = f"{fingerprint(folder, TOKENIZER_FILES)} {int(limit)}"
        tokenize = tokens.fastest(tokenizer, int(limit))
        ready = device.take(model).eval()
        return cls(ready, tokenizer, int(limit), device.fit(int(limit)), softmax, tokenizing, tokenize)

    @property
    def label_names(self) -> list[str]:
        """The names of the outputs, in their order."""
        names = cast(dict[int, str], self.model.config.id2label)
        return [names[index] for index in range(len(names))]

    @property
    def arithmetic(self) -> str:
        """How logits are computed: the same word for two encoders that give the same ones on one machine."""
        plain = str(self.device.precision).removeprefix("torch.")
        return plain if self.backend is None else self.backend.name

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), configuration and tokenizer as transformers does."""
        # By identity, for safetensors refuses shared weights that look like two, and XLA's have no address.
        copies: dict[int, torch.Tensor] = {}
        state = {
            name: copies.setdefault(id(tensor), tensor.detach().cpu())
            for name, tensor in self.model.state_dict(keep_vars=True).items()
        }
        with _quietly():
            self.model.save_pretrained(folder, state_dict=state)
            self.tokenizer.save_pretrained(folder)

    def forward(
        self, token_ids: Sequence[list[int]], rows: batches.Indices, shape: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """The logits of the papers at `rows`, float32 (papers, labels), on the device; with gradients if on.

        With a `shape`, (papers, width), so many: those after the papers of `rows` are of padding.
        """
        padding: int = self.tokenizer.pad_token_id
        ids, mask = batches.pad([token_ids[int(row)] for row in rows], padding, shape)
        ids, mask = self.device.put(ids), self.device.put(mask)
        scoring_on_gpu = ids.is_cuda and not self.model.training
        if (self.device.widths or scoring_on_gpu) and self.model.config.model_type in _TAKE_READY_MASKS:
            # From a mask that is ready transformers reads nothing, and a read stops a device that compiles. Reading, it
            # takes another kernel for a batch without padding, so that scores would depend on neighbours.
            mask = (mask > 0)[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        with self.device.autocast():
            output = self.model(input_ids=ids, attention_mask=mask)
        logits: torch.Tensor = output if isinstance(output, torch.Tensor) else output.logits
        return logits.float()

    def logits(self, token_ids: Sequence[list[int]], advance: Callable[[int], None] = lambda papers: None) -> Scores:
        """A logit for each tokenised text and output, float32 (texts, outputs), in the order of the texts.

        `advance` is called with the count of papers after each batch.
        """
        self.model.eval()
        if self.backend is not None:
            return self.backend.logits(token_ids, len(self.label_names), advance)
        logits = np.empty((len(token_ids), len(self.label_names)), dtype=np.float32)
        lengths = [len(paper) for paper in token_ids]
        budget = TOKENS_PER_BATCH[self.device.where.type] * self.device.cores
        with self.device.scoring():
            for rows, shape in batches.of_one_shape(lengths, budget, self.device.widths, self.device.cores):
                found = self.forward(token_ids, rows, shape)
                self.device.end_step((id(self.model), shape))
                logits[rows] = found.cpu().numpy()[: len(rows)]
                advance(len(rows))
        return logits


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the loader's table of fresh weights (they are so by design) and its bars of a tenth of a second."""
    shown = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(shown)
        transformers_logging.enable_progress_bar()
