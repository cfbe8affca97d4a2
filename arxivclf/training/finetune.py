"""The training loop: from an encoder with a fresh head to one that knows its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import get_scheduler

from arxivclf.config import TrainSettings
from arxivclf.errors import ModelError
from arxivclf.model import batches
from arxivclf.model.encoder import Encoder
from arxivclf.progress import Watcher
from arxivclf.training.dataset import Papers

# The loss that is shown is a mean in which a step counts half as much as one 34 steps later.
_LOSS_MEMORY = 0.98


@dataclass(frozen=True)
class Chosen:
    """What a training decides itself where the settings leave it open."""

    epochs: float
    learning_rate: float
    device: str
    precision: str


def choose(settings: TrainSettings, encoder: Encoder, papers: int) -> Chosen:
    """Epochs that give a small dump enough steps (six at most), and the learning rate that fits the size of the base.

    Small encoders want larger steps: 1e-4 served MiniLM (width 384), 2e-5 is the usual rate of BERT-base (768).
    """
    width = getattr(encoder.model.config, "hidden_size", 768)
    return Chosen(
        epochs=settings.epochs or float(min(6, max(1, round(5_000 / papers)))),
        learning_rate=settings.learning_rate or (1e-4 if width <= 512 else 2e-5),
        device=str(encoder.device.where),
        precision=str(encoder.device.precision).removeprefix("torch."),
    )


def finetune(encoder: Encoder, papers: Papers, settings: TrainSettings, chosen: Chosen, watcher: Watcher) -> float:
    """Train all weights in place, with a binary cross-entropy for each label; its last loss, smoothed.

    Raises ModelError when the loss is no longer finite.
    """
    model = encoder.model
    with watcher.stage("Tokenising", len(papers)):
        token_ids = _tokenize(encoder, papers, watcher)
    truth = torch.tensor(papers.truth)
    steps = _steps(token_ids, settings, chosen)
    optimizer = torch.optim.AdamW(
        _decayed(model, settings.weight_decay),
        lr=chosen.learning_rate,
        betas=settings.adam_betas,
        eps=settings.adam_epsilon,
        fused=True,
    )
    kind = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
    schedule = get_scheduler(kind, optimizer, round(settings.warmup * len(steps)), len(steps))
    # Without dropout the model is as good after one pass, and on a CPU drawing the masks alone is a quarter of a step.
    model.train(settings.dropout)
    loss_sum = loss_weight = 0.0
    with watcher.stage("Training", sum(map(len, steps))):
        for rows in steps:
            logits = encoder.logits(token_ids, rows)
            wanted = truth[torch.from_numpy(rows)].to(logits.device)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            value = loss.item()
            if not math.isfinite(value):
                raise ModelError(
                    f"the loss became {value}; a lower --learning-rate (now {chosen.learning_rate:g}) may help"
                )
            loss_sum, loss_weight = _LOSS_MEMORY * loss_sum + value, _LOSS_MEMORY * loss_weight + 1
            watcher.advance(len(rows), loss=loss_sum / loss_weight)
    model.eval()
    return loss_sum / loss_weight


def _tokenize(encoder: Encoder, papers: Papers, watcher: Watcher) -> list[list[int]]:
    token_ids: list[list[int]] = []
    for texts in papers.texts.to_frame().iter_slices(1_000):
        token_ids += encoder.tokenize(texts.to_series().to_list())
        watcher.advance(len(texts))
    return token_ids


def _steps(token_ids: Sequence[list[int]], settings: TrainSettings, chosen: Chosen) -> list[batches.Indices]:
    """The batches of all epochs, in order; a part of an epoch is its first batches."""
    lengths = [len(paper) for paper in token_ids]
    steps: list[batches.Indices] = []
    for epoch in range(math.ceil(chosen.epochs)):
        one_pass = batches.shuffled(lengths, settings.batch_size, settings.seed, epoch)
        share = min(1.0, chosen.epochs - epoch)
        steps += one_pass[: max(1, round(share * len(one_pass)))]
    return steps


def _decayed(model: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for matrices alone: BERT's own training leaves out biases and norms too."""
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    return [
        {"params": [weights for weights in trained if weights.ndim >= 2], "weight_decay": weight_decay},
        {"params": [weights for weights in trained if weights.ndim < 2], "weight_decay": 0.0},
    ]
