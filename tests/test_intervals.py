"""Intervals and ranked figures: those of scipy and scikit-learn, for anything that can be counted."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    f1_score,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
    roc_auc_score,
)

from arxivclf import report
from arxivclf.reporting.intervals import bootstrap, f1_interval, kappa, mcnemar, wilson
from arxivclf.reporting.metrics import Confusion, calibration_error, figure_of_counts
from arxivclf.reporting.overall import overall
from arxivclf.reporting.ranked import Ranked

SCORED = st.lists(
    st.tuples(st.booleans(), st.one_of(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.floats(0, 1, width=32))),
    min_size=1,
    max_size=60,
)


@given(st.integers(0, 400), st.integers(1, 400))
def test_wilson_is_that_of_scipy(successes: int, papers: int) -> None:
    successes = min(successes, papers)
    ours = wilson(successes, papers)
    theirs = binomtest(successes, papers).proportion_ci(0.95, method="wilson")
    assert ours.value == successes / papers
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_a_share_of_nothing() -> None:
    assert all(map(math.isnan, vars(wilson(0, 0)).values()))
    assert wilson(0, 0).as_list() == [None, None, None]


@settings(deadline=None)
@given(SCORED)
def test_ranked_figures_are_those_of_scikit_learn(pairs: list[tuple[bool, float]]) -> None:
    truth = np.array([pair[0] for pair in pairs])
    scores = np.array([pair[1] for pair in pairs], np.float32)
    ranked = Ranked.of(truth, scores)
    assert ranked.papers == len(pairs)
    assert ranked.calibration_error().as_list() == [pytest.approx(calibration_error(truth, scores)), None, None]
    figures = []
    one_class = truth.all() or not truth.any()
    with warnings.catch_warnings(action="ignore"):
        figures.append(
            (ranked.average_precision(), average_precision_score(truth, scores) if truth.any() else math.nan)
        )
        figures.append((ranked.roc_area(), math.nan if one_class else roc_auc_score(truth, scores)))
    for ours, theirs in figures:
        assert ours.value == pytest.approx(theirs, nan_ok=True)
        assert math.isnan(theirs) or ours.low <= ours.value <= ours.high
    for threshold in (0.0, 0.1, 0.5, float(scores[0]), 1.0):
        assert ranked.at(threshold) == Confusion.count(truth, scores >= threshold)


def test_many_scores_are_gathered_and_change_no_figure() -> None:
    random = np.random.default_rng(0)
    truth = random.random(30_000) < 0.1
    scores = (1 / (1 + np.exp(-random.normal(truth * 3 - 3, 1.5)))).astype(np.float32)
    ranked = Ranked.of(truth, scores)
    few = ranked._gathered()
    assert len(ranked.scores) > 20_000 > 2_100 > len(few.scores)
    assert few.papers == ranked.papers
    assert (np.diff(few.scores) < 0).all()
    assert ranked.average_precision().value == pytest.approx(average_precision_score(truth, scores))
    for ours in (ranked.average_precision(), ranked.roc_area()):
        assert 0 < ours.high - ours.low < 0.04
    # The same papers drawn one by one, as a bootstrap is usually done.
    drawn = (random.integers(0, len(truth), len(truth)) for _ in range(300))
    areas = [roc_auc_score(truth[rows], scores[rows]) for rows in drawn]
    ours = ranked.roc_area()
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])), abs=0.001)


def test_gathered_scores_tell_rare_labels_apart() -> None:
    """A thousand of a million papers are positive; all of the first five hundred, and half of the next thousand."""
    scores = np.linspace(1, 0, 1_000_000)
    truth = np.zeros(len(scores), bool)
    truth[:500], truth[500:1_500:2] = True, True
    ranked = Ranked.of(truth, scores)
    assert len(ranked._gathered().scores) < 2_100
    interval = ranked.average_precision()
    assert interval.value == pytest.approx(0.887, abs=0.001)
    # As wide on both sides: what the draws have is what the papers have.
    assert interval.high - interval.value == pytest.approx(interval.value - interval.low, rel=0.5)


@pytest.mark.parametrize(
    ("papers", "shares", "known"),
    [
        (600, (0.08, 0.02, 0.03, 0.87), 16 / 21),
        (100, (0.49, 0.01, 0.01, 0.49), 0.98),
        (50, (0.04, 0.1, 0.1, 0.76), 2 / 7),
    ],
)
def test_the_interval_of_f1_holds_it_as_often_as_it_says(papers: int, shares: tuple[float, ...], known: float) -> None:
    """In samples of a population whose F1 is known; a bootstrap's of the second would hold .98 in two of three."""
    draws = np.random.default_rng(1).multinomial(papers, shares, size=4_000)
    found = [f1_interval(Confusion(*map(int, counts))) for counts in draws]
    assert 0.935 < np.mean([one.low <= known <= one.high for one in found]) < 0.98
    assert all(one.low < one.high for one in found)


