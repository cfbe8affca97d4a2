"""Several labels at once: figures over all decisions (micro) and means over labels (macro), drawn paper by paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from arxivclf.reporting.intervals import Counts, Interval, bootstrap

NAMES = ("precision", "recall", "F1")


@dataclass(frozen=True)
class Overall:
    """Precision, recall and F1 over `papers` whose truth is known for every label, each with its 95 % interval.

    `micro` counts the decisions of all labels as those of one; `macro` is the mean of the labels' figures, those that a
    label does not have (no paper labelled, or none positive) taken for 0, as scikit-learn does.
    """

    papers: int
    micro: tuple[Interval, Interval, Interval]
    macro: tuple[Interval, Interval, Interval]


def overall(decisions: pl.DataFrame) -> Overall:
    """From boolean columns without nulls, label and truth by turns: `a`, `a_truth`, `b`, `b_truth`, ...

    Labels of one paper depend on each other, so papers are drawn with all of theirs: their kinds are the patterns of
    decisions and truths.
    """
    patterns = decisions.group_by(decisions.columns, maintain_order=True).len("papers")
    papers = patterns.get_column("papers").to_numpy().astype(np.float64)
    table = patterns.drop("papers").to_numpy().astype(bool)
    given, truth = table[:, ::2], table[:, 1::2]
    cells = [(given & truth), (given & ~truth), (~given & truth)]

    def figures(which: int, micro: bool) -> Interval:
        def of(counts: Counts) -> Counts:
            hits, wrong, missed = (counts @ cell.astype(np.float64) for cell in cells)
            if micro:
                hits, wrong, missed = (each.sum(axis=1, keepdims=True) for each in (hits, wrong, missed))
            return np.asarray(_figure(which, hits, wrong, missed).mean(axis=1))

        return bootstrap(papers, of)

    micro, macro = ((figures(0, each), figures(1, each), figures(2, each)) for each in (True, False))
    return Overall(len(decisions), micro, macro)


def _figure(which: int, hits: Counts, wrong: Counts, missed: Counts) -> npt.NDArray[np.float64]:
    """Precision, recall or F1; 0 where there is nothing to take a share of."""
    whole = (hits + wrong, hits + missed, hits + (wrong + missed) / 2)[which]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.nan_to_num(hits / whole))
