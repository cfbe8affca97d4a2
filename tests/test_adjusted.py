"""Adjusted shares: right where labels are wrong, with intervals that hold the true share as often as they say."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from conftest import PAPERS, paper, write_jsonl

from arxivclf import LabelSettings, label, report
from arxivclf.reporting.adjusted import ErrorRates
from arxivclf.reporting.metrics import Confusion
from arxivclf.reporting.unjudged import Unjudged


def test_a_worked_example() -> None:
    """Sensitivity 0.9, specificity 0.95: of 22 % labelled papers 20 % have the label."""
    rates = ErrorRates(Confusion(900, 500, 100, 9_500))
    found = rates.adjusted(2_200, 10_000)
    assert found.value == pytest.approx((0.22 - 0.05) / (0.9 - 0.05))
    assert 0.18 < found.low < 0.2 < found.high < 0.22
    assert found == rates.adjusted(2_200, 10_000)
    # Fewer papers than would be labelled by mistake.
    nothing = rates.adjusted(30, 1_000)
    assert (nothing.value, nothing.low) == (0, 0)
    assert nothing.high < 0.01
    everything = rates.adjusted(950, 1_000)
    assert (everything.value, everything.high) == (1, 1)


@pytest.mark.parametrize(
    ("papers", "prevalence", "true", "false", "test"),
    [
        (2_000, 0.3, 0.85, 0.02, (400, 3_600)),
        (2_000, 0.03, 0.75, 0.01, (100, 5_000)),
        (200_000, 0.1, 0.8, 0.02, (300, 3_000)),
        (50, 0.4, 0.9, 0.05, (1_000, 9_000)),
    ],
)
def test_the_interval_holds_the_true_share(
    papers: int, prevalence: float, true: float, false: float, test: tuple[int, int]
) -> None:
    """The test split is small, or the dump is; the prevalence of the dump is another than that of the test split."""
    random, held, width = np.random.default_rng(5), 0, 0.0
    for _ in range(500):
        hits, wrong = (int(random.binomial(n, p)) for n, p in zip(test, (true, false), strict=True))
        rates = ErrorRates(Confusion(hits, wrong, test[0] - hits, test[1] - wrong))
        positive = int(random.binomial(papers, prevalence))
        labelled = int(random.binomial(positive, true) + random.binomial(papers - positive, false))
        found = rates.adjusted(labelled, papers)
        held += found.low <= prevalence <= found.high
        width += found.high - found.low
    share = prevalence * true + (1 - prevalence) * false
    variances = [
        share * (1 - share) / papers,
        (prevalence**2) * true * (1 - true) / test[0],
        ((1 - prevalence) ** 2) * false * (1 - false) / test[1],
    ]
    assert 0.93 <= held / 500 <= 0.985
    assert width / 500 / (2 * 1.96 * np.sqrt(sum(variances)) / (true - false)) == pytest.approx(1, abs=0.1)


def test_rates_of_few_papers_tell_nothing() -> None:
    """Where the labels may be given at random, any share is possible."""
    found = ErrorRates(Confusion(2, 1, 1, 2)).adjusted(50, 100)
    assert (found.low, found.high) == (0, 1)
    for counts in ((0, 1, 0, 9), (5, 0, 5, 0), (1, 9, 9, 1), (5, 5, 5, 5)):
        assert not ErrorRates(Confusion(*counts)).usable
    with pytest.raises(ValueError, match="negative"):
        ErrorRates(Confusion(-1, 1, 1, 1))


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Papers without categories: nothing tells their truth."""
    rows = [json.loads(line) for line in PAPERS.read_text().splitlines()[:80]]
    made = [
        paper(f"21{n % 12 + 1:02d}.{n:05d}", title=row["title"], abstract=row["abstract"], categories=None)
        for n, row in enumerate(rows, 1)
    ]
    return write_jsonl(tmp_path / "dump.jsonl", made)


