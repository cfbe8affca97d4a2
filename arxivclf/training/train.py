"""The whole job of a training: papers in, model folder out."""

from __future__ import annotations

import csv
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from arxivclf.config import TrainSettings
from arxivclf.corpus.rejects import RejectsFile, holds_rejects
from arxivclf.corpus.seen import Seen
from arxivclf.corpus.sources import STANDARD_INPUT
from arxivclf.corpus.tasks import Task
from arxivclf.corpus.taxonomy import primary_archive
from arxivclf.corpus.text import hash_texts
from arxivclf.errors import HubError, UsageError
from arxivclf.files import only_one
from arxivclf.model.calibration import Calibration
from arxivclf.model.cascade import Cascade
from arxivclf.model.folder import (
    INFO_FILE,
    NO_BASE,
    TEST_LABELS,
    TRAINING_TABLE,
    ModelInfo,
    checkpoint_of,
    previous,
    refuse_foreign,
    whole_folder,
)
from arxivclf.model.hub import Pushed, check_push, push
from arxivclf.model.labels import BY_ENCODER, BY_GATE, Flags, Layout, Scores
from arxivclf.model.linear import Linear
from arxivclf.model.training_range import ARCHIVES, YEARS
from arxivclf.progress import Watcher, rank_and_count
from arxivclf.reporting.metrics import Confusion, average_precision, best_threshold, calibration_error
from arxivclf.reporting.report import Report, compared
from arxivclf.training import balance, card, linear
from arxivclf.training.dataset import Dataset, Papers, check, collect
from arxivclf.training.joint import Joint
from arxivclf.training.near_duplicates import near_duplicates

if TYPE_CHECKING:
    from arxivclf.training.encoder import EncoderTraining, Trained
    from arxivclf.training.finetune import Epoch

# The chance of a paper that the linear model is certain of, relative to one that it knows nothing of.
LEAST_CHANCE = 0.08
_PACKAGES = ("arxivclf", "polars", "numpy", "scikit-learn")
_OF_ENCODERS = ("torch", "transformers", "tokenizers")
# Settings that an encoder alone heeds.
# fmt: off
_ENCODERS_ALONE = (
    "undersample", "epochs", "learning_rate", "batch_size", "max_tokens", "resume", "loss", "tune", "track",
    "gate_risk", "device", "schedule", "warmup", "patience", "dropout", "precision", "compile", "adam_betas",
    "adam_epsilon", "weight_decay", "max_gradient_norm", "focal_gamma", "lora_rank", "checkpoint_minutes",
)
# fmt: on


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
    rank, processes = rank_and_count()
    first, several = rank == 0, processes > 1
    watcher = (watcher if first else None) or Watcher()
    if not settings.snapshots:
        raise UsageError("no dump to train on: name at least one snapshot, here or in arxivclf.toml")
    if several and STANDARD_INPUT in settings.snapshots:
        raise UsageError("standard input can be read by one process only: name a file for each to read")
    if several and settings.base == NO_BASE:
        raise UsageError("a linear model is trained by one process: start it without torchrun")
    folder = Path(settings.output)
    refuse_foreign(folder)
    if first and not holds_rejects(_rejects_of(folder)):
        raise UsageError(f"{_rejects_of(folder)}: there already, and no rejects of ours; -o names another folder")
    check(settings)
    if settings.push is not None and first:
        check_push(settings.push)
    task = Task.load(settings.task)
    with ExitStack() as opened:
        if first:
            opened.enter_context(_nothing_left(folder))
            opened.enter_context(only_one(folder.with_name(f".{folder.name}.lock"), str(folder)))
        encoding = None
        if settings.base == NO_BASE:
            if idle := _idle(settings):
                watcher.say(f"Without an encoder these change nothing: {', '.join(idle)}", settings=idle)
        else:
            # A linear model alone needs no torch, which takes seconds to import.
            from arxivclf.training.encoder import EncoderTraining

            encoding = opened.enter_context(EncoderTraining(settings, task, folder, watcher))
        replaced = (folder / INFO_FILE).exists()
        with ExitStack() as writing:
            unfinished = writing.enter_context(whole_folder(folder)) if first else None
            result = _Job(settings, task, encoding, folder, watcher).run(unfinished)
        if first and encoding is not None:
            encoding.checkpoints.done()
    if first:
        if replaced:
            watcher.say(f"The model that was in {folder} is now in {previous(folder)}")
        if settings.push is not None:
            return replace(result, pushed=_push(folder, settings.push, watcher))
    return result


