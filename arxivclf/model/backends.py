"""Which way of computing the encoder is fastest here and still gives the scores that the model was tested with.

A model keeps reference papers with the logits that transformers gives them in float32. Before a faster way is used, it
labels these; one whose scores drift is refused for the next, and the last is transformers itself, which every model may
use. What was found is remembered beside other caches, so that a small job does not pay for it each time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
import transformers
import xxhash

from arxivclf.errors import DataError, ModelError, one_line
from arxivclf.files import whole_file
from arxivclf.model.devices import Device, bfloat16_is_fast, find
from arxivclf.model.encoder import Backend, Encoder
from arxivclf.model.first_token import fits
from arxivclf.model.labels import Scores
from arxivclf.model.packed import Packed, Spans
from arxivclf.model.products import Kind
from arxivclf.model.safety import REFERENCE_FILE

REFERENCE_PAPERS = 1_000

# Beyond these a backend is refused: the largest change of a score, and the share of labels that change.
MOST_DRIFT = 0.02
MOST_CHANGED = 0.001

_SPAN = "span."
# To be raised when a backend begins to compute something else.
_VERSION = 4


Engine = Literal["openvino", "torch"]


@dataclass(frozen=True)
class Candidate:
    """A way of computing, in the number format `kind`; `because` is for a person."""

    engine: Engine
    kind: Kind
    because: str

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.kind} by OpenVINO" if self.engine == "openvino" else f"{self.kind} without padding"


@dataclass(frozen=True)
class Reference:
    """Papers that a model keeps: their token ids, what the encoder gives them in float32, and what int8 needs.

    `logits` (papers, outputs) are the encoder's, `linear_logits` (papers, labels) the linear model's, 0 without one.
    """

    token_ids: Sequence[list[int]]
    logits: Scores
    linear_logits: Scores
    spans: Spans

    @classmethod
    def read(cls, folder: Path) -> Reference | None:
        """That of a model folder; None where there is none. Raises ModelError where it is broken."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = folder / REFERENCE_FILE
        if not path.exists():
            return None
        try:
            tensors = load_file(path)
            lengths = tensors["lengths"].tolist()
            token_ids = [paper.tolist() for paper in tensors["token_ids"].split(lengths)]
            logits = cast(Scores, tensors["logits"].float().numpy())
            linear_logits = cast(Scores, tensors["linear_logits"].float().numpy())
        except (SafetensorError, KeyError, RuntimeError, OSError) as error:
            raise ModelError(f"{path}: cannot be read: {one_line(error)}") from None
        tables = all(each.ndim == 2 and len(each) == len(token_ids) for each in (logits, linear_logits))
        if not token_ids or not tables or min(lengths) < 1:
            raise ModelError(f"{path}: not as `arxivclf train` writes it")
        spans = {name.removeprefix(_SPAN): span for name, span in tensors.items() if name.startswith(_SPAN)}
        return cls(token_ids, logits, linear_logits, spans)

    def fits(self, encoder: Encoder, labels: int) -> bool:
        """Whether these papers can be this encoder's, and the logits those of so many outputs and labels."""
        tokens = [token for paper in self.token_ids for token in paper]
        return (
            self.logits.shape[1] == len(encoder.label_names)
            and self.linear_logits.shape[1] == labels
            and 0 <= min(tokens) <= max(tokens) < encoder.model.config.vocab_size
            and max(map(len, self.token_ids)) <= encoder.model.config.max_position_embeddings
            and all(f"{layer}.down" in self.spans for layer in range(encoder.model.config.num_hidden_layers))
        )

    def write(self, folder: Path) -> None:
        from safetensors.torch import save_file

        tensors = {
            "lengths": torch.tensor([len(paper) for paper in self.token_ids], dtype=torch.int32),
            "token_ids": torch.tensor([token for paper in self.token_ids for token in paper], dtype=torch.int32),
            "logits": torch.from_numpy(self.logits),
            "linear_logits": torch.from_numpy(np.ascontiguousarray(self.linear_logits)),
            **{_SPAN + name: span.cpu().contiguous() for name, span in self.spans.items()},
        }
        save_file(tensors, folder / REFERENCE_FILE)


