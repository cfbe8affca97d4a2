"""Around a run of labelling: rejects of others, own files among the dumps, links, signals, and other writers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import Result
from conftest import HANGS_S, error_line, paper, papers, read_jsonl, wait_until, write_jsonl

from arxivclf import LabelSettings, label
from arxivclf.errors import DataError
from arxivclf.labelling.parts import Parts

HOW = ("--model", "bundled", "--max-rejects", "0.9")
PROGRAM = [sys.executable, "-m", "arxivclf"]


def dump(name: str, count: int, broken: int = 0) -> Path:
    path = write_jsonl(Path(name), papers(count))
    path.write_text(path.read_text() + "no paper\n" * broken)
    return path


def test_rejects_of_labels_in_another_form_are_not_taken_away(cli: Callable[..., Result]) -> None:
    dump("a.jsonl", 30, broken=5), dump("b.jsonl", 20)
    assert cli("label", "a.jsonl", "-o", "ai.parquet", *HOW).exit_code == 0
    assert len(read_jsonl(Path("ai.rejects.jsonl"))) == 5
    line = error_line(cli("label", "b.jsonl", "-o", "ai.csv", *HOW), 2)
    assert "ai.rejects.jsonl: holds what was rejected for ai.parquet; --rejects names another file" in line
    assert len(read_jsonl(Path("ai.rejects.jsonl"))) == 5
    # The same dump has the same rejects.
    assert cli("label", "a.jsonl", "-o", "ai.csv", *HOW).exit_code == 0
    assert cli("label", "b.jsonl", "-o", "ai.jsonl", "--rejects", "b.rejects.jsonl", *HOW).exit_code == 0


def test_two_runs_to_standard_output_do_not_share_their_rejects(tmp_path: Path) -> None:
    """One of them may be refused; what is there is one run's."""
    runs = []
    for name in "ab":
        path = write_jsonl(tmp_path / f"{name}.jsonl", papers(500))
        path.write_text(path.read_text() + f"no paper of {name}\n" * 400)
        with open(tmp_path / f"{name}.out", "wb") as out:
            command = [*PROGRAM, "label", f"{name}.jsonl", "-o", "-", *HOW]
            runs.append(subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=subprocess.PIPE, text=True))
    told = [run.communicate()[1] for run in runs]
    done = [name for name, run in zip("ab", runs, strict=True) if run.returncode == 0]
    assert done, told
    for run, said in zip(runs, told, strict=True):
        assert run.returncode == 0 or "stdout.rejects.jsonl: another run is writing it" in said
    raws = {row["raw"] for row in read_jsonl(tmp_path / "stdout.rejects.jsonl")}
    assert len(raws) == 1
    assert len(read_jsonl(tmp_path / "stdout.rejects.jsonl")) == 400


def test_rejects_that_are_gone_are_told_and_made_again(cli: Callable[..., Result]) -> None:
    dump("a.jsonl", 30, broken=5)
    how = ("label", "a.jsonl", "-o", "ai.parquet", *HOW)
    assert cli(*how).exit_code == 0
    Path("ai.rejects.jsonl").unlink()
    again = cli(*how)
    assert again.exit_code == 0
    assert "holds these labels already, but ai.rejects.jsonl is not there; --overwrite makes it" in again.stderr
    assert cli(*how, "--overwrite").exit_code == 0
    assert len(read_jsonl(Path("ai.rejects.jsonl"))) == 5


def test_labels_that_rotted_are_not_done(cli: Callable[..., Result]) -> None:
    dump("a.jsonl", 3_000)
    how = ("label", "a.jsonl", "-o", "ai.parquet", *HOW)
    assert cli(*how).exit_code == 0
    whole = Path("ai.parquet").read_bytes()
    Path("ai.parquet").write_bytes(whole[:200] + bytes(300) + whole[500:])
    assert "ai.parquet: there already, but damaged; --overwrite" in error_line(cli(*how), 2)
    assert cli(*how, "--overwrite").exit_code == 0
    assert Path("ai.parquet").read_bytes() == whole


def test_what_is_reused_is_not_written_over(cli: Callable[..., Result]) -> None:
    dump("a.jsonl", 30)
    assert cli("label", "a.jsonl", "-o", "ai.parquet", *HOW).exit_code == 0
    line = error_line(cli("label", "a.jsonl", "-o", "ai.parquet", "--reuse", "./ai.parquet", "--overwrite", *HOW), 2)
    assert "is what --reuse takes scores from" in line


@pytest.mark.parametrize("where", [".", "*.jsonl"])
@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
def test_what_a_run_writes_among_the_dumps_is_no_dump(cli: Callable[..., Result], where: str, output: str) -> None:
    dump("a.jsonl", 30, broken=3)
    how = ("label", where, "-o", output, "--rejects", "bad.jsonl", *HOW)
    for _ in range(2):
        shown = cli(*how)
        assert shown.exit_code == 0, shown.output
        assert shown.stdout.split()[:2] == ["papers", "30"]


def test_labels_of_a_pattern_are_named_after_its_first_file(cli: Callable[..., Result]) -> None:
    for folder in ("x", "y"):
        Path(folder).mkdir()
        dump(f"{folder}/{folder}1.jsonl", 5), dump(f"{folder}/{folder}2.jsonl", 5)
        assert cli("label", f"{folder}/*.jsonl", *HOW).exit_code == 0
    assert {path.name for path in Path().glob("*.parquet")} == {"x1.labels.parquet", "y1.labels.parquet"}


class ChangedError(Exception):
    """Of the test."""


