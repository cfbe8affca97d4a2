"""What labels say of papers without ground truth: how many there are, where, and how many have the label in truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from arxivclf.reporting.adjusted import ErrorRates
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
    """One label without ground truth: its share, overall and by slice, and `scores`, papers in ten bins of [0, 1].

    `rates` are the error rates of the model at the threshold that gave these labels, None where they are not known.
    """

    name: str
    whole: Share
    scores: tuple[int, ...]
    slices: tuple[tuple[str, tuple[Share, ...]], ...]
    rates: ErrorRates | None = None

    def adjusted(self, share: Share) -> Interval | None:
        """The share that has the label in truth, of all papers or of one slice; None where error rates are not known.

        For a slice it assumes that the error rates are the same in all slices.
        """
        return None if self.rates is None else self.rates.adjusted(share.labelled, share.papers)


def unjudged(name: str, papers: pl.DataFrame, by: Sequence[str], rates: ErrorRates | None = None) -> Unjudged:
    """From `given` and `score`, without nulls, and the columns that the slices are made of."""
    scores = papers.get_column("score").to_numpy()
    bins = np.bincount(np.minimum((scores * _BINS).astype(np.int64), _BINS - 1), minlength=_BINS)
    slices = tuple((one, _shares(papers, one)) for one in by)
    whole = Share("all", len(papers), int(papers.get_column("given").sum()))
    return Unjudged(name, whole, tuple(bins.tolist()), slices, rates if rates is not None and rates.usable else None)


def _shares(papers: pl.DataFrame, by: str) -> tuple[Share, ...]:
    """Years in their order, other slices from the one with most of the labels on."""
    counted = papers.group_by(key_of(by, papers.columns).alias("value")).agg(pl.len(), pl.col("given").sum())
    found = [Share(*row) for row in counted.iter_rows()]
    return tuple(sorted(found, key=lambda one: (0 if by == "year" else -one.labelled, one.value)))
