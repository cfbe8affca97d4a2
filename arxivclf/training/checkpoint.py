"""Checkpoints: where a training stands, in one file that is whole or not there, so that a killed run goes on.

The file is safetensors: weights, optimiser, random state and the best weights so far as tensors, the rest as JSON in
its header.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from arxivclf.errors import ArxivclfError, DataError, UsageError
from arxivclf.files import cannot_write, put_in_place
from arxivclf.model.folder import checkpoint_of
from arxivclf.progress import Watcher

Tensors = dict[str, torch.Tensor]

_FORMAT = 1


@dataclass
class Checkpoints:
    """The checkpoint of the training of one model folder; `identity` is what it must agree on to be gone on with."""

    folder: Path
    identity: dict[str, Any]
    every_s: float
    watcher: Watcher
    _saved_at: float = field(default_factory=time.monotonic)
    _of_another: bool = False

    @property
    def path(self) -> Path:
        """Beside the model folder, hidden."""
        return checkpoint_of(self.folder)

    @property
    def put_aside(self) -> Path:
        """Where the checkpoint of a training lies that another has started in place of."""
        return self.path.with_name(f".{self.folder.name}.checkpoint.previous.safetensors")

    @property
    def _unfinished(self) -> Path:
        """A folder of its own, for the library writes under names that a kill would leave behind."""
        return self.path.with_suffix(".unfinished")

    @property
    def due(self) -> bool:
        """Whether it is time for another."""
        return time.monotonic() - self._saved_at >= self.every_s

    def save(self, state: Mapping[str, Any], tensors: Callable[[], Tensors]) -> None:
        """Write a checkpoint in the place of the last. Where that fails the last one stays, and training goes on."""
        header = json.dumps({"format": _FORMAT, "identity": self.identity, "state": state})
        unfinished = self._unfinished
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            file = unfinished / self.path.name
            save_file({name: one.contiguous() for name, one in tensors().items()}, file, {"job": header})
            if self._of_another:
                self.path.replace(self.put_aside)
                self._of_another = False
            put_in_place(file, self.path)
        except (SafetensorError, OSError) as error:
            why = cannot_write(self.path, error if isinstance(error, OSError) else OSError(str(error)))
            before = (
                "the one before it stands"
                if self.path.exists() and not self._of_another
                else "there is none to go on from yet"
            )
            self.watcher.say(f"No checkpoint: {why}; {before}, and training goes on")
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        self._saved_at = time.monotonic()

    def load(self) -> tuple[dict[str, Any], Tensors] | None:
        """The state and the tensors (on the CPU) of a training that was cut off, None where there is none.

        Raises UsageError where it was of other settings, base or papers, DataError where it cannot be read.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                header = json.loads((file.metadata() or {})["job"])
                if header["format"] != _FORMAT:
                    raise DataError(f"{self.path}: a checkpoint of another version; without --resume a new one starts")
                self._refuse_other(header["identity"])
                return header["state"], {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except ArxivclfError:
            raise
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path}: cannot be read as a checkpoint ({error}); without --resume training starts anew"
            ) from None

    def announce_new(self) -> None:
        """Say that another training's checkpoint is there, which the first of this one will put aside."""
        if self.path.exists():
            self._of_another = True
            self.watcher.say(
                "There is a checkpoint of an unfinished training of this model (--resume goes on with it); the first"
                f" checkpoint of this training moves it to {self.put_aside}"
            )

    def done(self) -> None:
        """The model is written: neither its own nor an older checkpoint is needed."""
        self.path.unlink(missing_ok=True)
        self.put_aside.unlink(missing_ok=True)
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def _refuse_other(self, theirs: Mapping[str, Any]) -> None:
        # The papers after what may have changed them, and the epochs, which may follow from the papers, at the end.
        last = ("papers", "epochs")
        for name in sorted(
            {*theirs, *self.identity}, key=lambda name: (last.index(name) + 1 if name in last else 0, name)
        ):
            was, now = theirs.get(name), self.identity.get(name)
            if was != now:
                what = f"{name.replace('_', '-')} was {_shown(was)} and is now {_shown(now)}"
                raise UsageError(
                    f"--resume: {what}; go on as before, or start anew without --resume (the checkpoint is {self.path})"
                )


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
