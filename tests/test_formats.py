"""The forms of a report: what JSON says is what its page describes, Markdown and CSV hold the same figures."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import Result
from conftest import ROOT, error_line
from test_compare import pair
from test_drift import dumps
from test_slices import labels_of

from arxivclf import report

# What the page has between backticks besides names.
VALUES = {"null", "Wilson", "F1", "bootstrap", "in", "use", "best", "report", "comparison", "drift", "docs"}
PAGE = (ROOT / "docs" / "report-json.md").read_text()


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "x.labels.parquet"
    frame = labels_of()
    more = frame.select(pl.col("ai", "ai_score", "ai_truth").name.replace("ai", "cv"))
    frame.hstack(more).write_parquet(path)
    return path


def read(cli: Callable[..., Result], *arguments: Any) -> str:
    done = cli("report", *arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def keys(content: Any) -> Iterator[str]:
    """All names in a piece of JSON, but for those of slices, which are a user's columns."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield name
            yield from keys(list(value.values()) if name == "slices" else value)
    elif isinstance(content, list):
        for one in content:
            yield from keys(one)


def test_json_is_what_its_page_says(cli: Callable[..., Result], labels: Path) -> None:
    found = json.loads(read(cli, labels, "--by", "year", "--errors", "2", "--format", "json"))
    assert (found["schema"], found["kind"], found["source"]) == (1, "report", str(labels))
    ai, cv = found["labels"]
    known = report(labels, by=["year"], errors=2).labels[0]
    assert ai["confusion"]["true_positives"] == known.confusion.true_positives
    assert ai["figures"]["f1"]["value"] == known.confusion.f1
    assert [part["value"] for part in ai["slices"]["year"]] == [part.value for part in known.slices[0].slices]
    assert len(ai["disagreements"]["missed"]) == 2
    assert cv["figures"] == ai["figures"]
    assert found["overall"]["micro"]["f1"]["value"] == pytest.approx(known.confusion.f1)


def test_the_page_names_what_json_has_and_nothing_else(
    cli: Callable[..., Result], labels: Path, tmp_path: Path
) -> None:
    """Of labels with a truth, without, with one from elsewhere, of a comparison and of a drift."""
    blind = pl.read_parquet(labels).with_columns(ai_truth=pl.lit(None, pl.Boolean))
    blind.write_parquet(tmp_path / "blind.parquet")
    seen = {
        "arxivclf": json.dumps({"job": {"labels": {}}, "parts": [{"seen": {"learnt": 3}}, {"seen": {"learnt": 2}}]})
    }
    pl.read_parquet(labels).write_parquet(tmp_path / "seen.parquet", metadata=seen)
    named = zip(("old", "new", "earlier", "later"), (*pair(), *dumps(more=0.1)), strict=True)
    for name, frame in named:
        frame.write_parquet(tmp_path / f"{name}.parquet")
    found: set[str] = set()
    for arguments in (
        (labels, "--by", "year", "--errors", "2", "--for-precision", "0.8"),
        (tmp_path / "blind.parquet", "--by", "year"),
        (tmp_path / "blind.parquet", "--truth", labels),
        (tmp_path / "seen.parquet",),
        (labels, "--unseen-by", "bundled"),
        (tmp_path / "new.parquet", "--compare", tmp_path / "old.parquet", "--by", "year", "--errors", "3"),
        (tmp_path / "later.parquet", "--drift", tmp_path / "earlier.parquet"),
    ):
        found |= set(keys(json.loads(read(cli, *arguments, "--format", "json"))))
    ticked = [words for words in re.findall(r"`([^`\n]+)`", PAGE) if not words.startswith(("-", "arxivclf "))]
    words = set(re.findall(r"[A-Za-z]\w*", " ".join(ticked)))
    assert words - VALUES == found


@pytest.mark.parametrize(("name", "start"), [("x.html", "<!doctype"), ("x.JSON", "{"), ("x.md", "labels in")])
def test_the_ending_tells_the_form(
    cli: Callable[..., Result], labels: Path, tmp_path: Path, name: str, start: str
) -> None:
    read(cli, labels, "-o", tmp_path / name)
    assert (tmp_path / name).read_text().lower().startswith(start)
    read(cli, labels, "-o", tmp_path / name, "--format", "csv")
    assert "," in (tmp_path / name).read_text().splitlines()[0]


def test_an_ending_that_no_form_has(cli: Callable[..., Result], labels: Path) -> None:
    assert "-o x.pdf: no form of a report ends in .pdf; --format names one" in error_line(
        cli("report", labels, "-o", "x.pdf"), 2
    )
    done = cli("report", labels, "-o", "x.pdf", "--format", "csv")
    assert (done.exit_code, done.stderr) == (0, "The report is in x.pdf.\n")