def unjudged_of(path: Path, **how: float) -> Unjudged:
    (found,) = report(path, by="year", **how).unjudged  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_labels_carry_the_error_rates_of_their_model(model: Path, dump: Path, tmp_path: Path, form: str) -> None:
    """Made of the counts of its test split, for the threshold of the model, and with its gate if it has one."""
    output = tmp_path / f"x.{form}"
    settings = LabelSettings((str(dump),), (str(model),), output=str(output))
    label(settings)
    metrics = json.loads((model / "arxivclf.json").read_text())["metrics"]["test"]["ai"]
    found = unjudged_of(output)
    assert found.rates is not None
    assert {name: metrics[name] for name in found.rates.confusion.counts()} == found.rates.confusion.counts()
    assert found.adjusted(found.whole) == found.rates.adjusted(found.whole.labelled, found.whole.papers)
    assert unjudged_of(output, threshold=0.3).rates is None
    # The same job again finds it done.
    assert label(settings).papers_now == 0


def test_labels_of_another_threshold_carry_none(model: Path, dump: Path, tmp_path: Path) -> None:
    for name, how in (("threshold", {"threshold": 0.3}), ("gate", {"gate": False})):
        output = tmp_path / f"{name}.parquet"
        label(LabelSettings((str(dump),), (str(model),), output=str(output), **how))
        found = unjudged_of(output)
        gated = bool(json.loads((model / "arxivclf.json").read_text())["gates"])
        assert (found.rates is None) == (name == "threshold" or gated)


@pytest.mark.parametrize("metrics", [{}, {"test": []}, {"test": {"ai": {"true_positives": -1}}}, {"test": {"ai": 3}}])
def test_a_model_that_does_not_tell_its_counts(
    model: Path, dump: Path, tmp_path: Path, metrics: dict[str, object]
) -> None:
    shutil.copytree(model, tmp_path / "other")
    info = json.loads((tmp_path / "other" / "arxivclf.json").read_text())
    (tmp_path / "other" / "arxivclf.json").write_text(json.dumps(info | {"metrics": metrics}))
    label(LabelSettings((str(dump),), (str(tmp_path / "other"),), output=str(tmp_path / "x.parquet")))
    assert unjudged_of(tmp_path / "x.parquet").rates is None


def test_every_form_has_the_adjusted_share(tmp_path: Path, cli: Callable[..., Result]) -> None:
    counts = {"true_positives": 180, "false_positives": 40, "false_negatives": 20, "true_negatives": 1_960}
    footer = {"job": {"labels": {"ai": 0.5}, "evaluation": {"ai": counts}}, "parts": []}
    years = [2020 + n % 2 for n in range(400)]
    given = [n % 4 == 0 for n in range(400)]
    frame = pl.DataFrame({"year": years, "ai": given, "ai_score": [0.9 if one else 0.1 for one in given]})
    frame.write_parquet("x.parquet", metadata={"arxivclf": json.dumps(footer)})
    known = ErrorRates(Confusion(**counts))
    whole, year = known.adjusted(100, 400), known.adjusted(100, 200)

    def shown(form: str) -> str:
        return cli("report", "x.parquet", "--by", "year", "--format", form).stdout

    (ai,) = json.loads(shown("json"))["unjudged"]
    assert ai["error_rates"] == counts
    assert ai["adjusted_share"] == {"value": whole.value, "low": whole.low, "high": whole.high}
    assert [one["adjusted_share"]["value"] for one in ai["slices"]["year"]] == [year.value, 0]
    rows = [row for row in csv.DictReader(io.StringIO(shown("csv"))) if row["figure"] == "adjusted_share"]
    assert [(row["slice"], float(row["value"])) for row in rows] == [
        ("", whole.value),
        ("2020", year.value),
        ("2021", 0),
    ]
    for form in ("table", "markdown", "html"):
        text = shown(form)
        assert f"{whole.value:.1%}" in text
        assert "adjusted" in text
    bare = frame.with_columns(ai_score=0.4)
    bare.write_parquet("bare.parquet")
    (ai,) = json.loads(cli("report", "bare.parquet", "--format", "json").stdout)["unjudged"]
    assert (ai["adjusted_share"], ai["error_rates"]) == (None, None)
