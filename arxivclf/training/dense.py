"""Training the dense part of the linear model: embeddings of words and one hidden layer, by torch on one core.

Beside the labels it learns every category that enough training papers have, which gives rare labels embeddings that
know the neighbouring fields; only the labels' outputs are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from arxivclf.model.dense import YEAR_INPUTS, Dense, year_inputs
from arxivclf.model.words import WORD_PLACES, Counted

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_array

Floats = npt.NDArray[np.float32]

# Measured on 466,000 papers of arXiv (docs/benchmarks.md). Without word dropout, or with more epochs, the average
# precision on other papers falls again.
_WIDTH = 64
_HIDDEN = 128
_EPOCHS = 3
_BATCH = 256
_WORD_DROPOUT = 0.2
_EMBEDDING_RATE, _NETWORK_RATE = 0.02, 0.002
_CATEGORY_LOSS = 0.3
# Some papers are shown without their year, so that a paper without a date gets the average of all years; the few papers
# of the earliest years do not stretch the scale.
_YEAR_DROPOUT = 0.1
_YEARS = (0.01, 1.0)
_SEED = 0


@dataclass(frozen=True)
class Targets:
    """What the network learns: `labels`, float32 (texts, labels), 0, 1 or nan; `categories`, sparse (texts,
    categories), 1 where a text has one; `weights`, float32 (texts,), mean 1; and its `years`, int32 (texts,), 0
    where unknown."""

    labels: Floats
    categories: csr_array
    weights: Floats
    years: npt.NDArray[np.int32]


def fit_dense(counted: Counted, targets: Targets) -> Dense:
    """Train a network on texts, deterministically: one thread, and a fixed seed."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            return _fit(counted, targets)
    finally:
        torch.set_num_threads(threads)


def _fit(counted: Counted, targets: Targets) -> Dense:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    texts, labels = targets.labels.shape
    categories = targets.categories.shape[1]
    embeddings = torch.nn.EmbeddingBag(WORD_PLACES, _WIDTH, mode="sum", sparse=True)
    torch.nn.init.normal_(embeddings.weight, 0.0, 0.1)
    hidden = torch.nn.Linear(2 * _WIDTH + YEAR_INPUTS, _HIDDEN)
    output = torch.nn.Linear(_HIDDEN, labels + categories)
    optimizers = (
        (torch.optim.SparseAdam(list(embeddings.parameters()), lr=_EMBEDDING_RATE), _EMBEDDING_RATE),
        (torch.optim.Adam([*hidden.parameters(), *output.parameters()], lr=_NETWORK_RATE), _NETWORK_RATE),
    )
    random = np.random.default_rng(_SEED)
    known = targets.years[targets.years > 0]
    years = np.quantile(known, _YEARS).astype(np.float32) if len(known) else np.zeros(2, np.float32)
    steps = list(_batches(texts, random))
    for step, rows in enumerate(steps):
        for optimizer, rate in optimizers:
            optimizer.param_groups[0]["lr"] = rate * (1 - step / len(steps))
            optimizer.zero_grad()
        when = np.where(random.random(len(rows)) < _YEAR_DROPOUT, 0, targets.years[rows])
        inputs = [_pooled(embeddings, counted, rows, random), torch.from_numpy(year_inputs(when, years, len(rows)))]
        logits = output(torch.relu(hidden(torch.cat(inputs, dim=1))))
        truth = torch.from_numpy(targets.labels[rows])
        answered = ~torch.isnan(truth)
        weights = torch.from_numpy(targets.weights[rows])[:, None]
        losses = binary_cross_entropy_with_logits(logits[:, :labels], truth.nan_to_num(0.0), reduction="none")
        loss = (losses * weights * answered).sum() / (len(rows) * labels)
        if categories:
            auxiliary = torch.from_numpy(targets.categories[rows].toarray())
            losses = binary_cross_entropy_with_logits(logits[:, labels:], auxiliary, reduction="none")
            loss = loss + _CATEGORY_LOSS * (losses * weights).sum() / (len(rows) * labels)
        loss.backward()
        for optimizer, _ in optimizers:
            optimizer.step()  # type: ignore[no-untyped-call, unused-ignore]
    # The output's bias is left out: the intercept of the stacked model is fitted later.
    return Dense.quantised(
        embeddings.weight.detach().numpy(),
        hidden.weight.detach().numpy().T.copy(),
        hidden.bias.detach().numpy().copy(),
        output.weight.detach().numpy()[:labels].T.copy(),
        years,
    )


def _batches(texts: int, random: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """The rows of every step of all epochs, reshuffled for each epoch."""
    for _ in range(_EPOCHS):
        order = random.permutation(texts)
        yield from (order[first : first + _BATCH] for first in range(0, texts, _BATCH))


def _pooled(
    embeddings: torch.nn.EmbeddingBag, counted: Counted, rows: npt.NDArray[np.int64], random: np.random.Generator
) -> torch.Tensor:
    """Mean embeddings of all words, some dropped, and of the title's words, (rows, 2 x width)."""
    import torch

    starts, lengths = counted.word_bounds[rows], np.diff(counted.word_bounds)[rows]
    parts = []
    for count, dropout in ((lengths, _WORD_DROPOUT), (counted.title_words[rows], 0.0)):
        ends = np.cumsum(count)
        text = np.repeat(np.arange(len(rows)), count)
        places = np.arange(int(ends[-1])) - np.repeat(ends - count, count) + np.repeat(starts, count)
        kept = random.random(len(places)) >= dropout
        remaining = np.bincount(text[kept], minlength=len(rows))
        words = torch.from_numpy(counted.words[places[kept]].astype(np.int64))
        offsets = torch.from_numpy(np.cumsum(remaining) - remaining)
        parts.append(embeddings(words, offsets) / torch.from_numpy(np.maximum(remaining, 1))[:, None].float())
    return torch.cat(parts, dim=1)
