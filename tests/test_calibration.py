"""Calibrated scores: monotone, honest on papers not seen, and the figures that say so."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from arxivclf.model.calibration import Calibration, calibrated, fit, fit_years, log_loss, sigmoid
from arxivclf.reporting.metrics import average_precision, calibration_error

Kind = Literal["none", "temperature", "platt", "beta", "isotonic"]


def papers(count: int, seed: int, shift: float = 0.0, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are wrong by a factor and a shift, and the truth drawn with the chances that they should say."""
    random = np.random.default_rng(seed)
    right = random.normal(-2.0, 2.5, count)
    return right * factor + shift, random.random(count) < sigmoid(right)


@pytest.mark.parametrize("kind", ["temperature", "platt", "beta", "isotonic", "auto"])
def test_a_sure_model_is_made_honest_on_papers_it_was_not_fitted_on(kind: Any) -> None:
    seen, unseen = papers(20_000, 1, factor=3.0), papers(20_000, 2, factor=3.0)
    before = calibration_error(unseen[1], sigmoid(unseen[0]))
    after = calibration_error(unseen[1], fit(*seen, kind).scores(unseen[0]))
    assert before > 0.03
    assert after < 0.01


def test_a_shift_as_undersampling_makes_takes_more_than_a_temperature() -> None:
    seen, unseen = papers(20_000, 1, shift=2.0), papers(20_000, 2, shift=2.0)
    errors = {
        kind: calibration_error(unseen[1], fit(*seen, kind).scores(unseen[0]))
        for kind in ("none", "temperature", "platt", "beta", "isotonic", "auto")
    }
    assert errors["none"] > 0.1
    assert errors["temperature"] > 0.05
    assert max(errors["platt"], errors["beta"], errors["isotonic"], errors["auto"]) < 0.012


def test_the_right_function_is_found() -> None:
    logits, truth = papers(200_000, 3, shift=1.0, factor=2.0)
    line = fit(logits, truth, "platt")
    assert line.slope == pytest.approx(0.5, abs=0.02)
    assert line.values[0] == pytest.approx(-0.5, abs=0.03)
    assert fit(logits, truth, "temperature").values == (0.0,)


def test_two_slopes_are_found() -> None:
    """Of a model that is right about its negatives and three times too sure of its positives."""

    def drawn(seed: int, count: int = 100_000) -> tuple[np.ndarray, np.ndarray]:
        right, truth = papers(count, seed)
        return np.where(right > 0, 3.0 * right, right), truth

    found = fit(*drawn(7), "beta")
    slopes = np.diff(found.values) / np.diff(found.logits)
    # It bends over a stretch of logits, not at one.
    assert slopes[0] == pytest.approx(1.0, abs=0.2)
    assert slopes[-1] == pytest.approx(1 / 3, abs=0.1)
    unseen = drawn(8)
    losses = {kind: log_loss(fit(*drawn(7), kind).scores(unseen[0]), unseen[1]) for kind in ("platt", "beta")}
    assert losses["beta"] < losses["platt"]
    assert fit(*drawn(7, 10_000)).kind == "beta"


def test_auto_takes_the_simplest_of_those_that_are_as_good() -> None:
    """Of logits that are right as they are, whatever chance says; an error is not simple enough to be left alone."""
    kinds = [fit(*papers(6_000, seed)).kind for seed in range(12)]
    assert kinds.count("none") >= 10
    assert {fit(*papers(6_000, seed, factor=2.0)).kind for seed in range(6)} == {"temperature"}
    assert {fit(*papers(6_000, seed, shift=1.5)).kind for seed in range(6)} == {"platt"}


@pytest.mark.parametrize(
    ("positive", "negative", "allowed"),
    [
        (0, 500, {"none"}),
        (5, 500, {"none"}),
        (15, 500, {"none", "temperature"}),
        (500, 25, {"none", "temperature", "platt"}),
        (500, 150, {"none", "temperature", "platt", "beta"}),
        (2_000, 2_000, {"none", "temperature", "platt", "beta", "isotonic"}),
    ],
)
def test_few_papers_allow_few_parameters(positive: int, negative: int, allowed: set[Kind]) -> None:
    truth = np.arange(positive + negative) < positive
    logits = np.random.default_rng(0).normal(np.where(truth, 1.5, -1.5))
    assert fit(logits, truth).kind in allowed
    for kind in ("temperature", "platt", "beta", "isotonic"):
        found = fit(logits, truth, kind).kind
        assert found == (kind if kind in allowed else "none")


@pytest.mark.parametrize("kind", ["temperature", "platt", "auto"])
def test_a_model_that_knows_nothing_keeps_the_order_of_its_papers(kind: Any) -> None:
    random = np.random.default_rng(5)
    logits, truth = random.normal(0.0, 1e-3, 400), random.random(400) < 0.3
    scores = fit(logits, truth, kind).scores(logits).astype(np.float32)
    assert len(np.unique(scores)) > 390


def test_auto_is_at_least_as_good_as_none_on_what_it_saw() -> None:
    logits, truth = papers(5_000, 4, shift=-1.0, factor=0.5)
    assert log_loss(fit(logits, truth).scores(logits), truth) < log_loss(sigmoid(logits), truth)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["temperature", "platt", "beta", "isotonic", "auto"]))
