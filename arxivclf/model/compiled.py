"""A BERT compiled for a CPU by OpenVINO (the extra of that name), in 8-bit integers by NNCF, bfloat16 or float32.

What was converted is kept beside other caches, so that only the first labelling waits for it.
"""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from arxivclf.model import batches
from arxivclf.model.first_token import FirstToken
from arxivclf.model.labels import Scores
from arxivclf.model.products import Kind

# Larger batches were no faster, and more of their last ones is filled up.
_TOKENS_PER_BATCH = 1_024
_CALIBRATION_PAPERS = 100
# How much of what is uneven in the inputs of a product its weights take over (SmoothQuant, Xiao et al. 2023): the error
# of a logit was .024, with NNCF's own value .034.
_SMOOTHED = 0.7


class Compiled:
    """The forward pass of a BERT with its head, converted and compiled."""

    def __init__(
        self, model: PreTrainedModel, kind: Kind, papers: Sequence[list[int]], padding: int, bfloat16: bool, cache: Path
    ) -> None:
        """`papers` are token ids that ranges are taken from, for int8; what is not in it has `bfloat16` or float32.

        `cache` is the folder of what was converted for this model and kind.
        """
        openvino = _openvino()
        self.name = f"{kind} by OpenVINO"
        self._padding = padding
        core = openvino.Core()
        found = None
        with suppress(RuntimeError, OSError):
            # A broken cache is made again.
            found = core.read_model(cache / "model.xml")
        if found is None:
            found = _converted(model, kind, papers[:_CALIBRATION_PAPERS], padding)
            _keep(found, cache)
        precision = "f32" if kind == "float32" or not bfloat16 else "bf16"
        how = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "THROUGHPUT"}
        self._queue = openvino.AsyncInferQueue(core.compile_model(found, "CPU", how))

    def logits(self, token_ids: Sequence[list[int]], outputs: int, advance: Callable[[int], None]) -> Scores:
        """The logits of tokenised papers, float32 (papers, outputs), in their order; `advance` as in `Encoder`."""
        logits = np.empty((len(token_ids), outputs), dtype=np.float32)
        done: deque[int] = deque()

        def keep(request: Any, rows: batches.Indices) -> None:
            logits[rows] = request.get_output_tensor(0).data[: len(rows)]
            done.append(len(rows))

        self._queue.set_callback(keep)
        lengths = [len(paper) for paper in token_ids]
        try:
            for rows, shape in batches.of_one_shape(lengths, _TOKENS_PER_BATCH):
                papers = [token_ids[row] for row in rows.tolist()]
                self._queue.start_async(_inputs(papers, self._padding, shape), rows)
                while done:
                    advance(done.popleft())
        finally:
            self._queue.wait_all()
        while done:
            advance(done.popleft())
        return logits


def _openvino() -> Any:
    with quietly():
        import openvino
    return openvino


def _inputs(papers: Sequence[list[int]], padding: int, shape: tuple[int, int] | None = None) -> dict[str, Any]:
    ids, mask = batches.pad(papers, padding, shape)
    return {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}


def _converted(model: PreTrainedModel, kind: Kind, papers: Sequence[list[int]], padding: int) -> Any:
    openvino = _openvino()
    # Two papers of unlike length, so that nothing of them is taken for a constant.
    example = {name: torch.from_numpy(part) for name, part in _inputs([papers[0], papers[0][:1]], padding).items()}
    with torch.inference_mode(), quietly():
        found = openvino.convert_model(FirstToken(model).eval(), example_input=example)
        if kind == "int8":
            import nncf

            data = nncf.Dataset([_inputs([paper], padding) for paper in papers])
            found = nncf.quantize(
                found,
                data,
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(papers),
                ignored_scope=nncf.IgnoredScope(patterns=_not_in_integers(model)),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=_SMOOTHED)
                ),
            )
    return found


def _not_in_integers(model: PreTrainedModel) -> list[str]:
    """What stays in floating point, as patterns of the names of nodes.

    What the first token alone goes through costs nothing, and nothing after it evens its errors out. And the way down
    of the first layers has the widest ranges. With the former and the first layer kept (MiniLM of 20,000 papers) the
    error of a logit is .034, not .171, in the mean of squares, and as many papers a second go through; with the second
    layer, too, a score of another MiniLM drifts by .015 and not by .027, at .97 of the papers a second.
    """
    last = model.config.num_hidden_layers - 1
    return [
        rf".*layer\.{last}\.(attention\.self\.query|attention\.output|intermediate|output)\..*",
        r".*layer\.[01]\.output\..*",
        r".*(pooler|classifier).*",
    ]


def _keep(converted: Any, cache: Path) -> None:
    # Where nothing can be written, the next labelling converts again; where another did so first, its own stands.
    with suppress(OSError, RuntimeError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache.parent, prefix=".unfinished-") as name:
            _openvino().save_model(converted, Path(name, "model.xml"), compress_to_fp16=False)
            Path(name).rename(cache)
            # For the block's end to take away.
            Path(name).mkdir()


@contextmanager
def quietly() -> Iterator[None]:
    """OpenVINO and NNCF without bars and warnings, and without what they tell their makers of each use."""
    with suppress(ImportError):
        from openvino_telemetry.utils.opt_in_checker import ConsentCheckResult, OptInChecker

        OptInChecker.check = lambda *_, **__: ConsentCheckResult.DECLINED
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