def test_f1_without_an_error_is_not_sure() -> None:
    found = f1_interval(Confusion(50, 0, 0, 950))
    theirs = binomtest(50, 50).proportion_ci(0.95, method="wilson").low
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 2 * theirs / (1 + theirs), 1.0))
    assert all(map(math.isnan, vars(f1_interval(Confusion(0, 0, 0, 9))).values()))


def test_the_calibration_error_that_chance_makes() -> None:
    """Of one score half the mean deviation of a binomial; of many that of truths drawn one by one; for large files as
    for small ones."""
    alike = Ranked.of(np.arange(100) < 40, np.full(100, 0.5, np.float32))
    k = np.arange(101)
    assert alike.error == pytest.approx(0.1)
    expected = float((binom(100, 0.5).pmf(k) * np.abs(k - 50)).sum() / 100)
    assert alike.error_by_chance == pytest.approx(expected, rel=0.05)
    assert alike.error_by_chance == Ranked.of(np.arange(100) < 90, np.full(100, 0.5, np.float32)).error_by_chance
    random = np.random.default_rng(6)
    scores = random.beta(0.3, 2.0, 6_000).astype(np.float32)
    drawn = [calibration_error(random.random(len(scores)) < scores, scores) for _ in range(200)]
    found = Ranked.of(random.random(len(scores)) < scores, scores)
    assert len(found._gathered().scores) < len(found.scores)
    assert found.error_by_chance == pytest.approx(np.mean(drawn), rel=0.1)


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.booleans()] * 6), min_size=1, max_size=60))
def test_micro_and_macro_are_those_of_scikit_learn(rows: list[tuple[bool, ...]]) -> None:
    table = np.array(rows)
    found = overall(pl.DataFrame(table, schema=["a", "a_truth", "b", "b_truth", "c", "c_truth"], orient="row"))
    assert found.papers == len(rows)
    # Over all decisions nothing is nothing; a mean over labels needs a number of each.
    for average, ours, nothing in (("micro", found.micro, np.nan), ("macro", found.macro, 0)):
        theirs = precision_recall_fscore_support(table[:, 1::2], table[:, ::2], average=average, zero_division=nothing)
        assert [one.value for one in ours] == pytest.approx(theirs[:3], nan_ok=True)
        assert all(one.low <= one.value <= one.high for one in ours if not np.isnan(one.value))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_agreement_is_that_of_scikit_learn(pairs: list[tuple[bool, bool]]) -> None:
    first, second = map(np.array, zip(*pairs, strict=True))
    table = np.histogram2d(first.astype(int), second.astype(int), bins=[[0, 1, 2], [0, 1, 2]])[0]
    with warnings.catch_warnings(action="ignore"):
        theirs = cohen_kappa_score(first, second)
    assert kappa(table) == pytest.approx(theirs, nan_ok=True)
    truth = np.ones(len(first), bool)
    f1 = Confusion.count(truth, first).f1
    assert f1 == pytest.approx(f1_score(truth, first))