@contextmanager
def _nothing_left(folder: Path) -> Iterator[None]:
    """A block that leaves no file and no folder of its own when it is interrupted before the first checkpoint."""
    rejects, checkpoint = _rejects_of(folder), checkpoint_of(folder)
    new_folders = [parent for parent in folder.absolute().parents if not parent.exists()]
    new_rejects, before = not rejects.exists(), _changed(checkpoint)
    try:
        yield
    except KeyboardInterrupt:
        if _changed(checkpoint) == before:
            if new_rejects:
                rejects.unlink(missing_ok=True)
            with suppress(OSError):
                for parent in new_folders:
                    parent.rmdir()
        raise


def _changed(path: Path) -> int | None:
    """When a file was written, in nanoseconds; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def _rejects_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.rejects.jsonl")


def _idle(settings: TrainSettings) -> list[str]:
    """The settings of an encoder that are not as they are by default, as options are spelt."""
    usual = TrainSettings()
    changed = (name for name in _ENCODERS_ALONE if getattr(settings, name) != getattr(usual, name))
    return [name.replace("_", "-") for name in changed]


class _Job:
    """One training, from the dump to what stands in the model folder."""

    def __init__(
        self, settings: TrainSettings, task: Task, encoding: EncoderTraining | None, folder: Path, watcher: Watcher
    ) -> None:
        self._settings, self._task, self._encoding = settings, task, encoding
        self._folder, self._watcher = folder, watcher

    def run(self, unfinished: Path | None) -> TrainResult:
        """Train, judge, and write into `unfinished` where it is given."""
        settings, watcher, names = self._settings, self._watcher, self._task.names
        rejects_path = _rejects_of(self._folder) if unfinished else None
        with RejectsFile(rejects_path) as rejects:
            dataset = collect(settings, self._task, rejects, watcher)
        watcher.say(_described(dataset), **dataset.counts)
        seen, met = self._seen(dataset)
        words, dataset = self._linear_model(dataset) if settings.gate else (None, dataset)
        trained = self._encoding.run(dataset) if self._encoding is not None else None
        joint = Joint.fit(settings, dataset, words, trained)
        for line in joint.told:
            watcher.say(line)

        sides = {
            "validation": (" and ".join(settings.validation) or "the validation split", dataset.validation),
            "test": ("the test split", dataset.test),
        }
        judged = {part: _Judged.of(part, source, papers, joint) for part, (source, papers) in sides.items()}
        cascade = joint.cascade
        info = ModelInfo(
            task=self._task,
            cleaning=settings.clean,
            max_tokens=trained.encoder.max_tokens if trained is not None else settings.max_tokens,
            thresholds=joint.thresholds,
            calibrations=dict(zip(names, cascade.calibrations, strict=True)),
            linear_calibrations=dict(zip(names, cascade.linear_calibrations, strict=False)),
            blends=dict(zip(names, cascade.blends, strict=False)),
            gates=dict(zip(names, cascade.gates, strict=False)),
            settings=settings.as_dict(),
            chosen=_chosen(trained),
            papers=_counts(dataset, self._task, met) | {"rejects_by_reason": rejects.reasons},
            files=[asdict(file) for file in dataset.files],
            metrics={
                "training_loss": trained.history[trained.kept].training_loss if trained and trained.history else None,
                **{part: split.metrics() for part, split in judged.items()},
                **_gate_metrics(judged),
                "alone": {
                    which: {
                        part: _alone(papers, logits[part], names, dataset.validation, logits["validation"])
                        for part, (_, papers) in sides.items()
                    }
                    for which, logits in joint.alone.items()
                },
            },
            environment=self._environment(),
            prevalence=_prevalence(dataset.validation),
        )
        if unfinished:
            if trained is not None:
                with watcher.stage("Writing the encoder"):
                    trained.save(unfinished, joint.alone["linear"]["test"] if words is not None else None)
            seen.write(unfinished)
            self._write(unfinished, info, words, trained, judged["test"])
        return TrainResult(
            self._folder,
            info,
            judged["validation"].report,
            judged["test"].report,
            rejects.path if rejects.count else None,
        )

    def _linear_model(self, dataset: Dataset) -> tuple[Linear, Dataset]:
        """The linear model; and the dataset without near-duplicates in the test split, its encoder's papers drawn."""
        settings, watcher, whole = self._settings, self._watcher, dataset.whole
        counted = linear.features(whole.texts, watcher)
        with watcher.stage("Comparing the test split with the training papers"):
            duplicates = near_duplicates(linear.features(dataset.test.texts, Watcher()), counted)
        if duplicates.all():
            watcher.say(
                "Every test paper has nearly the text of a training paper, so the figures of the test split flatter"
            )
        elif duplicates.any():
            dataset = dataset.without_test_papers(duplicates)
            watcher.say(
                f"{duplicates.sum():,} papers were removed from the test split: their text is nearly that of a training"
                " paper"
            )
        weights = self._weights(whole)
        validation = dataset.validation
        words = linear.fit(
            counted,
            whole.truth,
            watcher,
            weights=weights,
            categories=whole.frame.get_column("categories"),
            years=whole.years,
            validation=linear.Held(validation.texts, validation.truth, validation.years),
        )
        if self._encoding is None or settings.epochs is not None or settings.undersample is not None:
            return words, dataset
        from arxivclf.training.hyperparameters import PRESENTATIONS  # It imports torch.

        if (papers := len(dataset.every)) > PRESENTATIONS:
            chance = weights * (LEAST_CHANCE + linear.uncertainty(counted, whole.truth, weights, watcher))
            dataset = dataset.drawn_by(PRESENTATIONS, chance)
            watcher.say(
                f"The encoder trains on {PRESENTATIONS:,} of {papers:,} papers, drawn by weight and by how uncertain"
                " the linear model is of them; --epochs 1 trains on all"
            )
        return words, dataset

    def _weights(self, papers: Papers) -> npt.NDArray[np.float32]:
        """The weights of training papers, float32 (papers,), mean 1."""
        settings, ones = self._settings, np.ones(len(papers), np.float32)
        if settings.balance == balance.NONE or (settings.balance == balance.YEARS and len(papers) < balance.FEWEST):
            return ones
        mix = balance.read_mix(settings.balance) if settings.balance != balance.YEARS else None
        balanced = balance.balance(papers.frame, mix, settings.balance_since)
        self._watcher.say(balanced.description)
        return balanced.weights

    def _seen(self, dataset: Dataset) -> tuple[Seen, int]:
        """The papers that the model has seen, those of a base that tells its own among them; and how many of the test
        papers are the base's."""
        own = Seen.of(dataset.whole.keys, dataset.validation.keys)
        before = Seen.read(self._encoding.base) if self._encoding is not None else None
        if before is None:
            return own, 0
        if met := int(before.among(dataset.test.frame.get_column("key")).sum()):
            self._watcher.say(
                f"{self._settings.base} has seen {met:,} of {len(dataset.test):,} test papers in its own training,"
                " which flatters their figures"
            )
        return Seen.union([own, before]), met

    def _environment(self) -> dict[str, str]:
        where = self._encoding.environment if self._encoding is not None else {"device": "cpu", "processes": "1"}
        packages = _PACKAGES + (_OF_ENCODERS if self._encoding is not None else ())
        return {
            **where,
            "platform": platform.platform(),
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        }

    def _write(
        self, folder: Path, info: ModelInfo, words: Linear | None, trained: Trained | None, test: _Judged
    ) -> None:
        labels = test.labels()
        history: Sequence[Epoch] = trained.history if trained is not None else ()
        if words is not None:
            words.save(folder)
        info.write(folder)
        labels.write_parquet(folder / TEST_LABELS)
        if history:
            rows = [epoch.row() for epoch in history]
            with open(folder / TRAINING_TABLE, "w", encoding="utf-8", newline="") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
        (folder / card.FILE).write_text(card.write(info, history, labels, self._folder.name), encoding="utf-8")


