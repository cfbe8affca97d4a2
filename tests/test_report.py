"""Figures and tables."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from conftest import error_line
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_curve,
    precision_score,
    recall_score,
)

from arxivclf import report
from arxivclf.errors import DataError, UsageError
from arxivclf.reporting.metrics import Confusion, best_threshold

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
SCORED = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])), min_size=1, max_size=40
)


def test_a_worked_example() -> None:
    confusion = Confusion(true_positives=6, false_positives=2, false_negatives=4, true_negatives=88)
    assert (confusion.support, confusion.papers) == (10, 100)
    assert confusion.accuracy == pytest.approx(0.94)
    assert confusion.precision == pytest.approx(0.75)
    assert confusion.recall == pytest.approx(0.6)
    assert confusion.f1 == pytest.approx(2 / 3)


@given(PAIRS)
def test_figures_are_those_of_scikit_learn(pairs: list[tuple[bool, bool]]) -> None:
    truth, labels = map(list, zip(*pairs, strict=True))
    ours = Confusion.count(truth, labels)
    negatives, false_positives, false_negatives, positives = confusion_matrix(
        truth, labels, labels=[False, True]
    ).ravel()
    assert (ours.true_positives, ours.false_positives) == (positives, false_positives)
    assert (ours.false_negatives, ours.true_negatives) == (false_negatives, negatives)
    for mine, theirs in (
        (ours.accuracy, accuracy_score(truth, labels)),
        (ours.precision, precision_score(truth, labels, zero_division=np.nan)),
        (ours.recall, recall_score(truth, labels, zero_division=np.nan)),
        (ours.f1, f1_score(truth, labels, zero_division=np.nan)),
    ):
        assert mine == pytest.approx(theirs, nan_ok=True)


@given(SCORED)
def test_no_threshold_beats_the_best(pairs: list[tuple[bool, float]]) -> None:
    truth, scores = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    threshold = best_threshold(truth, scores)
    assert 0 <= threshold <= 1
    if not truth.any():
        assert threshold == 0.5
        return
    reached = f1_score(truth, scores >= threshold)
    precision, recall, _ = precision_recall_curve(truth, scores)
    with np.errstate(invalid="ignore"):
        assert reached == pytest.approx(np.nanmax(2 * precision * recall / (precision + recall)))


def test_neighbouring_floats_stay_on_their_sides() -> None:
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    threshold = best_threshold([True, False], np.array([high, low], dtype=np.float32))
    assert (pl.Series([high, low], dtype=pl.Float32) >= threshold).to_list() == [True, False]


def labels_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [f"2101.{n:05d}" for n in range(1, 101)],
            "ai": [True] * 8 + [False] * 92,
            "ai_score": [0.9] * 6 + [0.6] * 2 + [0.4] * 4 + [0.1] * 88,
            "ai_truth": [True] * 6 + [False] * 2 + [True] * 4 + [False] * 88,
            "cv": [True] + [False] * 99,
            "cv_score": [0.9] + [0.1] * 99,
            "cv_truth": [True, *[None] * 9, *[False] * 90],
        },
        schema_overrides={"cv_truth": pl.Boolean},
    )


@pytest.fixture(params=["parquet", "jsonl", "csv"])
def labels(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"x.labels.{request.param}"
    frame = labels_frame()
    {"parquet": frame.write_parquet, "jsonl": frame.write_ndjson, "csv": frame.write_csv}[request.param](path)
    return path


def test_every_form_of_labels_is_read(labels: Path) -> None:
    ai, cv = report(labels).labels
    assert (ai.name, ai.papers, ai.labelled, ai.unknown) == ("ai", 100, 8, 0)
    assert ai.confusion == Confusion(6, 2, 4, 88)
    assert (cv.name, cv.unknown, cv.confusion) == ("cv", 9, Confusion(1, 0, 0, 90))


def test_a_threshold_labels_anew(labels: Path) -> None:
    (ai,) = report(labels, label="ai", threshold=0.3).labels
    assert ai.confusion == Confusion(10, 2, 0, 88)


def test_the_screen_shows_what_there_is_to_know(cli: Callable[..., Result], tmp_path: Path) -> None:
    labels_frame().write_parquet(tmp_path / "x.labels.parquet")
    shown = cli("report", "x.labels.parquet", "--label", "ai")
    assert shown.exit_code == 0
    squeezed = "\n".join(" ".join(line.split()) for line in shown.stdout.splitlines())
    assert "ai 100 papers, 8 labelled (8.0%)" in squeezed
    assert "ai 6 (60.0%) 4 (40.0%) 10" in squeezed
    assert "not ai 2 (2.2%) 88 (97.8%) 90" in squeezed
    assert "precision 0.7500 0.4093 - 0.9285 -" in squeezed
    assert "recall 0.6000 0.3127 - 0.8318 0.0000" in squeezed
    # Of 12 papers that either calls positive 6 are: Wilson's bounds of a half are .2538 and .7462.
    assert "F1 0.6667 0.4048 - 0.8547 0.0000" in squeezed
    words = squeezed.replace("\n", " ")
    assert "Wilson's of precision, recall, F1, accuracy; a bootstrap's of average precision, ROC area." in words
    assert re.search(r"calibration error 0\.\d{4} - -\n", squeezed)
    assert re.search(r"that of calibrated scores would be 0\.\d{4} by chance on so many papers\.", words)
    assert "accuracy 0.9400 0.8752 - 0.9722 0.9000" in squeezed
    assert "always not ai" in squeezed
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_what_has_no_score_is_in_no_figure(cli: Callable[..., Result], tmp_path: Path) -> None:
    """Neither in those of a label, nor in those of all."""
    frame = labels_frame().with_columns(cv=pl.col("ai"), cv_score=pl.col("ai_score"), cv_truth=pl.col("ai_truth"))
    frame = frame.with_columns(pl.when(pl.int_range(pl.len()) >= 2).then(f"{name}_score") for name in ("ai", "cv"))
    frame.write_parquet(tmp_path / "x.parquet")
    for threshold in (None, 0.5):
        found = report(tmp_path / "x.parquet", threshold=threshold)
        assert found.overall is not None
        assert found.overall.papers == found.labels[0].confusion.papers == 98
        assert found.overall.micro[2].value == pytest.approx(found.labels[0].confusion.f1)
    words = " ".join(cli("report", "x.parquet").stdout.split())
    assert words.count(", 2 without truth or score left out") == 2
    assert "all labels 98 papers with truth and score of each" in words


def test_names_are_shown_without_what_a_terminal_obeys(cli: Callable[..., Result], tmp_path: Path) -> None:
    """A column may be called anything, and so may labels; a name is one line, and no command."""
    hostile = "a\x1b[31mi\n\x07| **b**"
    frame = labels_frame().select(pl.col("id"), pl.col("ai", "ai_score", "ai_truth").name.replace("ai", hostile))
    frame = frame.with_columns(pl.lit("x\x1by").alias(f"by {hostile}"), categories=pl.lit("cs.AI"))
    frame.write_parquet("x.parquet")
    later = frame.with_columns(pl.col(hostile).not_(), id=pl.col("id").str.replace("2101", "2102"))
    later.write_parquet("later.parquet")
    frame.with_columns(pl.col(hostile).not_()).write_parquet("other.parquet")
    frame.drop(f"{hostile}_truth").write_parquet("blind.parquet")
    by = ("--by", f"by {hostile}")
    for form in ("table", "markdown"):
        for arguments in (
            ("x.parquet", *by, "--errors", "2"),
            ("blind.parquet", *by),
            ("other.parquet", "--compare", "x.parquet", *by, "--errors", "2"),
            ("later.parquet", "--drift", "x.parquet"),
        ):
            shown = cli("report", *arguments, "--format", form)
            assert shown.exit_code == 0, shown.output
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown.stdout)
            if form == "markdown":
                assert r"\*\*b\*\*" in shown.stdout
                assert not re.search(r"^\\\|", shown.stdout, flags=re.M)


def test_a_dash_is_standard_output(cli: Callable[..., Result], tmp_path: Path) -> None:
    labels_frame().write_parquet("x.parquet")
    assert cli("report", "x.parquet", "-o", "-").stdout == cli("report", "x.parquet").stdout
    assert cli("report", "x.parquet", "-o", "-", "--format", "json").stdout.startswith("{")
    assert not Path("-").exists()


def test_shares_of_nothing_are_shown_as_such(cli: Callable[..., Result], tmp_path: Path) -> None:
    labels_frame().filter(~pl.col("ai_truth") & ~pl.col("ai")).write_parquet(tmp_path / "none.parquet")
    assert math.isnan(report(tmp_path / "none.parquet", "ai").labels[0].confusion.precision)
    shown = cli("report", "none.parquet", "--label", "ai")
    assert shown.exit_code == 0
    assert "nan" not in shown.stdout


def test_the_test_split_of_a_model_is_the_default(cli: Callable[..., Result], model: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(model)
    by_default, by_name = cli("report"), cli("report", model)
    assert by_default.exit_code == by_name.exit_code == 0
    assert by_default.stdout.splitlines()[2:] == by_name.stdout.splitlines()[2:]


def test_what_cannot_be_reported(tmp_path: Path, cli: Callable[..., Result]) -> None:
    frame = labels_frame()
    frame.drop("ai_score", "cv_score").write_parquet(tmp_path / "bare.parquet")
    with pytest.raises(DataError, match="no labels with scores; its columns are id, "):
        report(tmp_path / "bare.parquet")
    for wrong in (-0.1, 1.1, math.nan):
        frame.with_columns(ai_score=pl.lit(wrong, pl.Float32)).write_parquet(tmp_path / "odd.parquet")
        with pytest.raises(DataError, match=r"100 scores of 'ai' are no probabilities in \[0, 1\]"):
            report(tmp_path / "odd.parquet")
    frame.with_columns(ai_score=pl.lit(None, pl.Float32)).write_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="none of 100 papers has both a label 'ai' and a score"):
        report(tmp_path / "none.parquet")
    frame.with_columns(ai_truth=pl.lit("perhaps")).write_parquet(tmp_path / "odd.parquet")
    with pytest.raises(DataError, match="'ai_truth' holds no labels: 100 values are neither yes nor no, such as 'per"):
        report(tmp_path / "odd.parquet")
    frame.clear().write_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="holds no rows"):
        report(tmp_path / "none.parquet")
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(DataError, match="empty file"):
        report(tmp_path / "empty.csv")
    frame.write_parquet(tmp_path / "whole.parquet")
    half = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(half[: len(half) // 2])
    with pytest.raises(DataError, match="not a whole table"):
        report(tmp_path / "half.parquet")
    with pytest.raises(UsageError, match="no label 'nlp'; there are ai, cv"):
        report(tmp_path / "whole.parquet", "nlp")
    with pytest.raises(UsageError, match="threshold"):
        report(tmp_path / "whole.parquet", threshold=2)
    assert "no such file" in error_line(cli("report", "absent.parquet"), 2)
    assert "no ./model here" in error_line(cli("report"), 1)


@pytest.mark.parametrize("more", [(), ("--truth", "x.parquet"), ("--drift", "y.parquet"), ("--format", "html")])
def test_it_imports_no_encoder(tmp_path: Path, more: tuple[str, ...]) -> None:
    labels_frame().write_parquet(tmp_path / "x.parquet")
    labels_frame().with_columns(id=pl.col("id") + "9").write_parquet(tmp_path / "y.parquet")
    command = [sys.executable, "-X", "importtime", "-m", "arxivclf", "report", "x.parquet", *more]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "polars" in imported
    assert not imported & {"torch", "transformers", "tokenizers", "sklearn", "ray"}
