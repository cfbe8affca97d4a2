"""How sure a figure is: 95 % intervals, and tests of whether two figures differ.

Shares of papers have Wilson's interval, and so has F1, which follows from one; figures that do not (average precision,
areas, means over labels) have that of a bootstrap, drawn from counts: to draw n papers with replacement is to draw the
counts of their kinds from a multinomial, so that a million papers cost what a thousand do. The difference of shares
within strata has that of a stratified bootstrap, which draws rates and so holds for strata of few papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arxivclf.reporting.metrics import Confusion, Counts

LEVEL = 0.95
DRAWS = 1_000
# So many counts are drawn at a time at most, for memory's sake.
_CELLS = 4_000_000
_Z = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A figure with the bounds of its 95 % interval; all nan where there is nothing to take the figure of.

    The bounds alone are nan where none are known.
    """

    value: float
    low: float
    high: float

    def around(self, value: float) -> Interval:
        """The same bounds around another value, wide enough to hold it; all nan where it is nan."""
        if math.isnan(value):
            return Interval(value, value, value)
        return Interval(value, min(value, self.low), max(value, self.high))

    def as_list(self) -> list[float | None]:
        """Value, low and high; None for nan."""
        return [None if math.isnan(each) else each for each in (self.value, self.low, self.high)]


def wilson(successes: float, papers: float) -> Interval:
    """A share of papers with its score interval (Wilson 1927), which holds for few papers and shares near 0 and 1.

    Neither need be a whole number.
    """
    if not papers:
        return Interval(math.nan, math.nan, math.nan)
    share, square = successes / papers, _Z**2
    middle = (share + square / (2 * papers)) / (1 + square / papers)
    half = _Z / (1 + square / papers) * math.sqrt(share * (1 - share) / papers + square / (4 * papers**2))
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == papers else min(1.0, middle + half)
    return Interval(share, low, high)


def lower_bounds(successes: npt.ArrayLike, papers: npt.ArrayLike) -> Counts:
    """Exact lower confidence bounds of shares, one-sided, 95 % (Clopper and Pearson 1934), from arrays of counts."""
    from scipy.special import betaincinv

    hits, of = np.asarray(successes, np.float64), np.asarray(papers, np.float64)
    return np.where(hits > 0, betaincinv(np.maximum(hits, 1), of - hits + 1, 1 - LEVEL), 0.0)


def f1_interval(confusion: Confusion) -> Interval:
    """F1 with the interval of the share that it follows from.

    F1 is 2 s / (1 + s), where s is the share of true positives among the papers that label or truth calls positive.
    """
    hits = confusion.true_positives
    share = wilson(hits, hits + confusion.false_positives + confusion.false_negatives)
    return Interval(confusion.f1, *(2 * bound / (1 + bound) for bound in (share.low, share.high)))


def bootstrap(counts: npt.ArrayLike, figure: Callable[[Counts], Counts]) -> Interval:
    """A figure of counts with the interval of its percentiles over 1,000 draws (Efron 1979).

    `figure` takes counts of kinds of papers, float64 (draws, kinds), and gives one number for each draw, nan where
    there is none; such draws count for nothing.
    """
    found = np.asarray(counts, np.float64)
    value = float(figure(found[None])[0]) if found.sum() else math.nan
    return percentiles(value, draws_of(found, figure) if not math.isnan(value) else found[:0])


