"""Several labels at once: figures over all decisions (micro) and means over labels (macro), drawn paper by paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from arxivclf.reporting.intervals import Interval, bootstrap
from arxivclf.reporting.metrics import Counts, figure_of_counts

NAMES = ("precision", "recall", "F1")


@dataclass(frozen=True)
class Overall:
    """Precision, recall and F1 over `papers` with truth and score of every label, each with its 95 % interval.

    `micro` counts the decisions of all labels as those of one, nan where there is nothing to take a figure of; `macro`
    is the mean of the labels' figures, those that a label does not have (no paper labelled, or none positive) taken for
    0, as scikit-learn does.
    """

    papers: int
    micro: tuple[Interval, ...]
    macro: tuple[Interval, ...]


def overall(decisions: pl.DataFrame) -> Overall:
    """From boolean columns without nulls, label and truth by turns: `a`, `a_truth`, `b`, `b_truth`, ...

    Labels of one paper depend on each other, so papers are drawn with all of theirs: their kinds are the patterns of
    decisions and truths.
    """
    patterns = decisions.group_by(decisions.columns, maintain_order=True).len("papers")
    papers = patterns.get_column("papers").to_numpy().astype(np.float64)
    table = patterns.drop("papers").to_numpy().astype(bool)
    given, truth = table[:, ::2], table[:, 1::2]
    cells = [given & truth, given & ~truth, ~given & truth]

    def figure(name: str, micro: bool) -> Interval:
        def of(drawn: Counts) -> Counts:
            counts = [drawn @ cell.astype(np.float64) for cell in cells]
            if micro:
                counts = [each.sum(axis=1, keepdims=True) for each in counts]
            figures = figure_of_counts(name, *counts)
            return np.asarray((figures if micro else np.nan_to_num(figures)).mean(axis=1))

        return bootstrap(papers, of)

    micro, macro = (tuple(figure(name, each) for name in NAMES) for each in (True, False))
    return Overall(len(decisions), micro, macro)