@dataclass(frozen=True)
class Checked:
    """What the reference papers said of a backend: the largest change of a score, and the labels that changed."""

    drift: float
    changed: int
    labels: int
    papers: int

    @property
    def good(self) -> bool:
        return self.drift <= MOST_DRIFT and self.changed <= MOST_CHANGED * self.labels

    def refused(self, name: str) -> str:
        """Why a backend of this name is not taken."""
        return (
            f"{name} refused: on {self.papers:,} papers kept in the model, a score drifts by {self.drift:.3f} and"
            f" {self.changed:,} of {self.labels:,} labels change"
        )


@dataclass(frozen=True)
class Judge:
    """How a model makes scores of the linear model's logits and the encoder's, and which scores are a yes.

    `mark` is the same for two models that judge alike.
    """

    scores: Callable[[Scores, Scores], Scores]
    thresholds: Sequence[float]
    mark: str


def keep_reference(
    folder: Path, encoder: Encoder, token_ids: Sequence[list[int]], linear_logits: Scores | None = None
) -> None:
    """Keep reference papers in a model folder that has its weights: 1,000 of these at most, evenly chosen.

    They are computed in float32 by transformers, whatever the device trained in.
    """
    if not token_ids:
        return
    rows = np.linspace(0, len(token_ids) - 1, min(len(token_ids), REFERENCE_PAPERS)).round().astype(np.int64)
    chosen = [token_ids[row] for row in rows.tolist()]
    if encoder.device.widths:
        # A device that compiles would compile all that is asked here once more.
        plain = Encoder.load(folder, encoder.max_tokens, find("cpu", "float32"))
    else:
        plain = replace(encoder, device=replace(encoder.device, precision=torch.float32), backend=None)
    spans: Spans = Packed(plain.model, "float32").watch(chosen) if fits(plain.model) else {}
    if linear_logits is None:
        linear_logits = np.zeros((len(token_ids), len(encoder.label_names)), np.float32)
    Reference(chosen, plain.logits(chosen), linear_logits[rows], spans).write(folder)


def candidates(device: Device, processor: Mapping[str, object], openvino: bool) -> Iterator[Candidate]:
    """The backends worth trying on a device, fastest first; `processor` is what torch says of the CPU.

    Papers per second, MiniLM at 256 tokens on two cores with avx512_bf16 and avx512_vnni, scoring alone: OpenVINO in
    int8 295, in bfloat16 205; here in bfloat16 155.
    """
    if device.widths or device.where.type not in ("cpu", "cuda"):
        return
    plain = _plain(device)
    because = device.reason.partition(": ")[2] or device.reason
    if device.where.type == "cuda":
        if plain == "bfloat16":
            yield Candidate("torch", plain, because)
        return
    integers = next((name for name in ("amx_int8", "avx512_vnni", "avx_vnni") if processor.get(name)), None)
    if openvino:
        if integers is not None and not device.asked:
            yield Candidate("openvino", "int8", f"the processor has {integers}")
        yield Candidate("openvino", plain, because)
    yield Candidate("torch", plain, because)


def unpadded(encoder: Encoder) -> Encoder:
    """The encoder as it is in training, unchecked: on a CPU without padding, if it can be, in the precision it has."""
    where, kind = encoder.device.where, _plain(encoder.device)
    # Asked for where the processor has no instructions for it, bfloat16 is left to torch, which does without.
    able = kind == "float32" or bfloat16_is_fast(where)[0]
    if where.type != "cpu" or not able or not fits(encoder.model):
        return encoder
    return replace(encoder, backend=Packed(encoder.model, kind))


def _plain(device: Device) -> Kind:
    return "bfloat16" if device.precision == torch.bfloat16 else "float32"


