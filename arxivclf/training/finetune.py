"""The training loop: from an encoder with a fresh head to one that knows its labels."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from arxivclf.config import TrainSettings
from arxivclf.errors import ModelError
from arxivclf.model import batches
from arxivclf.model.attention import by_matrices, matrices
from arxivclf.model.backends import unpadded
from arxivclf.model.calibration import log_loss, sigmoid
from arxivclf.model.encoder import Encoder
from arxivclf.model.first_token import FirstToken, fits
from arxivclf.model.labels import Scores
from arxivclf.progress import Watcher
from arxivclf.reporting.metrics import Confusion, average_precision, best_threshold
from arxivclf.stopping import stopping
from arxivclf.training.checkpoint import Checkpoints, Tensors
from arxivclf.training.dataset import Dataset, Papers
from arxivclf.training.estimate import Rest, announce
from arxivclf.training.hyperparameters import Chosen
from arxivclf.training.loss import loss_of
from arxivclf.training.parameters import decayed, merged, open_for_training
from arxivclf.training.processes import Processes
from arxivclf.training.schedule import share_of_rate, steps_of
from arxivclf.training.trackers import Track

# The loss that is shown is a mean in which a step counts half as much as one 34 steps later.
_LOSS_MEMORY = 0.98
# Smaller groups need less padding and larger ones fewer calls; on the CPU this many were fastest.
_TOKENS_PER_GROUP = {"cpu": 2_048, "cuda": 16_384}
# A figure read back makes the host wait for a GPU or a TPU, so that this is not done at every step.
_READ_EVERY = {"cpu": 1, "cuda": 20, "xla": 50}
# Of so many steps one need not be kept: of a training of two hours, half a minute.
_STEPS_FOR_ONE_TO_LOSE = 250


@dataclass(frozen=True)
class Epoch:
    """The figures at the end of one pass: losses per paper and label, and those of each label on validation."""

    epoch: float
    step: int
    learning_rate: float
    training_loss: float
    validation_loss: float
    validation_f1: float
    labels: Mapping[str, Mapping[str, float | None]]
    seconds: float

    def better_than(self, other: Epoch) -> bool:
        """By the validation F1, and by the loss where that is the same, as on few papers it often is."""
        return (self.validation_f1, -self.validation_loss) > (other.validation_f1, -other.validation_loss)

    def row(self) -> dict[str, float | int | None]:
        """The figures by name, those of the labels as `<label>_<figure>`."""
        own: dict[str, Any] = {name: value for name, value in asdict(self).items() if name != "labels"}
        return own | {f"{label}_{name}": value for label, of in self.labels.items() for name, value in of.items()}


@dataclass(frozen=True)
class Finetuned:
    """What a training made: the encoder, its logits (papers, labels) on validation, each pass, and the pass kept."""

    encoder: Encoder
    validation_logits: Scores
    history: Sequence[Epoch]
    kept: int


@dataclass
class _Stand:
    """Where a training stands, besides its tensors: what a checkpoint says in JSON."""

    step: int = 0
    seconds: float = 0.0
    history: list[Epoch] = field(default_factory=list)
    best: int = -1
    stopped: bool = False

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> _Stand:
        return cls(**{**content, "history": [Epoch(**one) for one in content["history"]]})


def finetune(
    encoder: Encoder,
    dataset: Dataset,
    settings: TrainSettings,
    chosen: Chosen,
    checkpoints: Checkpoints,
    processes: Processes,
    track: Track,
    watcher: Watcher,
) -> Finetuned:
    """Train in place, with a loss for each label, and validate after each pass; goes on from a checkpoint if asked to.

    An estimate of the duration comes before the first step. Raises ModelError when the loss is no longer finite;
    KeyboardInterrupt after Ctrl-C or SIGTERM, a checkpoint kept unless hardly any step was done.
    """
    with watcher.stage("Tokenising", len(dataset.validation)):
        validation_texts = _tokenize(encoder, dataset.validation, watcher)
    if not chosen.epochs:
        # A base that knows the labels already: only what comes after the encoder is made anew.
        if processes.first:
            checkpoints.announce_new()
        with watcher.stage("Validation", len(dataset.validation)):
            return Finetuned(encoder, logits_of(encoder, validation_texts, processes, watcher), [], -1)
    encoder = replace(encoder, model=open_for_training(encoder.model, settings.tune, settings.lora_rank))
    run = _Run(encoder, dataset.train, settings, chosen, processes)
    stand, best = _Stand(), Tensors()
    if settings.resume:
        found = checkpoints.load()
        if found is None:
            watcher.say("--resume: no checkpoint to go on from, so training starts at the beginning")
        else:
            stand, best = _Stand.of(found[0]), run.take_up(found[1])
            watcher.say(f"Going on from step {stand.step:,} of {len(run.steps):,}", step=stand.step)
    elif processes.first:
        checkpoints.announce_new()

    def keep(stop: bool, save: bool) -> None:
        """Save or stop if any process wants it: all hear the same at the same step."""
        # Whoever stops after reading the estimate leaves nothing behind, and loses no more than 0.4 % of the steps.
        save = save or (stop and stand.step >= len(run.steps) // _STEPS_FOR_ONE_TO_LOSE)
        stop, save = processes.agreed(stop, save)
        if save:
            losses = run.losses()
            if processes.first:
                checkpoints.save(asdict(stand), lambda: run.tensors(best) | {"losses": losses})
        if stop:
            raise KeyboardInterrupt

    logits: Scores | None = None
    taken: int | None = None

    def take(number: int) -> None:
        nonlocal taken
        draw = number if dataset.per_pass else 0
        if draw != taken:
            papers, taken = dataset.of_pass(number), draw
            with watcher.stage("Tokenising", len(papers)):
                run.take(papers, _tokenize(encoder, papers, watcher))

    if not stand.stopped and len(stand.history) < len(run.ends):
        # Before a stop is asked for in good order, which this would keep waiting.
        take(len(stand.history))
    with stopping() as wanted:
        if not stand.stopped and len(stand.history) < len(run.ends):
            stood_at = (stand.step, len(stand.history))
            rest = Rest(run, encoder, settings, chosen, processes, stood_at, validation_texts, len(dataset.test))
            announce(rest, watcher, wanted)
        before, started = stand.seconds, time.monotonic()
        for number in range(len(stand.history), len(run.ends)):
            if stand.stopped:
                break
            take(number)
            end = run.ends[number]
            start = run.ends[number - 1] if number else 0
            name = "Training" if len(run.ends) == 1 else f"Pass {number + 1} of {len(run.ends)}"
            whole_pass, done = (sum(map(len, run.steps[start:to])) for to in (end, stand.step))
            with watcher.stage(name, whole_pass, done), matrices(encoder.model):
                while stand.step < end:
                    run.one_step(stand.step)
                    stand.step += 1
                    stand.seconds = before + time.monotonic() - started
                    if stand.step % run.read_every == 0 or stand.step == end:
                        loss = run.smoothed_loss()
                        if not math.isfinite(loss):
                            raise ModelError(_diverged(f"the loss became {loss}", chosen))
                        track({"loss": loss, "learning_rate": run.learning_rate(stand.step)}, stand.step)
                        watcher.advance(run.papers_since_read(), loss=loss)
                        keep(stop=wanted.is_set(), save=checkpoints.due)
            if not run.finite:
                raise ModelError(_diverged("the weights are no longer finite", chosen))
            # Whoever stops during the validation, which may be long, loses no step.
            keep(stop=wanted.is_set(), save=True)
            with watcher.stage("Validation", len(dataset.validation)):
                found_logits = logits_of(encoder, validation_texts, processes, watcher, wanted)
            stand.seconds = before + time.monotonic() - started
            epoch = run.epoch(stand, found_logits, dataset.validation)
            stand.history.append(epoch)
            if settings.patience == 0 or stand.best < 0 or epoch.better_than(stand.history[stand.best]):
                stand.best, logits = number, found_logits
                best = run.weights() if len(run.ends) > 1 else Tensors()
            stand.stopped = 0 < settings.patience <= number - stand.best and number + 1 < len(run.ends)
            track(_numbers(epoch), stand.step)
            watcher.say(_told(epoch, stand), **epoch.row())
            keep(stop=wanted.is_set(), save=True)
    if best:
        run.restore(best)
    if logits is None:
        with watcher.stage("Validation", len(dataset.validation)):
            logits = logits_of(encoder, validation_texts, processes, watcher)
    whole = merged(encoder.model)
    if whole is not encoder.model:
        encoder.device.end_step("merged")
    return Finetuned(replace(encoder, model=whole), logits, stand.history, stand.best)


class _Run:
    """The moving parts of one training: network, optimiser, schedule, and the batches of all passes in their order."""

    def __init__(
        self,
        encoder: Encoder,
        papers: Papers,
        settings: TrainSettings,
        chosen: Chosen,
        processes: Processes,
    ) -> None:
        """`papers` are those of the first pass; others may `take` their place in the next, as many and as balanced."""
        self._encoder, self._settings, self._processes = encoder, settings, processes
        self._loss = loss_of(settings, papers, encoder.device.where)
        self.steps, self.ends = steps_of(len(papers), chosen.epochs, settings.batch_size, settings.seed)
        self._epochs = chosen.epochs
        where = encoder.device.where
        self.read_every = _READ_EVERY[where.type]
        network: Any = encoder.model
        if fits(network) and not settings.dropout and not encoder.device.widths:
            network = FirstToken(network, by_matrices if where.type == "cpu" else None)
        # A device with widths compiles by itself.
        if settings.compile and not encoder.device.widths:
            network = torch.compile(network, dynamic=True)
        self._network = replace(encoder, model=processes.share(network, encoder.device))
        self._trained = {name: weights for name, weights in encoder.model.named_parameters() if weights.requires_grad}
        self._optimizer = torch.optim.AdamW(
            decayed(encoder.model, settings.weight_decay),
            lr=chosen.learning_rate,
            betas=settings.adam_betas,
            eps=settings.adam_epsilon,
            fused=where.type in ("cpu", "cuda"),
            capturable=bool(encoder.device.widths),
        )
        if encoder.device.widths:
            # Left to the optimiser these would be constants of a first step, which is compiled for it alone.
            for weights in self._trained.values():
                fresh = {"step": torch.tensor(0.0)} | dict.fromkeys(
                    ("exp_avg", "exp_avg_sq"), torch.zeros_like(weights, device="cpu")
                )
                self._optimizer.state[weights] = {part: self._placed(part, value) for part, value in fresh.items()}
        self._warmup = round(chosen.warmup * len(self.steps))
        self._top_rate = chosen.learning_rate
        # The losses of this process: their sum in this pass, and the running mean with its weight. On the device.
        self._sums = encoder.device.keep(torch.zeros(3))
        self._unread = 0

    def take(self, papers: Papers, token_ids: list[list[int]]) -> None:
        """The papers of the pass that begins."""
        self._token_ids = token_ids
        self.lengths: list[int] = [len(ids) for ids in token_ids]
        self._truth = torch.tensor(papers.truth)

    def learning_rate(self, step: int) -> float:
        """That of a step, counted from 0."""
        return self._top_rate * share_of_rate(self._settings.schedule, step, self._warmup, len(self.steps))

    @property
    def finite(self) -> bool:
        """Whether all that is trained is still a number; read on the CPU, or XLA would compile each question."""
        return all(bool(torch.isfinite(weights.detach().cpu()).all()) for weights in self._trained.values())

    def one_step(self, step: int) -> None:
        """Forward, backward, and a change of the weights, over the papers of one batch."""
        value, shapes = self._gradients(step)
        self._change_weights(self.learning_rate(step))
        in_pass, running, weight = self._sums
        self._sums = torch.stack([in_pass + value, _LOSS_MEMORY * running + value, _LOSS_MEMORY * weight + 1.0])
        self._encoder.device.end_step(("training", *shapes))
        self._unread += len(self.steps[step])

    @contextmanager
    def rehearsal(self) -> Iterator[Callable[[int], None]]:
        """A function that does the work of a step of this pass; after the block, everything is as it was before.

        What a checkpoint keeps is restored as from a checkpoint.
        """
        before, sums = self.tensors(Tensors()), self._sums

        def rehearse(step: int) -> None:
            self._gradients(step)
            self._change_weights(self.learning_rate(step))

        try:
            with matrices(self._encoder.model):
                yield rehearse
        finally:
            self._optimizer.state.clear()
            self.take_up(before | {"losses": sums})

    def _gradients(self, step: int) -> tuple[torch.Tensor | float, list[tuple[int, int] | None]]:
        """Add the gradients of a batch to those of the weights; its loss, and the shapes of its groups."""
        rows = self.steps[step]
        self._encoder.model.train(self._settings.dropout)
        value: torch.Tensor | float = 0.0
        groups, papers = self._groups(rows)
        shapes = []
        for together in groups:
            loss, shape = self._loss_of(together, rows, papers)
            loss.backward()
            value = value + loss.detach()
            shapes.append(shape)
        return value, shapes

    def _change_weights(self, learning_rate: float) -> None:
        torch.nn.utils.clip_grad_norm_(self._trained.values(), self._settings.max_gradient_norm)
        rate = self._encoder.device.number(learning_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _groups(self, rows: batches.Indices) -> tuple[list[batches.Indices], int]:
        """The groups of a batch that go through the network one after the other, and the most papers that one has.

        Several processes take part in each group, so the batch is one; a device that compiles gets the longer and the
        shorter half, for it wants few shapes.
        """
        device, whole = self._encoder.device, self._settings.batch_size
        half = -(-whole // (2 * device.cores)) * device.cores
        if self._processes.count > 1 or (device.widths and half >= whole):
            return [rows], -(-whole // self._processes.count)
        if device.widths:
            ordered = batches.of_like_length(rows, self.lengths, tokens=sys.maxsize)[0]
            return [ordered[:half], ordered[half:]], half
        return batches.of_like_length(rows, self.lengths, _TOKENS_PER_GROUP[device.where.type]), whole

    def _loss_of(
        self, group: batches.Indices, rows: batches.Indices, papers: int
    ) -> tuple[torch.Tensor, tuple[int, int] | None]:
        """What this process's part of a group adds to the loss of its batch; its shape where that is one of few.

        The mean over processes, summed over groups, is the loss of the whole batch.
        """
        device, mine = self._encoder.device, self._processes.mine(group)
        # Who has no paper in a last, small batch takes part with one that counts nothing.
        used = mine if len(mine) else rows[:1]
        lengths = [self.lengths[int(row)] for row in used]
        shape = batches.shape_of(lengths, papers, device.widths, device.cores)
        size = shape[0] if shape else len(used)
        truth, counts = torch.zeros(size, self._truth.shape[1]), torch.zeros(size, 1)
        truth[: len(used)] = self._truth[torch.from_numpy(used)]
        counts[: len(mine)] = self._processes.count / (len(rows) * self._truth.shape[1])
        logits = self._network.forward(self._token_ids, used, shape)
        return (self._loss(logits, device.put(truth)) * device.put(counts)).sum(), shape

    def smoothed_loss(self) -> float:
        """The running mean of the loss, over all processes."""
        _, loss, weight = self._processes.mean(self._sums).tolist()
        return float(loss / weight)

    def losses(self) -> torch.Tensor:
        """The sums of losses, as the mean of all processes."""
        return self._processes.mean(self._sums).cpu()

    def papers_since_read(self) -> int:
        papers, self._unread = self._unread, 0
        return papers

    def epoch(self, stand: _Stand, logits: Scores, validation: Papers) -> Epoch:
        """The figures of the pass that ends here; its sum of losses begins anew."""
        number = len(stand.history)
        steps = self.ends[number] - (self.ends[number - 1] if number else 0)
        # On the CPU: on XLA each would be a graph of its own.
        loss = float(self._processes.mean(self._sums).cpu()[0]) / steps
        self._sums = self._encoder.device.keep(self._sums.cpu() * torch.tensor([0.0, 1.0, 1.0]))
        known, truth = ~np.isnan(validation.truth), validation.truth > 0.5
        labels = {
            name: _figures(truth[known[:, at], at], logits[known[:, at], at])
            for at, name in enumerate(self._encoder.label_names)
        }
        return Epoch(
            epoch=min(number + 1.0, self._epochs),
            step=stand.step,
            learning_rate=self.learning_rate(stand.step),
            training_loss=loss,
            validation_loss=log_loss(sigmoid(logits.astype(np.float64))[known], truth[known]),
            validation_f1=float(np.mean([of["f1"] for of in labels.values()])),
            labels=labels,
            seconds=round(stand.seconds, 1),
        )

    def weights(self) -> Tensors:
        """A copy of what is trained, on the CPU."""
        return {name: weights.detach().to("cpu", copy=True) for name, weights in self._trained.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put weights in the place of those that are there."""
        for name, weights in self._trained.items():
            self._encoder.device.write(weights, tensors[name])

    def _placed(self, part: str, value: torch.Tensor) -> torch.Tensor:
        """A part of the optimiser's state where the optimiser wants it: its count of steps on the host, mostly."""
        device, kind = self._encoder.device, self._optimizer.defaults
        if part != "step":
            return device.keep(value)
        if kind["capturable"]:
            # Of scalars that are equal XLA makes one, and a step in which others are equal it compiles anew.
            return device.keep(value.reshape(1))
        return value.reshape(()).to(device.where if kind["fused"] else "cpu")

    def tensors(self, best: Tensors) -> Tensors:
        """All tensors of a checkpoint but the losses."""
        kept = {f"weights/{name}": weights for name, weights in self.weights().items()}
        kept |= {f"best/{name}": weights for name, weights in best.items()}
        for name, weights in self._trained.items():
            for part, value in self._optimizer.state[weights].items():
                kept[f"optimizer/{part}/{name}"] = value.detach().to("cpu", copy=True)
        kept["random/cpu"] = torch.get_rng_state()
        random = self._encoder.device.random_state()
        if random is not None:
            kept[f"random/{self._encoder.device.where.type}"] = random
        return kept

    def take_up(self, tensors: Tensors) -> Tensors:
        """Go on from the tensors of a checkpoint; the best weights that it holds."""
        self.restore({name: tensors[f"weights/{name}"] for name in self._trained})
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, part, name = key.split("/", 2)
                self._optimizer.state[self._trained[name]][part] = self._placed(part, value)
        self._sums = self._encoder.device.keep(tensors["losses"])
        torch.set_rng_state(tensors["random/cpu"])
        own = f"random/{self._encoder.device.where.type}"
        if own in tensors:
            self._encoder.device.set_random_state(tensors[own])
        return {name.removeprefix("best/"): value for name, value in tensors.items() if name.startswith("best/")}


