"""Weights that bring training papers close to arXiv's own mix of years and primary categories.

How many papers arXiv received in a month follows from its own numbers: they count from 1 in every month (before 2007 in
every month of every archive), so that n sampled numbers of which the largest is m point to m (1 + 1/n) - 1 papers (the
estimator of the German tank problem; Goodman 1952). The mix of primary categories comes from a file that states one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from arxivclf.corpus.ids import year_of
from arxivclf.corpus.taxonomy import SAME_AS, canonical_categories
from arxivclf.errors import DataError, one_line

NONE, YEARS = "none", "years"
# With fewer papers, a month has too few numbers to tell how many papers it had.
FEWEST = 10_000
# Rare kinds of papers would otherwise decide too much: no paper counts more than so many times the average one.
_MOST = 4.0
# What a primary category that the file does not list counts there, in papers.
_UNLISTED = 0.5
# Year or month and number of an arXiv ID: `1502.04796` and `hep-th/9901001`.
_NUMBERED = r"^((?:[a-z-]+/)?[0-9]{4})\.?([0-9]{3,5})$"

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Balance:
    """Weights of papers, float32 (papers,), mean 1, and a line that describes them."""

    weights: Weights
    description: str

    @property
    def effective(self) -> float:
        """How many equally weighted papers tell as much (Kish 1965)."""
        return effective_size(self.weights)


def effective_size(weights: Weights) -> float:
    """(sum of weights)^2 / sum of squared weights."""
    return float(weights.sum(dtype=np.float64) ** 2 / np.square(weights, dtype=np.float64).sum())


def read_mix(path: str) -> Mapping[str, float]:
    """Papers by primary category from a CSV file with the columns `primary` and `papers`, names made canonical.

    Raises DataError where it has no such columns, or a count that is not a positive number.
    """
    try:
        table = pl.read_csv(Path(path), columns=["primary", "papers"], schema_overrides={"papers": pl.Float64})
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: not a CSV file with the columns primary and papers: {one_line(error)}") from None
    papers = table.get_column("papers").fill_null(np.nan).to_numpy()
    if not (np.isfinite(papers).all() and (papers >= 0).all() and papers.sum() > 0):
        raise DataError(f"{path}: papers must be counts, at least one of them above 0")
    counts = table.group_by(pl.col("primary").replace(SAME_AS)).agg(pl.col("papers").sum())
    return dict(counts.iter_rows())


def balance(papers: pl.DataFrame, mix: Mapping[str, float] | None = None, mix_since: int | None = None) -> Balance:
    """Weights for papers (columns `key`, `created`, `year`, `categories`).

    Each year counts as much as arXiv received papers in it, as far as the IDs tell. `mix` are papers by primary
    category; every year from `mix_since` on is brought towards it in equal steps, up to the newest, which has it. Years
    before keep the mix that they have; without `mix_since` all years get the one of the file. A paper without an arXiv
    ID or without categories is not weighted by these.
    """
    primary = canonical_categories(papers.get_column("categories")).list.first().alias("primary")
    table = papers.select("key", year=pl.coalesce(year_of(pl.col("key")), pl.col("created").dt.year(), "year"))
    table = table.with_columns(primary)
    weights = _by_year(table)
    described = "years as arXiv's own numbers tell"
    if mix is not None:
        weights = weights * _by_category(table, mix, mix_since)
        since = f" from {mix_since} on" if mix_since is not None else ""
        described += f" and primary categories as in the given mix{since}"
    weights = np.clip(weights / weights.mean(), 1 / _MOST, _MOST)
    weights = (weights / weights.mean()).astype(np.float32)
    size = effective_size(weights)
    return Balance(
        weights,
        f"Papers are weighted by {described}: from {weights.min():.2f} to {weights.max():.2f}, as informative as"
        f" {size:,.0f} of {len(weights):,} papers of equal weight",
    )


def _by_year(table: pl.DataFrame) -> npt.NDArray[np.float64]:
    numbered = table.select(
        "year",
        series=pl.col("key").str.extract(_NUMBERED, 1),
        number=pl.col("key").str.extract(_NUMBERED, 2).cast(pl.Int64),
    ).drop_nulls()
    if not len(numbered):
        return np.ones(len(table))
    series = numbered.group_by("series").agg(pl.col("year").first(), pl.col("number").max(), papers=pl.len())
    received = series.group_by("year").agg(
        received=(pl.col("number") * (1 + 1 / pl.col("papers")) - 1).sum(), papers=pl.col("papers").sum()
    )
    by_year = received.select("year", weight=pl.max_horizontal("received", "papers") / pl.col("papers"))
    weights = table.join(by_year, on="year", how="left", maintain_order="left").get_column("weight").to_numpy()
    # Papers of unknown year count as the average one.
    return np.where(np.isnan(weights), np.nanmean(weights), weights)


def _by_category(table: pl.DataFrame, mix: Mapping[str, float], since: int | None) -> npt.NDArray[np.float64]:
    """The target share of each paper's primary category in its year, over the share that it has there."""
    there = table.filter(pl.col("primary").is_not_null() & pl.col("year").is_not_null())
    total = pl.len().over("year")
    shares = there.select("year", "primary", share=pl.len().over("year", "primary") / total).unique()
    wanted = pl.DataFrame({"primary": list(mix), "wanted": list(mix.values())}, schema_overrides={"wanted": pl.Float64})
    shares = shares.join(wanted, on="primary", how="left").with_columns(pl.col("wanted").fill_null(_UNLISTED))
    shares = shares.with_columns(wanted=pl.col("wanted") / pl.col("wanted").sum().over("year"))
    if since is not None:
        newest = int(shares.get_column("year").to_numpy().max(initial=since))
        before = shares.filter(pl.col("year") == since - 1).select("primary", before="share")
        before = before if len(before) else shares.filter(pl.col("year") == since).select("primary", before="share")
        step = ((pl.col("year") - since + 1) / max(1, newest - since + 1)).clip(0.0, 1.0)
        shares = shares.join(before, on="primary", how="left").with_columns(pl.col("before").fill_null(0.0))
        towards = step * pl.col("wanted") + (1 - step) * pl.col("before")
        shares = shares.with_columns(wanted=pl.when(pl.col("year") < since).then("share").otherwise(towards))
    ratio = shares.select("year", "primary", ratio=pl.col("wanted") / pl.col("share"))
    joined = table.join(ratio, on=["year", "primary"], how="left", maintain_order="left")
    return joined.get_column("ratio").fill_null(1.0).to_numpy()
