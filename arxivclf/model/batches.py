"""Batches: which papers go through the encoder together, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

# Tensors this wide keep the matrix kernels on their fast path.
_MULTIPLE = 8
SCORING_WIDTHS = 16

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


def pad(
    token_ids: Sequence[list[int]], padding_id: int, shape: tuple[int, int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of a batch, both int64 (papers, width), the width a multiple of 8.

    With a `shape` they have that one; the rows that hold no paper have one visible token, for a softmax over nothing is
    no number.
    """
    if shape is None:
        shape = (len(token_ids), -(-max(map(len, token_ids)) // _MULTIPLE) * _MULTIPLE)
    ids = np.full(shape, padding_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    mask[len(token_ids) :, 0] = 1
    for row, paper in enumerate(token_ids):
        ids[row, : len(paper)] = paper
        mask[row, : len(paper)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def of_one_shape(
    lengths: Sequence[int], token_budget: int, widths: Sequence[int] = (), multiple: int = 1
) -> Iterator[tuple[Indices, tuple[int, int]]]:
    """Every paper once, with the shape (papers, width) of its batch, widest first (what does not fit fails at once).

    A paper's batch has the shape that its own length asks for, whoever is in it: the width is the next of `widths`, or
    the next multiple of 16 where none are given, and the papers are as many as `token_budget` tokens allow, a
    `multiple`, the last batch of a width filled up. Matrix kernels sum in another order for another shape, so that
    otherwise a score would depend on the neighbours.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    wide = _next_of(widths, sizes) if widths else -(-sizes // SCORING_WIDTHS) * SCORING_WIDTHS
    for width in np.unique(wide)[::-1]:
        rows = np.flatnonzero(wide == width)
        papers = max(1, token_budget // int(width) // multiple) * multiple
        for start in range(0, len(rows), papers):
            yield rows[start : start + papers], (papers, int(width))


def shape_of(
    lengths: Sequence[int], batch_size: int, widths: Sequence[int], multiple: int = 1
) -> tuple[int, int] | None:
    """The shape of `batch_size` papers to train on: full, as wide as the next of `widths`; None without widths."""
    if not widths:
        return None
    return -(-batch_size // multiple) * multiple, int(_next_of(widths, np.array([max(lengths)]))[0])


def _next_of(widths: Sequence[int], lengths: Indices) -> Indices:
    there = np.asarray(widths, dtype=np.int64)
    return there[np.minimum(np.searchsorted(there, lengths), len(there) - 1)]


def shuffled(papers: int, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """The batches of one pass over the training papers, in an order that depends on `seed` and `epoch` alone.

    Batches of papers of like length would need less padding, but trained worse: length tells of the field, and steps
    that each see one kind of papers pull to and fro (3,400 papers, one pass: F1 .765, against .807 of these).
    """
    order = np.random.default_rng([seed, epoch]).permutation(papers)
    return [order[start : start + batch_size] for start in range(0, papers, batch_size)]


def of_like_length(rows: Indices, lengths: Sequence[int], tokens: int) -> list[Indices]:
    """The papers of a batch in groups, longest first, each padded to its own longest and of `tokens` tokens at least.

    The gradients of the groups add up to those of the batch, without most of its padding.
    """
    order = sorted(rows.tolist(), key=lambda row: (-lengths[row], row))
    groups: list[list[int]] = [[]]
    for place, row in enumerate(order):
        groups[-1].append(row)
        left = (len(order) - place - 1) * lengths[row]
        if len(groups[-1]) * lengths[groups[-1][0]] >= tokens and left >= max(1, tokens // 2):
            groups.append([])
    return [np.array(group, dtype=np.int64) for group in groups]
