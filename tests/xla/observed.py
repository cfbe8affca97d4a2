"""Trainings on XLA's CPU device, and what can be seen of them: losses, shapes, compilations, reads of the host.

As a program: `observed.py SETTINGS` trains by settings in JSON, once whole and once cut off and gone on with, and
prints what was seen of both, and of the cores.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from arxivclf import TrainSettings, train
from arxivclf.model.devices import find
from arxivclf.model.encoder import TOKENS_PER_BATCH, Encoder
from arxivclf.progress import Watcher
from arxivclf.training import finetune

# Within the second pass.
CRASH_AT = 9

# Fewer tokens at a time than a TPU would be given: a CPU computes the padding, too.
SMALL_BATCHES = mock.patch.dict(TOKENS_PER_BATCH, xla=2_048)


@dataclass
class Observed:
    """Losses of each pass (training, validation); compilations when each had been validated, and at the end.

    `shapes` are those of the batches, as `train 8x128 8x64`: papers times width, of each group of a step. `reads` are
    what the host read from the device within the steps.
    """

    losses: list[tuple[float, float]] = field(default_factory=list)
    compiled: list[int] = field(default_factory=list)
    compiled_at_end: int = 0
    shapes: set[str] = field(default_factory=set)
    steps: int = 0
    reads: int = 0
    said: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"shapes": sorted(self.shapes)}


class CrashError(Exception):
    """What ends a training that is to be gone on with."""


def counter(name: str) -> int:
    from torch_xla.debug import metrics

    return int(metrics.counter_value(name) or 0)


def host_reads() -> int:
    from torch_xla.debug import metrics

    data = metrics.metric_data("TransferFromDeviceTime")
    return counter("aten::_local_scalar_dense") + (data[0] if data else 0)


def observe(settings: TrainSettings, crash_at: int | None = None) -> Observed:
    """Train and look on; with `crash_at` an error ends the training before that step, each one before being kept."""
    if crash_at is not None:
        settings = replace(settings, checkpoint_minutes=0.0)
    seen, before = Observed(), counter("UncachedCompile")
    in_step: list[str] = []
    forward, one_step = Encoder.forward, finetune._Run.one_step

    class Listening(Watcher):
        def say(self, text: str, **facts: object) -> None:
            seen.said.append(text)
            if "validation_loss" in facts:
                seen.compiled.append(counter("UncachedCompile") - before)

    def seeing_forward(self: Encoder, token_ids: Any, rows: Any, shape: tuple[int, int] | None = None) -> torch.Tensor:
        if shape is not None and torch.is_grad_enabled():
            in_step.append(f"{shape[0]}x{shape[1]}")
        # The reference papers are scored on the CPU, which compiles nothing.
        elif shape is not None and self.device.widths:
            seen.shapes.add(f"score {shape[0]}x{shape[1]}")
        return forward(self, token_ids, rows, shape)

    def seeing_step(self: Any, step: int) -> None:
        if step == crash_at:
            raise CrashError
        reads = host_reads()
        one_step(self, step)
        seen.reads += host_reads() - reads
        seen.shapes.add(" ".join(["train", *in_step]))
        in_step.clear()
        seen.steps += 1

    with (
        SMALL_BATCHES,
        # Checkpoints are made where the loss is read.
        mock.patch.dict(finetune._READ_EVERY, {} if crash_at is None else {"xla": 1}),
        mock.patch.object(Encoder, "forward", seeing_forward),
        mock.patch.object(finetune._Run, "one_step", seeing_step),
    ):
        try:
            train(settings, Listening())
        except CrashError:
            return seen
    seen.compiled_at_end = counter("UncachedCompile") - before
    with open(Path(settings.output) / "training.csv", newline="") as file:
        seen.losses = [(float(row["training_loss"]), float(row["validation_loss"])) for row in csv.DictReader(file)]
    return seen


def observe_resumed(settings: TrainSettings, crash_at: int) -> Observed:
    """Cut a training off, and see how it goes on."""
    observe(settings, crash_at)
    return observe(replace(settings, resume=True))


def cores() -> dict[str, object]:
    """How many there are, and how a batch and a weight are parted over them, in XLA's words."""
    device = find("tpu")
    import _XLAC

    parted, whole = device.put(torch.zeros(8, 3)), device.keep(torch.zeros(8, 3))
    specs = [str(_XLAC._get_xla_sharding_spec(tensor)) for tensor in (parted, whole)]
    return {"count": device.cores, "reason": device.reason, "batch": specs[0], "weights": specs[1]}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    asked = TrainSettings(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
    whole = observe(asked)
    resumed = observe_resumed(replace(asked, output=asked.output + "-resumed"), crash_at=CRASH_AT)
    print(json.dumps({"whole": whole.as_dict(), "resumed": resumed.as_dict(), "cores": cores()}))
