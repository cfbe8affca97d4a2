"""The whole job of a training: papers in, model folder out."""

from __future__ import annotations

import csv
import platform
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import polars as pl
import torch

from arxivclf.config import TrainSettings
from arxivclf.corpus.rejects import RejectsFile
from arxivclf.corpus.sources import STANDARD_INPUT
from arxivclf.corpus.tasks import Task
from arxivclf.corpus.text import hash_texts
from arxivclf.errors import HubError, UsageError
from arxivclf.model.backends import keep_reference
from arxivclf.model.calibration import Calibration, calibrated, fit
from arxivclf.model.devices import Device, find
from arxivclf.model.encoder import MODEL_FILES, Encoder, Scores, fingerprint
from arxivclf.model.folder import (
    INFO_FILE,
    TEST_LABELS,
    TRAINING_TABLE,
    ModelInfo,
    previous,
    refuse_foreign,
    whole_folder,
)
from arxivclf.model.hub import Pushed, check_push, find_base, push
from arxivclf.model.labels import BY_ENCODER, Layout
from arxivclf.progress import Watcher
from arxivclf.reporting.metrics import Confusion, average_precision, best_threshold, calibration_error
from arxivclf.reporting.report import LabelReport, Report
from arxivclf.training import card, trackers
from arxivclf.training.checkpoint import Checkpoints
from arxivclf.training.dataset import Dataset, Papers, check, collect
from arxivclf.training.finetune import Epoch, choose, finetune, logits_of
from arxivclf.training.processes import Processes, count_asked_for, joined, placed

_PACKAGES = ("arxivclf", "torch", "transformers", "tokenizers", "polars", "numpy", "scikit-learn")
# What may differ when a training is gone on with: where it runs, what it is called, who is told.
_FREE = ("device", "resume", "push", "track", "checkpoint_minutes", "output")
# What is told by what is read there, and not by its name.
_READ = ("task", "snapshots", "validation", "weak_negatives")


@dataclass(frozen=True)
class TrainResult:
    """What a training made: the folder, what is in it, how good it is, and where the rejected rows are, if any.

    `pushed` is the model on the hub, where it was to go there."""

    folder: Path
    info: ModelInfo
    validation: Report
    test: Report
    rejects_file: Path | None
    pushed: Pushed | None = None


def train(settings: TrainSettings, watcher: Watcher | None = None) -> TrainResult:
    """Train a classifier and write its folder; a model that was there is kept beside it as `<folder>.previous`.

    Of several processes (torchrun) the first writes, and alone tells `watcher`. Raises UsageError, DataError,
    ModelError, DeviceError or MissingExtraError, and then leaves what was there as it was; a checkpoint stays.
    HubError comes before the training, or for a finished model that could not be pushed.
    """
    processes = count_asked_for()
    watcher = (watcher if processes.first else None) or Watcher()
    if not settings.snapshots:
        raise UsageError("no dump to train on: name at least one snapshot, here or in arxivclf.toml")
    if processes.count > 1 and STANDARD_INPUT in settings.snapshots:
        raise UsageError("standard input can be read by one process only: name a file for each to read")
    folder = Path(settings.output)
    refuse_foreign(folder)
    check(settings)
    trackers.check(settings.track)
    if settings.push is not None and processes.first:
        check_push(settings.push)
    task = Task.load(settings.task)
    device = placed(find(settings.device, settings.precision))
    base = find_base(settings.base)
    replaced = (folder / INFO_FILE).exists()
    with joined(device) as processes, ExitStack() as opened:
        unfinished = opened.enter_context(whole_folder(folder)) if processes.first else None
        job = _Job(settings, task, base, device, processes, folder, watcher)
        result = job.run(unfinished)
    if processes.first:
        job.checkpoints.done()
        if replaced:
            watcher.say(f"The model that was in {folder} is now in {previous(folder)}")
        if settings.push is not None:
            return replace(result, pushed=_push(folder, settings.push, watcher))
    return result


