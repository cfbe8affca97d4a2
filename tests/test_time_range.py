"""The years and archives that a model was trained on: what is recorded, and when labelling warns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from conftest import PAPERS, error_line, paper, read_jsonl, write_jsonl, write_parquet

from arxivclf.cli import main
from arxivclf.corpus.taxonomy import primary_archive
from arxivclf.errors import ModelError
from arxivclf.labelling.sink import read_job
from arxivclf.model.training_range import ARCHIVES, YEARS, TrainingRange, warnings


@pytest.fixture(scope="module")
def linear_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without an encoder, of the example papers. Do not write into it."""
    folder = tmp_path_factory.mktemp("linear") / "model"
    done = CliRunner().invoke(
        main, ["train", str(PAPERS), "--base", "none", "--since", "1990", "-o", str(folder), "-q"]
    )
    assert done.exit_code == 0, done.output
    return folder


def dated(year: int, number: int, categories: str | None = "cs.LG") -> dict[str, Any]:
    created = [{"version": "v1", "created": f"Mon, 2 Mar {year} 10:00:00 GMT"}]
    return paper(f"{year % 100:02d}03.{number:05d}", title=f"Paper {number}", categories=categories, versions=created)


def test_a_model_records_years_and_archives_of_its_training_papers(linear_model: Path) -> None:
    info = json.loads((linear_model / "arxivclf.json").read_text())
    tested, papers = pl.read_parquet(linear_model / "test.labels.parquet").get_column("id"), info["papers"]
    known = {row["id"]: row for row in read_jsonl(PAPERS)}

    assert sum(papers[YEARS].values()) == sum(papers[ARCHIVES].values()) == papers["train"]["papers"]
    assert list(papers[YEARS]) == sorted(papers[YEARS])
    assert set(papers[ARCHIVES]) <= {row["categories"].split()[0].split(".")[0] for row in known.values()}
    assert not set(tested) - set(known)
    card = (linear_model / "README.md").read_text()
    assert f"Years of the training papers {min(papers[YEARS])}-{max(papers[YEARS])}: " in card
    assert "Archives of the primary categories of the training papers: " in card


def test_primary_archives_are_canonical() -> None:
    categories = ["cs.LG stat.ML", "math.MP hep-th", "cmp-lg", " hep-th math.AG", "", None, "astro-ph.CO"]
    archives = pl.DataFrame({"c": categories}, schema={"c": pl.String}).select(primary_archive(pl.col("c"))).to_series()
    assert archives.to_list() == ["cs", "math-ph", "cs", "hep-th", None, None, "astro-ph"]


def test_stray_papers_extend_no_range() -> None:
    counts = {"1991": 5, "2010": 1_000, "2019": 1_000, "2098": 1}
    archives = {"cs": 1_900, "math": 104, "q-fin": 1}
    assert TrainingRange.of({YEARS: counts, ARCHIVES: archives}) == TrainingRange(2010, 2019, frozenset({"cs", "math"}))
    assert TrainingRange.of({YEARS: {}, ARCHIVES: {}}) == TrainingRange(None, None, None)
    assert TrainingRange.of({YEARS: [2010, 2019]}) is None
    with pytest.raises(ModelError):
        TrainingRange.of({YEARS: {"long ago": 3}, ARCHIVES: {}})


def test_the_year_after_the_last_and_unknown_values_are_inside() -> None:
    trained_on = TrainingRange(2010, 2019, frozenset({"cs", "math"}))
    years = np.array([0, 2009, 2010, 2019, 2020, 2021], np.int32)
    categories = pl.Series([None, "cs.LG", "hep-th cs.LG", "cs.LG hep-th", "math.IT", "math.AG"])
    outside = trained_on.outside(years, categories)
    assert outside[YEARS].tolist() == [False, True, False, False, False, True]
    assert outside[ARCHIVES].tolist() == [False, False, True, False, False, False]
    assert not any(flags.any() for flags in TrainingRange(None, None, None).outside(years, categories).values())


def test_a_summary_warns_above_a_tenth_of_the_papers() -> None:
    assert warnings({YEARS: 10, ARCHIVES: 10}, 100) == ()
    assert len(warnings({YEARS: 11, ARCHIVES: 10}, 100)) == 1
    assert len(warnings({YEARS: 11, ARCHIVES: 11}, 100)) == 2
    assert warnings({}, 0) == ()


@pytest.fixture
def with_record(linear_model: Path, tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Makes a copy of the model with another record of its training papers."""

    def copy(record: dict[str, Any]) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(linear_model, folder, dirs_exist_ok=True)
        info = json.loads((folder / "arxivclf.json").read_text())
        kept = {name: value for name, value in info["papers"].items() if name not in (YEARS, ARCHIVES)}
        (folder / "arxivclf.json").write_text(json.dumps(info | {"papers": kept | record}))
        return folder

    return copy


def test_labelling_counts_and_warns(with_record: Callable[..., Path], cli: Callable[..., Result]) -> None:
    model = with_record({YEARS: {"2018": 50, "2019": 50}, ARCHIVES: {"cs": 90, "math": 10}})
    inside = [dated(2020, number) for number in range(1, 21)]
    outside = [dated(2021, number, None) for number in range(1, 16)]
    outside += [dated(2019, number, "econ.GN cs.LG") for number in range(1, 5)]
    write_parquet(Path("inside.parquet"), inside)
    write_parquet(Path("mixed.parquet"), inside + outside)
    how = ("--model", model, "--chunk-rows", 16, "--log-json", "log.jsonl")

    silent = cli("label", "inside.parquet", *how)
    assert silent.exit_code == 0
    assert "warning" not in silent.stdout
    assert read_jsonl(Path("log.jsonl"))[-1]["outside"] == {}

    done = cli("label", "mixed.parquet", *how)
    assert done.exit_code == 0, done.output
    assert "15 of 39 papers (38.5%)" in done.stdout
    assert "4 of 39 papers (10.3%)" in done.stdout
    event = read_jsonl(Path("log.jsonl"))[-1]
    assert (event["outside"], len(event["warnings"])) == ({YEARS: 15, ARCHIVES: 4}, 2)
    record, _ = read_job(Path("mixed.labels.parquet"))
    assert record is not None
    assert [part["outside"] for part in record["parts"]] == [{}, {YEARS: 12}, {YEARS: 3, ARCHIVES: 4}]

    # From the record of labels that are complete, and in the run that completes the shards.
    assert "15 of 39 papers" in cli("label", "mixed.parquet", *how).stdout
    first, second = (
        cli("label", "mixed.parquet", *how, "-o", "shards.parquet", "--shard", shard) for shard in ("0/2", "1/2")
    )
    assert "warning" not in first.stdout
    assert "15 of 39 papers" in second.stdout
    assert Path("shards.parquet").read_bytes() == Path("mixed.labels.parquet").read_bytes()


def test_a_model_without_a_record_warns_of_nothing(
    with_record: Callable[..., Path], cli: Callable[..., Result]
) -> None:
    write_jsonl(Path("late.jsonl"), [dated(2060, number) for number in range(1, 9)])
    assert "warning" not in cli("label", "late.jsonl", "--model", with_record({}), "-o", "a.parquet").stdout
    recorded = {YEARS: {"2019": 9}, ARCHIVES: {"cs": 9}}
    assert "warning" in cli("label", "late.jsonl", "--model", with_record(recorded), "-o", "b.parquet").stdout
    broken = {YEARS: {"2010": "many"}, ARCHIVES: {}}
    error_line(cli("label", "late.jsonl", "--model", with_record(broken), "-o", "c.parquet"), 1)
