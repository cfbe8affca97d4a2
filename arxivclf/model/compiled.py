"""A BERT compiled for a CPU by OpenVINO (the extra of that name), in 8-bit integers by NNCF, bfloat16 or float32.

What was converted is kept beside other caches, so that only the first labelling waits for it.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.nn.functional import gelu
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
# Inner values of a layer that are kept out of integers: one or two of them are several times as large as all others.
_APART = 16


class _Parted(FirstToken):
    """The same, the largest inner values of each layer but the last computed apart from its others.

    The product that takes them back has then a range of inputs that 255 levels are enough for. An error of a logit
    (MiniLM, root mean square of 1,000 papers) is .042 with 16 of 1,536 apart and .077 with none; with the whole of that
    product in bfloat16 in the first two layers it was .051, at .92 of the papers a second.
    """

    def __init__(self, model: PreTrainedModel, spans: Mapping[str, torch.Tensor]) -> None:
        super().__init__(model)
        layers = self.model.bert.encoder.layer
        self.halves = torch.nn.ModuleList(
            _Halves(layer.intermediate.dense, layer.output.dense, spans[f"{at}.down"])
            for at, layer in enumerate(layers[:-1])
        )

    def fed_forward(self, at: int, layer: Any, rows: torch.Tensor) -> torch.Tensor:
        if at == len(self.halves):
            return super().fed_forward(at, layer, rows)
        made: torch.Tensor = self.halves[at](rows)
        return made


class _Halves(torch.nn.Module):
    """Two products with GELU between them, as the sum of those over most inner values and over those `apart`."""

    def __init__(self, up: torch.nn.Linear, down: torch.nn.Linear, span: torch.Tensor) -> None:
        super().__init__()
        largest = span.abs().amax(0).argsort(descending=True)
        count = min(_APART, len(largest) // 4)
        apart, most = largest[:count].sort().values, largest[count:].sort().values
        self.up, self.down = _linear(up.weight[most], up.bias[most]), _linear(down.weight[:, most], down.bias)
        self.up_apart, self.down_apart = _linear(up.weight[apart], up.bias[apart]), _linear(down.weight[:, apart])

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.down(gelu(self.up(rows))) + self.down_apart(gelu(self.up_apart(rows)))
        return made


def _linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.nn.Linear:
    outputs, inputs = weight.shape
    made = torch.nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    made.weight = torch.nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        made.bias = torch.nn.Parameter(bias.detach(), requires_grad=False)
    return made


class Compiled:
    """The forward pass of a BERT with its head, converted and compiled."""

    def __init__(
        self,
        model: PreTrainedModel,
        kind: Kind,
        papers: Sequence[list[int]],
        spans: Mapping[str, torch.Tensor],
        padding: int,
        bfloat16: bool,
        cache: Path,
    ) -> None:
        """`papers`, token ids that ranges are taken from, and `spans`, as `Packed.watch` finds them, are for int8.

        What is not in integers has `bfloat16` or float32. `cache` is the folder of what was converted for this model
        and kind.
        """
        openvino = _openvino()
        self.name = f"{kind} by OpenVINO"
        self._padding = padding
        core = openvino.Core()
        found = None
        with suppress(RuntimeError, OSError):
            # A broken cache is made again.
            found = core.read_model(cache / "model.xml")
        precision = "f32" if kind == "float32" or not bfloat16 else "bf16"
        how = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "THROUGHPUT"}
        with _signal_stack_as_it_is():
            if found is None:
                found = _converted(model, kind, papers[:_CALIBRATION_PAPERS], spans, padding)
                _keep(found, cache)
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


class SignalStack(ctypes.Structure):
    """The memory in which this thread's signals are handled: `stack_t` of sigaltstack(2)."""

    _fields_ = (("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t))

    @classmethod
    def now(cls) -> SignalStack:
        found = cls()
        ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
        return found


@contextmanager
def _signal_stack_as_it_is() -> Iterator[None]:
    """Undo what OpenVINO does to it: each engine of its brings such a stack, and in the end takes it away and puts back
    the one that it found. Of several that go in another order than they came that is gone by then, and the next Ctrl-C
    ends the process without a word."""
    if sys.platform != "linux":
        yield
        return
    before = SignalStack.now()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)


def _openvino() -> Any:
    with quietly():
        import openvino
    return openvino


def _inputs(papers: Sequence[list[int]], padding: int, shape: tuple[int, int] | None = None) -> dict[str, Any]:
    ids, mask = batches.pad(papers, padding, shape)
    return {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}


def _converted(
    model: PreTrainedModel,
    kind: Kind,
    papers: Sequence[list[int]],
    spans: Mapping[str, torch.Tensor],
    padding: int,
) -> Any:
    openvino = _openvino()
    # Two papers of unlike length, so that nothing of them is taken for a constant.
    example = {name: torch.from_numpy(part) for name, part in _inputs([papers[0], papers[0][:1]], padding).items()}
    with torch.inference_mode(), quietly():
        network = _Parted(model, spans) if kind == "int8" else FirstToken(model)
        found = openvino.convert_model(network.eval(), example_input=example)
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
    """What stays in floating point, as patterns of the names of nodes: what was parted for it, and all that the first
    token alone goes through, which costs nothing and has nothing after it that evens its errors out (the error of a
    logit is .171 with it in integers, .046 without; MiniLM of 20,000 papers).
    """
    last = model.config.num_hidden_layers - 1
    return [
        rf".*layer\.{last}\.(attention\.self\.query|attention\.output|intermediate|output)\..*",
        r".*(\.first|pooler|classifier|_apart).*",
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
