"""Several processes that train one model: what `torchrun -m arxivclf train` starts, one for each GPU.

Each reads the dump, each computes the gradients of its part of every batch; the first alone writes and speaks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from arxivclf.errors import DeviceError
from arxivclf.model.devices import Device
from arxivclf.model.labels import Scores
from arxivclf.progress import rank_and_count

# The others wait while the first writes; a large model on a slow disk takes its time.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """This process among all: its `index` from 0, and their `count`."""

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.index == 0

    def mine(self, rows: np.ndarray) -> np.ndarray:
        """This process's part of an array's rows: each has every `count`-th."""
        return rows[self.index :: self.count]

    def gather(self, rows: Scores, total: int) -> Scores:
        """The whole array (total, columns), on every process, from the parts that `mine` gave to each."""
        if self.count == 1:
            return rows
        # Parts differ by one row at most, and collectives want the same shape of all.
        longest = -(-total // self.count)
        part = torch.zeros(longest, rows.shape[1])
        part[: len(rows)] = torch.from_numpy(rows)
        part = part.to(_where())
        parts = [torch.empty_like(part) for _ in range(self.count)]
        dist.all_gather(parts, part)
        whole = np.empty((total, rows.shape[1]), dtype=np.float32)
        for index, one in enumerate(parts):
            whole[index :: self.count] = one.cpu().numpy()[: len(range(index, total, self.count))]
        return whole

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over all processes."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.count
        return values

    def agreed(self, *wishes: bool) -> list[bool]:
        """Of each wish, such as to stop, whether any process has it: all hear the same, at the same step."""
        if self.count == 1:
            return list(wishes)
        votes = torch.tensor([float(wish) for wish in wishes], device=_where())
        dist.all_reduce(votes)
        return [vote > 0 for vote in votes.tolist()]

    def share(self, model: Any, device: Device) -> Any:
        """The model such that its gradients are the mean over all processes after each backward pass."""
        if self.count == 1:
            return model
        place = [device.where] if device.where.type == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(model, device_ids=place)


def placed(device: Device) -> Device:
    """The device of this process among those of its machine: the GPU of its number, where torchrun gave it one."""
    if device.where.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= there:
        raise DeviceError(f"process {number} of this machine has no GPU of its own, for there are {there}")
    return replace(device, where=torch.device("cuda", number))


@contextmanager
def joined(device: Device) -> Iterator[Processes]:
    """All processes of this training, connected as long as the block lasts. DeviceError where they cannot be."""
    processes = Processes(*rank_and_count())
    if processes.count == 1:
        yield processes
        return
    try:
        if device.where.type == "cuda":
            torch.cuda.set_device(device.where)
        dist.init_process_group("nccl" if device.where.type == "cuda" else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise DeviceError(f"the {processes.count} processes of this training do not find each other: {error}") from None
    try:
        yield processes
    except KeyboardInterrupt:
        # All stop at one step, so that none of them is left in a collective.
        dist.destroy_process_group()
        raise
    # After an error of its own a process must end as it is: on GPUs this would wait for those who wait for it.
    dist.destroy_process_group()


def _where() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
