"""Labelling a dump in which labels have another prevalence than among the papers that calibration was fitted on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from click.testing import CliRunner, Result
from conftest import PAPERS, error_line, read_jsonl, write_parquet
from hypothesis import given
from hypothesis import strategies as st

from arxivclf import Classifier, LabelSettings
from arxivclf.cli import main
from arxivclf.errors import ModelError, UsageError
from arxivclf.labelling.engine import load
from arxivclf.labelling.prevalence import estimate, parse
from arxivclf.labelling.sink import read_job
from arxivclf.model.calibration import Calibration, logit
from arxivclf.model.folder import ModelInfo

SHARES = st.floats(0.01, 0.99)


@pytest.fixture(scope="module")
def linear_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two labels without an encoder, of the example papers. Do not write into it."""
    folder = tmp_path_factory.mktemp("linear") / "model"
    how = ("--base", "none", "--since", "1990", "--task", "ai", "--task", "cv", "-o", str(folder), "-q")
    done = CliRunner().invoke(main, ["train", str(PAPERS), *how])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "dump.parquet", read_jsonl(PAPERS))


def log_odds(scores: pl.Series) -> npt.NDArray[np.float64]:
    share = scores.to_numpy().astype(np.float64)
    return np.log(share) - np.log1p(-share)


def simulated(prevalence: float, fitted: float, papers: int = 4_096) -> npt.NDArray[np.float64]:
    """Scores that are calibrated at `fitted`, of papers of which the share `prevalence` is positive."""
    random = np.random.default_rng(7)
    positive = random.random(papers) < prevalence
    evidence = random.normal(np.where(positive, 1.0, -1.0) * 2.0, 2.0)
    # The likelihood ratio of two normal distributions with the means 2 and -2 and the variance 4.
    return 1 / (1 + np.exp(-(evidence + logit(fitted))))


@pytest.mark.parametrize("fitted", [0.05, 0.5])
@pytest.mark.parametrize("target", [0.02, 0.1, 0.4, 0.8])
def test_the_share_of_a_shifted_population_is_recovered(target: float, fitted: float) -> None:
    scores = simulated(target, fitted)
    found = estimate(scores, fitted)
    assert found == pytest.approx(target, abs=4 * np.sqrt(target * (1 - target) / len(scores)) + 0.005)
    # The maximum of the likelihood: the shifted scores have the estimated share as their mean.
    odds = scores / (1 - scores) * np.exp(logit(found) - logit(fitted))
    assert (odds / (1 + odds)).mean() == pytest.approx(found, abs=1e-4)


def test_an_estimate_is_never_0_or_1() -> None:
    assert estimate(np.zeros(100), 0.3) == pytest.approx(0.005)
    assert estimate(np.ones(100), 0.3) == pytest.approx(0.995)


@given(SHARES, SHARES, st.floats(-8, 8))
def test_a_shift_is_one_of_the_prior(fitted: float, target: float, value: float) -> None:
    calibration = Calibration("platt", 1.3, (0.0,), (0.2,), (2010, 2020), (-0.5, 0.5))
    shift = logit(target) - logit(fitted)
    before = calibration.scores([value])[0]
    # The target stands for the whole dump, whose years must not count a second time.
    for year in (0, 2010, 2026):
        after = calibration.shifted(shift).scores([value], [year])[0]
        positive, negative = before * target / fitted, (1 - before) * (1 - target) / (1 - fitted)
        assert after == pytest.approx(positive / (positive + negative), rel=1e-9)


def test_shares_are_parsed() -> None:
    assert parse(["0.3"], ["ai"]) == {"ai": 0.3}
    assert parse(["ai=0.3", "auto", "cv = 1e-3"], ["ai", "cv"]) == {"ai": 0.3, "cv": 0.001}
    for given_ in (["0.3"], ["nlp=0.3"], ["ai=0"], ["ai=1"], ["ai=nan"], ["ai=x"], ["ai="], ["ai=0.1", "ai=0.2"]):
        with pytest.raises(UsageError):
            parse(given_, ["ai", "cv"])


def test_a_model_records_the_prevalence_that_its_scores_hold_for(linear_model: Path, tmp_path: Path) -> None:
    content = json.loads((linear_model / "arxivclf.json").read_text())
    validation = content["papers"]["validation"]
    shares = {name: count / validation["papers"] for name, count in validation["positive"].items()}
    assert content["prevalence"] == pytest.approx(shares)
    assert f"{shares['ai']:.1%} `ai`" in (linear_model / "README.md").read_text()
    for broken in ({}, {"ai": 0.5}, {"ai": 0.5, "cv": 1.0}):
        (tmp_path / "arxivclf.json").write_text(json.dumps(content | {"prevalence": broken}))
        with pytest.raises(ModelError):
            ModelInfo.read(tmp_path)


