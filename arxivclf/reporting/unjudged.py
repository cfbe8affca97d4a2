"""What labels say of papers whose truth nobody told: how many there are, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from arxivclf.reporting.intervals import Interval, wilson
from arxivclf.reporting.slices import key_of

_BINS = 10


@dataclass(frozen=True)
class Share:
    """The papers of one slice, and how many of them are labelled."""

    value: str
    papers: int
    labelled: int

    @property
    def share(self) -> Interval:
        return wilson(self.labelled, self.papers)


@dataclass(frozen=True)
class Unjudged:
    """One label without a truth: its share of all papers, by slice, and `scores`, the papers in ten bins of [0, 1]."""

    name: str
    whole: Share
    scores: tuple[int, ...]
    slices: tuple[tuple[str, tuple[Share, ...]], ...]


def unjudged(name: str, papers: pl.DataFrame, by: Sequence[str]) -> Unjudged:
    """From `given` and `score`, without nulls, and the columns that the slices are made of."""
    scores = papers.get_column("score").to_numpy()
    bins = np.bincount(np.minimum((scores * _BINS).astype(np.int64), _BINS - 1), minlength=_BINS)
    slices = tuple((one, _shares(papers, one)) for one in by)
    whole = Share("all", len(papers), int(papers.get_column("given").sum()))
    return Unjudged(name, whole, tuple(bins.tolist()), slices)


def _shares(papers: pl.DataFrame, by: str) -> tuple[Share, ...]:
    """Years in their order, other slices from the one with most of the labels on."""
    counted = papers.group_by(key_of(by, papers.columns).alias("value")).agg(pl.len(), pl.col("given").sum())
    found = [Share(*row) for row in counted.iter_rows()]
    return tuple(sorted(found, key=lambda one: (0 if by == "year" else -one.labelled, one.value)))