def _tokenize(encoder: Encoder, papers: Papers, watcher: Watcher) -> list[list[int]]:
    token_ids: list[list[int]] = []
    for texts in papers.texts.to_frame().iter_slices(1_000):
        token_ids += encoder.tokenize(texts.to_series().to_list())
        watcher.advance(len(texts))
    return token_ids


def logits_of(
    encoder: Encoder,
    token_ids: list[list[int]],
    processes: Processes,
    watcher: Watcher,
    wanted: threading.Event | None = None,
) -> Scores:
    """The logits (papers, labels) of tokenised papers, of all on every process, each having computed its part.

    KeyboardInterrupt once `wanted` is set, unless other processes would wait for this one.
    """

    def advance(papers: int) -> None:
        watcher.advance(papers * processes.count)
        if wanted is not None and wanted.is_set() and processes.count == 1:
            raise KeyboardInterrupt

    mine = [token_ids[int(row)] for row in processes.mine(np.arange(len(token_ids)))]
    logits = unpadded(encoder).logits(mine, advance)
    return processes.gather(logits, len(token_ids))


def _figures(truth: np.ndarray, logits: np.ndarray) -> dict[str, float | None]:
    """The figures of one label at the threshold of the best F1."""
    confusion = Confusion.count(truth, logits >= best_threshold(truth, logits))
    kept = ("accuracy", "f1", "precision", "recall")
    return {name: confusion.as_dict()[name] for name in kept} | {"average_precision": average_precision(truth, logits)}


def _numbers(epoch: Epoch) -> dict[str, float]:
    return {name: value for name, value in epoch.row().items() if value is not None}


def _told(epoch: Epoch, stand: _Stand) -> str:
    told = (
        f"Pass {epoch.epoch:g}: loss {epoch.training_loss:.4f}, on validation {epoch.validation_loss:.4f},"
        f" F1 {epoch.validation_f1:.4f}"
    )
    if stand.stopped:
        told += f"; no better than after pass {stand.history[stand.best].epoch:g}, so training stops"
    return told


def _diverged(what: str, chosen: Chosen) -> str:
    return f"{what}; a lower --learning-rate (now {chosen.learning_rate:g}) may help"
