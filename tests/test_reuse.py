"""Labels of an earlier dump, taken over where nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
from click.testing import Result
from conftest import DATA, PAPERS, error_line, papers, real_data, write_jsonl

from arxivclf import LabelSettings, label


def test_reuse_takes_over_what_is_unchanged_and_nothing_else(
    model: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    older, newer = papers(60), papers(80)[10:]
    newer[3]["title"] = "A changed title"
    write_jsonl(Path("older.jsonl"), older)
    write_jsonl(Path("newer.jsonl"), newer)
    assert cli("label", "older.jsonl", "--model", model).exit_code == 0
    full = cli("label", "newer.jsonl", "--model", model, "-o", "full.parquet")
    assert full.exit_code == 0
    reused = cli("label", "newer.jsonl", "--model", model, "--reuse", "older.labels.parquet")
    assert reused.exit_code == 0, reused.output
    assert "encoder 21 (30.0%), reused 49 (70.0%)" in reused.stdout
    one, other = pl.read_parquet("full.parquet"), pl.read_parquet("newer.labels.parquet")
    assert one.drop("decided_by").equals(other.drop("decided_by"))
    by = dict(zip(other.get_column("id"), other.get_column("decided_by"), strict=True))
    assert by[newer[3]["id"]] == by["2101.00061"] == "encoder"
    assert by["2101.00060"] == "reused"


def test_a_chunk_that_is_reused_whole(model: Path, tmp_path: Path) -> None:
    dump = write_jsonl(tmp_path / "dump.jsonl", papers(20))
    first, again = tmp_path / "first.parquet", tmp_path / "again.parquet"
    label(LabelSettings((str(dump),), (str(model),), output=str(first)))
    label(LabelSettings((str(dump),), (str(model),), output=str(again), reuse=str(first), chunk_rows=7))
    assert pl.read_parquet(first).drop("decided_by").equals(pl.read_parquet(again).drop("decided_by"))


def test_reuse_of_what_cannot_be_reused(cli: Callable[..., Result], model: Path, tiny_base: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(20))
    assert cli("label", "dump.jsonl", "--model", model).exit_code == 0
    how = ["--epochs", 0.1, "--max-tokens", 16, "--base", tiny_base]
    assert cli("train", PAPERS, "-o", "other", *how).exit_code == 0
    again = ["label", "dump.jsonl", "-o", "x.parquet", "--reuse"]
    assert "from another model" in error_line(cli(*again, "dump.labels.parquet", "--model", "other"), 2)
    assert "no such file" in error_line(cli(*again, "absent.parquet", "--model", model), 2)
    pl.DataFrame({"id": ["x"]}).write_parquet("bare.parquet")
    assert "does not say which model" in error_line(cli(*again, "bare.parquet", "--model", model), 1)
    assert "only labels in Parquet can be reused" in error_line(cli(*again, "dump.jsonl", "--model", model), 2)
    Path("torn.parquet").write_bytes(b"PAR1")
    assert "no whole Parquet file" in error_line(cli(*again, "torn.parquet", "--model", model), 1)
    assert "read from this disk" in error_line(cli(*again, "s3://b/x.parquet", "--model", model), 2)


@real_data
def test_reuse_from_one_years_dump_to_the_next(cli: Callable[..., Result], model: Path) -> None:
    older, newer = DATA / "arxiv-snapshot-2019.parquet", DATA / "arxiv-snapshot-2020.parquet"
    assert cli("label", older, "--model", model, "-q").exit_code == 0
    assert cli("label", newer, "--model", model, "-o", "full.parquet", "-q").exit_code == 0
    reused = cli("label", newer, "--model", model, "--reuse", "arxiv-snapshot-2019.labels.parquet", "-q")
    assert reused.exit_code == 0, reused.output
    one, other = pl.read_parquet("full.parquet"), pl.read_parquet("arxiv-snapshot-2020.labels.parquet")
    assert one.drop("decided_by").equals(other.drop("decided_by"))
    # 28,765 ids are in both, 446 of them with another title or abstract; and 1,006 texts under ids that were damaged.
    assert int((other.get_column("decided_by") == "reused").sum()) == 28_765 - 446 + 1_006