def test_mcnemar() -> None:
    """The worked example of a sign test: 3 of 12 heads."""
    assert mcnemar(3, 9) == mcnemar(9, 3) == pytest.approx(2 * sum(math.comb(12, k) for k in range(4)) / 2**12)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1.0


EDGES: dict[str, list[tuple[bool | None, float]]] = {
    "one paper, positive": [(True, 0.7)],
    "one paper, negative": [(False, 0.7)],
    "one class only": [(True, 0.2), (True, 0.6), (True, 0.9)],
    "no positives": [(False, 0.2), (False, 0.6), (False, 0.6)],
    "ties": [(True, 0.5), (False, 0.5), (True, 0.5), (False, 0.5)],
    "nulls in truth": [(None, 0.9), (True, 0.8), (False, 0.1), (None, 0.1), (False, 0.7)],
    "scores of 0 and 1": [(True, 1.0), (False, 0.0), (True, 0.0), (False, 1.0)],
}


@pytest.mark.parametrize("edge", EDGES)
def test_edge_cases_from_the_file_to_the_figure(edge: str, tmp_path: Path) -> None:
    truth, scores = zip(*EDGES[edge], strict=True)
    given = [score >= 0.5 for score in scores]
    frame = pl.DataFrame({"ai": given, "ai_score": scores, "ai_truth": pl.Series(truth, dtype=pl.Boolean)})
    frame.write_parquet(tmp_path / "x.parquet")
    (found,) = report(tmp_path / "x.parquet").labels
    known = frame.drop_nulls("ai_truth")
    true, labels, of = known["ai_truth"].to_numpy(), known["ai"].to_numpy(), known["ai_score"].to_numpy()
    assert found.unknown == len(frame) - len(known)
    both = len(set(true.tolist())) == 2
    bins = np.minimum((of * 15).astype(int), 14)
    theirs = {
        "precision": precision_score(true, labels, zero_division=np.nan),
        "recall": recall_score(true, labels, zero_division=np.nan),
        "F1": f1_score(true, labels, zero_division=np.nan),
        "accuracy": accuracy_score(true, labels),
        "average precision": average_precision_score(true, of) if true.any() else math.nan,
        "ROC area": roc_auc_score(true, of) if both else math.nan,
        "calibration error": sum(abs((of - true)[bins == place].sum()) for place in range(15)) / len(of),
    }
    ours = {one.name: one.interval for one in found.figures}
    assert {name: one.value for name, one in ours.items()} == pytest.approx(theirs, nan_ok=True)
    assert ours["calibration error"].as_list()[1:] == [None, None]
    for name, one in ours.items():
        if name != "calibration error":
            assert math.isnan(theirs[name]) or 0 <= one.low <= one.value <= one.high <= 1


def test_the_calibration_error_is_that_of_scikit_learns_curve() -> None:
    random = np.random.default_rng(2)
    scores = random.random(5_000)
    truth = random.random(5_000) < scores**1.5
    share, mean = calibration_curve(truth, scores, n_bins=15)
    papers = np.histogram(scores, bins=15, range=(0, 1))[0]
    theirs = float((np.abs(share - mean) * papers[papers > 0]).sum() / len(scores))
    assert calibration_error(truth, scores) == pytest.approx(theirs, abs=1e-6)


def test_the_bootstrap_is_that_of_scipy() -> None:
    random = np.random.default_rng(4)
    truth, labels = random.random(800) < 0.3, random.random(800) < 0.3
    labels |= truth & (random.random(800) < 0.8)
    found = Confusion.count(truth, labels)
    counts = [found.true_positives, found.false_positives, found.false_negatives, found.true_negatives]
    ours = bootstrap(counts, lambda drawn: figure_of_counts("F1", *drawn.T))

    def f1(true: np.ndarray, given: np.ndarray, axis: int = -1) -> np.ndarray:
        return 2 * (true & given).sum(axis) / (true.sum(axis) + given.sum(axis))

    theirs = scipy_bootstrap(
        (truth, labels), f1, paired=True, vectorized=True, method="percentile", n_resamples=2_000, rng=0
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)