def test_scores_are_shifted_and_thresholds_are_not(linear_model: Path, dump: Path, cli: Callable[..., Result]) -> None:
    fitted = ModelInfo.read(linear_model).prevalence
    plain = cli("label", dump, "--model", linear_model, "-o", "plain.parquet")
    assert "scores shifted to" not in plain.stdout
    how = ("label", dump, "--model", linear_model, "--prevalence", "ai=0.05", "--log-json", "log.jsonl")
    done = cli(*how, "-o", "shifted.parquet")
    assert done.exit_code == 0, done.output
    assert f"ai 5.00% (from {fitted['ai']:.2%})" in done.stdout

    before, after = pl.read_parquet("plain.parquet"), pl.read_parquet("shifted.parquet")
    shift = logit(0.05) - logit(fitted["ai"])
    assert np.allclose(log_odds(after["ai_score"]) - log_odds(before["ai_score"]), shift, atol=1e-3)
    assert after["cv_score"].equals(before["cv_score"])
    threshold = np.float32(ModelInfo.read(linear_model).thresholds["ai"])
    assert after["ai"].to_list() == (after["ai_score"].to_numpy() >= threshold).tolist()
    assert after["ai"].sum() < before["ai"].sum()

    record = {"ai": {"fitted": fitted["ai"], "target": 0.05}}
    job, without = (read_job(Path(name))[0] for name in ("shifted.parquet", "plain.parquet"))
    assert job is not None
    assert without is not None
    assert job["job"]["prevalence"] == record
    # Error rates were measured on scores that were not shifted.
    assert (job["job"]["evaluation"], "prevalence" in without["job"]) == ({}, False)
    assert read_jsonl(Path("log.jsonl"))[-1]["prevalence"] == record


def test_another_prevalence_is_another_job(linear_model: Path, dump: Path, cli: Callable[..., Result]) -> None:
    how = ("label", dump, "--model", linear_model)
    assert cli(*how, "-o", "a.parquet", "--prevalence", "ai=0.2,cv=0.1").exit_code == 0
    assert "already" in cli(*how, "-o", "a.parquet", "--prevalence", "cv=0.1", "--prevalence", "ai=0.2").stderr
    assert "prevalence" in error_line(cli(*how, "-o", "a.parquet", "--prevalence", "ai=0.3,cv=0.1"), 2)
    assert "prevalence" in error_line(cli(*how, "-o", "a.parquet"), 2)

    reused = cli(*how, "-o", "b.parquet", "--reuse", "a.parquet", "--prevalence", "ai=0.2,cv=0.1")
    assert reused.exit_code == 0, reused.output
    assert set(pl.read_parquet("b.parquet")["decided_by"]) == {"reused"}
    for other in ((), ("--prevalence", "ai=0.2,cv=0.2")):
        assert "--prevalence" in error_line(cli(*how, "-o", "c.parquet", "--reuse", "a.parquet", *other), 2)


def test_auto_estimates_shares_from_the_dump(linear_model: Path, dump: Path, cli: Callable[..., Result]) -> None:
    papers = pl.read_parquet(dump)
    about_ai = papers.filter(pl.col("categories").str.contains(r"cs\.(?:AI|CL|CV|LG|MA|RO)|stat\.ML"))
    mixed = pl.concat([about_ai, papers.filter(~pl.col("id").is_in(about_ai["id"].implode()))[: len(about_ai) // 9]])
    mixed.write_parquet("mixed.parquet", row_group_size=50)
    how = ("label", "mixed.parquet", "--model", linear_model, "--prevalence", "auto", "--chunk-rows", 40)

    done = cli(*how, "-o", "a.parquet")
    assert done.exit_code == 0, done.output
    record, _ = read_job(Path("a.parquet"))
    assert record is not None
    found = record["job"]["prevalence"]
    assert list(found) == ["ai", "cv"]
    assert found["ai"]["target"] > found["ai"]["fitted"]
    assert "already" in cli(*how, "-o", "a.parquet").stderr
    for shard in ("1/2", "0/2"):
        assert cli(*how, "-o", "shards.parquet", "--shard", shard).exit_code == 0
    assert Path("shards.parquet").read_bytes() == Path("a.parquet").read_bytes()

    # A given share counts for its label, and the others are estimated.
    assert cli(*how, "--prevalence", "ai=0.5", "-o", "b.parquet").exit_code == 0
    partly, _ = read_job(Path("b.parquet"))
    assert partly is not None
    assert {name: of["target"] for name, of in partly["job"]["prevalence"].items()} == {
        "ai": 0.5,
        "cv": found["cv"]["target"],
    }


def test_what_cannot_be_shifted_is_refused(linear_model: Path, dump: Path, cli: Callable[..., Result]) -> None:
    for shares in ("nlp=0.1", "0.1", "ai=0", "ai=1.5", "ai=many"):
        error_line(cli("label", dump, "--model", linear_model, "--prevalence", shares), 2)
    with pytest.raises(UsageError):
        # Workers of a cluster do not have the dump at hand.
        load(LabelSettings((str(dump),), model=(str(linear_model),), prevalence=("auto",)))
    (model,) = Classifier.load(linear_model).models
    with pytest.raises(UsageError):
        replace(model, prevalence={}).at_prevalence({"ai": 0.1})


def test_the_gate_is_off(model: Path, dump: Path, cli: Callable[..., Result]) -> None:
    done = cli("label", dump, "--model", model, "--prevalence", "0.2", "--limit", 20, "-o", "a.parquet")
    assert done.exit_code == 0, done.output
    assert set(pl.read_parquet("a.parquet")["decided_by"]) == {"encoder"}
    assert "without a gate, which --prevalence rules out" in " ".join(done.stderr.split())
    (loaded,) = Classifier.load(model).models
    gated = replace(loaded, gates=["a gate"], linear_calibrations=loaded.calibrations)  # type: ignore[list-item]
    assert (gated.at_prevalence({"ai": 0.2}).gates, gated.at_prevalence({}).gates) == ((), ["a gate"])