def draws_of(counts: npt.ArrayLike, figure: Callable[[Counts], Counts]) -> Counts:
    """The figure, or figures, of each of 1,000 draws of counts, as in `bootstrap`: what it gives, draws first."""
    found = np.asarray(counts, np.float64)
    papers = int(found.sum())
    random, shares = np.random.default_rng(0), found / papers
    at_once = max(1, _CELLS // len(shares))
    sizes = [min(at_once, DRAWS - first) for first in range(0, DRAWS, at_once)]
    return np.concatenate([figure(random.multinomial(papers, shares, size=size).astype(np.float64)) for size in sizes])


def percentiles(value: float, draws: Counts) -> Interval:
    """A figure with the interval that its draws give, nan among them left out."""
    if math.isnan(value):
        return Interval(math.nan, math.nan, math.nan)
    low, high = np.quantile(draws[~np.isnan(draws)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # The percentiles of few papers can leave out the figure itself.
    return Interval(value, float(low), float(high)).around(value)


def difference_of_shares(first: Interval, second: Interval) -> Interval:
    """The second share, or F1, less the first, of other papers, from their intervals (Newcombe 1998, method 10)."""
    value = second.value - first.value
    low = math.hypot(second.value - second.low, first.high - first.value)
    high = math.hypot(second.high - second.value, first.value - first.low)
    return Interval(value, value - low, value + high)


def difference_within(pairs: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> Interval:
    """The second share less the first where both have as many papers of each stratum as the second has.

    `pairs` are, for each stratum, papers and hits of the first and of the second; a stratum that either has no paper of
    is left out. Direct standardisation, with the interval of a stratified bootstrap: each draw takes new rates for all
    strata of both. nan where no stratum is in both.
    """
    counts = np.array([[*one, *other] for one, other in pairs if one[0] and other[0]], np.float64).reshape(-1, 4)
    if not len(counts):
        return Interval(math.nan, math.nan, math.nan)
    papers, hits = counts[:, [0, 2]], counts[:, [1, 3]]
    weights = papers[:, 1] / papers[:, 1].sum()
    value = float(weights @ (hits[:, 1] / papers[:, 1] - hits[:, 0] / papers[:, 0]))
    overall = (hits.sum() + 0.5) / (papers.sum() + 1)
    pooled = (hits.sum(axis=1) + overall) / (papers.sum(axis=1) + 1)
    random = np.random.default_rng(0)
    first, second = (_errors(weights, papers[:, at], hits[:, at], pooled, random) for at in (0, 1))
    found = percentiles(value, value + second - first)
    return Interval(value, max(-1.0, found.low), min(1.0, found.high))


def _errors(weights: Counts, papers: Counts, hits: Counts, pooled: Counts, random: np.random.Generator) -> Counts:
    """By how much a weighted mean of the rates of strata may be off, one number for each of 1,000 draws.

    Rates are drawn from Beta distributions. For one stratum it is the posterior of a Jeffreys prior, Beta(hits + 1/2,
    misses + 1/2). With many strata that prior would count once for each, and pull all rates of small strata towards
    1/2; so the strata share it by weight. A stratum of few papers says little of its own variance, and nothing if all
    or none are hits: its rate is smoothed by one paper of the `pooled` rate, that of the stratum in both files.
    """
    smoothed = (hits + pooled) / (papers + 1)
    mean = (smoothed * papers + weights / 2) / (papers + weights)
    concentration = papers - 1 + 2 * weights
    drawn = random.beta(mean * concentration, (1 - mean) * concentration, (DRAWS, len(papers)))
    # Smoothing takes from the spread of small strata what this gives back.
    errors = (drawn - mean) * np.sqrt(1 + 1 / papers) + (mean - smoothed)
    return np.asarray(errors @ weights)


def mcnemar(only_first: int, only_second: int) -> float:
    """The chance of counts at least as unlike, were both as often right alone (McNemar 1947, exact, two-sided).

    `only_first` and `only_second` are the papers that one of the two gets right and the other wrong.
    """
    from scipy.stats import binomtest

    both = only_first + only_second
    return float(binomtest(only_first, both, 0.5).pvalue) if both else 1.0


def kappa(counts: npt.ArrayLike) -> float:
    """Cohen's kappa (1960) of a square table of counts, what one says by what the other says; nan where it is open."""
    table = np.asarray(counts, np.float64)
    papers = table.sum()
    if not papers:
        return math.nan
    agreed = float(np.trace(table) / papers)
    by_chance = float((table.sum(0) * table.sum(1)).sum() / papers**2)
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan
