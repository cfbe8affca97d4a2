"""The encoder's part of a training: device, base, processes and checkpoints around the loop, logits after it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from arxivclf.config import TrainSettings
from arxivclf.corpus.tasks import Task
from arxivclf.errors import UsageError
from arxivclf.model.backends import keep_reference
from arxivclf.model.devices import find
from arxivclf.model.encoder import Encoder
from arxivclf.model.folder import MODEL_FILES, fingerprint
from arxivclf.model.hub import find_base
from arxivclf.model.labels import Scores
from arxivclf.progress import Watcher
from arxivclf.training import trackers
from arxivclf.training.checkpoint import Checkpoints
from arxivclf.training.dataset import Dataset
from arxivclf.training.finetune import Epoch, finetune, logits_of
from arxivclf.training.hyperparameters import Chosen, choose
from arxivclf.training.processes import joined, placed
from arxivclf.training.schedule import steps_of

# What may differ when a training is gone on with: where it runs, what it is called, who is told, and what comes after.
_FREE = ("device", "resume", "push", "track", "checkpoint_minutes", "output", "gate_risk")
# What is told by what is read there, and not by its name.
_READ = ("task", "snapshots", "validation", "weak_negatives", "exclude")


@dataclass(frozen=True)
class Trained:
    """A trained encoder, how it came to be, its logits (papers, labels) on validation and test, and the test papers."""

    encoder: Encoder
    chosen: Chosen
    history: Sequence[Epoch]
    kept: int
    validation_logits: Scores
    test_logits: Scores
    test_token_ids: Sequence[list[int]]

    def save(self, folder: Path, linear_logits: Scores | None) -> None:
        """Write it, and test papers that it is checked with; of all of these are the linear model's logits, if any."""
        self.encoder.save(folder)
        keep_reference(folder, self.encoder, self.test_token_ids, linear_logits)


class EncoderTraining:
    """A training that is ready to run; as a context, its processes are joined. `base` is the folder it starts from."""

    def __init__(self, settings: TrainSettings, task: Task, folder: Path, watcher: Watcher) -> None:
        """Raises DeviceError, ModelError or MissingExtraError for what is not there, UsageError for what cannot be."""
        trackers.check(settings.track)
        self._settings, self._task, self._folder, self._watcher = settings, task, folder, watcher
        self._device = placed(find(settings.device, settings.precision))
        self.base = find_base(settings.base)
        if settings.epochs == 0:
            _refuse_other_labels(self.base, settings.base, task)
        identity = {name: value for name, value in settings.as_dict().items() if name not in _FREE + _READ}
        identity["base"] = f"{settings.base} ({fingerprint(self.base, MODEL_FILES)})"
        identity["labels"] = [f"{label.name} = {' '.join(label.categories)}" for label in task.labels]
        self.checkpoints = Checkpoints(folder, identity, settings.checkpoint_minutes * 60, watcher)
        self._open = ExitStack()

    def __enter__(self) -> EncoderTraining:
        self._processes = self._open.enter_context(joined(self._device))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def environment(self) -> dict[str, str]:
        """Where it ran."""
        return {"device": self._device.reason, "processes": str(self._processes.count)}

    def run(self, dataset: Dataset) -> Trained:
        """Train, and score validation and test papers. Raises as `finetune` does."""
        settings, watcher, device = self._settings, self._watcher, self._device
        torch.manual_seed(settings.seed)
        device.seed(settings.seed)
        encoder = Encoder.start(self.base, self._task.names, settings.max_tokens, device)
        chosen = choose(settings, encoder, len(dataset.train))
        # Chosen by the program, epochs may be others in another version.
        self.checkpoints.identity |= {"epochs": chosen.epochs, "papers": dataset.fingerprint}
        watcher.say(
            f"{_trained_on(len(dataset.train), chosen, settings)}, learning rate {chosen.learning_rate:g}, on"
            f" {device.reason}",
            **asdict(chosen),
        )
        track_to = settings.track if self._processes.first else ()
        with trackers.tracking(track_to, self._folder, settings.as_dict()) as track:
            trained = finetune(encoder, dataset, settings, chosen, self.checkpoints, self._processes, track, watcher)
        encoder = trained.encoder
        with watcher.stage("Test", len(dataset.test)):
            test_texts = encoder.tokenize(dataset.test.texts.to_list())
            test_logits = logits_of(encoder, test_texts, self._processes, watcher)
        if told := device.told():
            watcher.say(told)
        return Trained(
            encoder, chosen, trained.history, trained.kept, trained.validation_logits, test_logits, test_texts
        )


def _trained_on(papers: int, chosen: Chosen, settings: TrainSettings) -> str:
    epochs = chosen.epochs
    if 0 < epochs < 1:
        taken = sum(map(len, steps_of(papers, epochs, settings.batch_size, settings.seed)[0]))
        return f"Trains on {taken:,} of {papers:,} papers, drawn at random"
    return f"{epochs:g} {'pass' if epochs == 1 else 'passes'} over {papers:,} papers"


def _refuse_other_labels(base: Path, name: str, task: Task) -> None:
    """Raise UsageError where a base that is not to be trained has other outputs than the task has labels."""
    try:
        outputs = json.loads((base / "config.json").read_bytes()).get("id2label") or {}
        theirs = [str(outputs[at]) for at in sorted(outputs, key=int)]
    except (OSError, ValueError, AttributeError, TypeError):
        theirs = []
    if theirs != list(task.names):
        raise UsageError(
            f"--epochs 0 leaves {name} as it is, whose labels are {', '.join(theirs) or 'none'} and not"
            f" {', '.join(task.names)}"
        )
