"""Which device computes, and in which precision, with the reason for both."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, cast, get_args

import torch

from arxivclf.config import DeviceName
from arxivclf.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Device:
    """Where tensors live, and the type that matrix products run in (float32 or bfloat16); `reason` is for a person.

    A device that compiles its work for each shape has `widths`, the few that a batch may have, in tokens, rising; the
    count of papers in a batch is a multiple of `cores`, over which it is parted. `asked` says that a person chose the
    precision.
    """

    where: torch.device
    precision: torch.dtype
    reason: str
    widths: tuple[int, ...] = ()
    cores: int = 1
    asked: bool = False

    def autocast(self) -> torch.autocast:
        """A context in which matrix products run in `precision`."""
        return torch.autocast(
            self.where.type, dtype=torch.bfloat16, enabled=self.precision == torch.bfloat16, cache_enabled=False
        )

    def scoring(self) -> AbstractContextManager[object]:
        """A context in which nothing is kept for gradients."""
        return torch.inference_mode()

    def put(self, batch: torch.Tensor) -> torch.Tensor:
        """A batch, papers first, on the device; each core has a part of the papers."""
        return batch.to(self.where, non_blocking=True)

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor that stays from step to step, on the device; each core has the whole of it."""
        return tensor.to(self.where)

    def take(self, model: PreTrainedModel) -> PreTrainedModel:
        """A model, moved to the device."""
        moved: PreTrainedModel = cast(Any, model).to(self.where)
        return moved

    def write(self, weights: torch.Tensor, values: torch.Tensor) -> None:
        """Put values in the place of those that weights have."""
        weights.detach().copy_(values)

    def number(self, value: float) -> float | torch.Tensor:
        """A number that is another at each step, as an optimiser takes it."""
        return value

    def end_step(self, graph: Hashable) -> None:
        """Called after each step: a device that gathers work before it computes now does.

        Steps that compute the same on tensors of the same shapes have the same `graph`, and are compiled once.
        """

    def fit(self, max_tokens: int) -> Self:
        """This device for texts of so many tokens at most: the last of its widths is that one."""
        if not self.widths:
            return self
        return replace(self, widths=(*(width for width in self.widths if width < max_tokens), max_tokens))

    def seed(self, seed: int) -> None:
        """Begin the random numbers of the device anew, where torch.manual_seed does not."""

    def random_state(self) -> torch.Tensor | None:
        """The state of the random numbers of the device, on the CPU; None where it has none beside the CPU's."""
        return torch.cuda.get_rng_state(self.where) if self.where.type == "cuda" else None

    def set_random_state(self, state: torch.Tensor) -> None:
        """Go on from a state that `random_state` gave."""
        if self.where.type == "cuda":
            torch.cuda.set_rng_state(state, self.where)

    def told(self) -> str:
        """What is to be told of the work when it is done; mostly nothing."""
        return ""


def find(name: str, precision: str = "auto") -> Device:
    """The device of a name (auto, cpu, cuda, tpu); auto takes a TPU where there is one, else a GPU, else the CPU.

    Raises DeviceError where it is not there, UsageError for any other name.
    """
    if name not in get_args(DeviceName):
        raise UsageError(f"device must be one of {', '.join(get_args(DeviceName))}, not {name}")
    if name in ("auto", "tpu"):
        from arxivclf.model import xla

        if name == "tpu" or xla.is_there():
            return xla.find(precision)
    wanting = "" if name == "cpu" else _wanting_for_cuda()
    if name == "cuda" and wanting:
        raise DeviceError(f"no such device: cuda ({wanting}); --device cpu works everywhere")
    where = torch.device("cpu" if name == "cpu" or wanting else "cuda")
    if precision != "auto":
        return Device(where, getattr(torch, precision), f"{where.type} in {precision}, as asked for", asked=True)
    fast, because = bfloat16_is_fast(where)
    chosen = torch.bfloat16 if fast else torch.float32
    if wanting and torch.cuda.is_available():
        because += f"; not the GPU: {wanting}"
    return Device(where, chosen, f"{where.type} in {str(chosen).removeprefix('torch.')}: {because}")


def _wanting_for_cuda() -> str:
    """What is wanting to compute on an NVIDIA GPU; nothing where one can be used."""
    if not torch.cuda.is_available():
        return "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no NVIDIA GPU"
    try:
        # Whether this build of torch has code for a GPU shows when it is used.
        torch.ones(1, device="cuda").add_(1.0).item()
    except RuntimeError as error:
        return str(error).partition("\n")[0][:200]
    return ""


def bfloat16_is_fast(where: torch.device) -> tuple[bool, str]:
    """Whether a device multiplies matrices faster in bfloat16 than in float32, and why."""
    if where.type == "cuda":
        major, minor = torch.cuda.get_device_capability(where)
        return major >= 8, f"compute capability {major}.{minor}"
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    for feature in ("amx_bf16", "avx512_bf16"):
        if able.get(feature):
            return True, f"the processor has {feature}"
    return False, "the processor has no bfloat16 matrix instructions"
