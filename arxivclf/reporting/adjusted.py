"""Adjusted shares: how many papers of an unlabelled evaluation have a label in truth, given the model's error rates.

The share that a model labels is not the share that has the label: it misses some papers and labels others wrongly. With
the true and false positive rates (TPR, FPR) of the model on its own test split, the labelled share q gives the estimate
(q - FPR) / (TPR - FPR), truncated to [0, 1] (Rogan and Gladen 1978). It assumes that both rates hold for the papers at
hand, whose prevalence may be any other (label shift).

The interval holds the sampling error of all three: q, TPR and FPR are drawn from their posteriors, binomial with the
prior of Jeffreys, and the estimate is taken of each draw.

The alternative, EM on calibrated scores (Saerens et al. 2002), makes the same assumption for the whole distribution of
scores and has a smaller variance. But it needs scores that are calibrated everywhere, also where a gate decides, and
its interval leaves out the uncertainty of the calibration. The four counts of a test split are at hand for every model,
and account for the whole sampling error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from arxivclf.reporting.intervals import LEVEL, Interval, percentiles
from arxivclf.reporting.metrics import Confusion, Counts

_DRAWS = 4_000


@dataclass(frozen=True)
class ErrorRates:
    """The error rates of a label, from the model's confusion on papers with ground truth, its test split."""

    confusion: Confusion

    def __post_init__(self) -> None:
        if min(self.confusion.counts().values()) < 0:
            raise ValueError("counts of papers are not negative")

    @property
    def true_positive_rate(self) -> float:
        return self.confusion.recall

    @property
    def false_positive_rate(self) -> float:
        return self.confusion.false_positives / self.confusion.negatives

    @property
    def usable(self) -> bool:
        """Whether both rates are known, and labels tell anything: they are given to more of the positive papers."""
        counts = self.confusion
        return counts.support > 0 < counts.negatives and self.true_positive_rate > self.false_positive_rate

    def adjusted(self, labelled: int, papers: int) -> Interval:
        """The share of papers that have the label in truth, with its 95 % interval, where so many are labelled.

        Only for rates that are `usable`, and at least one paper.
        """
        return _adjusted(self, labelled, papers)

    def _estimate(self, labelled: int, papers: int) -> Interval:
        gain = self.true_positive_rate - self.false_positive_rate
        value = float(np.clip((labelled / papers - self.false_positive_rate) / gain, 0, 1))
        random = np.random.default_rng(1)
        shares = random.beta(labelled + 0.5, papers - labelled + 0.5, _DRAWS)
        false, gains = self._draws
        if np.quantile(gains, (1 - LEVEL) / 2) <= 0:
            # So few papers that the labels may tell nothing.
            return Interval(value, 0.0, 1.0)
        return percentiles(value, np.clip((shares - false) / gains, 0, 1))

    @cached_property
    def _draws(self) -> tuple[Counts, Counts]:
        """False positive rates, and by how much the true positive rates are above them, of each draw."""
        counts, random = self.confusion, np.random.default_rng(0)
        true = random.beta(counts.true_positives + 0.5, counts.false_negatives + 0.5, _DRAWS)
        false = random.beta(counts.false_positives + 0.5, counts.true_negatives + 0.5, _DRAWS)
        return false, true - false


@lru_cache(maxsize=1 << 16)
def _adjusted(rates: ErrorRates, labelled: int, papers: int) -> Interval:
    # Many of the slices by a column with few papers for each value have the same counts.
    return rates._estimate(labelled, papers)
