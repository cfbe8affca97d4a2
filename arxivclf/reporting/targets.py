"""Thresholds that reach a target precision or recall with confidence, not only on the papers at hand.

The lowest threshold whose *observed* precision reaches a target is chosen because it looks good, and falls short on
other papers more often than not. Here a threshold counts if its lower confidence bound reaches the target (exact
binomial bound, one-sided, 95 %; Clopper and Pearson 1934). Thresholds are tested in a fixed order up to the first
failure, so that the choice among them costs no confidence (fixed-sequence testing; Angelopoulos et al. 2021, "Learn
then Test"). The confidence is that of each target on its own.

Precision: the order is from high thresholds to low ones. The threshold at place k is the score of the paper of rank
n(k), where n(0) is the fewest papers that can prove the target, all of them being positive, and n(k + 1) is 5 % more
than n(k). Ranks depend on the scores and not on the truth, so the order is fixed in advance. If precision falls with
the threshold, a false result needs the first tested threshold that falls short to pass its test; its true positives
are at most binomial with the target as rate, so this happens in at most 5 % of samples.

Recall: it falls as the threshold rises, and so does its bound over a fixed number of positive papers. Testing every
score from the lowest upwards is therefore the same as taking the highest threshold whose bound reaches the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arxivclf.reporting.intervals import LEVEL, lower_bounds
from arxivclf.reporting.ranked import Ranked

# Each tested threshold labels so many times the papers of the one before. A finer sequence comes closer to the lowest
# threshold that could be proven, but has more occasions to fail.
_STEP = 1.05
# More papers than anybody will label; the search for a number that would suffice ends here.
_MOST = 10**9


@dataclass(frozen=True)
class Target:
    """A wanted precision or recall (`figure`) in (0, 1], and the threshold whose lower bound reaches it.

    `observed` is the figure on the papers at hand and `lower_bound` its lower 95 % confidence bound, at `threshold`, or
    where no threshold qualifies (None) at the one that came closest (nan without any). `papers` is what the figure is a
    share of there: labelled papers for precision, positive papers for recall. `needed` is how many would be needed, as
    far as can be told: None if a threshold qualifies, or if no number of papers would do.
    """

    figure: str
    target: float
    threshold: float | None
    observed: float
    lower_bound: float
    papers: int
    needed: int | None

    @property
    def name(self) -> str:
        return f"{self.figure} {self.target:g}"

    def describe(self) -> str:
        """What was found, in words."""
        if self.threshold is not None:
            which = "lowest" if self.figure == "precision" else "highest"
            return (
                f"{self.name}: the {which} threshold whose {self.figure} is at least {self.target:g} with 95 %"
                f" confidence; observed {self.observed:.4f}, lower bound {self.lower_bound:.4f}."
            )
        kind = "labelled" if self.figure == "precision" else "positive"
        told = f"No threshold has a {self.figure} of at least {self.target:g} with 95 % confidence: "
        if self.target == 1:
            return f"{told}no number of papers can prove a {self.figure} of 1."
        fewest = fewest_papers(self.target)
        if math.isnan(self.observed):
            return f"{told}{fewest:,} {kind} papers with ground truth are needed at least, here are {self.papers:,}."
        told += f"at best {self.observed:.4f} was observed, of {self.papers:,} {kind} papers (lower bound"
        told += f" {self.lower_bound:.4f})"
        if self.needed is None:
            return f"{told}; more papers would not change that. {fewest:,} {kind} papers are needed at least."
        return f"{told}; at that {self.figure}, {self.needed:,} {kind} papers with ground truth would be needed."


def fewest_papers(target: float) -> int:
    """The fewest papers whose lower bound reaches a target in (0, 1) when all of them are right."""
    return max(1, math.ceil(math.log(1 - LEVEL) / math.log(target)))


def for_precision(ranked: Ranked, target: float) -> Target:
    """The lowest threshold that is proven to have this precision; see above for the order of the tests."""
    counts = ranked.confusions()
    hits, labelled = counts[:, 0], counts.sum(axis=1)
    total = ranked.papers
    fewest = fewest_papers(target) if target < 1 else None
    if fewest is None or fewest > total:
        return Target("precision", target, None, math.nan, math.nan, total, fewest)
    # Papers of one score are labelled together: where the rank is within a tie, all of the tie is.
    tested = np.unique(np.searchsorted(labelled, _ranks(fewest, total)))
    bounds = lower_bounds(hits[tested], labelled[tested])
    passed = int(np.logical_and.accumulate(bounds >= target).sum())
    at = passed - 1 if passed else int(np.argmax(hits[tested] / labelled[tested]))
    place = tested[at]
    observed, papers = float(hits[place] / labelled[place]), int(labelled[place])
    if passed:
        return Target("precision", target, float(ranked.scores[place]), observed, float(bounds[at]), papers, None)
    return Target("precision", target, None, observed, float(bounds[at]), papers, _needed(observed, target, papers))


def for_recall(ranked: Ranked, target: float) -> Target:
    """The highest threshold that is proven to have this recall."""
    hits, positive = np.cumsum(ranked.positives), int(ranked.positives.sum())
    bounds = lower_bounds(hits, np.full(len(hits), positive))
    proven = np.flatnonzero(bounds >= target)
    if not len(proven):
        needed = fewest_papers(target) if target < 1 else None
        return Target("recall", target, None, math.nan, math.nan, positive, needed)
    place = proven[0]
    observed = float(hits[place] / positive)
    return Target("recall", target, float(ranked.scores[place]), observed, float(bounds[place]), positive, None)


FIGURES: dict[str, Callable[[Ranked, float], Target]] = {"precision": for_precision, "recall": for_recall}


def _ranks(fewest: int, total: int) -> npt.NDArray[np.int64]:
    ranks = [fewest]
    while ranks[-1] < total:
        ranks.append(min(total, max(ranks[-1] + 1, int(ranks[-1] * _STEP))))
    return np.array(ranks)


def _needed(share: float, target: float, papers: int) -> int | None:
    """How many papers, so many of them right, have a lower bound that reaches the target; None where none have."""
    if share <= target:
        return None
    low, high = papers, papers
    while high < _MOST and not _reaches(share, high, target):
        low, high = high, 2 * high
    if high >= _MOST:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _reaches(share, middle, target) else (middle, high)
    return high


def _reaches(share: float, papers: int, target: float) -> bool:
    return bool(lower_bounds(np.array([math.floor(share * papers)]), np.array([papers]))[0] >= target)
