"""A training that is cut off and gone on with is the training that was never cut off."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import Result
from conftest import HANGS_S, PAPERS, error_line, paper, read_jsonl, wait_until, write_jsonl
from safetensors import SafetensorError, safe_open

from arxivclf import TrainSettings, train
from arxivclf.errors import DataError, UsageError
from arxivclf.files import only_one
from arxivclf.progress import Watcher
from arxivclf.training import checkpoint

CHECKPOINT = ".model.checkpoint.safetensors"


class CutOffError(Exception):
    """What takes the place of a power cut within one process."""


class Listener(Watcher):
    """Hears all, and cuts the training off after so many reports of a stage."""

    def __init__(self, stage: str = "", after: int = 0) -> None:
        self.stage_of_cut, self.after, self.said = stage, after, list[str]()

    def begin(self, stage: str, total: int | None, done: int = 0) -> None:
        self.stage_now, self.reports = stage, 0

    def advance(self, papers: int, share: float | None = None, **facts: float) -> None:
        self.reports += 1
        if self.stage_now == self.stage_of_cut and self.reports > self.after:
            raise CutOffError

    def say(self, text: str, **facts: object) -> None:
        self.said.append(text)


# With all that a checkpoint must keep: several passes, dropout, a schedule, other papers in each pass.
SMALL: dict[str, Any] = {
    "since": 1990,
    "max_tokens": 24,
    "undersample": 1.0,
    "learning_rate": 3e-3,
    "dropout": True,
}


@pytest.fixture
def how(tiny_base: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings with a checkpoint at each step."""
    where = {"snapshots": (str(PAPERS),), "base": str(tiny_base), "output": str(tmp_path / "model")}
    return where | SMALL | {"epochs": 2.5, "checkpoint_minutes": 0.0}


def without_a_cut(base: Path, folder: Path, **how: Any) -> Path:
    where: dict[str, Any] = {"base": str(base), "output": str(folder / "model"), "checkpoint_minutes": 1e9}
    train(TrainSettings((str(PAPERS),), **where, **SMALL, **how))
    return folder / "model"


