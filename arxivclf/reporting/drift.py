"""Whether papers have changed between two dumps: how many have each label, how they score, and the words in them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from arxivclf.corpus.splits import sample_order
from arxivclf.errors import DataError
from arxivclf.reporting.intervals import Interval, difference_of_shares, difference_within, f1_interval
from arxivclf.reporting.made import unlike
from arxivclf.reporting.metrics import Confusion
from arxivclf.reporting.slices import NO_VALUE, key_of
from arxivclf.reporting.table import KEY, LabelsFile, alike, labels_of, shared
from arxivclf.reporting.unjudged import Share

# A usual reading of the population stability index: below the first a shift is small, from the second on large.
SMALL_SHIFT, LARGE_SHIFT = 0.1, 0.25
# Words are those of so many papers of each dump at most, drawn by the hash of the id.
_PAPERS_READ = 20_000
_HELD_OUT = 5
_FEWEST_PAPERS_OF_A_WORD = 3
_TEXTS = ("title", "abstract", "text")


@dataclass(frozen=True)
class LabelDrift:
    """One label in both dumps: its share, as a whole and by year, and the scores.

    `difference` is that of the shares, now less before (Newcombe). `distance` is that of Kolmogorov and Smirnov between
    the distributions of scores, `p` the chance of one as large between two samples of the same papers, `stability` the
    population stability index over tenths of the earlier papers. `f1` holds F1 before, now, and the difference, where
    both dumps have a truth.
    """

    name: str
    before: Share
    now: Share
    difference: Interval
    years: tuple[tuple[Share, Share], ...]
    distance: float
    p: float
    stability: float
    f1: tuple[Interval, Interval, Interval] | None

    @cached_property
    def within_years(self) -> Interval | None:
        """The difference if both dumps had as many papers of each year as the later has; None where years are not
        known, are one, or are none of both."""
        known = [pair for pair in self.years if pair[0].value != NO_VALUE]
        found = difference_within([((one.papers, one.labelled), (now.papers, now.labelled)) for one, now in known])
        return None if len(known) < 2 or math.isnan(found.value) else found

    @property
    def papers_within_years(self) -> int:
        """The later papers of years that both dumps have papers of: those that `within_years` is of."""
        return sum(now.papers for one, now in self.years if one.value != NO_VALUE and one.papers)

    @property
    def verdict(self) -> str:
        """In plain words, with the test."""
        change = _change(self.difference)
        if self.within_years is not None:
            change += f"; within years {_change(self.within_years)}"
            change += f", of {self.papers_within_years:,} papers of years in both"
        if self.difference.low <= 0 <= self.difference.high:
            share = f"no difference can be seen in how many papers have it ({change})"
        else:
            more = "more" if self.difference.value > 0 else "fewer"
            share = f"{more} papers have it than before ({change})"
        test = f"Kolmogorov-Smirnov distance {self.distance:.3f}, p {told_p(self.p)}"
        if self.p >= 0.05:
            return f"{share}, and of a drift of its scores nothing can be seen ({test})"
        size = "small" if self.stability < SMALL_SHIFT else "moderate" if self.stability < LARGE_SHIFT else "large"
        return f"{share}; its scores have drifted ({test}), by a {size} shift (stability index {self.stability:.3f})"


@dataclass(frozen=True)
class Words:
    """Words of the new papers that no earlier paper had, from `before` and `now` papers.

    `unseen_before` is the mean share of unseen words in an earlier paper that was held out, `unseen_now` that in a new
    one, `p` the chance of means as far apart (Welch's test). `new` are unseen words with the count of new papers.
    """

    before: int
    now: int
    unseen_before: float
    unseen_now: float
    p: float
    new: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Drift:
    """Two dumps: all papers of the earlier, against those of the later that the earlier does not have.

    `shared` are papers of the later that were left out, because they are in both. `unlike` says in words how the two
    were labelled otherwise, "" where they were alike or do not tell.
    """

    first: str
    second: str
    papers_before: int
    papers_now: int
    shared: int
    labels: tuple[LabelDrift, ...]
    words: Words | None
    unlike: str = ""


def drift(before: str | Path, now: str | Path, label: str | None = None) -> Drift:
    """Compare the labels of two dumps, of all labels that both have or just of `label`.

    Words are read where `title`, `abstract` or `text` were kept in both. Raises DataError where the later has no paper
    that the earlier has not, UsageError where they share no such label.
    """
    files = LabelsFile.open(before), LabelsFile.open(now)
    names = shared(*files, label)
    texts = [column for column in _TEXTS if all(column in file.others for file in files)]
    told = alike(*(file.keyed(names, [*({"year"} & {*file.others}), *texts]) for file in files))
    first, second = (table.unique(KEY, keep="last", maintain_order=True) for table in told)
    new = second.filter(~pl.col(KEY).is_in(first.get_column(KEY).implode()))
    if not len(new):
        raise DataError(
            f"{now}: all of its {len(second):,} papers are in {before}, too; --compare compares their labels"
        )
    return Drift(
        str(before),
        str(now),
        len(first),
        len(new),
        len(second) - len(new),
        tuple(_of_label(name, first, new, [file.path for file in files]) for name in names),
        _words(first, new, texts) if texts else None,
        unlike(files[0].made, files[1].made, names),
    )


def _of_label(name: str, first: pl.DataFrame, second: pl.DataFrame, paths: Sequence[str]) -> LabelDrift:
    dates = [column for column in ("created", "year") if all(column in table.columns for table in (first, second))]
    tables = [labels_of(table, name, path, dates) for table, path in zip((first, second), paths, strict=True)]
    shares = [Share("all", len(papers), int(papers.get_column("given").sum())) for papers in tables]
    scores = [papers.get_column("score").to_numpy() for papers in tables]
    distance, p = _kolmogorov_smirnov(*scores)
    return LabelDrift(
        name,
        shares[0],
        shares[1],
        difference_of_shares(shares[0].share, shares[1].share),
        _years(*tables) if dates else (),
        distance,
        p,
        _stability(*scores),
        _f1(*tables),
    )


def _years(first: pl.DataFrame, second: pl.DataFrame) -> tuple[tuple[Share, Share], ...]:
    counted = []
    for papers in (first, second):
        found = papers.group_by(key_of("year", papers.columns).alias("of")).agg(pl.len(), pl.col("given").sum())
        counted.append({year: Share(year, *counts) for year, *counts in found.iter_rows()})
    years = sorted(counted[0] | counted[1])
    before, now = counted
    return tuple((before.get(year, Share(year, 0, 0)), now.get(year, Share(year, 0, 0))) for year in years)


def _kolmogorov_smirnov(before: npt.NDArray[np.float32], now: npt.NDArray[np.float32]) -> tuple[float, float]:
    from scipy.stats import ks_2samp

    with warnings.catch_warnings():
        # Where the exact distribution cannot be had its limit is taken, and told about.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = ks_2samp(before, now)
    return float(found.statistic), float(found.pvalue)


def _stability(before: npt.NDArray[np.float32], now: npt.NDArray[np.float32]) -> float:
    """The population stability index: the sum of (q - p) ln(q / p) over shares p, q in tenths of the earlier scores.

    Half a paper is added to each tenth, so that an empty one has a logarithm.
    """
    edges = np.unique(np.quantile(before, np.linspace(0.1, 0.9, 9)))
    shares = []
    for scores in (before, now):
        counts = np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1) + 0.5
        shares.append(counts / counts.sum())
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def _f1(first: pl.DataFrame, second: pl.DataFrame) -> tuple[Interval, Interval, Interval] | None:
    found = []
    for papers in (first, second):
        known = papers.drop_nulls("truth")
        counts = Confusion.count(known.get_column("truth").to_numpy(), known.get_column("given").to_numpy())
        if not counts.support:
            return None
        found.append(f1_interval(counts))
    before, now = found
    return before, now, difference_of_shares(before, now)


def _words(first: pl.DataFrame, second: pl.DataFrame, texts: Sequence[str]) -> Words | None:
    from scipy.stats import ttest_ind

    earlier, later = (_words_of(_drawn(table), texts) for table in (first, second))
    place = pl.col("paper")
    held, known = earlier.filter(place % _HELD_OUT == 0), earlier.filter(place % _HELD_OUT != 0)
    vocabulary = known.select("word").unique().with_columns(seen=pl.lit(True))
    shares = [_unseen(words, vocabulary) for words in (held, later)]
    if min(map(len, shares)) < 2:
        return None
    never = later.join(earlier.select("word").unique(), on="word", how="anti")
    new = never.unique(["paper", "word"]).group_by("word").len().filter(pl.col("len") >= _FEWEST_PAPERS_OF_A_WORD)
    # What twenty thousand papers have not may well be in one of millions.
    for part in first.iter_slices(_PAPERS_READ):
        if not len(new):
            break
        new = new.join(_words_of(part, texts).select("word").join(new, on="word", how="semi"), on="word", how="anti")
    rows = new.sort(["len", "word"], descending=[True, False]).head(20).iter_rows()
    p = float(ttest_ind(shares[0], shares[1], equal_var=False).pvalue)
    before, now = (words.get_column("paper").n_unique() for words in (earlier, later))
    return Words(before, now, float(shares[0].mean()), float(shares[1].mean()), p, tuple(rows))


def _drawn(table: pl.DataFrame) -> pl.DataFrame:
    # In an order that has nothing to do with the papers, for every so manieth is held out.
    table = table.drop_nulls(KEY)
    order = sample_order(table.get_column(KEY), 0)
    return table.with_columns(order).sort("sample_order").head(_PAPERS_READ)


def _words_of(table: pl.DataFrame, texts: Sequence[str]) -> pl.DataFrame:
    """The words, lower case and of three letters at least, of each paper by its place."""
    joined = pl.concat_str([pl.col(column).cast(pl.String) for column in texts], separator=" ", ignore_nulls=True)
    words = joined.str.to_lowercase().str.extract_all(r"\p{L}{3,}")
    return table.select(words.alias("word")).with_row_index("paper").explode("word").drop_nulls()


def _unseen(words: pl.DataFrame, vocabulary: pl.DataFrame) -> npt.NDArray[np.float64]:
    told = words.join(vocabulary, on="word", how="left")
    shares = told.group_by("paper").agg(pl.col("seen").is_null().mean())
    return shares.get_column("seen").to_numpy()


def told_p(p: float) -> str:
    """A chance as text: with two digits, or as below what can be told."""
    return "below 1e-15" if p < 1e-15 else "open" if math.isnan(p) else f"= {p:.2g}"


def _change(difference: Interval) -> str:
    low, high = (f"{100 * bound:+.1f}" for bound in (difference.low, difference.high))
    return f"{100 * difference.value:+.1f} points, {low} to {high}"