def test_a_column_of_many_values_is_cut_and_says_so(cli: Callable[..., Result], labels: Path) -> None:
    shown = cli("report", labels, "--label", "ai", "--by", "id")
    assert "And 1,760 more, which --format csv and json have." in shown.stdout
    assert read(cli, labels, "--label", "ai", "--by", "id", "--format", "csv").count(",id,") > 1_960


def test_labels_on_a_remote_store_are_not_read(cli: Callable[..., Result]) -> None:
    assert "read from this disk" in error_line(cli("report", "s3://b/x.parquet"), 2)


def test_a_comparison_as_json(cli: Callable[..., Result], tmp_path: Path) -> None:
    for name, frame in zip(("old", "new"), pair(), strict=True):
        frame.write_parquet(tmp_path / f"{name}.parquet")
    arguments = (tmp_path / "new.parquet", "--compare", tmp_path / "old.parquet", "--by", "year", "--errors", "3")
    found = json.loads(read(cli, *arguments, "--format", "json"))
    assert found["kind"] == "comparison"
    assert (found["papers"], found["before_alone"], found["now_alone"]) == (2_750, 100, 150)
    (ai,) = found["labels"]
    judged = ai["judgement"]
    assert judged["now"]["true_positives"] - judged["before"]["true_positives"] > 0
    assert len(ai["changed"]) == 3
    rows = list(csv.DictReader(io.StringIO(read(cli, *arguments, "--format", "csv"))))
    (difference,) = [row for row in rows if row["figure"] == "f1_difference"]
    assert float(difference["value"]) == judged["differences"]["f1"]["value"]
    assert "| paper |" in read(cli, *arguments, "--format", "markdown")


def test_what_is_no_number_is_null(cli: Callable[..., Result], tmp_path: Path) -> None:
    frame = pl.DataFrame({"ai": [False], "ai_score": [0.1], "ai_truth": [False]})
    frame.write_parquet(tmp_path / "one.parquet")
    (ai,) = json.loads(read(cli, tmp_path / "one.parquet", "--format", "json"))["labels"]
    assert ai["figures"]["precision"] == {
        "value": None,
        "low": None,
        "high": None,
        "method": "Wilson",
        "larger_class": None,
        "gate_alone": None,
        "without_gate": None,
        "by_chance": None,
    }
    error = ai["figures"]["calibration_error"]
    assert (error["low"], error["high"], error["method"]) == (None, None, None)
    assert error["value"] == pytest.approx(0.1)
    # In nine draws of ten the paper is negative, as here; in the tenth the error is .9.
    assert error["by_chance"] == pytest.approx(0.1 * 0.9 + 0.9 * 0.1, abs=0.03)
    for form in ("csv", "markdown", "table"):
        assert "nan" not in read(cli, tmp_path / "one.parquet", "--format", form)


def test_csv_holds_every_figure_of_every_slice(cli: Callable[..., Result], labels: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(read(cli, labels, "--by", "archive", "--format", "csv"))))
    known = report(labels, by=["archive"]).labels[0]
    (whole,) = [row for row in rows if (row["label"], row["by"], row["figure"]) == ("ai", "", "f1")]
    f1 = next(one for one in known.figures if one.name == "F1").interval
    assert [float(whole[name]) for name in ("value", "low", "high")] == [f1.value, f1.low, f1.high]
    slices = {
        row["slice"]: float(row["value"])
        for row in rows
        if (row["label"], row["by"], row["figure"]) == ("ai", "archive", "recall")
    }
    assert slices == {one.value: one.recall.value for one in known.slices[0].slices}


def test_markdown_tables_are_whole(cli: Callable[..., Result], labels: Path, tmp_path: Path) -> None:
    text = read(cli, labels, "--by", "primary", "--errors", "1", "--format", "markdown")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    # Confusion, figures, thresholds, where errors are, slices, and two of papers for each label, and one of all.
    assert len(tables) == 15
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
        assert re.fullmatch(r"(\| -{3}:? )+\|", lines[1])
    assert "**ai" in text
    assert read(cli, labels, "--by", "primary", "--errors", "1", "--format", "markdown", "-o", tmp_path / "x.md") == ""
    assert (tmp_path / "x.md").read_text() == text


def test_a_table_in_a_file_has_no_colours(cli: Callable[..., Result], labels: Path, tmp_path: Path) -> None:
    read(cli, labels, "-o", tmp_path / "x.txt")
    text = (tmp_path / "x.txt").read_text()
    assert "\x1b" not in text
    assert text.startswith(f"Labels in {labels}"[:40])