def test_no_paper_passes_another(data: st.DataObject, kind: Any) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    truth = random.random(3_000) < data.draw(st.floats(0.4, 0.6))
    # Few distinct logits, all at once or spread, with any relation to the truth.
    step = data.draw(st.sampled_from([0.0, 0.1, 1.0]))
    logits = random.normal(np.where(truth, data.draw(st.floats(-3, 6)), 0.0))
    logits = np.round(logits / step) * step if step else logits
    found = fit(logits, truth, kind)
    asked = np.sort(random.normal(0, 10, 500))
    scores = found.scores(asked)
    assert np.isfinite(scores).all()
    assert (np.diff(scores) >= 0).all()
    assert scores[0] >= 0
    assert scores[-1] <= 1
    assert Calibration.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_a_low_score_that_is_wrong_by_chance_lifts_no_other() -> None:
    """The lowest paper is none, the next is one, and then come nine hundred that are none, before all others."""
    logits = np.concatenate([[-9.0, -8.0], np.linspace(-7, -1, 900), np.linspace(0, 5, 3_000)])
    truth = np.concatenate([[False, True], np.zeros(900, bool), np.arange(3_000) % 2 > 0])
    found = fit(logits, truth, "isotonic")
    assert found.kind == "isotonic"
    assert np.median(found.scores(logits)[:902]) < 0.01


def test_scores_do_not_depend_on_the_neighbours() -> None:
    found = fit(*papers(20_000, 5, factor=2.0), "isotonic")
    assert len(found.logits) > 10
    logits = np.random.default_rng(6).normal(0, 5, (101, 1)).astype(np.float32)
    alone = np.array([calibrated(one[None], [found])[0, 0] for one in logits])
    together = calibrated(logits, [found])
    assert together.dtype == np.float32
    assert (together[:, 0] == alone).all()


def test_the_sigmoid_does_not_overflow() -> None:
    with np.errstate(over="raise"):
        assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "magic", "slope": 1, "logits": [0], "values": [0]},
        {"kind": "platt", "slope": -1, "logits": [0], "values": [0]},
        {"kind": "platt", "slope": 1, "logits": [], "values": []},
        {"kind": "isotonic", "slope": 1, "logits": [0, 1], "values": [1, 0]},
        {"kind": "isotonic", "slope": 1, "logits": [0, 1], "values": [0]},
        {"kind": "platt", "slope": math.inf, "logits": [0], "values": [0]},
    ],
)
def test_what_is_no_calibration_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"calibration"):
        Calibration.from_dict({"years": [], "offsets": [], **broken})


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 1.0])), min_size=1))
def test_average_precision_is_scikit_learns(rows: list[tuple[bool, float]]) -> None:
    truth, scores = [row[0] for row in rows], [row[1] for row in rows]
    if not any(truth):
        assert math.isnan(average_precision(truth, scores))
        return
    assert average_precision(truth, scores) == pytest.approx(average_precision_score(truth, scores))


def test_the_calibration_error_by_hand() -> None:
    # Two bins of fifteen: 0.10 to four papers of which one is positive, 0.99 to two of which both are.
    truth, scores = [True, False, False, False, True, True], [0.1, 0.1, 0.1, 0.1, 0.99, 0.99]
    assert calibration_error(truth, scores) == pytest.approx((4 * abs(0.1 - 0.25) + 2 * 0.01) / 6)
    assert calibration_error([True, False], [1.0, 0.0]) == 0.0
    assert math.isnan(calibration_error([], []))


def growing(papers: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, ground truth and years of a field whose log-odds rise by 1.5 from 2010 to 2025, unknown to the model."""
    random = np.random.default_rng(seed)
    years = random.integers(2010, 2026, papers)
    logits = random.normal(-1.0, 2.0, papers)
    return logits, random.random(papers) < sigmoid(logits + (years - 2017.5) / 10), years


def test_offsets_by_year_calibrate_every_year() -> None:
    calibration = fit_years(Calibration(), *growing(20_000, 1))
    logits, truth, years = growing(60_000, 2)
    for year in (2010, 2015, 2020, 2025):
        of_year = years == year
        before = calibration_error(truth[of_year], Calibration().scores(logits[of_year]))
        after = calibration_error(truth[of_year], calibration.scores(logits[of_year], years[of_year]))
        assert after < 0.03, year
        assert after < before or before < 0.03


def test_a_paper_of_unknown_year_has_the_score_without_offsets() -> None:
    calibration = fit_years(Calibration(), *growing(20_000, 1))
    assert calibration.years
    logits = np.linspace(-3, 3, 7)
    assert calibration.scores(logits, np.zeros(7, int)).tolist() == calibration.scores(logits).tolist()
    # Beyond the years of validation the offset of the nearest one holds.
    last = [calibration.scores(logits, np.full(7, year)).tolist() for year in (2025, 2040)]
    assert last[0] == last[1]


def test_years_that_say_nothing_are_left_out() -> None:
    random = np.random.default_rng(0)
    logits, truth = papers(4_000, 3)
    assert fit_years(Calibration(), logits, truth, np.full(4_000, 2020)).years == ()
    assert fit_years(Calibration(), logits, truth, np.zeros(4_000, int)).years == ()
    few = fit_years(Calibration(), logits[:100], truth[:100], random.integers(2010, 2020, 100))
    assert few.years == ()


def test_offsets_are_kept_by_a_model_folder() -> None:
    calibration = fit_years(Calibration(), *growing(20_000, 1))
    assert Calibration.from_dict(json.loads(json.dumps(calibration.as_dict()))) == calibration
    with pytest.raises(ValueError, match="an offset for each"):
        Calibration(years=(2010, 2020), offsets=(0.1,))
