"""How long a dump will take: from samples that are spread over it, and nothing but arithmetic."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import Result
from conftest import PAPERS, error_line, paper, write_jsonl, write_parquet
from hypothesis import given
from hypothesis import strategies as st

from arxivclf import LabelSettings
from arxivclf.corpus.sources import Source
from arxivclf.labelling import planning, sampling
from arxivclf.labelling.job import LabelSummary
from arxivclf.labelling.planning import Plan, plan


def many(count: int) -> list[dict[str, Any]]:
    return [paper(f"2101.{n:05d}", title=f"No. {n}") for n in range(1, count + 1)]


def numbers(paths: list[Path]) -> list[int]:
    """The papers of a sample, by their number in the dump."""
    titles: list[str] = []
    for path in paths:
        if path.suffix == ".parquet":
            titles += pl.read_parquet(path).get_column("title").to_list()
        else:
            titles += [json.loads(line)["title"] for line in path.read_text().split("\n") if line]
    return [int(title.removeprefix("No. ")) for title in titles]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("size", [5, 160, 1_000])
def test_a_sample_is_from_all_over_the_dump(form: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / f"dump.{form}"
    if form == "jsonl":
        write_jsonl(path, many(1_000))
    else:
        pl.DataFrame(many(1_000)).write_parquet(path, row_group_size=130)
    source = Source(str(path), path)
    assert planning._rows(source) == (1_000, True)
    found = numbers(planning._sample([source], [1_000], size, tmp_path))
    assert len(found) == len(set(found)) == size
    tenths = {number * 10 // 1_001 for number in found}
    assert len(tenths) == min(10, size)


def test_of_packed_lines_the_first_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "dump.jsonl.gz"
    lines = write_jsonl(tmp_path / "dump.jsonl", many(300)).read_bytes()
    path.write_bytes(gzip.compress(lines))
    source = Source(str(path), path)
    assert planning._rows(source) == (300, True)
    assert numbers(planning._sample([source], [300], 20, tmp_path)) == list(range(1, 21))


def test_a_file_that_begins_with_a_blank_line_is_not_packed(tmp_path: Path) -> None:
    path = tmp_path / "dump.jsonl"
    path.write_bytes(b"\n" + write_jsonl(path, many(300)).read_bytes())
    assert max(numbers(planning._sample([Source(str(path), path)], [300], 20, tmp_path))) > 200


def test_rows_of_long_files_are_told_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_LINES_READ", 3_000)
    path = write_jsonl(tmp_path / "dump.jsonl", many(20_000))
    rows, exact = planning._rows(Source(str(path), path))
    assert not exact
    assert rows == pytest.approx(20_000, rel=0.1)


def test_a_plan_for_a_cluster_is_made_here(cli: Callable[..., Result]) -> None:
    write_jsonl(Path("dump.jsonl"), many(40))
    how = ("--model", "bundled", "--engine", "ray", "--ray-address", "auto", "--workers", 3, "--limit", 5)
    shown = cli("label", "dump.jsonl", *how, "--plan")
    assert shown.exit_code == 0, shown.output
    assert "on 3 like it" in shown.stdout
    assert shown.stderr.count("Labelling with bundled on") == 1
    Path("dump.jsonl").write_text('{"id": "2101.00001"}\n')
    assert "Error: dump.jsonl: " in error_line(cli("label", "dump.jsonl", *how, "--plan"), 1)
    assert "for --engine ray, and for --plan" in error_line(cli("label", "dump.jsonl", "--workers", 3), 2)


def test_several_files_have_their_share(tmp_path: Path) -> None:
    first, second = write_parquet(tmp_path / "a.parquet", many(900)), write_parquet(tmp_path / "b.parquet", many(100))
    sources = [Source(str(path), path) for path in (first, second)]
    (tmp_path / "x").mkdir()
    paths = planning._sample(sources, [900, 100], 100, tmp_path / "x")
    assert [len(numbers([path])) for path in paths] == [90, 10]


@given(st.floats(0.1, 20), st.floats(20, 5_000))
def test_what_a_run_costs_once_is_no_part_of_the_rate(fixed: float, rate: float) -> None:
    """With a clock that knows nothing but the work: a start, and a time for each paper."""
    clock, dump = [0.0], 1_000_000

    def work(settings: LabelSettings, listener: object) -> LabelSummary:
        papers = int(Path(settings.snapshots[0]).read_text())
        clock[0] += fixed + papers / rate
        return LabelSummary("x", None, papers, {}, {"gate": papers}, {}, 0, {}, papers, 1.0)

    def sample(sources: Any, rows: Any, size: int, folder: Path) -> list[Path]:
        (folder / "sample.jsonl").write_text(str(size))
        return [folder / "sample.jsonl"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "label", work)
        patch.setattr(planning, "_sample", sample)
        patch.setattr(planning, "_rows", lambda source: (dump, True))
        patch.setattr(planning.time, "monotonic", lambda: clock[0])
        found = plan(LabelSettings((str(PAPERS),)))
    assert found.papers_per_s == pytest.approx(rate, rel=1e-3)
    assert found.fixed_s == pytest.approx(fixed, rel=0.05, abs=0.1)
    assert found.seconds() == pytest.approx(fixed + dump / rate, rel=0.01)
    # No sample took much longer than it should.
    assert found.sampled / rate < 300


def test_arithmetic() -> None:
    found = Plan(rows=7_200_000, exact=True, sampled=10_000, gate_share=0.9, fixed_s=0.0, papers_per_s=1_000.0)
    assert found.seconds() == 7_200
    assert found.seconds(4) == 1_800
    assert found.price(1.5) == found.price(1.5, 4) == 3.0


@pytest.mark.parametrize("count", [1, 422, 512, 513])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_dump_that_is_no_more_than_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, form: str
) -> None:
    monkeypatch.setattr(planning, "_SECONDS", 0.2)
    write = write_jsonl if form == "jsonl" else write_parquet
    dump = write(tmp_path / f"dump.{form}", many(count))
    found = plan(LabelSettings((str(dump),), ("bundled",)))
    assert (found.rows, found.sampled) == (count, count)
    assert found.seconds() > 0


def test_a_dump_without_rows(tmp_path: Path, cli: Callable[..., Result]) -> None:
    (tmp_path / "dump.jsonl").write_text("")
    assert "no rows there" in error_line(cli("label", "dump.jsonl", "--model", "bundled", "--plan"), 1)


def test_the_screen(tmp_path: Path, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_SECONDS", 0.2)
    write_jsonl(tmp_path / "dump.jsonl", many(3_000))
    shown = cli("label", "dump.jsonl", "--model", "bundled", "--plan", "--workers", "4", "--price", "2")
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.stdout.split())
    assert "papers 3,000 sample " in words
    assert "the gate decided 100.0%" in words
    assert "on 4 like it" in words
    assert "at 2 an hour each" in words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump.jsonl"]
    assert "--price is for --plan" in error_line(cli("label", "dump.jsonl", "--price", "2"), 2)
    assert "only files of this machine" in error_line(cli("label", "-", "--plan"), 2)
