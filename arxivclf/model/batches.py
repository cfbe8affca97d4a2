"""Batches: which papers go through the encoder together, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

# Tensors this wide keep the matrix kernels on their fast path.
_MULTIPLE = 8
_SORTED_TOGETHER = 50

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


def pad(token_ids: Sequence[list[int]], padding_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of a batch, both int64 (papers, width), the width a multiple of 8."""
    width = -(-max(map(len, token_ids)) // _MULTIPLE) * _MULTIPLE
    ids = np.full((len(token_ids), width), padding_id, dtype=np.int64)
    mask = np.zeros((len(token_ids), width), dtype=np.int64)
    for row, paper in enumerate(token_ids):
        ids[row, : len(paper)] = paper
        mask[row, : len(paper)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def by_length(lengths: Sequence[int], token_budget: int) -> Iterator[Indices]:
    """Every paper once, the longest first (what does not fit in memory fails at once), `token_budget` tokens a batch.

    Papers of one length keep their order, so that equal input makes equal batches.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        count = max(1, token_budget // max(1, lengths[order[start]]))
        yield order[start : start + count]
        start += count


def shuffled(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """The batches of one pass over the training papers: shuffled, yet papers of like length together.

    Each 50 batches' worth of shuffled papers is sorted by length and cut; then the batches are shuffled. The order
    depends on `seed` and `epoch` alone.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    sizes = np.asarray(lengths, dtype=np.int64)
    batches: list[Indices] = []
    for start in range(0, len(order), batch_size * _SORTED_TOGETHER):
        together = order[start : start + batch_size * _SORTED_TOGETHER]
        together = together[np.argsort(sizes[together], kind="stable")]
        batches += [together[at : at + batch_size] for at in range(0, len(together), batch_size)]
    return [batches[place] for place in random.permutation(len(batches))]
