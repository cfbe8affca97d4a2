"""What a table of labels says of their quality: one confusion for each label, with how it came about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy.typing as npt
import polars as pl

from arxivclf.corpus.columns import Naming
from arxivclf.corpus.seen import Seen
from arxivclf.errors import DataError, UsageError
from arxivclf.reporting.disagreements import Disagreements, surest
from arxivclf.reporting.intervals import Interval, f1_interval, wilson
from arxivclf.reporting.metrics import Confusion
from arxivclf.reporting.overall import Overall, overall
from arxivclf.reporting.ranked import Ranked
from arxivclf.reporting.slices import Slices, WhereErrors, sliced, source_of, where_errors
from arxivclf.reporting.table import (
    ASSUMED_THRESHOLD,
    KEY,
    LabelsFile,
    LeftOut,
    keyed,
    labels_of,
    scored_from,
    without_seen,
)
from arxivclf.reporting.thresholds import Thresholds, along, in_use
from arxivclf.reporting.unjudged import Unjudged, unjudged

if TYPE_CHECKING:
    from arxivclf.reporting.truth import Match


@dataclass(frozen=True)
class Figure:
    """One figure of a label with its 95 % interval, how that was found (None: it has none), and that of baselines.

    `larger_class` is what calling every paper what most are would have, `gate_alone` what the model's linear model has
    without the encoder, `without_gate` what the model has when its encoder sees every paper, and `by_chance`, only for
    the calibration error, the mean of what calibrated scores would have on so many papers; nan where a baseline has no
    such figure, or is not known.
    """

    name: str
    interval: Interval
    method: Literal["Wilson", "bootstrap"] | None
    larger_class: float
    gate_alone: float = math.nan
    without_gate: float = math.nan
    by_chance: float = math.nan


@dataclass(frozen=True)
class LabelReport:
    """One label against its truth: all papers, those `labelled`, those without truth or score, and the rest compared.

    `ranked` are the compared papers by score, `gate_alone` figures of the linear model alone, `without_gate` those of
    the model without its gate, both by name, and `where` says which categories have most of the errors, if categories
    are known; `assumed` that the file had scores alone, so that labels are those of 0.5. Where asked for, `thresholds`
    say what labelling from a score on would give, `slices` what the labels of parts of the papers are worth, and
    `disagreements` which papers to look at.
    """

    name: str
    papers: int
    labelled: int
    unknown: int
    confusion: Confusion
    ranked: Ranked
    thresholds: Thresholds | None = None
    slices: tuple[Slices, ...] = ()
    disagreements: Disagreements | None = None
    where: WhereErrors | None = None
    gate_alone: Mapping[str, float | None] = field(default_factory=dict)
    without_gate: Mapping[str, float | None] = field(default_factory=dict)
    assumed: bool = False

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """Precision, recall, F1, accuracy, average precision, ROC area and expected calibration error."""
        counts, ranked = self.confusion, self.ranked
        guess = Confusion(0, 0, counts.support, counts.negatives)
        if counts.support > counts.papers / 2:
            guess = Confusion(counts.support, counts.negatives, 0, 0)
        hits, right = counts.true_positives, counts.true_positives + counts.true_negatives
        prevalence = counts.support / counts.papers if counts.support else math.nan
        area = 0.5 if 0 < counts.support < counts.papers else math.nan
        figures = (
            Figure("precision", wilson(hits, hits + counts.false_positives), "Wilson", guess.precision),
            Figure("recall", wilson(hits, counts.support), "Wilson", guess.recall),
            Figure("F1", f1_interval(counts), "Wilson", guess.f1),
            Figure("accuracy", wilson(right, counts.papers), "Wilson", guess.accuracy),
            Figure("average precision", ranked.average_precision(), "bootstrap", prevalence),
            Figure("ROC area", ranked.roc_area(), "bootstrap", area),
            Figure("calibration error", ranked.calibration_error(), None, math.nan, by_chance=ranked.error_by_chance),
        )
        return tuple(map(self._with_baselines, figures))

    def _with_baselines(self, figure: Figure) -> Figure:
        key = figure.name.lower().replace(" ", "_")
        values = (of.get(key) for of in (self.gate_alone, self.without_gate))
        gate_alone, without_gate = (math.nan if value is None else value for value in values)
        return replace(figure, gate_alone=gate_alone, without_gate=without_gate)


@dataclass(frozen=True)
class Report:
    """A report on a file of labels, in the order of its columns, and on all of them at once if there are several.

    `unjudged` are the labels without a truth, `match` says how a file of truth went together with the labels. `seen`
    are counts of the papers that models met in training (`corpus.seen`); where those were to be left out, `left_out`
    says how many were, and of which models.
    """

    source: str
    labels: tuple[LabelReport, ...]
    overall: Overall | None = None
    unjudged: tuple[Unjudged, ...] = ()
    match: Match | None = None
    seen: Mapping[str, int] = field(default_factory=dict)
    left_out: LeftOut | None = None


def report(
    path: str | Path,
    label: str | None = None,
    threshold: float | None = None,
    by: str | Sequence[str] = (),
    errors: int = 0,
    for_precision: float | Sequence[float] = (),
    for_recall: float | Sequence[float] = (),
    truth: str | None = None,
    naming: Naming | None = None,
    unseen_by: Seen | None = None,
) -> Report:
    """Compare labels with their truth: all labels of a file, or of a model folder's test split, or just `label`.

    `threshold` in [0, 1] makes labels of the scores anew. `by` parts the papers by year, primary, archive, or a column
    that was kept; `errors` asks for so many papers where label and truth differ, on either side; `for_precision` and
    `for_recall` for the thresholds that have them with 95 % confidence. `truth` is a dump or a file of labels that
    tells the truth in the place of the labels' own; `naming` is what that dump calls its columns. The papers that
    `unseen_by` saw (see `model.hub.seen_by`) are left out. Raises DataError where the file has no labels, where scores
    are no probabilities, or where no paper of `truth` is labelled; UsageError where there is no such label or column.
    """
    by = (by,) if isinstance(by, str) else by
    for_precision, for_recall = ((one,) if isinstance(one, float | int) else one for one in (for_precision, for_recall))
    if errors < 0:
        raise UsageError(f"errors must be at least 0, not {errors}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"threshold must be at least 0 and at most 1, not {threshold}")
    file = LabelsFile.open(path)
    if not file.names:
        raise DataError(f"{path}: no labels with scores; its columns are {', '.join(file.columns)}")
    if label is not None and label not in file.names:
        raise UsageError(f"{path}: no label {label!r}; there are {', '.join(file.names)}")
    names = [label] if label else list(file.names)
    beside = [source_of(one, file.others) for one in by]
    beside += [column for column in ("categories",) if column in file.others]
    if errors or truth is not None or unseen_by is not None:
        beside += ["id", *(column for column in ("created", "title") if column in file.others)]
    beside = list(dict.fromkeys(beside))
    table = file.read(file.of_labels(names) + beside)
    match, left_out = None, None
    if unseen_by is not None:
        table, left_out = without_seen(table, unseen_by, str(path))
    if truth is not None:
        from arxivclf.reporting.truth import with_truth

        table, match = with_truth(table, names, truth, naming or Naming(), file.made.categories)
        beside = list(dict.fromkeys([*beside, *({"title"} & set(table.columns))]))
    if errors:
        table = keyed(table)
        beside.append(KEY)
    # These figures are of the whole test split, at the thresholds of the model.
    as_tested = truth is None and unseen_by is None and threshold is None
    alone, without_gate = (file.made.alone, file.made.without_gate) if as_tested else ({}, {})
    thresholds = file.made.thresholds
    if threshold is not None:
        thresholds = dict.fromkeys(names, threshold)
    judged, without = [], []
    for name in names:
        papers = labels_of(table, name, str(path), beside, threshold)
        known = papers.drop_nulls("truth")
        if not len(known):
            # The error rates are those of the threshold that the file was labelled with, and of no other.
            without.append(unjudged(name, papers, by, file.made.rates.get(name) if threshold is None else None))
            continue
        assumed = name in file.assumed and threshold is None
        one = _judged(name, known, ASSUMED_THRESHOLD if assumed else thresholds.get(name), for_precision, for_recall)
        judged.append(
            replace(
                one,
                papers=len(table),
                labelled=int(papers.get_column("given").sum()),
                unknown=len(table) - len(known),
                slices=tuple(sliced(known, column) for column in by),
                disagreements=surest(known, errors) if errors else None,
                where=where_errors(known) if "categories" in beside else None,
                gate_alone=alone.get(name, {}),
                without_gate=without_gate.get(name, {}),
                assumed=assumed,
            )
        )
    names = [one.name for one in judged]
    together = _overall(table, names, threshold) if len(names) > 1 else None
    seen = {} if unseen_by is not None or not judged else file.made.seen
    return Report(str(path), tuple(judged), together, tuple(without), match, seen, left_out)


def _judged(
    name: str,
    known: pl.DataFrame,
    threshold: float | None,
    for_precision: Sequence[float],
    for_recall: Sequence[float],
) -> LabelReport:
    """A label of papers whose truth is known, with what thresholds give; `threshold` made the labels, if known."""
    truths, given, scores = (known.get_column(column).to_numpy() for column in ("truth", "given", "score"))
    one = compared(name, truths, given, scores)
    used = in_use(given, scores, threshold)
    return replace(one, thresholds=along(one.ranked, used, for_precision, for_recall))


def compared(name: str, truth: npt.ArrayLike, given: npt.ArrayLike, scores: npt.ArrayLike) -> LabelReport:
    """A label whose truth is known: truth and labels, bool (papers,), and scores in [0, 1], (papers,)."""
    confusion = Confusion.count(truth, given)
    labelled = confusion.true_positives + confusion.false_positives
    return LabelReport(name, confusion.papers, labelled, 0, confusion, Ranked.of(truth, scores))


def _overall(table: pl.DataFrame, names: Sequence[str], threshold: float | None) -> Overall | None:
    """All labels at once, over the papers with truth, label and score of each; None where there is no such paper."""
    columns = []
    for name in names:
        score = pl.col(f"{name}_score")
        given = pl.when(score.is_not_null()).then(pl.col(name) if threshold is None else scored_from(score, threshold))
        columns += [given.alias(name), pl.col(f"{name}_truth")]
    known = table.select(columns).drop_nulls()
    return overall(known) if len(known) else None
