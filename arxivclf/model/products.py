"""Matrix products of a trained linear layer, in the number format that a processor is fast in.

Weights are converted and laid out once; which format is worth it on which processor is said in `backends`. Each of them
takes rows of float32 or bfloat16 and gives a row for each, which depends on that row and on the count of rows alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.nn.functional import gelu, linear

Kind = Literal["float32", "bfloat16", "int8"]
Product = Callable[..., torch.Tensor]
"""Called with rows (rows, inputs), and `residual` or nothing, float32 (rows, outputs), which is added to what it gives:
(rows, outputs), float32 with a residual, else in the precision that suits what follows."""

# An unsigned activation is what VNNI multiplies; oneDNN has no fast kernel for a signed one without AMX, and its slow
# one is slower by a factor of thousands.
_LEVELS = 255
# How much of the unevenness of inputs is moved into the weights.
_FROM_INPUTS = 0.7
_TINY = 1e-6


class Float32:
    """Plain products, for processors without anything faster; and to see what goes in (the first `watched` rows)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, with_gelu: bool = False, rows: int = 0) -> None:
        self._weight, self._bias, self._gelu, self.rows = weight.float(), bias.float(), with_gelu, rows
        self.lowest = torch.zeros(weight.shape[1], device=weight.device)
        self.highest = torch.zeros(weight.shape[1], device=weight.device)
        self.watched = 0

    def __call__(self, rows: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        if self.watched:
            seen = rows[: self.watched]
            self.lowest = torch.minimum(self.lowest, seen.amin(0))
            self.highest = torch.maximum(self.highest, seen.amax(0))
        made = linear(rows, self._weight, self._bias)
        made = gelu(made) if self._gelu else made
        return made if residual is None else made.add_(residual)


class Bfloat16:
    """Products in bfloat16; on a CPU through oneDNN, with the weights in its own layout and GELU in its epilogue."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, with_gelu: bool = False, rows: int = 0) -> None:
        self._weight, self._bias, self._gelu = weight.bfloat16(), bias.bfloat16(), with_gelu
        self._packed: torch.Tensor | None = None
        if weight.device.type == "cpu" and torch.backends.mkldnn.is_available():
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight, rows)

    def __call__(self, rows: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        rows = rows.bfloat16()
        if self._packed is not None:
            how: tuple[str, list[Any], str] = ("gelu", [], "none") if self._gelu else ("none", [], "")
            made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, *how)
        else:
            made = linear(rows, self._weight, self._bias)
            made = gelu(made) if self._gelu else made
        return made if residual is None else residual + made


class Int8:
    """Products of 8-bit integers: a scale for each output, one for all inputs, both fixed beforehand.

    `span`, float32 (2, inputs), is the lowest and highest value that each input was seen to have. A few inputs of a
    transformer are far larger than the rest, so what is uneven in them is first moved into the weights (SmoothQuant,
    Xiao et al. 2023). As nothing is measured over rows, and sums of integers are exact, a row's result does not depend
    on other rows. What it gives without a residual is in `precision`.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        span: torch.Tensor,
        precision: torch.dtype,
        with_gelu: bool = False,
        rows: int = 0,
    ) -> None:
        lowest, highest = span[0].clamp(max=-_TINY), span[1].clamp(min=_TINY)
        largest = torch.maximum(-lowest, highest)
        smooth = largest**_FROM_INPUTS / weight.abs().amax(0).clamp(min=_TINY) ** (1 - _FROM_INPUTS)
        below, above = float((-lowest / smooth).max()), float((highest / smooth).max())
        self._scale = (below + above) / _LEVELS
        self._zero = round(below / self._scale)
        self._factors = 1.0 / (smooth * self._scale)
        self._weights = _Integers(weight * smooth, rows)
        self._bias, self._precision = bias.float(), precision
        self._after: tuple[str, list[Any], str] = ("gelu", [], "none") if with_gelu else ("none", [], "")

    def __call__(self, rows: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        # torch multiplies two types four times more slowly than one.
        integers = _rounded(rows.float() * self._factors, self._zero)
        if residual is None:
            return self._weights.times(integers, self._scale, self._zero, self._bias, self._precision, self._after)
        return self._weights.times(integers, self._scale, self._zero, self._bias, torch.float32, residual=residual)


class Int8ByRow:
    """Products of 8-bit integers with a scale for each row, for what GELU gives: nothing below -0.17, and a few tokens
    far above all others, so that one scale for all would leave most of them a handful of levels.

    MiniLM, fine-tuned, changes of its logits (root mean square over 200 papers): 0.030 without, 0.016 with this.
    """

    _ZERO = 32
    _LEAST_SCALE = 0.17 / _ZERO

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, rows: int = 0) -> None:
        self._weights = _Integers(weight, rows)
        self._bias = bias.float()

    def __call__(self, rows: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """Of float32 rows, which it may overwrite."""
        scales = (rows.amax(1, keepdim=True) / (_LEVELS - self._ZERO)).clamp_(min=self._LEAST_SCALE)
        integers = _rounded(rows.mul_(scales.reciprocal()), self._ZERO)
        made = self._weights.times(integers, 1.0, self._ZERO, None, torch.float32)
        made = made.mul_(scales).add_(self._bias)
        return made if residual is None else made.add_(residual)


class _Integers:
    """Weights (outputs, inputs) as int8 with a scale for each output, in the layout of oneDNN."""

    def __init__(self, weight: torch.Tensor, rows: int) -> None:
        self._scales = weight.abs().amax(1).clamp(min=_TINY) / 127
        integers = (weight / self._scales[:, None]).round().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(integers, [rows, weight.shape[1]])
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        with warnings.catch_warnings():
            # torch says once in a process that quantised tensors are to go; here, where nobody needs to hear it.
            warnings.simplefilter("ignore", UserWarning)
            _rounded(torch.zeros(1, 1), 0)

    def times(
        self,
        rows: torch.Tensor,
        scale: float,
        zero: int,
        bias: torch.Tensor | None,
        precision: torch.dtype,
        after: tuple[str, list[Any], str] = ("none", [], ""),
        residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(rows, outputs) in a precision, of uint8 rows whose values are `scale` times what they are above `zero`."""
        given = (rows, scale, zero, self._packed, self._scales, self._zeros)
        operator = torch.ops.onednn.qlinear_pointwise
        if residual is None:
            made: torch.Tensor = operator(*given, bias, 1.0, 0, precision, *after)
        else:
            made = operator.binary(*given, residual, bias, 1.0, 0, precision, 1.0, 0, "add", 1.0, *after)
        return made


def _rounded(rows: torch.Tensor, zero: int) -> torch.Tensor:
    """Float32 rows to the nearest integer, plus `zero`, cut to what uint8 holds."""
    # torch means to drop its quantised tensors; only their conversion is wanted, five times faster than round, clamp
    # and cast, and its bytes are read as they lie.
    integers = torch.quantize_per_tensor(rows, 1.0, zero, torch.quint8)
    plain = torch.empty(0, dtype=torch.uint8)
    return plain.set_(integers.untyped_storage(), 0, rows.shape, rows.stride())