@pytest.fixture(scope="module")
def uninterrupted(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without_a_cut(tiny_base, tmp_path_factory.mktemp("whole"), epochs=2.5)


@pytest.fixture(scope="module")
def long(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of thirty passes, the last of which is kept."""
    return without_a_cut(tiny_base, tmp_path_factory.mktemp("long"), epochs=30.0, patience=0)


def losses(folder: Path) -> list[str]:
    """The table of passes without its times."""
    lines = (folder / "training.csv").read_text().splitlines()
    column = lines[0].split(",").index("seconds")
    return [",".join(cell for place, cell in enumerate(line.split(",")) if place != column) for line in lines]


def same(found: Path, wanted: Path) -> None:
    assert losses(found) == losses(wanted)
    assert len(losses(found)) == 4
    for name in ("model.safetensors", "test.labels.parquet"):
        assert (found / name).read_bytes() == (wanted / name).read_bytes(), name
    assert sorted(path.name for path in found.parent.iterdir()) == ["model"]


@pytest.mark.parametrize(
    ("stage", "after"),
    [
        ("Pass 1 of 3", 1),
        ("Pass 1 of 3", 4),
        ("Validation", 0),
        ("Pass 2 of 3", 0),
        ("Pass 3 of 3", 2),
        ("Test", 0),
    ],
)
def test_cut_anywhere_it_goes_on_to_the_same_model(
    how: dict[str, Any], uninterrupted: Path, tmp_path: Path, stage: str, after: int
) -> None:
    with pytest.raises(CutOffError):
        train(TrainSettings(**how), Listener(stage, after))
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT]
    listener = Listener()
    train(TrainSettings(**how, resume=True), listener)
    assert any(line.startswith("Going on from step") for line in listener.said)
    same(tmp_path / "model", uninterrupted)


def start(how: dict[str, Any], folder: Path, *more: str) -> subprocess.Popen[bytes]:
    (folder / "arxivclf.toml").write_text(
        "[train]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in how.items())
    )
    command = [sys.executable, "-m", "arxivclf", "train", "--log-json", "log.jsonl", *more]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE)


def _toml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def step_of(checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    with safe_open(checkpoint, "pt") as file:
        return int(json.loads(file.metadata()["job"])["state"]["step"])


def test_killed_at_random_moments_it_goes_on(how: dict[str, Any], long: Path, tmp_path: Path) -> None:
    how |= {"epochs": 30.0, "patience": 0}
    steps = pl.read_csv(long / "training.csv").get_column("step").max()
    assert steps > 100
    reached = 0
    for _ in range(2):
        process = start(how, tmp_path, "--resume")
        enough = reached + 4
        wait_until(lambda: step_of(tmp_path / CHECKPOINT) > enough, process)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait()
        reached = step_of(tmp_path / CHECKPOINT)
        assert 0 < reached < steps
    process = start(how, tmp_path, "--resume")
    assert process.wait() == 0
    told = [event["text"] for event in read_jsonl(tmp_path / "log.jsonl") if event["event"] == "say"]
    assert f"Going on from step {reached:,} of {steps:,}" in told
    assert losses(tmp_path / "model") == losses(long)
    for name in ("model.safetensors", "test.labels.parquet"):
        assert (tmp_path / "model" / name).read_bytes() == (long / name).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_keeps_the_step_that_it_is_at(
    how: dict[str, Any], long: Path, tmp_path: Path, number: signal.Signals
) -> None:
    how |= {"checkpoint_minutes": 1e9, "epochs": 30.0, "patience": 0}
    process = start(how, tmp_path)
    log = tmp_path / "log.jsonl"
    wait_until(lambda: log.exists() and '"stage": "Pass 1 of 30"' in log.read_text(), process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=HANGS_S)
    assert process.returncode == 130, stderr
    assert stderr.decode().splitlines()[-1] == "Error: interrupted; --resume goes on from its checkpoint"
    assert b"Traceback" not in stderr
    assert step_of(tmp_path / CHECKPOINT) > 0
    assert start(how, tmp_path, "--resume").wait() == 0
    assert losses(tmp_path / "model") == losses(long)
    assert (tmp_path / "model/model.safetensors").read_bytes() == (long / "model.safetensors").read_bytes()


def test_asked_to_stop_in_a_validation_it_does(how: dict[str, Any], uninterrupted: Path, tmp_path: Path) -> None:
    class Asks(Listener):
        def advance(self, papers: int, share: float | None = None, **facts: float) -> None:
            super().advance(papers, share, **facts)
            if self.stage_now == "Validation":
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(TrainSettings(**how | {"checkpoint_minutes": 1e9}), Asks())
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT]
    train(TrainSettings(**how | {"checkpoint_minutes": 1e9}, resume=True))
    same(tmp_path / "model", uninterrupted)


def test_two_trainings_of_one_folder_do_not_get_into_each_others_way(how: dict[str, Any], tmp_path: Path) -> None:
    with only_one(tmp_path / ".model.lock", "a test"), pytest.raises(DataError, match="another run is writing it"):
        train(TrainSettings(**how))
    assert list(tmp_path.iterdir()) == []


def test_without_resume_an_unfinished_training_is_put_aside(
    how: dict[str, Any], uninterrupted: Path, tmp_path: Path
) -> None:
    with pytest.raises(CutOffError):
        train(TrainSettings(**how), Listener("Pass 2 of 3", 1))
    kept = (tmp_path / CHECKPOINT).read_bytes()
    listener = Listener("Pass 1 of 3", 1)
    with pytest.raises(CutOffError):
        train(TrainSettings(**how), listener)
    aside = tmp_path / ".model.checkpoint.previous.safetensors"
    assert aside.read_bytes() == kept
    assert any(str(aside) in line and "--resume" in line for line in listener.said)
    train(TrainSettings(**how))
    same(tmp_path / "model", uninterrupted)


def test_nothing_to_go_on_from_is_said_and_training_starts(
    how: dict[str, Any], uninterrupted: Path, tmp_path: Path
) -> None:
    listener = Listener()
    train(TrainSettings(**how, resume=True), listener)
    assert any("no checkpoint to go on from" in line for line in listener.said)
    same(tmp_path / "model", uninterrupted)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"learning_rate": 1e-3}, "learning-rate was 0.003 and is now 0.001"),
        ({"epochs": 3.0}, "epochs was 2.5 and is now 3.0"),
        ({"task": ("nlp",)}, "labels was ai = cs.AI cs.CL cs.CV cs.LG cs.MA cs.RO stat.ML and is now nlp = cs.CL"),
        ({"clean": "cset2020"}, "clean was none and is now cset2020"),
        ({"loss": "focal"}, "loss was cross-entropy and is now focal"),
    ],
)
def test_a_changed_setting_is_named_and_the_checkpoint_stays(
    how: dict[str, Any], tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(CutOffError):
        train(TrainSettings(**how), Listener("Pass 1 of 3", 2))
    kept = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(UsageError) as caught:
        train(TrainSettings(**{**how, **changed}, resume=True))
    assert says in str(caught.value)
    assert "--resume" in str(caught.value)
    assert (tmp_path / CHECKPOINT).read_bytes() == kept


def test_changed_papers_are_noticed(how: dict[str, Any], tmp_path: Path) -> None:
    dump = write_jsonl(tmp_path / "dump.jsonl", read_jsonl(PAPERS))
    how["snapshots"] = (str(dump),)
    with pytest.raises(CutOffError):
        train(TrainSettings(**how), Listener("Pass 1 of 3", 2))
    write_jsonl(dump, [*read_jsonl(PAPERS), *(paper(f"2101.{n:05d}") for n in range(1, 9))])
    with pytest.raises(UsageError, match=r"papers was .* and is now"):
        train(TrainSettings(**how, resume=True))
    assert (tmp_path / CHECKPOINT).exists()


def test_the_same_papers_under_another_name_and_a_free_setting_are_no_change(
    how: dict[str, Any], uninterrupted: Path, tmp_path: Path
) -> None:
    with pytest.raises(CutOffError):
        train(TrainSettings(**how), Listener("Pass 1 of 3", 2))
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(PAPERS.read_bytes())
    how |= {"snapshots": (str(moved),), "device": "cpu", "checkpoint_minutes": 1e9}
    train(TrainSettings(**how, resume=True))
    moved.unlink()
    same(tmp_path / "model", uninterrupted)


def test_a_broken_checkpoint_is_one_line(
    how: dict[str, Any], tmp_path: Path, cli: Callable[..., Result], tiny_base: Path
) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"no safetensors")
    line = error_line(cli("train", PAPERS, "--base", tiny_base, "--resume", "--since", 1990), 1)
    assert "cannot be read as a checkpoint" in line
    assert "without --resume" in line


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, from_call: int) -> Iterator[None]:
    real, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= from_call and CHECKPOINT in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        yield


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to tell a file by its descriptor")
def test_a_full_disk_costs_the_checkpoint_and_not_the_training(
    how: dict[str, Any], uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener("Pass 3 of 3", 2)
    with full_disk(monkeypatch, from_call=12), pytest.raises(CutOffError):
        train(TrainSettings(**how), listener)
    lines = [line for line in listener.said if "No checkpoint" in line]
    assert lines
    assert "no space left on the disk" in lines[0]
    assert "the one before it stands" in lines[0]
    assert 0 < step_of(tmp_path / CHECKPOINT) < 18
    train(TrainSettings(**how, resume=True))
    same(tmp_path / "model", uninterrupted)


def test_a_disk_that_is_full_while_tensors_are_written(
    how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Any, file: Path, *more: Any) -> None:
        file.write_bytes(b"a part")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    listener = Listener("Pass 1 of 3", 2)
    with pytest.raises(CutOffError):
        train(TrainSettings(**how), listener)
    assert any("No checkpoint" in line and "there is none to go on from yet" in line for line in listener.said)
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The inodes of all files that were synced to the disk."""
    real, found = os.fsync, set[int]()

    def fsync(descriptor: int) -> None:
        found.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_a_checkpoint_is_on_disk_before_it_has_its_name(how: dict[str, Any], tmp_path: Path, synced: set[int]) -> None:
    """What is synced is the file that takes the name, and what a kill left before is gone."""
    left = tmp_path / ".model.checkpoint.unfinished"
    left.mkdir()
    (left / ".tmpabc").touch()
    with pytest.raises(CutOffError):
        train(TrainSettings(**how), Listener("Pass 2 of 3", 1))
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    assert (tmp_path / CHECKPOINT).stat().st_ino in synced


def test_a_model_is_on_disk_before_it_has_its_name_and_others_may_read_it(
    how: dict[str, Any], tmp_path: Path, synced: set[int]
) -> None:
    before = os.umask(0o022)
    try:
        train(TrainSettings(**how))
    finally:
        os.umask(before)
    files = [*(tmp_path / "model").iterdir()]
    assert {path.stat().st_ino for path in files} <= synced
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(0o644)}


def test_a_model_that_cannot_be_written_keeps_its_checkpoint(
    how: dict[str, Any], uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arxivclf.model.encoder import Encoder

    def full(self: Encoder, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "save", full)
        with pytest.raises(DataError, match="no space left on the disk"):
            train(TrainSettings(**how))
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT]
    train(TrainSettings(**how, resume=True))
    same(tmp_path / "model", uninterrupted)
