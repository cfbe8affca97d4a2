"""Several processes that train one model: the same training as one process with the same batches."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import Result
from conftest import HANGS_S, PAPERS, error_line, read_jsonl, wait_until
from safetensors.torch import load_file

from arxivclf.progress import is_first, rank_and_count

HOW = ("--since", 1990, "--max-tokens", 24, "--epochs", 2.5, "--learning-rate", "1e-3", "--batch-size", 20)


def torchrun(count: int, folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """Run a training in so many processes, which talk over loopback."""
    return subprocess.run(command(count, *options), cwd=folder, capture_output=True, text=True, timeout=HANGS_S)


def command(count: int, *options: object) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return [*launcher, "-m", "arxivclf", "train", *map(str, options)]


def config(folder: Path) -> None:
    """In float32, for in bfloat16 a sum in another order differs in its third digit."""
    folder.mkdir(exist_ok=True)
    (folder / "arxivclf.toml").write_text('[train]\nprecision = "float32"\npatience = 0\n')


@pytest.fixture(scope="module")
def both(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """One training by one process and by two."""
    folders = {}
    for count in (1, 2):
        folder = tmp_path_factory.mktemp(f"by{count}")
        config(folder)
        done = torchrun(count, folder, PAPERS, "--base", tiny_base, *HOW, "--log-json", "log.jsonl")
        assert done.returncode == 0, done.stderr
        (folder / "stdout").write_text(done.stdout)
        folders[count] = folder
    return folders


def test_two_processes_have_the_losses_of_one(both: dict[int, Path]) -> None:
    one, two = (pl.read_csv(both[count] / "model/training.csv").drop("seconds") for count in (1, 2))
    assert one.shape == two.shape
    assert one.height == 3
    # 305 papers in batches of 20: the last batch of a pass has 5, the second process two of them.
    assert one.get_column("step").to_list() == [16, 32, 40]
    for name in ("training_loss", "validation_loss"):
        assert two.get_column(name).to_list() == pytest.approx(one.get_column(name).to_list(), rel=1e-4)
    assert one.get_column("learning_rate").to_list() == two.get_column("learning_rate").to_list()
    weights = [load_file(both[count] / "model/model.safetensors") for count in (1, 2)]
    assert all((weights[0][name] - weights[1][name]).abs().max() < 1e-3 for name in weights[0])


def test_two_machines_have_the_losses_of_one(both: dict[int, Path], tiny_base: Path, tmp_path: Path) -> None:
    """Two launchers, each with a folder of its own, as on two machines; they meet at an address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for node in (0, 1):
        folder = tmp_path / str(node)
        config(folder)
        meet = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}", "--master-addr=127.0.0.1"]
        start = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            *meet,
            f"--master-port={port}",
            "-m",
            "arxivclf",
            "train",
        ]
        running.append(
            subprocess.Popen(
                [*start, *map(str, (PAPERS, "--base", tiny_base, *HOW))], cwd=folder, stderr=subprocess.PIPE
            )
        )
    for process in running:
        _, said = process.communicate(timeout=HANGS_S)
        assert process.returncode == 0, said.decode()
    one, two = (pl.read_csv(folder / "model/training.csv").drop("seconds") for folder in (both[1], tmp_path / "0"))
    for name in ("training_loss", "validation_loss"):
        assert two.get_column(name).to_list() == pytest.approx(one.get_column(name).to_list(), rel=1e-4)
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == ["arxivclf.toml"]


def test_the_first_alone_writes_and_speaks(both: dict[int, Path]) -> None:
    assert sorted(path.name for path in both[2].iterdir()) == ["arxivclf.toml", "log.jsonl", "model", "stdout"]
    assert (both[2] / "stdout").read_text().count("The model is in model") == 1
    begun = [event["stage"] for event in read_jsonl(both[2] / "log.jsonl") if event["event"] == "begin"]
    assert begun.count("Pass 1 of 3") == 1
    assert begun.count("Test") == 1


def test_every_test_paper_is_scored_once_whoever_scores_it(both: dict[int, Path]) -> None:
    one, two = (pl.read_parquet(both[count] / "model/test.labels.parquet") for count in (1, 2))
    assert one.get_column("id").to_list() == two.get_column("id").to_list()
    assert two.get_column("ai_score").to_list() == pytest.approx(one.get_column("ai_score").to_list(), abs=1e-3)


def test_two_processes_that_are_stopped_go_on_together(both: dict[int, Path], tiny_base: Path, tmp_path: Path) -> None:
    """torchrun passes SIGTERM on: the first process keeps a checkpoint, and two others take it up."""
    config(tmp_path)
    with open(tmp_path / "arxivclf.toml", "a") as file:
        file.write("checkpoint_minutes = 0\n")
    options = (PAPERS, "--base", tiny_base, *HOW, "--log-json", "log.jsonl")
    process = subprocess.Popen(command(2, *options), cwd=tmp_path, stderr=subprocess.PIPE)
    log, checkpoint = tmp_path / "log.jsonl", tmp_path / ".model.checkpoint.safetensors"
    wait_until(checkpoint.exists, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=HANGS_S)
    assert process.returncode != 0
    assert checkpoint.exists()
    log.unlink()
    done = torchrun(2, tmp_path, *options, "--resume")
    assert done.returncode == 0, done.stderr
    assert any("Going on from step" in event.get("text", "") for event in read_jsonl(log))
    columns = ["training_loss", "validation_loss"]
    ours, theirs = (
        pl.read_csv(folder / "model/training.csv").select(columns).to_numpy() for folder in (tmp_path, both[2])
    )
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_standard_input_is_for_one_process(
    cli: Callable[..., Result], tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    line = error_line(cli("train", "-", "--base", tiny_base, input="{}\n"), 2)
    assert "one process only" in line


def test_a_rank_alone_is_none_of_torchruns(
    cli: Callable[..., Result], tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    shown = cli("train", PAPERS, "--base", tiny_base, "--since", 1990, "--max-tokens", 16, "--epochs", 0.1)
    assert shown.exit_code == 0, shown.output
    assert "F1" in shown.stdout
    assert Path("model/model.safetensors").exists()


@pytest.mark.parametrize(
    ("rank", "count", "expected"), [("0", "2", (0, 2)), ("00", "2", (0, 2)), ("1", "2", (1, 2)), ("3", "1", (0, 1))]
)
def test_who_is_first(monkeypatch: pytest.MonkeyPatch, rank: str, count: str, expected: tuple[int, int]) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", count)
    assert rank_and_count() == expected
    assert is_first() is (expected[0] == 0)


def test_a_wrong_environment_is_one_line(
    cli: Callable[..., Result], tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "many")
    line = error_line(cli("train", PAPERS, "--base", tiny_base), 1)
    assert "torchrun" in line
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    line = error_line(cli("train", PAPERS, "--base", tiny_base), 1)
    assert "the 2 processes of this training do not find each other" in line