def test_a_dump_that_was_another_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it was, then put back: nothing of the other is among the labels."""
    path = write_jsonl(tmp_path / "a.jsonl", papers(60))
    content, state = path.read_bytes(), path.stat()
    settings = LabelSettings((str(path),), model=("bundled",), output=str(tmp_path / "o.parquet"), chunk_rows=10)
    expected = label(LabelSettings((str(path),), model=("bundled",), output=str(tmp_path / "e.parquet"), chunk_rows=10))
    assert expected.papers == 60
    real = Parts.add

    def change(self: Parts, part: Any, *rest: Any) -> None:
        real(self, part, *rest)
        if part.number == 2:
            path.write_bytes(content.replace(b"Paper", b"Other"))

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "add", change)
        # As if it were killed: nothing is cleared up.
        patch.setattr(Parts, "forget", lambda self: (_ for _ in ()).throw(ChangedError))
        with pytest.raises(ChangedError):
            label(settings)
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert label(settings).papers_now == 30
    assert (tmp_path / "o.parquet").read_bytes() == (tmp_path / "e.parquet").read_bytes()


@pytest.mark.parametrize("changed", [False, True])
def test_a_dump_that_is_only_touched_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", papers(60))
    settings = LabelSettings((str(path),), model=("bundled",), output=str(tmp_path / "o.parquet"), chunk_rows=10)
    real = Parts.add

    def touch(self: Parts, part: Any, *rest: Any) -> None:
        real(self, part, *rest)
        if part.number == 2:
            path.write_bytes(path.read_bytes() + b"\n" * changed)
            os.utime(path)

    monkeypatch.setattr(Parts, "add", touch)
    if changed:
        with pytest.raises(DataError, match="changed while it was read"):
            label(settings)
        assert list(tmp_path.iterdir()) == [path]
    else:
        assert label(settings).papers == 60


def test_a_manifest_that_rotted(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    dump("a.jsonl", 60)
    how = ("label", "a.jsonl", "-o", "o.parquet", "--chunk-rows", "10", *HOW)
    real = Parts.add

    def stop(self: Parts, part: Any, *rest: Any) -> None:
        real(self, part, *rest)
        if part.number == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "add", stop)
        assert cli(*how).exit_code == 130
    manifest = Path(".o.parquet.parts/manifest.jsonl")
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(lines[0] + lines[1] + bytes(len(lines[2]) - 1) + b"\n" + lines[3])
    shown = cli(*how)
    assert shown.exit_code == 0, shown.output
    assert pl.read_parquet("o.parquet").height == 60


def test_a_link_is_written_through(cli: Callable[..., Result]) -> None:
    dump("a.jsonl", 10)
    Path("big").mkdir()
    Path("o.parquet").symlink_to("big/real.parquet")
    assert cli("label", "a.jsonl", "-o", "o.parquet", *HOW).exit_code == 0
    assert Path("o.parquet").is_symlink()
    assert pl.read_parquet("big/real.parquet").height == 10


@pytest.mark.parametrize("name", ["n" * 240 + ".parquet", "folder.parquet"])
def test_a_name_that_cannot_be_is_refused_before_any_work(cli: Callable[..., Result], name: str) -> None:
    dump("a.jsonl", 10)
    Path("folder.parquet").mkdir()
    assert "-o names a" in error_line(cli("label", "a.jsonl", "-o", name, "--overwrite", *HOW), 2)


def test_a_reject_with_an_endless_id_is_still_ours(cli: Callable[..., Result]) -> None:
    rows = [paper("x" * 1_500_000), *papers(10)]
    write_jsonl(Path("a.jsonl"), rows)
    for _ in range(2):
        assert cli("label", "a.jsonl", "-o", "o.parquet", "--overwrite", *HOW).exit_code == 0
    (reject,) = read_jsonl(Path("o.rejects.jsonl"))
    assert len(reject["id"]) == 2_000


def test_a_training_takes_no_file_of_the_users_for_rejects(cli: Callable[..., Result]) -> None:
    dump("a.jsonl", 100)
    Path("model.rejects.jsonl").write_text('{"mine": 1}\n')
    line = error_line(cli("train", "a.jsonl", "--base", "none"), 2)
    assert "model.rejects.jsonl: there already, and no rejects of ours" in line
    assert Path("model.rejects.jsonl").read_text() == '{"mine": 1}\n'


def test_a_model_that_a_training_was_about_to_replace_is_not_passed_over(cli: Callable[..., Result]) -> None:
    dump("a.jsonl", 10)
    Path("model.previous").mkdir()
    line = error_line(cli("label", "a.jsonl"), 1)
    assert "no ./model, but model.previous" in line
    assert cli("label", "a.jsonl", "--model", "bundled").exit_code == 0


def test_standard_output_that_is_closed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", papers(10))
    for output, code in (("-", 2), ("o.parquet", 0)):
        command = f"{sys.executable} -m arxivclf label a.jsonl --model bundled -o {output} >&-"
        done = subprocess.run(command, shell=True, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    assert pl.read_parquet(tmp_path / "o.parquet").height == 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_standard_input_is_waited_for(tmp_path: Path, number: signal.Signals) -> None:
    # What a shell starts in the background ignores Ctrl-C, and so does what that starts.
    heeding = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", heeding, *PROGRAM, "label", "-", "-o", "o.parquet", "--model", "bundled", "-q"]
    run = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdin is not None
    run.stdin.write(json.dumps(paper("2101.00001")) + "\n")
    run.stdin.flush()
    waiting = tmp_path / ".o.parquet.parts"
    wait_until(lambda: bool(list(waiting.glob("source-*"))), run)
    # So that it mostly waits for more by now; wherever it is, it must end in the same way.
    time.sleep(0.3)
    run.send_signal(number)
    # Standard input stays open.
    assert run.wait(timeout=HANGS_S) == 130
    assert run.stderr is not None
    assert "Traceback" not in run.stderr.read()
    run.stdin.close()
    assert list(tmp_path.iterdir()) == []
