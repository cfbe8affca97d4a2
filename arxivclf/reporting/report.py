"""What a table of labels says of their quality: one confusion for each label, with how it came about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy.typing as npt
import polars as pl

from arxivclf.errors import DataError, UsageError
from arxivclf.reporting.disagreements import Disagreements, surest
from arxivclf.reporting.intervals import Interval, wilson
from arxivclf.reporting.metrics import Confusion
from arxivclf.reporting.overall import Overall, overall
from arxivclf.reporting.ranked import Ranked, f1_interval
from arxivclf.reporting.slices import Slices, sliced, source_of
from arxivclf.reporting.table import LabelsFile, columns_of, one_line
from arxivclf.reporting.thresholds import Thresholds, along, in_use


@dataclass(frozen=True)
class Figure:
    """One figure of a label with its 95 % interval, how that was found, and the same figure of the larger class.

    `larger_class` is what calling every paper what most are would have; nan where that has no such figure.
    """

    name: str
    interval: Interval
    method: Literal["Wilson", "bootstrap"]
    larger_class: float


@dataclass(frozen=True)
class LabelReport:
    """One label against its truth: all papers, those `labelled`, those of `unknown` truth, and the rest compared.

    `ranked` are the compared papers by score. Where asked for, `thresholds` say what labelling from a score on would
    give, `slices` what the labels of parts of the papers are worth, and `disagreements` which papers to look at.
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

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """Precision, recall, F1, accuracy, average precision, ROC area and expected calibration error."""
        counts, ranked = self.confusion, self.ranked
        guess = Confusion(0, 0, counts.support, counts.papers - counts.support)
        if counts.support > counts.papers / 2:
            guess = Confusion(counts.support, counts.papers - counts.support, 0, 0)
        hits, right = counts.true_positives, counts.true_positives + counts.true_negatives
        prevalence = counts.support / counts.papers if counts.support else math.nan
        area = 0.5 if 0 < counts.support < counts.papers else math.nan
        return (
            Figure("precision", wilson(hits, hits + counts.false_positives), "Wilson", guess.precision),
            Figure("recall", wilson(hits, counts.support), "Wilson", guess.recall),
            Figure("F1", f1_interval(counts), "bootstrap", guess.f1),
            Figure("accuracy", wilson(right, counts.papers), "Wilson", guess.accuracy),
            Figure("average precision", ranked.average_precision(), "bootstrap", prevalence),
            Figure("ROC area", ranked.roc_area(), "bootstrap", area),
            Figure("calibration error", ranked.calibration_error(), "bootstrap", math.nan),
        )


@dataclass(frozen=True)
class Report:
    """A report on a file of labels, in the order of its columns, and on all of them at once if there are several."""

    source: str
    labels: tuple[LabelReport, ...]
    overall: Overall | None = None


def report(
    path: str | Path,
    label: str | None = None,
    threshold: float | None = None,
    by: Sequence[str] = (),
    errors: int = 0,
    for_precision: Sequence[float] = (),
    for_recall: Sequence[float] = (),
) -> Report:
    """Compare labels with their truth: all labels of a file, or just `label`.

    `threshold` in [0, 1] makes labels of the scores anew. `by` parts the papers by year, primary, archive, or a column
    that was kept; `errors` asks for so many papers where label and truth differ, on either side; `for_precision` and
    `for_recall` for the thresholds that have them. Raises DataError where the file has no labels or no truth,
    UsageError where it has no such label or column.
    """
    if errors < 0:
        raise UsageError(f"errors must be at least 0, not {errors}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"threshold must be at least 0 and at most 1, not {threshold}")
    file = LabelsFile.open(path)
    names = [name for name in file.names if f"{name}_truth" in file.columns]
    if not names:
        raise DataError(f"{path}: no labels with scores and truth; its columns are {', '.join(file.columns)}")
    if label is not None and label not in names:
        raise UsageError(f"{path}: no label {label!r}; there are {', '.join(names)}")
    chosen = [label] if label else names
    beside = [source_of(one, file.others) for one in by]
    if errors:
        beside += ["id", *(column for column in ("categories", "title") if column in file.others)]
    beside = list(dict.fromkeys(beside))
    table = file.read([column for name in chosen for column in columns_of(name)] + beside)
    labels = []
    for name in chosen:
        known, papers, labelled = _compare(table, name, threshold, str(path), beside)
        truth, given, scores = (known.get_column(column).to_numpy() for column in ("truth", "given", "score"))
        one = compared(name, truth, given, scores)
        labels.append(
            replace(
                one,
                papers=papers,
                labelled=labelled,
                unknown=papers - len(known),
                thresholds=along(one.ranked, in_use(given, scores), for_precision, for_recall),
                slices=tuple(sliced(known, column) for column in by),
                disagreements=surest(known, errors) if errors else None,
            )
        )
    return Report(str(path), tuple(labels), _overall(table, chosen, threshold) if len(chosen) > 1 else None)


def compared(name: str, truth: npt.ArrayLike, given: npt.ArrayLike, scores: npt.ArrayLike) -> LabelReport:
    """A label whose truth is known: truth and labels, bool (papers,), and scores in [0, 1], (papers,)."""
    confusion = Confusion.count(truth, given)
    labelled = confusion.true_positives + confusion.false_positives
    return LabelReport(name, confusion.papers, labelled, 0, confusion, Ranked.of(truth, scores))


def _overall(table: pl.DataFrame, names: Sequence[str], threshold: float | None) -> Overall | None:
    """All labels at once, over the papers whose truth is known for each; None where there is no such paper."""
    columns = []
    for name in names:
        given = pl.col(name) if threshold is None else pl.col(f"{name}_score").cast(pl.Float32) >= threshold
        columns += [given.cast(pl.Boolean).alias(name), pl.col(f"{name}_truth").cast(pl.Boolean)]
    known = table.select(columns).drop_nulls()
    return overall(known) if len(known) else None


def _compare(
    table: pl.DataFrame, name: str, threshold: float | None, path: str, beside: Sequence[str]
) -> tuple[pl.DataFrame, int, int]:
    """The papers that can be compared, with `given`, `truth` and `score`, the count of all, and of those labelled."""
    score, truth = pl.col(f"{name}_score"), pl.col(f"{name}_truth")
    given = pl.col(name) if threshold is None else score >= threshold
    try:
        every = table.select(
            *beside, given=given.cast(pl.Boolean), truth=truth.cast(pl.Boolean), score=score.cast(pl.Float32)
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: the columns of {name!r} are no labels: {one_line(error)}") from None
    known = every.drop_nulls(["given", "truth", "score"])
    if not len(known):
        raise DataError(
            f"{path}: no truth for {name!r} in any of {len(table):,} papers (the dump had neither categories nor a"
            " label column that tells it); only with a truth can labels be judged"
        )
    wrong = known.filter(~pl.col("score").is_between(0, 1) | pl.col("score").is_nan())
    if len(wrong):
        raise DataError(f"{path}: {len(wrong):,} scores of {name!r} are no probabilities in [0, 1]")
    return known, len(every), int(every.get_column("given").sum())