def _gate_metrics(judged: Mapping[str, _Judged]) -> dict[str, object]:
    """By split the figures without the gate, and the share of papers that the gate decides; empty without a gate."""
    if not all(split.cascade.gates for split in judged.values()):
        return {}
    return {
        **{f"{part}_without_gate": split.without_gate.metrics() for part, split in judged.items()},
        "decided_by_gate": {part: float((~split.deferred).mean()) for part, split in judged.items()},
    }


def _alone(
    papers: Papers, logits: Scores, names: Sequence[str], validation: Papers, validation_logits: Scores
) -> dict[str, dict[str, float | None]]:
    """The figures of one of the two alone, at its own threshold of the best F1 on validation."""
    figures = {}
    for at, name in enumerate(names):
        there, known = ~np.isnan(papers.truth[:, at]), ~np.isnan(validation.truth[:, at])
        threshold = best_threshold(validation.truth[known, at] > 0.5, validation_logits[known, at])
        truth, given = papers.truth[there, at] > 0.5, logits[there, at]
        figures[name] = Confusion.count(truth, given >= threshold).as_dict() | {
            "average_precision": average_precision(truth, given) if truth.any() else None
        }
    return figures


def _chosen(trained: Trained | None) -> dict[str, object]:
    if trained is None:
        return {}
    kept = trained.history[trained.kept].epoch if trained.history else 0.0
    return asdict(trained.chosen) | {"kept_pass": kept}


