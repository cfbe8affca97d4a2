"""Papers ranked by their scores: what every threshold would give, and the figures that need none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from arxivclf.reporting.intervals import DRAWS, Interval, draws_of, percentiles
from arxivclf.reporting.metrics import (
    CALIBRATION_BINS,
    Confusion,
    Counts,
    average_precision_of_counts,
    calibration_bins,
    calibration_error,
)

# Of more distinct scores neighbours are gathered for a bootstrap, whose own spread is far wider than what that changes.
_KINDS = 2_048


@dataclass(frozen=True)
class Ranked:
    """The distinct scores, falling, float64 (scores,) in [0, 1], with the papers of each: int64 counts by truth.

    `error` is the expected calibration error of the papers.
    """

    scores: npt.NDArray[np.float64]
    positives: npt.NDArray[np.int64]
    negatives: npt.NDArray[np.int64]
    error: float

    @classmethod
    def of(cls, truth: npt.ArrayLike, scores: npt.ArrayLike) -> Ranked:
        """From truth, bool (papers,), and scores in [0, 1], (papers,), neither with nulls."""
        true, given = np.asarray(truth, dtype=bool), np.asarray(scores)
        distinct, place = np.unique(given, return_inverse=True)
        positives = np.bincount(place[true], minlength=len(distinct))
        negatives = np.bincount(place[~true], minlength=len(distinct))
        falling = slice(None, None, -1)
        return cls(
            distinct[falling].astype(np.float64), positives[falling], negatives[falling], calibration_error(true, given)
        )

    @property
    def papers(self) -> int:
        return int(self.positives.sum() + self.negatives.sum())

    def confusions(self) -> npt.NDArray[np.int64]:
        """What each score would give as threshold, int64 (scores, 2): true positives and false positives."""
        return np.stack([np.cumsum(self.positives), np.cumsum(self.negatives)], axis=1)

    def at(self, threshold: float) -> Confusion:
        """What labelling from `threshold` on gives."""
        from_there = self.scores >= np.float32(threshold)
        hits, misses = int(self.positives[from_there].sum()), int(self.negatives[from_there].sum())
        positive, negative = int(self.positives.sum()), int(self.negatives.sum())
        return Confusion(hits, misses, positive - hits, negative - misses)

    def average_precision(self) -> Interval:
        """The precision at each score, weighted by the recall that it adds; nan where nothing is positive."""
        return self._interval(0, float(average_precision_of_counts(self._counts)[0]))

    def roc_area(self) -> Interval:
        """The chance that a positive paper scores above a negative one, ties half; nan where either is missing."""
        return self._interval(1, float(_roc_area(self._counts)[0]))

    def calibration_error(self) -> Interval:
        """The expected calibration error in 15 equally wide bins (Naeini et al. 2015), without bounds.

        Chance only adds to it, and each draw of a bootstrap adds as much again: its interval would not hold the error.
        """
        return Interval(self.error, math.nan, math.nan)

    @cached_property
    def error_by_chance(self) -> float:
        """The mean calibration error of calibrated scores: truths of the same papers, drawn as often as scores say."""
        few = self._gathered()
        papers = few.positives + few.negatives
        in_bin = calibration_bins(few.scores)[:, None] == np.arange(CALIBRATION_BINS)
        # A mean of many ones can be above 1 by rounding.
        drawn = np.random.default_rng(0).binomial(papers, np.minimum(few.scores, 1), (DRAWS, len(papers)))
        return float(np.abs((papers * few.scores - drawn) @ in_bin).sum(axis=1).mean() / self.papers)

    @property
    def _counts(self) -> Counts:
        return np.append(self.positives, self.negatives)[None].astype(np.float64)

    def _interval(self, figure: int, value: float) -> Interval:
        return percentiles(value, self._draws[:, figure])

    @cached_property
    def _draws(self) -> Counts:
        """Average precision and ROC area of each draw of papers, float64 (draws, 2)."""
        few = self._gathered()

        def figures(counts: Counts) -> Counts:
            return np.stack([average_precision_of_counts(counts), _roc_area(counts)], axis=1)

        return draws_of(np.append(few.positives, few.negatives), figures)

    def _gathered(self) -> Ranked:
        """Neighbouring scores as one, at their mean, so that few are left; none across a bin of the calibration."""
        if len(self.scores) <= _KINDS:
            return self
        papers = self.positives + self.negatives
        # Half of them have as many papers each, the others as many positive ones, or those of a rare label were in few.
        most = (_KINDS - CALIBRATION_BINS) // 2
        rank = (np.cumsum(papers) - 1) * most // self.papers
        hits = np.cumsum(self.positives) * most // max(1, int(self.positives.sum()))
        starts = [np.diff(each, prepend=-1) != 0 for each in (rank, hits, calibration_bins(self.scores))]
        first = np.flatnonzero(np.any(starts, axis=0))
        together = np.add.reduceat(papers, first)
        return Ranked(
            np.add.reduceat(papers * self.scores, first) / together,
            np.add.reduceat(self.positives, first),
            np.add.reduceat(self.negatives, first),
            self.error,
        )


def _roc_area(counts: Counts) -> Counts:
    positives, negatives = np.split(counts, 2, axis=1)
    hits = np.cumsum(positives, axis=1)
    above = hits - positives / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((negatives * above).sum(axis=1) / (hits[:, -1] * negatives.sum(axis=1)))
