"""The model card: it validates, it leaves nothing open, and its numbers are those of the report."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import Result
from conftest import PAPERS, TINY, papers, write_jsonl
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results

from arxivclf import report

SECTIONS = (
    "What the labels mean",
    "Results",
    "By year, on the test split",
    "Labelling with it",
    "Intended uses and limits",
    "Training data",
    "Training",
    "By pass",
    "The linear model and its gate",
    "Calibration and thresholds",
    "Environment",
)


def tables(card: str, section: str) -> list[list[list[str]]]:
    """The tables of a section as rows of cells, without their rules."""
    body = re.split(rf"^#+ {re.escape(section)}$", card, flags=re.MULTILINE)[1]
    body = re.split(r"^#", body, flags=re.MULTILINE)[0]
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", body, flags=re.MULTILINE):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        found.append([rows[0], *rows[2:]])
    return found


def test_the_header_is_what_the_hub_wants(model: Path) -> None:
    card = ModelCard.load(model / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-classification"
    assert {"arxiv", "ai"} <= set(card.data.tags)
    # A base in a folder has no name on the hub: none is made up.
    assert card.data.base_model is None
    _, results = model_index_to_eval_results(metadata_load(model / "README.md")["model-index"])
    metrics = json.loads((model / "arxivclf.json").read_text())["metrics"]
    assert len(results) == 2 * 5
    for one in results:
        assert one.metric_value == pytest.approx(metrics[one.dataset_split]["ai"][one.metric_type], abs=5e-5)


def test_its_numbers_are_those_of_the_report(model: Path) -> None:
    confusion = report(model / "test.labels.parquet").labels[0].confusion
    (results,) = tables((model / "README.md").read_text(), "Results")
    row = dict(zip(results[0], next(row for row in results if row[0] == "the test split"), strict=True))
    assert row["papers"] == f"{confusion.papers:,}"
    assert row["positive"] == f"{confusion.support:,}"
    for name, value in (
        ("F1", confusion.f1),
        ("precision", confusion.precision),
        ("recall", confusion.recall),
        ("accuracy", confusion.accuracy),
    ):
        assert row[name] == f"{value:.4f}"


def test_the_years_add_up_to_the_report(model: Path) -> None:
    labels = pl.read_parquet(model / "test.labels.parquet")
    (years,) = tables((model / "README.md").read_text(), "By year, on the test split")
    rows = [dict(zip(years[0], row, strict=True)) for row in years[1:]]
    assert sum(int(row["papers"]) for row in rows) == len(labels)
    assert sum(int(row["positive"]) for row in rows) == labels.get_column("ai_truth").sum()
    for row in rows:
        mine = labels.filter(pl.col("created").dt.year() == int(row["year"]))
        right = mine.filter(pl.col("ai") & pl.col("ai_truth"))
        recall = len(right) / max(1, mine.get_column("ai_truth").sum())
        assert row["recall"] == (f"{recall:.4f}" if int(row["positive"]) else "-")


def test_nothing_is_left_open(model: Path) -> None:
    card = (model / "README.md").read_text()
    found = re.findall(r"^#{2,3} (.+)$", card, flags=re.MULTILINE)
    assert tuple(found) == SECTIONS
    for section in SECTIONS:
        body = re.split(rf"^#+ {re.escape(section)}$", card, flags=re.MULTILINE)[1]
        assert len(re.split(r"^#", body, flags=re.MULTILINE)[0].split()) > 10, section
    assert "More information needed" not in card
    for word in ("None", "nan", "null", "{", "}"):
        assert not re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", card), word


def test_it_says_where_the_papers_came_from(model: Path) -> None:
    files, sides = tables((model / "README.md").read_text(), "Training data")
    row = dict(zip(files[0], files[1], strict=True))
    assert row["file"] == f"`{PAPERS.name}`"
    assert row["SHA-256"] == f"`{hashlib.sha256(PAPERS.read_bytes()).hexdigest()}`"
    assert row["bytes"] == f"{PAPERS.stat().st_size:,}"
    assert row["papers"] == str(len(PAPERS.read_text().splitlines()))
    labels = pl.read_parquet(model / "test.labels.parquet")
    assert ["test", str(len(labels)), str(labels.get_column("ai_truth").sum())] in sides


def test_each_pass_has_its_line(model: Path) -> None:
    table = pl.read_csv(model / "training.csv")
    (passes,) = tables((model / "README.md").read_text(), "By pass")
    assert len(passes) - 1 == table.height
    for row, kept in zip(passes[1:], table.iter_rows(named=True), strict=True):
        found = dict(zip(passes[0], row, strict=True))
        assert found["validation loss"] == f"{kept['validation_loss']:.4f}"
        assert found["F1"] == f"{kept['ai_f1']:.4f}"


def test_a_card_of_every_setting(cli: Callable[..., Result], tiny_base: Path) -> None:
    """All that the settings can say is in the card of a model that they made."""
    dump = write_jsonl(Path("dump.jsonl"), papers(1_200))
    dev = write_jsonl(Path("dev.jsonl"), papers(30))
    weak = write_jsonl(Path("weak.jsonl"), [{"id": f"W{n}", "text": f"On cells {n}"} for n in range(300)])
    result = cli(
        "train", dump, "--base", tiny_base, "--task", "ai", "--task", "cyber", "--validation", dev, "--sample", 90,
        "--max-papers", 1_000, "--undersample", 1, "--weak-negatives", weak, "--clean", "cset2023", "--split", "time",
        "--loss", "focal", "-q", *TINY,
    )  # fmt: skip
    assert result.exit_code == 1
    assert "negative for 'cyber'" in result.stderr
    result = cli(
        "train", dump, "--base", tiny_base, "--validation", dev, "--sample", 90, "--max-papers", 1_000,
        "--undersample", 1, "--weak-negatives", weak, "--clean", "cset2023", "--split", "time", "--loss", "focal",
        "-q", *TINY,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    card = Path("model/README.md").read_text()
    for words in (
        "90 %", "At most 1,000 papers", "1 negatives for each positive", "`weak.jsonl`", "`dev.jsonl`", "`_NUMBER_`",
        "by date", "focal loss",
    ):  # fmt: skip
        assert words in card, words
    roles = [row[0] for row in tables(card, "Training data")[0][1:]]
    assert roles == ["the dump", "the validation set", "the weak negatives"]
    assert "None" not in card


def test_the_card_says_what_was_not_done(cli: Callable[..., Result], model: Path, tmp_path: Path) -> None:
    """An encoder that was left as it is, papers that were left out, scores that are not calibrated, other shares."""
    rows = [json.loads(line) for line in PAPERS.read_text().splitlines()]
    out = write_jsonl(tmp_path / "out.jsonl", rows[:20])
    dev = [row | {"id": f"2301.{n:05d}"} for n, row in enumerate(rows[20:60], 1)]
    how = ("--base", model, "--epochs", 0, "--since", 1990, "--max-tokens", 48, "--exclude", out)
    made = cli("train", PAPERS, *how, "--validation", write_jsonl(tmp_path / "dev.jsonl", dev), "-o", "next", "-q")
    assert made.exit_code == 0, made.output
    card = " ".join(Path("next/README.md").read_text().split())
    assert f"made of the encoder of `{model}`, which was left as it is, and the rest fitted" in card
    assert "AdamW" not in card
    assert "fine-tuned" not in card
    assert "20 papers that were to be (`--exclude`)" in card
    assert "(85% train, 15% test)" in card
    (tmp_path / "arxivclf.toml").write_text('[train]\ncalibration = "none"\n')
    assert cli("train", PAPERS, "--base", "none", "--since", 1990, "-o", "plain", "-q").exit_code == 0
    plain = " ".join(Path("plain/README.md").read_text().split())
    assert "Those of `ai` are not calibrated" in plain
    assert "AdamW" in (model / "README.md").read_text()
    assert "are not calibrated" not in (model / "README.md").read_text()
