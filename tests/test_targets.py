"""Thresholds for a wanted precision or recall: what they promise holds on the population, not only on the sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from arxivclf.reporting.intervals import lower_bounds
from arxivclf.reporting.ranked import Ranked
from arxivclf.reporting.targets import Target, fewest_papers, for_precision, for_recall

DRAWS = 1_000


def sample(
    random: np.random.Generator, papers: int, prevalence: float, separation: float, digits: int | None = None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Truth and logit-normal scores; rounded to so many digits they have ties."""
    truth = random.random(papers) < prevalence
    scores = 1 / (1 + np.exp(-random.normal(np.where(truth, separation, -separation), 1.4)))
    return truth, (scores if digits is None else scores.round(digits)).astype(np.float32)


def figures_of_population(
    prevalence: float, separation: float, digits: int | None, thresholds: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    """Precision and recall of the distribution that `sample` draws from, exactly, at each threshold."""
    from scipy.special import ndtr

    lowest = thresholds if digits is None else thresholds - 0.5 * 10.0**-digits
    logits = np.log(lowest / (1 - lowest))
    true, false = (ndtr((mean - logits) / 1.4) for mean in (separation, -separation))
    hits = prevalence * true
    return {"precision": hits / (hits + (1 - prevalence) * false), "recall": true}


@pytest.mark.parametrize(
    ("prevalence", "separation", "digits"), [(0.1, 2.2, None), (0.2, 2.2, None), (0.4, 2.2, None), (0.2, 3.0, 2)]
)
def test_the_promise_is_kept_on_the_population(prevalence: float, separation: float, digits: int | None) -> None:
    """Of 1,000 samples of 1,000 papers at most 5 % lead to a threshold that falls short; where the observed figure
    decides, more than 40 % do."""
    random = np.random.default_rng(3)
    found: dict[str, list[Target]] = {"precision": [], "recall": []}
    naive = []
    for _ in range(DRAWS):
        ranked = Ranked.of(*sample(random, 1_000, prevalence, separation, digits))
        found["precision"].append(for_precision(ranked, 0.95))
        found["recall"].append(for_recall(ranked, 0.9))
        counts = ranked.confusions()
        naive.append(ranked.scores[np.flatnonzero(counts[:, 0] >= 0.95 * counts.sum(axis=1))[-1:]])
    for figure, target in (("precision", 0.95), ("recall", 0.9)):
        thresholds = np.array([one.threshold for one in found[figure] if one.threshold is not None])
        true = figures_of_population(prevalence, separation, digits, thresholds)[figure]
        assert (true < target).sum() <= 0.05 * DRAWS
        # What is proven is no mere accident: most samples that can show it do.
        assert len(thresholds) > (0.9 if prevalence > 0.2 or figure == "recall" else 0.1) * DRAWS
    observed = figures_of_population(prevalence, separation, digits, np.concatenate(naive))["precision"]
    assert (observed < 0.95).sum() > 0.4 * DRAWS


@given(st.integers(0, 300), st.integers(1, 300))
def test_the_lower_bound_is_that_of_scipy(hits: int, papers: int) -> None:
    hits = min(hits, papers)
    theirs = binomtest(hits, papers, alternative="greater").proportion_ci(0.95, method="exact").low
    assert lower_bounds([hits], [papers])[0] == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("target", "papers"), [(0.95, 59), (0.9, 29), (0.5, 5), (0.04, 1)])
def test_the_fewest_papers_that_prove_a_target(target: float, papers: int) -> None:
    assert fewest_papers(target) == papers
    assert lower_bounds([papers], [papers])[0] >= target
    assert papers == 1 or lower_bounds([papers - 1], [papers - 1])[0] < target


def ranked_by(truth: list[bool], scores: list[float] | None = None) -> Ranked:
    return Ranked.of(truth, scores or np.linspace(1, 0.01, len(truth)))


def test_the_figures_are_those_at_the_threshold() -> None:
    ranked = ranked_by([True] * 100 + [False] * 300 + [True] * 2)
    for found in (for_precision(ranked, 0.9), for_recall(ranked, 0.9)):
        assert found.threshold is not None
        counts = ranked.at(found.threshold)
        of = counts.support if found.figure == "recall" else counts.true_positives + counts.false_positives
        assert found.papers == of
        assert found.observed == getattr(counts, found.figure) == counts.true_positives / of
        assert found.lower_bound == lower_bounds([counts.true_positives], [of])[0] >= 0.9
    # The highest of all: with one score more the bound is below the target.
    above = ranked.scores[np.flatnonzero(ranked.scores == for_recall(ranked, 0.9).threshold)[0] - 1]
    assert lower_bounds([ranked.at(above).true_positives], [102])[0] < 0.9


def test_papers_of_one_score_are_labelled_together() -> None:
    """The 59th paper is one of 40 with the same score, of which ten are negative."""
    tied = ranked_by([True] * 80 + [False] * 10, [0.9] * 50 + [0.8] * 40)
    assert for_precision(tied, 0.95).threshold is None
    clear = ranked_by([True] * 90, [0.9] * 50 + [0.8] * 40)
    found = for_precision(clear, 0.95)
    assert (found.threshold, found.papers) == (0.8, 90)


def test_after_the_first_failure_nothing_is_tested() -> None:
    """The papers with the highest scores are wrong; lower thresholds, whose bounds would do, do not count."""
    ranked = ranked_by([False] * 10 + [True] * 3_000)
    assert lower_bounds([3_000], [3_010])[0] > 0.95
    assert for_precision(ranked, 0.95).threshold is None


def test_too_few_papers() -> None:
    few = for_precision(ranked_by([True] * 58), 0.95)
    assert (few.threshold, few.papers, few.needed) == (None, 58, 59)
    assert "59 labelled papers" in few.describe()
    few = for_recall(ranked_by([True] * 20 + [False] * 500), 0.9)
    assert (few.threshold, few.papers, few.needed) == (None, 20, 29)
    assert "29 positive papers" in few.describe()


def test_how_many_papers_would_be_needed() -> None:
    """At the precision that was observed that many suffice, and hardly fewer."""
    found = for_precision(ranked_by(([True] * 40 + [False]) * 2 + [False] * 800), 0.95)
    assert found.threshold is None
    assert found.needed is not None
    assert found.observed > 0.95 > found.lower_bound
    enough, less = (
        lower_bounds([math.floor(found.observed * papers)], [papers])[0] for papers in (found.needed, found.needed // 2)
    )
    assert less < 0.95 <= enough
    assert f"{found.needed:,} labelled papers" in found.describe()
    hopeless = for_precision(ranked_by([True, False] * 200), 0.95)
    assert (hopeless.threshold, hopeless.needed) == (None, None)
    assert "59 labelled papers are needed at least" in hopeless.describe()


@pytest.mark.parametrize("find", [for_precision, for_recall])
def test_nothing_proves_a_figure_of_one(find: Callable[[Ranked, float], Target]) -> None:
    found = find(ranked_by([True] * 5_000), 1)
    assert (found.threshold, found.needed) == (None, None)
    assert "no number of papers" in found.describe()