class _Job:
    """One training, from the dump to what stands in the model folder."""

    def __init__(
        self,
        settings: TrainSettings,
        task: Task,
        base: Path,
        device: Device,
        processes: Processes,
        folder: Path,
        watcher: Watcher,
    ) -> None:
        self._settings, self._task, self._base, self._device = settings, task, base, device
        self._processes, self._folder, self._watcher = processes, folder, watcher
        identity = {name: value for name, value in settings.as_dict().items() if name not in _FREE + _READ}
        identity["base"] = f"{settings.base} ({fingerprint(base, MODEL_FILES)})"
        identity["labels"] = [f"{label.name} = {' '.join(label.categories)}" for label in task.labels]
        self.checkpoints = Checkpoints(folder, identity, settings.checkpoint_minutes * 60, watcher)

    def run(self, unfinished: Path | None) -> TrainResult:
        """Train, judge, and write into `unfinished` where it is given."""
        settings, watcher, names = self._settings, self._watcher, self._task.names
        rejects_path = self._folder.with_name(f"{self._folder.name}.rejects.jsonl") if unfinished else None
        with RejectsFile(rejects_path) as rejects:
            dataset = collect(settings, self._task, rejects, watcher)
        watcher.say(_described(dataset), **dataset.counts)
        self.checkpoints.identity |= {"papers": dataset.fingerprint}
        torch.manual_seed(settings.seed)
        self._device.seed(settings.seed)
        encoder = Encoder.start(self._base, names, settings.max_tokens, self._device)
        chosen = choose(settings, encoder, len(dataset.train))
        watcher.say(
            f"{chosen.epochs:g} {'pass' if chosen.epochs == 1 else 'passes'} over {len(dataset.train):,} papers,"
            f" learning rate {chosen.learning_rate:g}, on {self._device.reason}",
            **asdict(chosen),
        )
        track_to = settings.track if unfinished else ()
        with trackers.tracking(track_to, self._folder, settings.as_dict()) as track:
            trained = finetune(encoder, dataset, settings, chosen, self.checkpoints, self._processes, track, watcher)
        encoder = trained.encoder
        with watcher.stage("Test", len(dataset.test)):
            test_texts = encoder.tokenize(dataset.test.texts.to_list())
            test_logits = logits_of(encoder, test_texts, self._processes, watcher)
        if told := self._device.told():
            watcher.say(told)

        truth = dataset.validation.truth > 0.5
        calibrations = [
            fit(trained.validation_logits[:, at], truth[:, at], settings.calibration) for at in range(len(names))
        ]
        validation = _Judged(
            settings.validation or "the validation split", dataset.validation, trained.validation_logits, calibrations
        )
        thresholds = {name: best_threshold(truth[:, at], validation.scores[:, at]) for at, name in enumerate(names)}
        test = _Judged("the test split", dataset.test, test_logits, calibrations)
        info = ModelInfo(
            task=self._task,
            cleaning=settings.clean,
            max_tokens=encoder.max_tokens,
            thresholds=thresholds,
            calibrations=dict(zip(names, calibrations, strict=True)),
            settings=settings.as_dict(),
            chosen=asdict(chosen) | {"kept_pass": trained.history[trained.kept].epoch},
            papers=_counts(dataset, self._task) | {"rejects_by_reason": rejects.reasons},
            files=[asdict(file) for file in dataset.files],
            metrics={
                "training_loss": trained.history[trained.kept].training_loss,
                "validation": validation.metrics(thresholds),
                "test": test.metrics(thresholds),
            },
            environment=self._environment(),
        )
        if unfinished:
            self._write(unfinished, info, encoder, test, trained.history)
            with watcher.stage("Reference papers"):
                keep_reference(unfinished, encoder, test_texts)
        return TrainResult(
            self._folder,
            info,
            validation.report(thresholds),
            test.report(thresholds),
            rejects.path if rejects.count else None,
        )

    def _environment(self) -> dict[str, str]:
        return {
            "device": self._device.reason,
            "processes": str(self._processes.count),
            "platform": platform.platform(),
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        }

    def _write(self, folder: Path, info: ModelInfo, encoder: Encoder, test: _Judged, history: Sequence[Epoch]) -> None:
        labels = test.labels(info.thresholds)
        encoder.save(folder)
        info.write(folder)
        labels.write_parquet(folder / TEST_LABELS)
        rows = [epoch.row() for epoch in history]
        with open(folder / TRAINING_TABLE, "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        (folder / card.FILE).write_text(card.write(info, history, labels, self._folder.name), encoding="utf-8")


def _push(folder: Path, repo: str, watcher: Watcher) -> Pushed:
    watcher.say(f"The model is in {folder}; pushing it to {repo}")
    try:
        return push(folder, repo, quiet=True)
    except HubError as error:
        again = shlex.join(["arxivclf", "push", str(folder), repo])
        raise HubError(f"{error}; the model is in {folder}, and `{again}` pushes it again") from None


@dataclass(frozen=True)
class _Judged:
    """Papers with their logits (papers, labels), and what these say of the model."""

    source: str
    papers: Papers
    logits: Scores
    calibrations: Sequence[Calibration]

    @cached_property
    def scores(self) -> Scores:
        return calibrated(self.logits, self.calibrations)

    def report(self, thresholds: Mapping[str, float]) -> Report:
        truth, scores = self.papers.truth > 0.5, self.scores
        labels = []
        for at, (name, threshold) in enumerate(thresholds.items()):
            given = scores[:, at] >= threshold
            confusion = Confusion.count(truth[:, at], given)
            labels.append(LabelReport(name, len(self.papers), int(given.sum()), 0, confusion))
        return Report(self.source, tuple(labels))

    def metrics(self, thresholds: Mapping[str, float]) -> dict[str, dict[str, float | None]]:
        """The figures of each label by name; the calibration error of the plain sigmoid beside that of the scores."""
        truth, scores = self.papers.truth > 0.5, self.scores
        plain = calibrated(self.logits, [Calibration()] * len(self.calibrations))
        return {
            one.name: one.confusion.as_dict()
            | {
                "average_precision": average_precision(truth[:, at], scores[:, at]) if truth[:, at].any() else None,
                "calibration_error": calibration_error(truth[:, at], scores[:, at]),
                "calibration_error_before": calibration_error(truth[:, at], plain[:, at]),
            }
            for at, one in enumerate(self.report(thresholds).labels)
        }

    def labels(self, thresholds: Mapping[str, float]) -> pl.DataFrame:
        """The papers as `arxivclf label` writes them."""
        truths = self.papers.frame.select(self.papers.answers).get_columns()
        decided = pl.Series([BY_ENCODER]).new_from_index(0, len(self.papers))
        hashes = hash_texts(self.papers.texts)
        return Layout(thresholds, {}).table(self.papers.frame, hashes, self.scores, truths, decided)


def _counts(dataset: Dataset, task: Task) -> dict[str, object]:
    sides = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {
        **dataset.counts,
        **{
            side: {"papers": len(papers), "positive": dict(zip(task.names, papers.positives().values(), strict=True))}
            for side, papers in sides.items()
        },
    }


def _described(dataset: Dataset) -> str:
    train, validation, test = (len(side) for side in (dataset.train, dataset.validation, dataset.test))
    sides = f"{train:,} papers to train, {validation:,} to validate, {test:,} to test"
    apart = [
        f"{dataset.counts[name]:,} {words}"
        for name, words in (
            ("rejects", "rows rejected"),
            ("before_since", "too old"),
            ("without_truth", "without truth"),
            ("repeats", "repeats of an id left out"),
            ("weak_negatives", "of the training papers are weak negatives"),
            ("shared_with_validation", "left out of training because they are in the validation set"),
            ("ids_restored", "damaged ids told from their dates"),
        )
        if dataset.counts.get(name)
    ]
    return sides + (f" ({'; '.join(apart)})" if apart else "")