def _push(folder: Path, repo: str, watcher: Watcher) -> Pushed:
    watcher.say(f"The model is in {folder}; pushing it to {repo}")
    try:
        return push(folder, repo, quiet=True)
    except HubError as error:
        again = shlex.join(["arxivclf", "push", str(folder), repo])
        raise HubError(f"{error}; the model is in {folder}, and `{again}` pushes it again") from None


@dataclass(frozen=True)
class _Judged:
    """A split with the logits (papers, labels) of both models, and the quality of the labels that `cascade` gives.

    The logits of a model that there is not are zeros; `has_encoder` says whether there is an encoder.
    """

    source: str
    papers: Papers
    linear_logits: Scores
    encoder_logits: Scores
    has_encoder: bool
    cascade: Cascade
    thresholds: Mapping[str, float]

    @classmethod
    def of(cls, part: str, source: str, papers: Papers, joint: Joint) -> _Judged:
        zeros = np.zeros((len(papers), len(joint.thresholds)), np.float32)
        linear_logits, encoder_logits = (
            joint.alone[which][part] if which in joint.alone else zeros for which in ("linear", "encoder")
        )
        has_encoder = "encoder" in joint.alone
        return cls(source, papers, linear_logits, encoder_logits, has_encoder, joint.cascade, joint.thresholds)

    @cached_property
    def without_gate(self) -> _Judged:
        """The same papers with the encoder on all of them, as `arxivclf label --no-gate` scores them."""
        return replace(self, cascade=replace(self.cascade, gates=()))

    @cached_property
    def deferred(self) -> Flags:
        """Which papers the encoder decides."""
        if not self.has_encoder:
            return np.zeros(len(self.papers), bool)
        return self.cascade.deferred(self.linear_logits, self.papers.years)

    @cached_property
    def scores(self) -> Scores:
        return self.cascade.scores(self.linear_logits, self.encoder_logits, self.deferred, self.papers.years)

    @cached_property
    def report(self) -> Report:
        without_gate = self.without_gate.metrics() if self.cascade.gates else {}
        labels = []
        for at, (name, threshold) in enumerate(self.thresholds.items()):
            known = self._known(at)
            truth, scores = self.papers.truth[known, at] > 0.5, self.scores[known, at]
            label = compared(name, truth, scores >= threshold, scores)
            labels.append(replace(label, without_gate=without_gate.get(name, {})))
        return Report(self.source, tuple(labels))

    def metrics(self) -> dict[str, dict[str, float | None]]:
        """The figures of each label by name; the calibration error of the plain sigmoid beside that of the scores."""
        plain = [Calibration()] * len(self.thresholds)
        uncalibrated = Cascade(plain, plain, self.cascade.blends)
        before = uncalibrated.scores(self.linear_logits, self.encoder_logits, self.deferred)
        figures = {}
        for at, (name, threshold) in enumerate(self.thresholds.items()):
            known = self._known(at)
            truth, scores = self.papers.truth[known, at] > 0.5, self.scores[known, at]
            figures[name] = Confusion.count(truth, scores >= threshold).as_dict() | {
                "average_precision": average_precision(truth, scores) if truth.any() else None,
                "calibration_error": calibration_error(truth, scores),
                "calibration_error_before": calibration_error(truth, before[known, at]),
            }
        return figures

    def labels(self) -> pl.DataFrame:
        """The papers as `arxivclf label` writes them."""
        truths = self.papers.frame.select(self.papers.answers).get_columns()
        decided = pl.select(pl.when(pl.Series(self.deferred)).then(pl.lit(BY_ENCODER)).otherwise(pl.lit(BY_GATE)))
        hashes = hash_texts(self.papers.texts)
        return Layout(self.thresholds, {}).table(self.papers.frame, hashes, self.scores, truths, decided.to_series())

    def _known(self, label: int) -> Flags:
        """The papers whose truth is known."""
        known: Flags = ~np.isnan(self.papers.truth[:, label])
        return known


