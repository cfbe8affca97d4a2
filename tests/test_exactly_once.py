"""Exactly once: killed at any moment, a run goes on and ends with the bytes of one that was not."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import polars as pl
import pytest
from click.testing import Result
from conftest import HANGS_S, PAPERS, error_line, paper, papers, read_jsonl, wait_until, write_jsonl, write_parquet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arxivclf import Classifier, LabelSettings, label
from arxivclf.corpus.repeats import Repeats
from arxivclf.labelling.ahead import ahead
from arxivclf.labelling.census import REPEATED


def digest(folder: Path) -> dict[str, str]:
    """Every file of a folder, hidden ones too, with the hash of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_dump(path: Path, count: int) -> Path:
    rows = papers(count)
    rows[5], rows[17] = paper("wrong"), rows[30] | {"id": rows[30]["id"] + "v1"}
    return write_jsonl(path, rows)


@pytest.mark.parametrize(("form", "kills_wanted"), [("parquet", 20), ("jsonl.gz", 6)])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    model: Path, tmp_path: Path, form: str, kills_wanted: int
) -> None:
    def command(folder: Path) -> list[str]:
        settings = ["--model", str(model), "--chunk-rows", "50", "-q", "--max-rejects", "0.1", "-o", f"out.{form}"]
        return [sys.executable, "-m", "arxivclf", "label", "dump.jsonl", *settings]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        write_dump(folder / "dump.jsonl", 1_200)
    # The first also finds out how to compute here.
    subprocess.run([*command(whole), "--limit", "10"], cwd=whole, check=True, capture_output=True)
    started = time.monotonic()
    subprocess.run([*command(whole), "--overwrite"], cwd=whole, check=True, capture_output=True)
    took = time.monotonic() - started
    expected = digest(whole)
    job = {f"out.{form}.job.json"} if form != "parquet" else set()
    assert set(expected) == {"dump.jsonl", f"out.{form}", "out.rejects.jsonl"} | job

    # The libraries take most of the time to load; moments before that test nothing.
    moments = random.Random(form)
    kills = 0
    while kills < kills_wanted:
        manifest = killed / f".out.{form}.parts/manifest.jsonl"
        before = size_of(manifest)
        with subprocess.Popen(
            command(killed), cwd=killed, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            wait_for_more(process, manifest, before)
            time.sleep(moments.uniform(0, 0.2 * took))
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert process.returncode in (0, -signal.SIGKILL), process.stderr.read().decode()
            kills += process.returncode == -signal.SIGKILL
        if (killed / f"out.{form}").exists():
            # It had come to its end; so that the kills go on, another job begins.
            assert digest(killed) == expected or (killed / f".out.{form}.parts").exists()
            for path in killed.glob("out.*"):
                path.unlink()
    while not (killed / f"out.{form}").exists():
        subprocess.run(command(killed), cwd=killed, check=True, capture_output=True)
    assert digest(killed) == expected


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def wait_for_more(process: subprocess.Popen[bytes], manifest: Path, before: int) -> None:
    """Until the run has begun to work: there is more in its manifest than before."""
    wait_until(lambda: size_of(manifest) > before or process.poll() is not None, process)


class CutError(Exception):
    """A power cut at one call of the file system."""


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_cut_at_every_single_step_on_disk(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """The kill at random moments, made exhaustive: the run is cut at its first step on disk, then at its second ..."""
    monkeypatch.chdir(tmp_path)
    write_dump(tmp_path / "dump.jsonl", 100)
    job = LabelSettings(("dump.jsonl",), (str(model),), output=f"out.{form}", chunk_rows=30, max_rejects=0.1)
    label(job)
    expected = digest(tmp_path)
    real = {name: getattr(os, name) for name in ("fsync", "rename", "replace", "unlink", "truncate")}
    acquire = filelock.FileLock.acquire
    locks: list[Any] = []
    left = 0

    def cutting(call: Callable[..., Any]) -> Callable[..., Any]:
        def cut(*arguments: Any, **extra: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise CutError
            return call(*arguments, **extra)

        return cut

    def recorded(lock: Any, *arguments: Any, **extra: Any) -> Any:
        locks.append(lock)
        return acquire(lock, *arguments, **extra)

    for at in range(200):
        for path in tmp_path.glob("out.*"):
            path.unlink()
        left, cut = at, False
        with monkeypatch.context() as patched:
            for name, call in real.items():
                patched.setattr(os, name, cutting(call))
            patched.setattr(filelock.FileLock, "acquire", recorded)
            try:
                label(job)
            except CutError:
                cut = True
        # What the death of the process does.
        for lock in locks:
            lock.release(force=True)
        if cut:
            label(job)
        assert digest(tmp_path) == expected, f"cut at step {at}"
        if not cut:
            break
    assert at > 20


def test_done_parts_are_not_labelled_again(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("dump.jsonl"), papers(100))
    job = LabelSettings(("dump.jsonl",), (str(model),), chunk_rows=10)
    add = "arxivclf.labelling.parts.Parts.add"
    from arxivclf.labelling.parts import Parts

    calls = 0
    real_add = Parts.add

    def add_six(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise CutError
        real_add(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(add, add_six)
        with pytest.raises(CutError):
            label(job)
    assert not Path("dump.labels.parquet").exists()
    _, *parts = read_jsonl(Path(".dump.labels.parquet.parts/manifest.jsonl"))
    assert [(part["file"], part["first_row"], part["last_row"]) for part in parts] == [
        (0, first, first + 9) for first in range(1, 60, 10)
    ]
    summary = label(job)
    assert (summary.papers, summary.papers_now) == (100, 40)
    again = label(job)
    assert (again.papers, again.papers_now) == (100, 0)
    assert again.labelled == summary.labelled


def unfinished(model: Path, monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
    """Leave a run of dump.jsonl unfinished after its first part."""
    from arxivclf.labelling.parts import Parts

    real_add = Parts.add

    def add_one(*arguments: Any) -> None:
        real_add(*arguments)
        raise CutError

    with monkeypatch.context() as patched:
        patched.setattr("arxivclf.labelling.parts.Parts.add", add_one)
        with pytest.raises(CutError):
            label(LabelSettings(("dump.jsonl",), (str(model),), **({"chunk_rows": 10} | how)))


@pytest.mark.parametrize("state", ["unfinished", "finished"])
def test_another_job_is_refused_with_what_differs(
    cli: Callable[..., Result], model: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    write_jsonl(Path("dump.jsonl"), papers(40))
    if state == "unfinished":
        unfinished(model, monkeypatch)
    else:
        assert cli("label", "dump.jsonl", "--model", model, "--chunk-rows", 10).exit_code == 0
    same = ["label", "dump.jsonl", "--model", model, "--chunk-rows", 10]
    for change, says in (
        (["--chunk-rows", 20], "chunk_rows (10 then, 20 now)"),
        (["--threshold", 0.9], "ai ("),
        (["--keep", "title"], "keep ([] then, ['title'] now)"),
    ):
        assert says in error_line(cli(*same, *change), 2)
    write_jsonl(Path("dump.jsonl"), papers(41))
    assert "differs in the input" in error_line(cli(*same), 2)
    assert cli(*same, "--overwrite").exit_code == 0
    assert len(pl.read_parquet("dump.labels.parquet")) == 41
    assert cli(*same).exit_code == 0


def test_a_run_that_was_killed_while_it_counted_counts_anew(tmp_path: Path) -> None:
    chunks = [pl.Series([f"{at + place}" for place in range(10)]) for at in range(0, 50, 10)]

    def cut() -> Iterator[pl.Series]:
        yield from chunks[:3]
        raise CutError

    with pytest.raises(CutError):
        Repeats.find(cut(), tmp_path, spill_papers=10)
    assert list(tmp_path.iterdir())
    assert not Repeats.find(chunks, tmp_path, spill_papers=10).among(0, sum(map(len, chunks))).any()
    assert not list(tmp_path.iterdir())


def test_labels_that_are_done_leave_another_unfinished_run_alone(
    cli: Callable[..., Result], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(Path("dump.jsonl"), papers(40))
    same = ["label", "dump.jsonl", "--model", model, "--chunk-rows", 10]
    assert cli(*same).exit_code == 0
    unfinished(model, monkeypatch, threshold=0.9, overwrite=True)
    assert cli(*same).exit_code == 0
    manifest = Path(".dump.labels.parquet.parts/manifest.jsonl")
    assert manifest.read_bytes().count(b"\n") > 1
    shown = cli(*same, "--threshold", 0.9, "--overwrite")
    assert "were done before" in shown.output


def test_two_runs_on_one_output(cli: Callable[..., Result], model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(Path("dump.jsonl"), papers(40))
    unfinished(model, monkeypatch)
    with filelock.FileLock(".dump.labels.parquet.parts/lock"):
        assert "another run is writing it" in error_line(cli("label", "dump.jsonl", "--model", model), 1)
    assert cli("label", "dump.jsonl", "--model", model, "--chunk-rows", 10).exit_code == 0


def test_a_part_that_rotted_is_made_anew(
    cli: Callable[..., Result], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(Path("dump.jsonl"), papers(40))
    assert cli("label", "dump.jsonl", "--model", model, "--chunk-rows", 10, "-o", "whole.parquet").exit_code == 0
    unfinished(model, monkeypatch)
    part = Path(".dump.labels.parquet.parts/part-000000.parquet")
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert cli("label", "dump.jsonl", "--model", model, "--chunk-rows", 10).exit_code == 0
    assert Path("dump.labels.parquet").read_bytes() == Path("whole.parquet").read_bytes()


def test_a_dump_that_grows_while_it_is_read(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("dump.jsonl"), papers(40))
    from arxivclf.errors import DataError
    from arxivclf.labelling.parts import Parts

    real_add = Parts.add

    def add_and_grow(*arguments: Any) -> None:
        real_add(*arguments)
        with open("dump.jsonl", "a") as dump:
            dump.write(json.dumps(paper("2105.00001")) + "\n")

    with monkeypatch.context() as patched:
        patched.setattr("arxivclf.labelling.parts.Parts.add", add_and_grow)
        with pytest.raises(DataError, match="changed while it was read"):
            label(LabelSettings(("dump.jsonl",), (str(model),), chunk_rows=10))
    assert sorted(path.name for path in Path().iterdir()) == ["dump.jsonl"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_hand_it_keeps_what_was_done(model: Path, tmp_path: Path, number: signal.Signals) -> None:
    write_dump(tmp_path / "dump.jsonl", 3_000)
    command = [sys.executable, "-m", "arxivclf", "label", "dump.jsonl", "--model", str(model), "--chunk-rows", "50"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        manifest = tmp_path / ".dump.labels.parquet.parts/manifest.jsonl"
        wait_until(lambda: manifest.exists() and len(manifest.read_bytes().splitlines()) > 3, process)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=HANGS_S)
    assert process.returncode == 130, stderr
    assert stderr.splitlines()[-1] == "Error: interrupted; the same command goes on where it was"
    assert "Traceback" not in stderr
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "were done before" in done.stdout
    assert len(pl.read_parquet(tmp_path / "dump.labels.parquet")) == 2_998


def test_of_repeats_the_last_wins_and_the_others_are_rejects(model: Path, tmp_path: Path) -> None:
    rows = [*papers(20), *(row | {"id": row["id"] + "v2", "title": "newer"} for row in papers(5))]
    first, second = write_jsonl(tmp_path / "a.jsonl", rows[:12]), write_parquet(tmp_path / "b.parquet", rows[12:])
    output = tmp_path / "out.parquet"
    summary = label(
        LabelSettings((str(first), str(second)), (str(model),), output=str(output), keep=("title",), chunk_rows=4)
    )
    frame = pl.read_parquet(output)
    assert frame.get_column("id").to_list() == [row["id"] for row in rows[5:]]
    assert frame.get_column("title").to_list()[-5:] == ["newer"] * 5
    rejects = read_jsonl(tmp_path / "out.rejects.jsonl")
    assert [(row["line"], row["id"], row["reason"]) for row in rejects] == [
        (number, row["id"], REPEATED) for number, row in enumerate(papers(5), 1)
    ]
    assert json.loads(rejects[0]["raw"]) == rows[0]
    assert summary.rejects == {REPEATED: 5}
    label(
        LabelSettings(
            (str(first), str(second)), (str(model),), output=str(output), keep_duplicates=True, overwrite=True
        )
    )
    assert len(pl.read_parquet(output)) == 25


@given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 9), st.sampled_from([1, 7, 1_000]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_repeats_are_the_same_however_they_are_found(tmp_path: Path, ids: list[int], chunk: int, spill: int) -> None:
    keys = [str(number) for number in ids]
    chunks = [pl.Series(keys[at : at + chunk], dtype=pl.String) for at in range(0, len(keys), chunk)]
    repeats = Repeats.find(chunks, tmp_path, spill_papers=spill)
    expected = [key in keys[place + 1 :] for place, key in enumerate(keys)]
    found = [flag for at in range(0, len(keys), chunk) for flag in repeats.among(at, len(keys[at : at + chunk]))]
    assert found == expected
    assert not list(tmp_path.iterdir())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=15)
@given(cuts=st.lists(st.integers(0, 60), max_size=3).map(sorted), chunk_rows=st.integers(1, 70))
def test_any_chunks_and_any_split_into_files_give_the_same(
    model: Path, tmp_path: Path, cuts: list[int], chunk_rows: int
) -> None:
    rows = [*papers(50), paper("wrong"), *papers(3), paper(17), paper("2102.00001")]
    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
    dump = write_jsonl(tmp_path / "dump.jsonl", rows)
    how: dict[str, Any] = {"max_rejects": 1.0, "overwrite": True}
    label(LabelSettings((str(dump),), (str(model),), output=str(whole), **how))
    edges = [0, *(cut for cut in cuts if cut < len(rows)), len(rows)]
    files = [
        str(write_jsonl(tmp_path / f"{number}.jsonl", rows[start:end]))
        for number, (start, end) in enumerate(pairwise(edges))
        if start < end
    ]
    summary = label(LabelSettings(tuple(files), (str(model),), output=str(parts), chunk_rows=chunk_rows, **how))
    one, other = pl.read_parquet(whole), pl.read_parquet(parts)
    assert one.equals(other)
    assert len(other) + sum(summary.rejects.values()) == len(rows)
    assert summary.rejects == {"malformed id": 1, "numeric id": 1, REPEATED: 3}


def test_another_way_of_computing_is_named(cli: Callable[..., Result], model: Path, monkeypatch: Any) -> None:
    write_jsonl(Path("dump.jsonl"), papers(20))
    assert cli("label", "dump.jsonl", "--model", model).exit_code == 0
    monkeypatch.setattr("arxivclf.model.encoder.Encoder.arithmetic", "float64 by hand")
    line = error_line(cli("label", "dump.jsonl", "--model", model), 2)
    assert re.search(r"how the models are computed \(.+ then, float64 by hand now: another processor", line)


def test_labels_that_tell_no_way_of_computing(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(20))
    how = ("label", "dump.jsonl", "--model", model, "-o", "x.csv")
    assert cli(*how).exit_code == 0
    record = Path("x.csv.job.json")
    told = json.loads(record.read_text())
    for one in told["job"]["models"]:
        del one["computed"]
    record.write_text(json.dumps(told))
    assert "how the models are computed (unknown then, " in error_line(cli(*how), 2)


def test_several_models_in_one_pass(cli: Callable[..., Result], model: Path, tiny_base: Path) -> None:
    how = ["--epochs", 0.3, "--max-tokens", 48, "--base", tiny_base, "--task"]
    assert cli("train", PAPERS, "-o", "nlp", *how, "nlp").exit_code == 0
    write_jsonl(Path("dump.jsonl"), papers(30))
    for name, path in (("ai", model), ("nlp", "nlp")):
        assert cli("label", "dump.jsonl", "--model", path, "-o", f"{name}.parquet").exit_code == 0
    both = cli("label", "dump.jsonl", "--model", model, "--model", "nlp", "-o", "both.parquet")
    assert both.exit_code == 0, both.output
    frame = pl.read_parquet("both.parquet")
    for name in ("ai", "nlp"):
        alone = pl.read_parquet(f"{name}.parquet")
        assert frame.select(alone.columns).equals(alone)
    cleaned = cli("train", PAPERS, "-o", "cleaned", *how, "cv", "--clean", "cset2020")
    assert cleaned.exit_code == 0, cleaned.output
    pair = ["label", "dump.jsonl", "--model", "nlp", "--model", "cleaned", "-o", "pair.parquet"]
    assert cli(*pair).exit_code == 0
    assert pl.read_parquet("pair.parquet").columns[3:9:3] == ["nlp", "cv"]
    assert "different ways" in error_line(cli(*pair[:-1], "again.parquet", "--reuse", "pair.parquet"), 2)
    clash = cli("label", "dump.jsonl", "--model", model, "--model", model, "-o", "clash.parquet")
    assert "gives the label 'ai', and so does another model" in error_line(clash, 2)


@pytest.fixture
def plain(tiny_base: Path, tmp_path: Path) -> Path:
    """A binary softmax classifier as the original project saved them: id2label {0: 0, 1: 1}."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(1)
    folder = tmp_path / "plain"
    made = AutoModelForSequenceClassification.from_pretrained(
        tiny_base, num_labels=2, id2label={0: 0, 1: 1}, label2id={0: 0, 1: 1}
    )
    made.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return folder


def test_a_classifier_that_was_not_made_here(cli: Callable[..., Result], plain: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    write_jsonl(Path("dump.jsonl"), papers(9))
    bare = cli("label", "dump.jsonl", "--model", plain, "-o", "bare.parquet")
    assert bare.exit_code == 0, bare.output
    named = cli("label", "dump.jsonl", "--model", plain, "--task", "ai", "-o", "named.parquet")
    assert named.exit_code == 0, named.output
    bare_frame, frame = pl.read_parquet("bare.parquet"), pl.read_parquet("named.parquet")
    assert "positive_score" in bare_frame.columns
    assert bare_frame.get_column("positive_truth").null_count() == 9
    assert frame.get_column("ai_truth").sum() == 3
    reused = cli("label", "dump.jsonl", "--model", plain, "-o", "x.parquet", "--reuse", "named.parquet")
    assert "has no label 'positive' (but ai); --task names" in error_line(reused, 2)
    opened, tokenizer = AutoModelForSequenceClassification.from_pretrained(plain), AutoTokenizer.from_pretrained(plain)
    text = "Paper number 1. We test a model of testing. It works."
    with torch.inference_mode():
        expected = torch.softmax(opened(**tokenizer(text, return_tensors="pt")).logits, -1)[0, 1].item()
    assert frame.get_column("ai_score")[0] == pytest.approx(expected, abs=0.02)
    assert "names 2" in error_line(
        cli("label", "dump.jsonl", "--model", plain, "--task", "ai", "--task", "cv", "-o", "x.csv"), 2
    )


def test_the_python_interface_gives_what_the_command_writes(cli: Callable[..., Result], model: Path) -> None:
    rows = papers(12)
    write_jsonl(Path("dump.jsonl"), rows)
    assert cli("label", "dump.jsonl", "--model", model, "--keep", "title").exit_code == 0
    written = pl.read_parquet("dump.labels.parquet")
    classifier = Classifier.load(model)
    assert classifier.label("dump.jsonl", keep=["title"]).equals(written)
    frame = pl.DataFrame(rows)
    assert classifier.label(frame, keep=["title"]).equals(written)
    assert classifier.label(pl.concat([frame.head(3), frame]), keep=["title"]).equals(written)
    assert classifier.label(frame.clear()).height == 0
    from arxivclf.errors import DataError

    with pytest.raises(DataError, match=r"the frame row 1: malformed id"):
        classifier.label(pl.DataFrame([paper("wrong")]))


def test_ahead_keeps_order_hands_on_errors_and_stops() -> None:
    def items(fail_at: int) -> Any:
        for number in range(100):
            if number == fail_at:
                raise ValueError(number)
            made.append(number)
            yield number

    made: list[int] = []
    assert list(ahead(items(-1))) == list(range(100))
    with pytest.raises(ValueError, match="7"):
        list(ahead(items(7)))
    made.clear()
    few = ahead(items(-1))
    assert [next(few) for _ in range(3)] == [0, 1, 2]
    few.close()
    assert len(made) < 10
    assert np.array(made).tolist() == sorted(made)


def test_a_full_disk_keeps_what_was_done(
    cli: Callable[..., Result], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(Path("dump.jsonl"), papers(100))
    same = ["label", "dump.jsonl", "--model", model, "--chunk-rows", 10]
    assert cli(*same, "-o", "whole.parquet").exit_code == 0
    real, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        line = error_line(cli(*same), 1)
    assert line == "Error: dump.labels.parquet: cannot be written: no space left on the disk"
    assert not Path("dump.labels.parquet").exists()
    done = cli(*same)
    assert done.exit_code == 0
    assert "were done before" in done.stdout
    assert Path("dump.labels.parquet").read_bytes() == Path("whole.parquet").read_bytes()


def test_a_place_where_nothing_can_be_written(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(3))
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here, where even root cannot write")
    line = error_line(cli("label", "dump.jsonl", "--model", model, "-o", "/proc/out.parquet"), 1)
    assert line.startswith("Error: /proc/out.parquet: cannot be written: ")
