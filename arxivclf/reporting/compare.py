"""Two files of labels on the papers that they share: which is better, how sure that is, and which papers changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from arxivclf.corpus.seen import Seen
from arxivclf.errors import DataError
from arxivclf.reporting.disagreements import link
from arxivclf.reporting.intervals import Interval, bootstrap, kappa, mcnemar, wilson
from arxivclf.reporting.metrics import Confusion, Counts, figure_of_counts
from arxivclf.reporting.slices import key_of, source_of
from arxivclf.reporting.table import KEY, LabelsFile, LeftOut, alike, shared, without_seen

FIGURES = ("precision", "recall", "F1", "accuracy")


@dataclass(frozen=True)
class Judgement:
    """Both labels against one truth, over the papers where it is known.

    `differences` are those of precision, recall, F1 and accuracy, the second's less the first's, over pairs of labels.
    `first_alone` are the papers that the first alone gets right, `second_alone` those of the second; `p` is the chance
    of counts at least as unlike were they equally good (McNemar, exact).
    """

    first: Confusion
    second: Confusion
    differences: tuple[Interval, ...]
    first_alone: int
    second_alone: int
    p: float


@dataclass(frozen=True)
class Change:
    """Papers of one slice, and how many of them the second gives another label: `gained` it, or `lost` it."""

    value: str
    papers: int
    gained: int
    lost: int

    @property
    def changed(self) -> Interval:
        """The share whose label is another."""
        return wilson(self.gained + self.lost, self.papers)


@dataclass(frozen=True)
class Changed:
    """A paper with another label: its id, both scores, and whether it has gained the label."""

    id: str
    first_score: float
    second_score: float
    gained: bool
    link: str | None


@dataclass(frozen=True)
class LabelComparison:
    """One label in both files. `judgement` is there where the truth of any paper is known, which the files may tell
    differently of `truths_differ` papers."""

    name: str
    whole: Change
    agreement: Interval
    kappa: float
    judgement: Judgement | None
    slices: tuple[tuple[str, tuple[Change, ...]], ...]
    papers: tuple[Changed, ...]
    truths_differ: int = 0


@dataclass(frozen=True)
class Comparison:
    """Two files: the papers in both, those in one alone, and the labels that both have."""

    first: str
    second: str
    papers: int
    first_alone: int
    second_alone: int
    labels: tuple[LabelComparison, ...]
    left_out: LeftOut | None = None


def compare(
    first: str | Path,
    second: str | Path,
    label: str | None = None,
    by: Sequence[str] = (),
    changed: int = 0,
    unseen_by: Seen | None = None,
) -> Comparison:
    """Compare two files of labels on the papers in both, however their ids are spelt.

    Truth is the second's, or else the first's. `by` parts the papers as in `report`; `changed` asks for so many papers
    whose label is another, the largest changes of score first. The papers that `unseen_by` saw are left out. Raises
    DataError where they share no (other) paper, UsageError where they share no such label.
    """
    files = LabelsFile.open(first), LabelsFile.open(second)
    names = shared(*files, label)
    sources = [source_of(one, files[1].others) for one in by]
    tables = alike(*(file.keyed(names, sources if file is files[1] else []) for file in files))
    for table, file in zip(tables, files, strict=True):
        if (repeated := len(table) - table.get_column(KEY).n_unique()) > 0:
            raise DataError(f"{file.path}: {repeated:,} rows repeat an id, so that its papers cannot be told apart")
    both = tables[1].join(tables[0], on=KEY, how="inner", suffix=_OLD, maintain_order="left")
    if not len(both):
        raise DataError(f"{first} and {second} share no paper: {len(tables[0]):,} ids there, {len(tables[1]):,} here")
    before, now = (len(table) - len(both) for table in tables)
    left_out = None
    if unseen_by is not None:
        both, left_out = without_seen(both, unseen_by, f"{first} and {second}")
    compared = tuple(_compare(both, name, by, changed) for name in names)
    return Comparison(str(first), str(second), len(both), before, now, compared, left_out)


_OLD = " of the first"


def _compare(both: pl.DataFrame, name: str, by: Sequence[str], changed: int) -> LabelComparison:
    truths = [pl.col(column) for column in (f"{name}_truth", f"{name}_truth{_OLD}") if column in both.columns]
    differ = int(both.select((truths[0] != truths[1]).sum()).item()) if len(truths) == 2 else 0
    papers = both.with_columns(
        second=pl.col(name),
        first=pl.col(f"{name}{_OLD}"),
        truth=pl.coalesce(truths) if truths else pl.lit(None, pl.Boolean),
    ).drop_nulls(["first", "second"])
    first, second = (papers.get_column(which).to_numpy() for which in ("first", "second"))
    table = np.bincount(first.astype(np.int64) * 2 + second, minlength=4).reshape(2, 2)
    slices = tuple((one, _changes(papers, one)) for one in by)
    return LabelComparison(
        name,
        Change("all", len(papers), int(table[0, 1]), int(table[1, 0])),
        wilson(int(np.trace(table)), len(papers)),
        kappa(table),
        _judge(papers.drop_nulls("truth")),
        slices,
        _changed(papers, name, changed),
        differ,
    )


def _judge(known: pl.DataFrame) -> Judgement | None:
    if not len(known):
        return None
    truth, first, second = (known.get_column(which).to_numpy() for which in ("truth", "first", "second"))
    counts = np.bincount(truth.astype(np.int64) * 4 + first * 2 + second, minlength=8)
    before, now = [int(((one == truth) & (other != truth)).sum()) for one, other in ((first, second), (second, first))]
    differences = tuple(bootstrap(counts, _difference(name)) for name in FIGURES)
    return Judgement(
        Confusion.count(truth, first), Confusion.count(truth, second), differences, before, now, mcnemar(before, now)
    )


def _difference(name: str) -> Callable[[Counts], Counts]:
    """A figure of the second less that of the first, from counts by truth, first and second, (draws, 8)."""
    kinds = np.arange(8)
    truth, first, second = kinds // 4 == 1, kinds // 2 % 2 == 1, kinds % 2 == 1

    def figure(counts: Counts, given: npt.NDArray[np.bool_]) -> Counts:
        cells = (truth & given, ~truth & given, truth & ~given, ~truth & ~given)
        return figure_of_counts(name, *(counts[:, cell].sum(axis=1) for cell in cells))

    return lambda counts: figure(counts, second) - figure(counts, first)


def _changes(papers: pl.DataFrame, by: str) -> tuple[Change, ...]:
    gained, lost = pl.col("second") & ~pl.col("first"), pl.col("first") & ~pl.col("second")
    counted = papers.group_by(key_of(by, papers.columns).alias("value")).agg(
        pl.len(), gained=gained.sum(), lost=lost.sum()
    )
    found = [Change(*row) for row in counted.select("value", "len", "gained", "lost").iter_rows()]
    return tuple(sorted(found, key=lambda one: (-(one.gained + one.lost) / one.papers, one.value)))


def _changed(papers: pl.DataFrame, name: str, count: int) -> tuple[Changed, ...]:
    if not count:
        return ()
    first, second = pl.col(f"{name}_score{_OLD}").cast(pl.Float64), pl.col(f"{name}_score").cast(pl.Float64)
    other = papers.filter(pl.col("first") != pl.col("second"))
    rows = other.select("id", first, second, KEY, gained=pl.col("second"), by=(first - second).abs())
    # Where one of them has no score there is no change of it.
    rows = rows.drop_nulls("by").drop_nans("by").with_columns(pl.col("id").fill_null(""))
    rows = rows.sort(["by", "id"], descending=[True, False]).head(count).drop("by")
    return tuple(
        Changed(id_, before, now, gained, link(id_, key)) for id_, before, now, key, gained in rows.iter_rows()
    )
