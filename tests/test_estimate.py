"""How long a training is, and what it says of that before it starts: epochs, the estimate, Ctrl-C at that point."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import HANGS_S, PAPERS, read_jsonl

from arxivclf import TrainSettings, train
from arxivclf.progress import Watcher
from arxivclf.training import encoder as encoder_training
from arxivclf.training import estimate, finetune
from arxivclf.training.estimate import Estimate, Rest, duration, measure
from arxivclf.training.hyperparameters import Chosen, epochs_for
from arxivclf.training.processes import Processes
from arxivclf.training.schedule import steps_of


@pytest.mark.parametrize(
    ("papers", "epochs"), [(10, 6), (5_000, 6), (26_000, 6), (40_000, 4), (100_000, 2), (110_000, 1), (480_000, 1 / 3)]
)
def test_epochs_by_default(papers: int, epochs: float) -> None:
    assert epochs_for(papers) == epochs


def test_no_training_is_much_longer_than_5000_steps() -> None:
    papers = np.unique(np.geomspace(1, 5_000_000, 2_000).astype(int))
    epochs = np.array([epochs_for(int(count)) for count in papers])
    assert (np.diff(epochs) <= 0).all()
    trained_on = papers * epochs
    assert trained_on.max() < 1.5 * 160_000
    assert trained_on[papers > 26_667].min() > 160_000 / 1.5


def test_a_part_of_the_papers_is_said() -> None:
    chosen = Chosen(epochs_for(480_000), 1e-4, 0.06, "cpu", "float32")
    said = encoder_training._trained_on(480_000, chosen, TrainSettings())
    assert "160,000 of 480,000 papers" in said


@dataclass
class Loop:
    """A loop of training on a device that takes 0.1 s for a step and 1 ms for each token, by a clock of its own."""

    lengths: list[int]
    epochs: float
    read_every: int = 1
    clock: float = 0.0
    rehearsed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps, self.ends = steps_of(len(self.lengths), self.epochs, 32, seed=0)

    def step(self, number: int) -> None:
        slow_start = 3.0 if not self.rehearsed else 0.0
        self.rehearsed.append(number)
        self.clock += slow_start + 0.1 + 0.001 * sum(self.lengths[row] for row in self.steps[number])

    @contextmanager
    def rehearsal(self) -> Iterator[Callable[[int], None]]:
        yield self.step

    def score(self, token_ids: list[list[int]]) -> None:
        self.clock += 0.05 + 0.0003 * sum(map(len, token_ids))


@pytest.fixture
def rest(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Rest]:
    """A training of such a loop, with as many validation papers as test papers."""

    def make(papers: int, epochs: float, **how: Any) -> Rest:
        rng = np.random.default_rng(0)
        lengths = rng.lognormal(5, 0.5, 2 * papers).clip(8, 512).astype(int).tolist()
        loop = Loop(lengths[:papers], epochs, **how)
        monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: loop.clock))
        monkeypatch.setattr(estimate, "unpadded", lambda encoder: SimpleNamespace(logits=loop.score, backend=True))
        model = SimpleNamespace(config=SimpleNamespace(hidden_size=384))
        device = SimpleNamespace(where=torch.device("cpu"), widths=())
        encoder: Any = SimpleNamespace(model=model, device=device)
        chosen = Chosen(epochs, 1e-4, 0.06, "cpu", "float32")
        validation = [[0] * length for length in lengths[papers : papers + max(1, papers // 5)]]
        settings = TrainSettings(patience=0)
        return Rest(loop, encoder, settings, chosen, Processes(), (0, 0), validation, len(validation))

    return make


@pytest.mark.parametrize(("papers", "epochs"), [(400, 6.0), (5_000, 0.5), (5_000, 2.5), (60_000, 1.0)])
@pytest.mark.parametrize("read_every", [1, 20])
def test_the_estimate_is_what_the_rest_takes(
    rest: Callable[..., Rest], papers: int, epochs: float, read_every: int
) -> None:
    job = rest(papers, epochs, read_every=read_every)
    loop: Any = job.run
    found = measure(job, lambda measured: measured)
    spent, loop.clock = loop.clock, 0.0
    for number in range(len(loop.steps)):
        loop.step(number)
    assert found.training_s == pytest.approx(loop.clock, rel=0.1)
    whole, loop.clock = loop.clock, 0.0
    loop.score(job.validation)
    scorings = len(loop.ends) + 1
    assert found.scoring_s == pytest.approx(scorings * loop.clock, rel=0.3)
    assert found.total_s == pytest.approx(whole + scorings * loop.clock, rel=0.1)
    # The slow start and the stretches of 20 steps apart, of which one is measured at least.
    steps_at_least = 2 * read_every * whole / len(loop.steps)
    assert spent < 3.0 + steps_at_least + min(22.0, 0.035 * found.total_s) + 1.5


def test_some_steps_and_epochs_are_done_already(rest: Callable[..., Rest]) -> None:
    whole = rest(2_000, 3.0)
    steps = len(whole.run.steps)
    resumed = Rest(**{**vars(whole), "done": (steps * 5 // 6, 2)})
    before, loop = measure(whole, lambda measured: measured), cast(Any, whole.run)
    loop.rehearsed.clear()
    now = measure(resumed, lambda measured: measured)
    assert now.training_s == pytest.approx(before.training_s / 6, rel=0.1)
    assert now.scoring_s == pytest.approx(before.scoring_s * 2 / 4, rel=0.1)
    # The papers of an earlier epoch may be others.
    assert min(loop.rehearsed) >= loop.ends[1]


def test_what_would_shorten_it_is_said_where_it_is_long(rest: Callable[..., Rest]) -> None:
    job = rest(400, 6.0)
    ways = estimate._faster(job)
    assert any(way.startswith("--max-tokens 128") for way in ways)
    assert "--epochs 3 (half the steps)" in ways
    short = Rest(**vars(job))
    loop: Any = short.run
    loop.lengths = [min(128, length) for length in loop.lengths]
    assert not any("--max-tokens" in way for way in estimate._faster(short))
    assert "--base none" in Estimate(7_000.0, 500.0, False, ways).describe()
    assert "2 h 05 min" in Estimate(7_000.0, 500.0, False, ways).describe()
    assert "--base none" not in Estimate(100.0, 20.0, True, ways).describe()
    assert "2 min at most" in Estimate(100.0, 20.0, True, ways).describe()


def test_durations() -> None:
    found = [duration(seconds) for seconds in (0.4, 59, 99, 100, 3_599, 7_300, 36_000)]
    assert found == ["0 s", "59 s", "99 s", "2 min", "1 h 00 min", "2 h 02 min", "10 h 00 min"]


SMALL: dict[str, Any] = {"snapshots": (str(PAPERS),), "since": 1990, "max_tokens": 24, "learning_rate": 3e-3}


@pytest.mark.parametrize("how", [{"dropout": True}, {"tune": "head"}, {"precision": "float32"}])
def test_measuring_changes_nothing(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    """The same bytes come of a training that measures and of one that does not."""
    measured = []
    real = estimate.measure

    def watched(*arguments: Any) -> Estimate:
        measured.append(real(*arguments))
        return measured[-1]

    monkeypatch.setattr(estimate, "measure", watched)
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(finetune, "announce", lambda *arguments: None)
        output = str(tmp_path / name / "model")
        train(TrainSettings(base=str(tiny_base), output=output, epochs=2.0, **SMALL, **how))
    assert len(measured) == 1
    assert measured[0].training_s > 0
    assert measured[0].scoring_s > 0
    for file in ("model.safetensors", "test.labels.parquet"):
        assert (tmp_path / "with/model" / file).read_bytes() == (tmp_path / "without/model" / file).read_bytes()


class Interrupts(Watcher):
    """Presses Ctrl-C at a line of the screen, or at the start of a stage."""

    def __init__(self, at: str) -> None:
        self.at, self.said = at, list[str]()

    def begin(self, stage: str, total: int | None, done: int = 0) -> None:
        self.say(stage)

    def say(self, text: str, **facts: object) -> None:
        self.said.append(text)
        if text.startswith(self.at):
            signal.raise_signal(signal.SIGINT)


def with_rejects(folder: Path) -> Path:
    dump = folder / "dump.jsonl"
    dump.write_text(PAPERS.read_text() + "not a paper\n")
    return dump


@pytest.mark.parametrize("at", ["Estimating the time", "Estimated time", "Pass 1 of 100"])
def test_interrupted_before_it_begins_it_leaves_nothing(tiny_base: Path, tmp_path: Path, at: str) -> None:
    """Neither files nor folders; and in the first 0.4 % of the steps nothing is worth a checkpoint."""
    dump = with_rejects(tmp_path)
    how = SMALL | {"snapshots": (str(dump),), "output": str(tmp_path / "new/folder/model"), "epochs": 100.0}
    pytest.importorskip("torch.utils.tensorboard")
    watcher = Interrupts(at)
    with pytest.raises(KeyboardInterrupt):
        train(TrainSettings(base=str(tiny_base), track=("tensorboard",), **how), watcher)
    assert watcher.said[-1].startswith(at)
    left = {path.name for path in tmp_path.iterdir()}
    # The figures of the first step are written where they were asked for.
    if at == "Pass 1 of 100":
        assert {path.name for path in (tmp_path / "new/folder").iterdir()} == {"model.runs"}
        left.remove("new")
    assert left == {"dump.jsonl"}


def test_an_earlier_checkpoint_stays_where_it_is(tiny_base: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / ".model.checkpoint.safetensors"
    how = SMALL | {"output": str(tmp_path / "model"), "base": str(tiny_base), "epochs": 2.0}
    with pytest.raises(KeyboardInterrupt):
        train(TrainSettings(**how), Interrupts("Pass 2 of 2"))
    kept = checkpoint.read_bytes()
    watcher = Interrupts("Estimated time")
    with pytest.raises(KeyboardInterrupt):
        train(TrainSettings(**how), watcher)
    assert any("--resume goes on with it" in line for line in watcher.said)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]
    assert checkpoint.read_bytes() == kept


def test_ctrl_c_at_the_estimate_of_a_real_process(tiny_base: Path, tmp_path: Path) -> None:
    """As a person does it who reads that line; by then the first of 90,000 steps may have been made."""
    dump = with_rejects(tmp_path)
    # What a shell starts in the background ignores Ctrl-C.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{heed}; from arxivclf.cli import main; main()"
    options = ("--since", "1990", "--max-tokens", "24", "--epochs", "300", "--batch-size", "1", "--log-json", "log")
    command = [sys.executable, "-c", script, "train", str(dump), "--base", str(tiny_base), *options]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        lines = []
        for line in run.stderr:
            lines.append(line)
            if line.startswith("Estimated time: "):
                run.send_signal(signal.SIGINT)
                break
        _, rest_of_lines = run.communicate(timeout=HANGS_S)
    assert run.returncode == 130, lines
    assert rest_of_lines.splitlines()[-1] == "Error: interrupted"
    assert "Traceback" not in rest_of_lines
    events = read_jsonl(tmp_path / "log")
    (said,) = [event for event in events if event.get("text", "").startswith("Estimated time: ")]
    assert said["total_s"] == pytest.approx(said["training_s"] + said["scoring_s"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump.jsonl", "log"]