def choose(folder: Path, encoder: Encoder, judge: Judge) -> Encoder:
    """The encoder with the fastest backend that gives the same scores on the reference papers; its device says why.

    A model without reference papers, or that is no BERT, stays with transformers. Raises ModelError where the reference
    papers are broken or another model's.
    """
    reference = Reference.read(folder)
    if reference is None or not fits(encoder.model):
        return encoder
    if not reference.fits(encoder, len(judge.thresholds)):
        raise ModelError(f"{folder / REFERENCE_FILE}: of another model than the one beside it")
    processor = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    compiler = openvino_versions()
    refusals: list[str] = []
    for candidate in candidates(encoder.device, processor, compiler is not None):
        memory = _memory(encoder, candidate, judge, processor, compiler)
        checked = _recall(memory)
        if checked is None or checked.good:
            reason = f"{encoder.device.where.type} in {candidate.name}: {candidate.because}"
            device = replace(encoder.device, reason="; ".join([reason, *refusals]))
            try:
                faster = replace(encoder, backend=_made(candidate, encoder, reference, memory), device=device)
                checked = checked or check(faster, reference, judge)
            except (RuntimeError, ImportError, TypeError, KeyError, ValueError) as error:
                # The last two of a torch that has another attention, or none. With other versions or more memory it may
                # work tomorrow: this is not remembered.
                refusals.append(f"{candidate.name} failed: {one_line(error)}")
                continue
            _remember(memory, checked)
            if checked.good:
                return faster
        refusals.append(checked.refused(candidate.name))
    return replace(encoder, device=replace(encoder.device, reason="; ".join([encoder.device.reason, *refusals])))


def _made(candidate: Candidate, encoder: Encoder, reference: Reference, memory: Path) -> Backend:
    if candidate.engine == "torch":
        return Packed(encoder.model, candidate.kind)
    from arxivclf.model.compiled import Compiled

    padding: int = encoder.tokenizer.pad_token_id
    bfloat16 = encoder.device.precision == torch.bfloat16
    return Compiled(
        encoder.model,
        candidate.kind,
        reference.token_ids,
        reference.spans,
        padding,
        bfloat16,
        memory.with_suffix(".openvino"),
    )


def openvino_versions() -> str | None:
    """Of OpenVINO and NNCF, as they are installed; None without the extra."""
    try:
        return " ".join(f"{name} {version(name)}" for name in ("openvino", "nncf"))
    except PackageNotFoundError:
        return None


def check(encoder: Encoder, reference: Reference, judge: Judge) -> Checked:
    """Label the reference papers with an encoder, and compare."""
    logits = encoder.logits(reference.token_ids)
    before, now = (judge.scores(reference.linear_logits, each) for each in (reference.logits, logits))
    thresholds = np.asarray(judge.thresholds)
    changed = int(((before >= thresholds) != (now >= thresholds)).sum())
    # What is no number is as far off as can be.
    drift = float(np.nan_to_num(np.abs(now - before), nan=1.0).max())
    return Checked(drift, changed, now.size, len(now))


def _memory(
    encoder: Encoder, candidate: Candidate, judge: Judge, processor: Mapping[str, object], compiler: str | None
) -> Path:
    """The file that remembers a check; another for whatever could change what it finds."""
    where = encoder.device.where
    machine = torch.cuda.get_device_name(where) if where.type == "cuda" else repr(sorted(processor.items()))
    versions = compiler if candidate.engine == "openvino" else torch.__version__
    parts = (_VERSION, judge.mark, candidate.name, versions, transformers.__version__, machine)
    name = f"{xxhash.xxh3_128_hexdigest(repr(parts).encode())}.json"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arxivclf" / "backends" / name


def _recall(memory: Path) -> Checked | None:
    try:
        return Checked(**json.loads(memory.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _remember(memory: Path, checked: Checked) -> None:
    # Where nothing can be written, the next labelling checks again.
    with suppress(DataError), whole_file(memory) as file:
        file.write(json.dumps(asdict(checked)).encode())
