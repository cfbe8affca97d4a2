"""A TPU, through torch-xla; no other module knows of it, so that its successor can take its place.

XLA compiles a step as a whole, once for each shape of its tensors, which takes a minute for a large model. So batches
have few shapes, and nothing is read back within a step. All local cores work on each batch, a part of its papers each
(SPMD).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from arxivclf.errors import DeviceError, one_line
from arxivclf.model.devices import Device
from arxivclf.progress import rank_and_count

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A text is padded to the next of these: few shapes, and yet less than half of a row is padding.
_WIDTHS = (64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192)

# The optimiser of a device divides by the learning rate, which is 0 where a warm-up begins.
_TINY = 1e-12

_GOOGLE = "0x1ae0"
# PCI's numbers of TPU v2 and v3, v4, v5e, v6e, two more that torch-xla knows, 7x.
_CHIPS = ("0x0027", "0x005e", "0x0063", "0x006f", "0x0056", "0x0062", "0x0076")
_PCI = Path("/sys/bus/pci/devices")
_INSTALL = "pip install 'arxivclf[tpu]'"


@dataclass(frozen=True)
class XlaDevice(Device):
    """All cores of a TPU as one device; `mesh` is theirs where there are several.

    `graphs` are the names of what was computed, and `before` the compilations that were made before this device.
    """

    mesh: Any = None
    graphs: set[Hashable] = field(default_factory=set)
    before: int = 0

    def scoring(self) -> AbstractContextManager[object]:
        """A context in which nothing is kept for gradients; torch-xla's views fail in torch.inference_mode."""
        return torch.no_grad()

    def put(self, batch: torch.Tensor) -> torch.Tensor:
        """A batch, papers first, on the device; each core has a part of the papers."""
        return self._marked(batch.to(self.where), "papers", *[None] * (batch.ndim - 1))

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor that stays from step to step, on the device; each core has the whole of it."""
        return self._marked(tensor.to(self.where), *[None] * tensor.ndim)

    def take(self, model: PreTrainedModel) -> PreTrainedModel:
        """A model, moved to the device; each core has the whole of it."""
        model = super().take(model)
        # On their way tensors that two modules share became two.
        model.tie_weights()
        for tensor in (*model.parameters(), *model.buffers()):
            self.keep(tensor)
        return model

    def _marked(self, there: torch.Tensor, *parted: str | None) -> torch.Tensor:
        """A tensor of the device, parted so over the cores; left to itself, XLA parts weights, and must join them."""
        if self.mesh is not None:
            from torch_xla.distributed import spmd

            spmd.mark_sharding(there, self.mesh, parted)
        return there

    def write(self, weights: torch.Tensor, values: torch.Tensor) -> None:
        """Put values in the place of those that weights have, such that the next step is not another than before."""
        weights.data = self.keep(values)

    def number(self, value: float) -> torch.Tensor:
        """A number that is another at each step: on the device, for a step with another constant is compiled anew."""
        return self.keep(torch.tensor([max(value, _TINY)]))

    def end_step(self, graph: Hashable) -> None:
        """Start to compute what was gathered, and go on without waiting for it."""
        import torch_xla

        self.graphs.add(graph)
        torch_xla.sync()

    def seed(self, seed: int) -> None:
        """Begin the random numbers of the device anew."""
        import torch_xla

        torch_xla.manual_seed(seed)

    def random_state(self) -> torch.Tensor | None:
        """The state of the random numbers of the device: eight bytes."""
        from torch_xla.core import xla_model

        state: int = xla_model.get_rng_state()
        return torch.tensor(list(state.to_bytes(8, "little")), dtype=torch.uint8)

    def set_random_state(self, state: torch.Tensor) -> None:
        """Go on from such a state."""
        from torch_xla.core import xla_model

        xla_model.set_rng_state(int.from_bytes(bytes(state.tolist()), "little"))

    @property
    def compilations(self) -> int:
        """How often XLA has compiled since the device was found."""
        return _compilations() - self.before

    def told(self) -> str:
        """How often XLA has compiled, and how often it should have."""
        made, expected = self.compilations, len(self.graphs)
        told = f"XLA compiled {made} {'time' if made == 1 else 'times'} for {expected} shapes of batches"
        return told if made <= expected else f"{told}: once for each would do, and each costs time"


def find(precision: str) -> XlaDevice:
    """All cores of this machine's TPU, or XLA on the CPU where the environment has PJRT_DEVICE=CPU.

    DeviceError says what is missing.
    """
    runtime = _runtime()
    os.environ["PJRT_DEVICE"] = runtime
    # Else XLA's own parts warn of what will become of them.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import torch_xla
        from torch_xla import backends
        from torch_xla import runtime as xla_runtime

        cores, all_cores = xla_runtime.addressable_runtime_device_count(), xla_runtime.global_runtime_device_count()
        if cores != all_cores:
            raise DeviceError(
                f"tpu: {cores} of its {all_cores} cores belong to this machine; only a TPU of one machine can be used"
            )
        mesh = _mesh(cores) if cores > 1 else None
        where = torch_xla.device()
        bfloat16 = precision == "bfloat16" or (precision == "auto" and runtime == "TPU")
        # Else a TPU multiplies float32 as bfloat16. The setter warns each time that two settings are unwise.
        products = "default" if bfloat16 else "highest"
        if backends.get_mat_mul_precision() != products:
            logging.getLogger(backends.__name__).setLevel(logging.ERROR)
            backends.set_mat_mul_precision(products)
    # What the runtime says of a TPU that is taken by another process, or of one that it does not know, is of no type.
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        said = one_line(error)
        raise DeviceError(f"no such device: tpu (torch-xla {_version('torch-xla')} does not start: {said})") from None
    name = "tpu" if runtime == "TPU" else "XLA on a CPU, for tests,"
    many = f"{cores} cores" if cores > 1 else "1 core"
    why = "as asked for" if precision != "auto" else f"{many}, torch-xla {_version('torch-xla')}"
    return XlaDevice(
        where,
        torch.bfloat16 if bfloat16 else torch.float32,
        f"{name} in {'bfloat16' if bfloat16 else 'float32'}: {why}",
        _WIDTHS,
        cores,
        mesh=mesh,
        before=_compilations(),
    )


def is_there() -> bool:
    """Whether this machine has a TPU and all that it takes to use it; starts nothing, imports nothing."""
    try:
        return _runtime() == "TPU"
    except DeviceError:
        return False


def _runtime() -> str:
    """What XLA is to compute on, TPU or CPU; DeviceError where it cannot."""
    if find_spec("torch_xla") is None:
        raise DeviceError(f"no such device: tpu (torch-xla is not installed: {_INSTALL} on a TPU machine)")
    here, wanted = _version("torch"), _version("torch-xla")
    if here.split(".")[:2] != wanted.split(".")[:2]:
        raise DeviceError(f"no such device: tpu (torch-xla {wanted} does not fit torch {here}: {_INSTALL})")
    if rank_and_count()[1] > 1:
        raise DeviceError("tpu: one process drives all of its cores; start arxivclf without torchrun")
    runtime = os.environ.get("PJRT_DEVICE", "")
    if runtime not in ("", "TPU", "CPU"):
        raise DeviceError(f"no such device: tpu (PJRT_DEVICE={runtime} in the environment wants another)")
    if runtime == "CPU":
        return runtime
    if not runtime and not _chips():
        raise DeviceError("no such device: tpu (this machine has none); --device cpu works everywhere")
    if find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise DeviceError(f"no such device: tpu (libtpu is not installed: {_INSTALL})")
    return "TPU"


def _chips() -> int:
    """How many TPU chips this machine has."""
    found = 0
    for vendor in _PCI.glob("*/vendor"):
        if vendor.read_text().strip() == _GOOGLE:
            found += (vendor.parent / "device").read_text().strip() in _CHIPS
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of an unknown version"


def _mesh(cores: int) -> Any:
    from torch_xla import runtime
    from torch_xla.distributed import spmd

    if not runtime.is_spmd():
        runtime.use_spmd()
    return spmd.Mesh(list(range(cores)), (cores,), ("papers",))


def _compilations() -> int:
    from torch_xla.debug import metrics

    return int(metrics.counter_value("UncachedCompile") or 0)
