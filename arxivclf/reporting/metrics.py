"""Figures that compare labels with the truth. Formulas are those of scikit-learn, against which they are tested."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

CALIBRATION_BINS = 15

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Confusion:
    """The counts of papers by truth and label, and the figures that follow; a share of nothing is nan.

    Precision is the share of true positives among the labelled, recall among the positive, F1 their harmonic mean.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @classmethod
    def count(cls, truth: npt.ArrayLike, labels: npt.ArrayLike) -> Confusion:
        """From two boolean arrays (papers,), neither with nulls."""
        true, given = np.asarray(truth, dtype=bool), np.asarray(labels, dtype=bool)
        both = int((true & given).sum())
        return cls(both, int(given.sum()) - both, int(true.sum()) - both, int((~true & ~given).sum()))

    @property
    def support(self) -> int:
        """The count of papers that are positive in truth."""
        return self.true_positives + self.false_negatives

    @property
    def negatives(self) -> int:
        """The count of papers that are not."""
        return self.false_positives + self.true_negatives

    @property
    def papers(self) -> int:
        return self.support + self.negatives

    @property
    def accuracy(self) -> float:
        return _share(self.true_positives + self.true_negatives, self.papers)

    @property
    def precision(self) -> float:
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        return _share(self.true_positives, self.support)

    @property
    def f1(self) -> float:
        return _share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)

    def counts(self) -> dict[str, int]:
        """The four counts by name."""
        return asdict(self)

    def as_dict(self) -> dict[str, float | None]:
        """Counts and figures by name; None where there is nothing to take a share of."""
        figures: dict[str, float] = {
            **self.counts(),
            "support": self.support,
            "accuracy": self.accuracy,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }
        return {name: None if math.isnan(value) else value for name, value in figures.items()}


def figure_of_counts(name: str, hits: Counts, wrong: Counts, missed: Counts, rest: Counts | float = 0.0) -> Counts:
    """Precision, recall, F1 or accuracy of arrays of counts, as `Confusion` has them; nan for a share of nothing.

    The counts are true positives, false positives, false negatives and, for the accuracy, true negatives.
    """
    part, whole = {
        "precision": (hits, hits + wrong),
        "recall": (hits, hits + missed),
        "F1": (2 * hits, 2 * hits + wrong + missed),
        "accuracy": (hits + rest, hits + wrong + missed + rest),
    }[name]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part / whole)


def best_threshold(truth: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The score from which on labelling gives the highest F1; of equals the highest, 0.5 where nothing is positive.

    It lies half-way between the last score that is labelled and the next below, so that rounding moves no paper, and is
    a float32 as scores are.
    """
    true, given = np.asarray(truth, dtype=bool), np.asarray(scores, dtype=np.float64)
    if not true.any():
        return 0.5
    order = np.argsort(-given, kind="stable")
    ranked, hits = given[order], np.cumsum(true[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + true.sum())
    # Papers of one score are labelled together: a cut within them does not exist.
    last_of_score = np.append(ranked[:-1] != ranked[1:], True)
    best = int(np.argmax(np.where(last_of_score, f1, -1.0)))
    lowest = np.float32(ranked[best])
    below = np.float32(ranked[best + 1] if best + 1 < len(ranked) else 0.0)
    middle = (lowest + below) / 2
    return float(middle if below < middle else lowest)


def average_precision(truth: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The precision at each score, weighted by the recall that it adds; nan where nothing is positive."""
    true, given = np.asarray(truth, dtype=bool), np.asarray(scores, dtype=np.float64)
    if not true.any():
        return math.nan
    # Papers of one score are ranked together.
    distinct, place = np.unique(-given, return_inverse=True)
    positives, negatives = (np.bincount(place[these], minlength=len(distinct)) for these in (true, ~true))
    return float(average_precision_of_counts(np.append(positives, negatives)[None].astype(np.float64))[0])


def average_precision_of_counts(counts: Counts) -> Counts:
    """The same of rows of counts, (rows, 2 * scores): the positive papers of each score, falling, then the others."""
    positives, negatives = np.split(counts, 2, axis=1)
    hits = np.cumsum(positives, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(hits / (hits + np.cumsum(negatives, axis=1)))
        return np.asarray((positives * precision).sum(axis=1) / hits[:, -1])


def calibration_error(truth: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The expected calibration error (Naeini et al. 2015) of scores in [0, 1] as chances of being positive.

    Of each of 15 equally wide bins, how far the mean score is from the share of positives, weighted by its papers.
    """
    true, given = np.asarray(truth, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not len(true):
        return math.nan
    place = calibration_bins(given)
    off = np.abs(np.bincount(place, given, CALIBRATION_BINS) - np.bincount(place, true, CALIBRATION_BINS))
    return float(off.sum() / len(true))


def calibration_bins(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The bin of the calibration error that each score is in."""
    return np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
