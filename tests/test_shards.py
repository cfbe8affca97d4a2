"""Several runs that label one dump between them: in any order, killed and run again, the same bytes as one run."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import filelock
import polars as pl
import pytest
from click.testing import Result
from conftest import HANGS_S, error_line, paper, papers, read_jsonl, wait_until, write_jsonl, write_parquet
from hypothesis import given
from hypothesis import strategies as st

from arxivclf import LabelSettings, label
from arxivclf.errors import DataError, UsageError
from arxivclf.labelling.merge import merge
from arxivclf.labelling.parts import Parts, Shard


def rows() -> list[dict[str, Any]]:
    """95 rows: repeats over the borders of chunks and shards, and rows that are no papers."""
    found = papers(80)
    found[10:10] = [paper("2101.00070v1"), {"id": 5, "title": "x", "abstract": "y"}]
    found[50:50] = [paper("2101.00003", title="Third, again"), {"title": "no id", "abstract": "y"}]
    return found + [paper(f"2102.{n:05d}") for n in range(1, 12)]


@pytest.fixture(params=["jsonl", "parquet"])
def dump(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "jsonl":
        return write_jsonl(tmp_path / "dump.jsonl", rows())
    return write_parquet(tmp_path / "dump.parquet", [row | {"id": str(row.get("id", ""))} for row in rows()])


def run(dump: Path, output: Path, shard: str | None = None, **how: Any) -> Any:
    settings = {"model": ("bundled",), "chunk_rows": 10, "max_rejects": 0.2, **how}
    return label(LabelSettings((str(dump),), output=str(output), shard=shard, **settings))


def both(output: Path) -> tuple[bytes, bytes | None]:
    """The bytes of the labels and those of the rejects, None where there are none."""
    rejects = output.with_name("x.rejects.jsonl")
    return output.read_bytes(), rejects.read_bytes() if rejects.exists() else None


@given(st.integers(0, 500), st.integers(1, 40))
def test_the_shards_are_the_whole(chunks: int, count: int) -> None:
    found = [number for shard in range(count) for number in Shard(shard, count).of_chunks(chunks)]
    assert found == list(range(chunks))


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_in_any_order_they_make_what_one_run_makes(dump: Path, tmp_path: Path, form: str) -> None:
    whole = tmp_path / f"whole/x.{form}"
    run(dump, whole)
    for number, order in enumerate(permutations(range(3))):
        output = tmp_path / f"{number}/x.{form}"
        waits = [run(dump, output, f"{shard}/3").waits_for for shard in order]
        assert [bool(each) for each in waits] == [True, True, False]
        assert both(output) == both(whole)
        assert not output.with_name(f".x.{form}.parts").exists()


@pytest.mark.parametrize("limit", [1, 25, 60])
def test_a_limit_holds_for_all_together(dump: Path, tmp_path: Path, limit: int) -> None:
    run(dump, tmp_path / "whole/x.parquet", limit=limit)
    for shard in ("2/3", "0/3", "1/3"):
        run(dump, tmp_path / "parts/x.parquet", shard, limit=limit)
    assert both(tmp_path / "parts/x.parquet") == both(tmp_path / "whole/x.parquet")
    assert len(pl.read_parquet(tmp_path / "parts/x.parquet")) == limit


def test_more_shards_than_chunks(tmp_path: Path) -> None:
    dump = write_jsonl(tmp_path / "dump.jsonl", papers(12))
    run(dump, tmp_path / "whole/x.jsonl")
    for shard in range(5):
        run(dump, tmp_path / "x.jsonl", f"{shard}/5")
    assert (tmp_path / "x.jsonl").read_bytes() == (tmp_path / "whole/x.jsonl").read_bytes()


def test_one_run_takes_over_what_shards_have_made(dump: Path, tmp_path: Path) -> None:
    run(dump, tmp_path / "whole/x.parquet")
    run(dump, tmp_path / "x.parquet", "1/3")
    summary = run(dump, tmp_path / "x.parquet")
    assert 0 < summary.papers_now < summary.papers
    assert both(tmp_path / "x.parquet") == both(tmp_path / "whole/x.parquet")


def killed_before_the_output(dump: Path, output: Path, shard: str) -> None:
    """Run a shard in a process that ends when all parts are made and the output is not."""
    code = (
        "import os; from arxivclf import LabelSettings, label; from arxivclf.labelling import run;"
        "run.make_output = lambda *args: os._exit(9);"
        f"label(LabelSettings(({str(dump)!r},), model=('bundled',), output={str(output)!r}, shard={shard!r},"
        " chunk_rows=10, max_rejects=0.2))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9


def test_merge_makes_the_output_without_dump_and_model(dump: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    run(dump, tmp_path / "whole/x.parquet")
    output = tmp_path / "x.parquet"
    run(dump, output, "0/3")
    run(dump, output, "2/3")
    assert "3 of 10 chunks are missing (3-5); run their shards (again)" in error_line(cli("merge", output), 1)
    killed_before_the_output(dump, output, "1/3")
    dump.unlink()
    shown = cli("merge", output)
    assert shown.exit_code == 0, shown.output
    assert both(output) == both(tmp_path / "whole/x.parquet")
    assert not (tmp_path / ".x.parquet.parts").exists()
    assert "the labels are whole" in error_line(cli("merge", output), 2)
    assert "there is nothing to merge" in error_line(cli("merge", tmp_path / "y.parquet"), 2)


def test_a_killed_shard_is_run_again(tmp_path: Path) -> None:
    """Three processes side by side, one of them killed in the middle."""
    many = [paper(f"2101.{n:05d}", title=f"No. {n}") for n in range(1, 9_000)]
    dump = write_jsonl(tmp_path / "dump.jsonl", many)
    run(dump, tmp_path / "whole/x.parquet", chunk_rows=20)
    start = [sys.executable, "-m", "arxivclf", "label", str(dump), "--model", "bundled", "-o", "x.parquet", "-q"]
    command = [*start, "--chunk-rows", "20", "--shard"]

    def begin(shard: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, f"{shard}/3"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    running = [begin(shard) for shard in range(3)]
    manifest = tmp_path / ".x.parquet.parts/manifest-1-of-3.jsonl"
    wait_until(lambda: manifest.exists() and manifest.read_bytes().count(b"\n") > 3, running[1])
    running[1].send_signal(signal.SIGKILL)
    for process in running:
        _, said = process.communicate(timeout=HANGS_S)
        assert process.returncode in (0, -signal.SIGKILL), said.decode()
    assert running[1].returncode == -signal.SIGKILL
    assert not (tmp_path / "x.parquet").exists()
    again = begin(1)
    _, said = again.communicate(timeout=HANGS_S)
    assert again.returncode == 0, said.decode()
    assert (tmp_path / "x.parquet").read_bytes() == (tmp_path / "whole/x.parquet").read_bytes()


def test_what_does_not_go_together(dump: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    for wrong in ("3/3", "-1/3", "1", "a/b", "1/0"):
        with pytest.raises(UsageError, match="shard must be I/N"):
            LabelSettings(shard=wrong)
    assert "standard output" in error_line(cli("label", dump, "--shard", "0/2", "-o", "-"), 2)
    assert "share the folder" in error_line(cli("label", dump, "--shard", "0/2", "-o", "s3://a/x.parquet"), 2)
    run(dump, tmp_path / "x.parquet", "0/2")
    with pytest.raises(UsageError, match="differs in ai"):
        run(dump, tmp_path / "x.parquet", "1/2", threshold=0.9)
    with pytest.raises(UsageError, match="differs in"):
        run(dump, tmp_path / "x.parquet", threshold=0.9)
    with pytest.raises(DataError, match="chunks are missing"):
        merge(str(tmp_path / "x.parquet"))


def test_shards_that_begin_at_the_same_time(tmp_path: Path) -> None:
    """In a fresh folder, where all have their locks before the first has said what it does."""
    job: Any = {"made": "up"}
    with ExitStack() as stack:
        shards = [stack.enter_context(Parts(tmp_path / "x.parquet", Shard(number, 3))) for number in range(3)]
        for one in shards:
            one.begin(job)
        assert [one.job() for one in shards] == [job] * 3
        other = stack.enter_context(Parts(tmp_path / "x.parquet", Shard(0, 4)))
        with pytest.raises(DataError, match="another run is writing it"):
            other.begin(cast(Any, {"made": "otherwise"}))
    # One that began at the same time, and was killed before it saw the others.
    folder = tmp_path / ".x.parquet.parts"
    folder.mkdir()
    (folder / "manifest-1-of-3.jsonl").write_text('{"made": "otherwise"}\n')
    (folder / "lock-2-of-3").touch()
    (folder / "manifest-2-of-3.jsonl").write_text('{"made": "up"}\n')
    with Parts(tmp_path / "x.parquet", Shard(0, 3)) as one:
        one.begin(job)
        assert one.job() == job
        assert {path.name[:10] for path in folder.glob("manifest*")} == {"manifest-0", "manifest-2"}


def test_who_merges_elsewhere_finds_the_rejects_beside_the_labels(
    dump: Path, tmp_path: Path, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shared").mkdir()
    run(dump, Path("shared/x.parquet"), "0/2")
    killed_before_the_output(dump, Path("shared/x.parquet"), "1/2")
    monkeypatch.chdir(tmp_path / "shared")
    Path("x.rejects.jsonl").write_text("mine\n")
    assert "no rejects of ours" in error_line(cli("merge", "x.parquet"), 2)
    Path("x.rejects.jsonl").unlink()
    assert cli("merge", "x.parquet").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == ["x.parquet", "x.rejects.jsonl"]


def test_a_shard_passes_by_one_that_only_looks(tmp_path: Path) -> None:
    """A lock that a run left behind is held by each shard for an instant, to see whether that run is live."""
    with Parts(tmp_path / "x.parquet", Shard(0, 2)) as one:
        one.begin(cast(Any, {"made": "up"}))
        lock = filelock.FileLock(one.folder / "lock", thread_local=False)
        lock.acquire()
        timer = threading.Timer(0.3, lock.release)
        timer.start()
        with Parts(tmp_path / "x.parquet", Shard(1, 2)):
            timer.join()


def test_live_shards_are_left_alone(dump: Path, tmp_path: Path) -> None:
    """Neither a run of all of it nor one of another job may begin while a shard is at work."""
    run(dump, tmp_path / "x.parquet", "0/2")
    with Parts(tmp_path / "x.parquet", Shard(1, 2)):
        for how in ({}, {"threshold": 0.9, "overwrite": True}):
            with pytest.raises(DataError, match="another run is writing it"):
                run(dump, tmp_path / "x.parquet", **how)
        with pytest.raises(DataError, match="another run is writing it"):
            run(dump, tmp_path / "x.parquet", "0/2", threshold=0.9, overwrite=True)
        with pytest.raises(DataError, match="another run is writing it"):
            run(dump, tmp_path / "x.parquet", "1/2")
        run(dump, tmp_path / "x.parquet", "0/2")
    run(dump, tmp_path / "x.parquet", "1/2")
    assert (tmp_path / "x.parquet").exists()


def test_the_screen_says_what_is_missing(dump: Path, cli: Callable[..., Result]) -> None:
    how = ("--model", "bundled", "--chunk-rows", "10", "--max-rejects", "0.2", "-o", "x.parquet")
    shown = cli("label", dump, *how, "--shard", "0/2")
    assert shown.exit_code == 0, shown.output
    assert "none yet, 5 of 10 chunks are missing (5-9); the last shard makes x.parquet" in shown.stdout
    shown = cli("label", dump, *how, "--shard", "1/2")
    assert re.search(r"^labels +x\.parquet$", shown.stdout, re.MULTILINE)
    assert len(read_jsonl(Path("x.rejects.jsonl"))) == 4
