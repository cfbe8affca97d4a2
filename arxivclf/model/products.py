"""Matrix products of a trained linear layer, in the number format that a processor is fast in.

Weights are converted and laid out once; which format is worth it on which processor is said in `backends`. Each of them
takes rows of float32 or bfloat16 and gives a row for each, which depends on that row and on the count of rows alone.
(Torch's products of 8-bit integers drifted too far: .039 for MiniLM of 45,000 papers, with all that was done to help.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.nn.functional import gelu, linear

Kind = Literal["float32", "bfloat16", "int8"]
Product = Callable[..., torch.Tensor]
"""Called with rows (rows, inputs), and `residual` or nothing, float32 (rows, outputs), which is added to what it gives:
(rows, outputs), float32 with a residual, else in the precision that suits what follows."""


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
