"""What any engine does: say what its models are, then label the chunks that it is given, in any order."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import polars as pl

from arxivclf.config import LabelSettings
from arxivclf.corpus.rejects import Reject
from arxivclf.corpus.snapshot import Snapshot
from arxivclf.errors import ModelError, UsageError
from arxivclf.labelling.census import Census
from arxivclf.labelling.classifier import Classifier
from arxivclf.labelling.parts import Part
from arxivclf.labelling.prevalence import record, targets
from arxivclf.labelling.reuse import Reuse
from arxivclf.model.folder import ModelInfo, previous
from arxivclf.model.gate import Gate
from arxivclf.model.hub import BUNDLED, find_folder
from arxivclf.model.labels import Layout
from arxivclf.model.training_range import TrainingRange
from arxivclf.progress import Watcher

OWN_MODEL = "model"

Finished = tuple[Part, pl.DataFrame, list[Reject]]
"""A labelled chunk: a part without hashes, its labels, its rejects."""


@dataclass(frozen=True)
class Facts:
    """What decides labels, of models that are loaded: their fingerprints, and that of what is reused, if anything.

    `thresholds` are those of all labels in their order, `categories` what makes each true, `gates` those of labels that
    have one, `told` says in words what labels where. `evaluation` are the counts of each label's confusion on the
    model's test split, empty where these labels come from other thresholds or shifted scores; `prevalence` are
    the shares that scores are shifted to, as `labelling.prevalence.record` has them.
    """

    fingerprints: Sequence[Mapping[str, str]]
    reuse: str | None
    thresholds: Mapping[str, float]
    categories: Mapping[str, Sequence[str]]
    gates: Mapping[str, Gate]
    told: str
    evaluation: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    prevalence: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """A dump that is counted and to be labelled: its files with their `fingerprints`, and the columns of the labels."""

    snapshot: Snapshot
    fingerprints: Sequence[str]
    layout: Layout
    census: Census


class Engine(Protocol):
    """Where a dump is labelled."""

    @property
    def facts(self) -> Facts: ...

    def finished(
        self, work: Work, todo: frozenset[int], watcher: Watcher, wanted: threading.Event
    ) -> Generator[Finished, None, None]:
        """The chunks `todo`, labelled, in any order; `watcher` is told of papers, KeyboardInterrupt once `wanted`."""

    def told(self) -> str:
        """What there is to tell when all is done."""


def facts_of(settings: LabelSettings, classifier: Classifier) -> Facts:
    """The facts of models on this machine."""
    thresholds = classifier.thresholds
    if settings.threshold is not None:
        thresholds = dict.fromkeys(thresholds, settings.threshold)
    return Facts(
        [model.fingerprint for model in classifier.models],
        classifier.reuse.fingerprint if classifier.reuse is not None else None,
        thresholds,
        {label.name: list(label.categories) for model in classifier.models for label in model.task.labels},
        classifier.gates,
        _labelling_with(settings, classifier),
        # The counts are those of the model's own labels.
        classifier.evaluation if settings.threshold is None and not settings.prevalence else {},
        record(classifier),
    )


def load(settings: LabelSettings, snapshot: Snapshot | None = None) -> Classifier:
    """The models of a run, and what they reuse; `snapshot` is the dump that `--prevalence auto` estimates shares from.

    Raises as `Classifier.load`, `labelling.prevalence.targets` and `Reuse.open` do.
    """
    classifier = Classifier.load(
        *(settings.model or (default_model(),)),
        device=settings.device,
        task=settings.task,
        # The bound of the gate is proven only for the thresholds and the scores of the model.
        gate=settings.gate and settings.threshold is None and not settings.prevalence,
    )
    if settings.prevalence:
        classifier = classifier.at_prevalence(targets(settings.prevalence, classifier, snapshot))
    if settings.reuse is None:
        return classifier
    if len({model.cleaning for model in classifier.models}) > 1:
        # The hash is that of the first model's text; another one's may have changed where it did not.
        raise UsageError("--reuse: the models clean their texts in different ways; label with one at a time")
    models = [model.fingerprint for model in classifier.models]
    return replace(classifier, reuse=Reuse.open(settings.reuse, list(classifier.thresholds), models))


def default_model() -> str:
    """The model of who names none: ./model, and the bundled one where that is absent. Raises ModelError where a
    training was cut off between two renames, so that ./model is absent although there is one."""
    if Path(OWN_MODEL).exists():
        return OWN_MODEL
    if (before := previous(Path(OWN_MODEL))).exists():
        raise ModelError(
            f"no ./{OWN_MODEL}, but {before}: a training was cut off as it put the new model in its place; rename it to"
            f" {OWN_MODEL}, or name a model with --model"
        )
    return BUNDLED


def _labelling_with(settings: LabelSettings, classifier: Classifier) -> str:
    names = ", ".join(model.name for model in classifier.models)
    told = f"Labelling with {names} on {classifier.models[0].reason}"
    if not settings.model and names == BUNDLED:
        told = f"No ./model here, so labelling with the bundled model: {_of_bundled()}"
    reasons = [
        *(["--threshold"] if settings.threshold is not None else []),
        *(["--prevalence"] if settings.prevalence else []),
    ]
    if settings.gate and reasons and any(model.encoder for model in classifier.models):
        told += f"; without a gate, which {' and '.join(reasons)} rules out"
    if not any(model.encoder for model in classifier.models):
        idle = [*(["--device"] if settings.device != "auto" else []), *([] if settings.gate else ["--no-gate"])]
        told += f"; without an encoder nothing comes of {' and '.join(idle)}" if idle else ""
    return told


def _of_bundled() -> str:
    info = ModelInfo.read(find_folder(BUNDLED))
    trained_on = TrainingRange.of(info.papers)
    years = f" of {trained_on.first_year}-{trained_on.last_year}" if trained_on is not None else ""
    label = info.task.names[0]
    validation, test = (info.metrics[part][label]["f1"] for part in ("validation", "test"))
    return (
        f"{', '.join(info.task.names)}, without an encoder, trained on a sample of arXiv's papers{years},"
        f" F1 {validation:.3f} for {label} on its validation sets, {test:.3f} on its test papers"
    )
