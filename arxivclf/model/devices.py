"""Which device computes, and in which precision, with the reason for both."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from arxivclf.errors import DeviceError


@dataclass(frozen=True)
class Device:
    """Where tensors live, and the type that matrix products run in (float32 or bfloat16); `reason` is for a person."""

    where: torch.device
    precision: torch.dtype
    reason: str

    def autocast(self) -> torch.autocast:
        """A context in which matrix products run in `precision`."""
        return torch.autocast(
            self.where.type, dtype=torch.bfloat16, enabled=self.precision == torch.bfloat16, cache_enabled=False
        )


def find(name: str, precision: str = "auto") -> Device:
    """The device of a name (auto, cpu, cuda, tpu); auto takes a GPU where there is one, else the CPU.

    Raises DeviceError where it is not there.
    """
    if name == "tpu":
        raise DeviceError(_no_tpu())
    if name == "cuda" and not torch.cuda.is_available():
        built = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no NVIDIA GPU"
        raise DeviceError(f"no such device: cuda ({built}); --device cpu works everywhere")
    where = torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
    if precision != "auto":
        return Device(where, getattr(torch, precision), f"{where.type} in {precision}, as asked for")
    fast, because = _bfloat16_is_fast(where)
    chosen = torch.bfloat16 if fast else torch.float32
    return Device(where, chosen, f"{where.type} in {str(chosen).removeprefix('torch.')}: {because}")


def _bfloat16_is_fast(where: torch.device) -> tuple[bool, str]:
    if where.type == "cuda":
        major, minor = torch.cuda.get_device_capability(where)
        return major >= 8, f"compute capability {major}.{minor}"
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    for feature in ("amx_bf16", "avx512_bf16"):
        if able.get(feature):
            return True, f"the processor has {feature}"
    return False, "the processor has no bfloat16 matrix instructions"


def _no_tpu() -> str:
    try:
        import torch_xla  # type: ignore[import-not-found] # noqa: F401
    except ImportError:
        return "no such device: tpu (torch-xla is not installed: pip install 'arxivclf[tpu]' on a TPU machine)"
    return "no such device: tpu (this version does not compute on a TPU yet); --device cpu works everywhere"
