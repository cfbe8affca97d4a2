"""The whole job of a training: papers in, model folder out."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import accelerate.utils
import polars as pl
import torch

from arxivclf.config import TrainSettings
from arxivclf.corpus.rejects import RejectsFile
from arxivclf.corpus.tasks import Task
from arxivclf.corpus.text import hash_texts
from arxivclf.errors import ModelError, UsageError
from arxivclf.model.devices import Device, find
from arxivclf.model.encoder import Encoder, Scores
from arxivclf.model.folder import INFO_FILE, TEST_LABELS, ModelInfo, previous, refuse_foreign, whole_folder
from arxivclf.model.hub import find_base
from arxivclf.model.labels import BY_ENCODER, Layout
from arxivclf.progress import Watcher
from arxivclf.reporting.metrics import Confusion, best_threshold
from arxivclf.reporting.report import LabelReport, Report
from arxivclf.training.dataset import Dataset, Papers, check, collect
from arxivclf.training.finetune import choose, finetune

_PACKAGES = ("arxivclf", "torch", "transformers", "tokenizers", "polars", "numpy")


@dataclass(frozen=True)
class TrainResult:
    """What a training made: the folder, what is in it, how good it is, and where the rejected rows are, if any."""

    folder: Path
    info: ModelInfo
    validation: Report
    test: Report
    rejects_file: Path | None


def train(settings: TrainSettings, watcher: Watcher | None = None) -> TrainResult:
    """Train a classifier and write its folder; a model that was there is kept beside it as `<folder>.previous`.

    Raises UsageError, DataError, ModelError or DeviceError, and then leaves what was there as it was.
    """
    watcher = watcher or Watcher()
    if not settings.snapshots:
        raise UsageError("no dump to train on: name at least one snapshot, here or in arxivclf.toml")
    folder = Path(settings.output)
    refuse_foreign(folder)
    check(settings)
    task = Task.load(settings.task)
    device = find(settings.device, settings.precision)
    base = find_base(settings.base)
    replaced = (folder / INFO_FILE).exists()
    with whole_folder(folder) as unfinished:
        result = _train(settings, task, base, device, folder, unfinished, watcher)
    if replaced:
        watcher.say(f"The model that was in {folder} is now in {previous(folder)}")
    return result


def _train(
    settings: TrainSettings, task: Task, base: Path, device: Device, folder: Path, unfinished: Path, watcher: Watcher
) -> TrainResult:
    with RejectsFile(folder.with_name(f"{folder.name}.rejects.jsonl")) as rejects:
        dataset = collect(settings, task, rejects, watcher)
    watcher.say(_described(dataset), **dataset.counts)
    accelerate.utils.set_seed(settings.seed)
    encoder = Encoder.start(base, task.names, settings.max_tokens, device)
    chosen = choose(settings, encoder, len(dataset.train))
    watcher.say(
        f"{chosen.epochs:g} {'pass' if chosen.epochs == 1 else 'passes'} over {len(dataset.train):,} papers,"
        f" learning rate {chosen.learning_rate:g}, on {device.reason}",
        **asdict(chosen),
    )
    loss = finetune(encoder, dataset.train, settings, chosen, watcher)

    if not all(bool(torch.isfinite(weights).all()) for weights in encoder.model.parameters()):
        raise ModelError(
            f"the weights are no longer finite; a lower --learning-rate (now {chosen.learning_rate:g}) may help"
        )
    validation_scores = _scores(encoder, dataset.validation, "Validation", watcher)
    test_scores = _scores(encoder, dataset.test, "Test", watcher)
    thresholds = {
        name: best_threshold(dataset.validation.truth[:, index], validation_scores[:, index])
        for index, name in enumerate(task.names)
    }
    validated_on = settings.validation or "the validation split"
    validation = _report(validated_on, dataset.validation, validation_scores, thresholds)
    test = _report("the test split", dataset.test, test_scores, thresholds)
    info = ModelInfo(
        task=task,
        cleaning=settings.clean,
        max_tokens=encoder.max_tokens,
        thresholds=thresholds,
        settings=settings.as_dict(),
        chosen=asdict(chosen),
        papers=_counts(dataset, task) | {"rejects_by_reason": rejects.reasons},
        metrics={
            "training_loss": loss,
            "validation": {label.name: label.confusion.as_dict() for label in validation.labels},
            "test": {label.name: label.confusion.as_dict() for label in test.labels},
        },
        versions={"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}},
    )
    layout = Layout(thresholds, {})
    labels = _labels(dataset.test, test_scores, layout)

    encoder.save(unfinished)
    info.write(unfinished)
    labels.write_parquet(unfinished / TEST_LABELS)
    return TrainResult(folder, info, validation, test, rejects.path if rejects.count else None)


def _scores(encoder: Encoder, papers: Papers, name: str, watcher: Watcher) -> Scores:
    with watcher.stage(name, len(papers)):
        return encoder.scores(encoder.tokenize(papers.texts.to_list()), watcher.advance)


def _report(source: str, papers: Papers, scores: Scores, thresholds: Mapping[str, float]) -> Report:
    labels = []
    for index, (name, threshold) in enumerate(thresholds.items()):
        given = scores[:, index] >= threshold
        confusion = Confusion.count(papers.truth[:, index] > 0.5, given)
        labels.append(LabelReport(name, len(papers), int(given.sum()), 0, confusion))
    return Report(source, tuple(labels))


def _labels(papers: Papers, scores: Scores, layout: Layout) -> pl.DataFrame:
    truths = papers.frame.select(papers.answers).get_columns()
    decided = pl.Series([BY_ENCODER]).new_from_index(0, len(papers))
    return layout.table(papers.frame, hash_texts(papers.texts), scores, truths, decided)


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
