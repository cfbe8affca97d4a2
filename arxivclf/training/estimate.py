"""How long a training will take: measured on a few of its own steps before it starts, and what would shorten it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch

from arxivclf.config import TrainSettings
from arxivclf.model import batches
from arxivclf.model.backends import unpadded
from arxivclf.model.encoder import TOKENS_PER_BATCH, Encoder
from arxivclf.progress import Watcher
from arxivclf.training.hyperparameters import MOST_EPOCHS, Chosen
from arxivclf.training.processes import Processes

# Measuring ends after so many seconds, or sooner after this share of what it estimates.
_TRAINING_S, _SCORING_S = 15.0, 5.0
_TRAINING_SHARE, _SCORING_SHARE = 0.025, 0.005
# Fewer steps are over before they are measured.
_FEWEST_STEPS = 10
# A shorter training is waited for without asking how to shorten it.
_LONG_S = 600.0
_SHORT_TEXT = 128
# A change that saves less is not worth a suggestion.
_WORTH = 0.85


class Rehearsing(Protocol):
    """The loop of a training, as far as it is measured here: the papers of each step, the steps done at the end of each
    epoch, the tokens of each paper of this epoch, and after how many steps the host waits for the device."""

    steps: list[batches.Indices]
    ends: list[int]
    lengths: list[int]
    read_every: int

    def rehearsal(self) -> AbstractContextManager[Callable[[int], None]]:
        """A function that does the work of a step; after the block no trace of it is left."""


@dataclass(frozen=True)
class Rest:
    """What is left of a training when `done` (steps, epochs) are done.

    `validation` holds the token ids of the validation papers.
    """

    run: Rehearsing
    encoder: Encoder
    settings: TrainSettings
    chosen: Chosen
    processes: Processes
    done: tuple[int, int]
    validation: Sequence[list[int]]
    test_papers: int

    @property
    def steps(self) -> list[batches.Indices]:
        """The papers of each step that is left, in all epochs."""
        return self.run.steps[self.done[0] :]

    @property
    def epochs(self) -> int:
        """Epochs that are left, the one that has begun among them."""
        return len(self.run.ends) - self.done[1]

    @property
    def this_epoch(self) -> range:
        """The numbers of all steps of the epoch that has begun or begins."""
        epoch = self.done[1]
        return range(self.run.ends[epoch - 1] if epoch else 0, self.run.ends[epoch])

    def lengths(self, steps: Iterable[int]) -> np.ndarray:
        """The tokens of each paper of these steps of this epoch."""
        return np.array([self.run.lengths[row] for step in steps for row in self.run.steps[step]])


@dataclass(frozen=True)
class Estimate:
    """Seconds that the rest of a training will take: its steps, and the scoring of validation and test papers.

    It is the most that it may take where it `may_end_early`; `faster` are ways to shorten it.
    """

    training_s: float
    scoring_s: float
    may_end_early: bool
    faster: Sequence[str]

    @property
    def total_s(self) -> float:
        return self.training_s + self.scoring_s

    def describe(self) -> str:
        """The message for a person."""
        most = " at most" if self.may_end_early else ""
        text = (
            f"Estimated time: {duration(self.total_s)}{most} (training {duration(self.training_s)},"
            f" validation and test {duration(self.scoring_s)})"
        )
        if self.total_s < _LONG_S:
            return text
        return f"{text}. To shorten it: {'; '.join(self.faster)}"


def announce(rest: Rest, watcher: Watcher, wanted: threading.Event) -> None:
    """Say how long the rest of a training will take, or nothing where to measure it would take too long itself.

    Raises KeyboardInterrupt once `wanted` is set, in all processes at the same point.
    """

    def enough(measured: bool) -> bool:
        """Whether any process has measured enough: those that train together take the same steps."""
        stop, measured = rest.processes.agreed(wanted.is_set(), measured)
        if stop:
            raise KeyboardInterrupt
        return measured

    # A device that compiles its work would do so for the shapes of each step, which takes longer than some trainings.
    if rest.encoder.device.widths or len(rest.steps) < _FEWEST_STEPS:
        return
    with watcher.stage("Estimating the time"):
        estimate = measure(rest, enough)
    watcher.say(estimate.describe(), **asdict(estimate), total_s=estimate.total_s)
    enough(True)


def measure(rest: Rest, enough: Callable[[bool], bool]) -> Estimate:
    """Estimate the rest of a training from some of its own steps, which leave no trace.

    `enough` is called after each with whether it was enough for this process, and tells whether it was for any.
    """
    training_s = _training_s(rest, enough)
    scoring_s = _scoring_s(rest.encoder, rest.validation, min(_SCORING_S, _SCORING_SHARE * training_s))
    scored = rest.epochs + rest.test_papers / max(1, len(rest.validation))
    return Estimate(
        training_s=training_s,
        scoring_s=scoring_s * scored / rest.processes.count,
        may_end_early=0 < rest.settings.patience < rest.epochs - 1,
        faster=_faster(rest),
    )


def _training_s(rest: Rest, enough: Callable[[bool], bool]) -> float:
    """Seconds for the steps that are left, from some that are spread over this epoch."""
    order = np.random.default_rng(0).permutation(rest.this_epoch).tolist()
    tokens_left = sum(map(len, rest.steps)) * float(rest.lengths(rest.this_epoch).mean())
    # Where the host runs ahead of the device, only a stretch of steps shows how long one takes.
    stretch = min(rest.run.read_every, len(order))
    where = rest.encoder.device.where
    measured_s, tokens, taken = 0.0, 0, 0
    with rest.run.rehearsal() as rehearse:
        while True:
            steps = [order[number % len(order)] for number in range(taken, taken + stretch)]
            started = time.perf_counter()
            for step in steps:
                rehearse(step)
            if where.type == "cuda":
                torch.cuda.synchronize(where)
            # In the first steps memory is allocated and kernels are chosen.
            if taken:
                measured_s += time.perf_counter() - started
                tokens += int(rest.lengths(steps).sum())
            taken += stretch
            estimate_s = measured_s / max(1, tokens) * tokens_left
            if enough(tokens > 0 and measured_s >= min(_TRAINING_S, _TRAINING_SHARE * estimate_s)):
                return estimate_s


def _scoring_s(encoder: Encoder, token_ids: Sequence[list[int]], budget_s: float) -> float:
    """Seconds to score these papers, from a sample of all lengths that takes `budget_s` at most."""
    scoring = unpadded(encoder)
    by_length = sorted(token_ids, key=len)
    size = 16
    while True:
        places = np.linspace(0, len(by_length) - 1, min(size, len(by_length))).astype(int)
        sample = [by_length[place] for place in places]
        started = time.perf_counter()
        scoring.logits(sample)
        seconds = time.perf_counter() - started
        if 4 * seconds > budget_s or size >= len(by_length):
            return seconds * _work(scoring, token_ids) / _work(scoring, sample)
        size *= 4


def _work(encoder: Encoder, token_ids: Sequence[list[int]]) -> int:
    """What the time to score papers is proportional to: tokens, or batches where these are filled up with padding."""
    lengths = [len(paper) for paper in token_ids]
    if encoder.backend is not None:
        return sum(lengths)
    device = encoder.device
    budget = TOKENS_PER_BATCH[device.where.type] * device.cores
    return sum(1 for _ in batches.of_one_shape(lengths, budget, device.widths, device.cores))


def _faster(rest: Rest) -> list[str]:
    """What would shorten a training, what harms its labels least first."""
    found = []
    if rest.encoder.device.where.type == "cpu":
        found.append("a GPU (--device cuda)")
    lengths = rest.lengths(rest.this_epoch)
    kept = float(np.minimum(lengths, _SHORT_TEXT).sum() / lengths.sum())
    if kept < _WORTH:
        found.append(f"--max-tokens {_SHORT_TEXT} (about {kept:.0%} of the time)")
    found.append(f"--epochs {rest.chosen.epochs / 2:.2g} (half the steps)")
    if rest.settings.epochs is not None or rest.chosen.epochs == MOST_EPOCHS:
        # Otherwise fewer papers are trained on more often.
        found.append("fewer papers (--max-papers)")
    if getattr(rest.encoder.model.config, "hidden_size", 0) > 384:
        found.append("a smaller encoder (--base minilm)")
    found.append("--base none (a linear model, in minutes)")
    return found


def duration(seconds: float) -> str:
    """`2 h 05 min`, `12 min` or `40 s`, in two figures about."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