def _counts(dataset: Dataset, task: Task, seen_by_base: int) -> dict[str, object]:
    sides = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {
        **dataset.counts,
        **_years_and_archives(dataset.whole),
        # What the linear model learns from; an encoder may take fewer in each pass.
        "learnt_from": len(dataset.whole),
        "test_papers_seen_by_base": seen_by_base,
        **{
            side: {"papers": len(papers), "positive": dict(zip(task.names, papers.positives().values(), strict=True))}
            for side, papers in sides.items()
        },
    }


def _prevalence(validation: Papers) -> dict[str, float]:
    """The share of each label among the validation papers whose truth is known: those that calibration is fitted on."""
    shares = np.asarray(np.nanmean(validation.truth, axis=0, dtype=np.float64))
    return dict(zip(validation.names, shares.tolist(), strict=True))


def _years_and_archives(papers: Papers) -> dict[str, dict[str, int]]:
    """Training papers by year, in order, and by archive of the primary category, the largest first; unknown left out.

    Where some papers have categories, the others do not count: weak negatives do not extend the range of a model.
    """
    archive = papers.frame.select(primary_archive(pl.col("categories"))).to_series()
    archives = archive.drop_nulls().value_counts().sort(["count", "categories"], descending=[True, False])
    years = papers.years[archive.is_not_null().to_numpy()] if len(archives) else papers.years
    by_year = zip(*np.unique(years[years > 0], return_counts=True), strict=True)
    return {YEARS: {str(year): int(count) for year, count in by_year}, ARCHIVES: dict(archives.iter_rows())}


def _described(dataset: Dataset) -> str:
    train, validation, test = (len(side) for side in (dataset.train, dataset.validation, dataset.test))
    sides = f"{train:,} papers to train, {validation:,} to validate, {test:,} to test"
    apart = [
        f"{dataset.counts[name]:,} {words}"
        for name, words in (
            ("rejects", "rows rejected"),
            ("before_since", "too old"),
            ("of_unknown_year", "taken although nothing tells their year"),
            ("without_truth", "without truth"),
            ("repeats", "repeats of an id left out"),
            ("weak_negatives", "of the training papers are weak negatives"),
            ("excluded", "left out because they are in --exclude"),
            ("shared_with_validation", "left out of training because they are in the validation set"),
            ("ids_restored", "damaged ids told from their dates"),
        )
        # What was asked for is told even where it came to nothing.
        if dataset.counts.get(name) or (name in dataset.counts and name in ("excluded", "weak_negatives"))
    ]
    return sides + (f" ({'; '.join(apart)})" if apart else "")
