"""Splits: fixed by the id alone."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from arxivclf.corpus.splits import sample_order, split_by_hash, split_by_time

KEYS = pl.Series([f"2101.{number:05d}" for number in range(20_000)])


def test_the_shares_are_70_15_15() -> None:
    counts = dict(split_by_hash(KEYS).value_counts().iter_rows())
    assert abs(counts["train"] / 20_000 - 0.70) < 0.01
    assert abs(counts["validation"] / 20_000 - 0.15) < 0.01
    assert abs(counts["test"] / 20_000 - 0.15) < 0.01


def test_known_papers_stay_where_every_version_put_them() -> None:
    known = ["0704.0001", "hep-th/9901001", "cmp-lg/9406012", "2505.00011", "math/0309136", "1001.0007"]
    sides = ["train", "train", "validation", "validation", "validation", "test"]
    assert split_by_hash(pl.Series(known)).to_list() == sides


@given(st.lists(st.integers(0, 19_999), unique=True, min_size=1, max_size=50))
def test_a_paper_never_changes_sides_when_the_dump_does(chosen: list[int]) -> None:
    assert split_by_hash(KEYS.gather(chosen)).to_list() == split_by_hash(KEYS).gather(chosen).to_list()


def test_a_sample_is_spread_evenly_and_over_all_sides() -> None:
    order = sample_order(KEYS, seed=0)
    assert 0 <= order.min() < order.max() < 1  # type: ignore[operator]
    sampled = split_by_hash(KEYS.filter(order < 0.1))
    assert abs(len(sampled) / 20_000 - 0.1) < 0.01
    assert abs((sampled == "train").mean() - 0.7) < 0.03  # type: ignore[operator]
    assert sample_order(KEYS, seed=1).to_list() != order.to_list()


def test_by_time_the_newest_are_the_test() -> None:
    days = [date(2020, 1, 1) + timedelta(days=(7 * n) % 1_000) for n in range(1_000)]
    sides = split_by_time(pl.Series(days), KEYS.head(1_000))
    frame = pl.DataFrame({"day": days, "side": sides})
    ends = {side: (group["day"].min(), group["day"].max()) for (side,), group in frame.group_by("side")}
    assert ends["train"][1] < ends["validation"][0] < ends["validation"][1] < ends["test"][0]
    assert dict(sides.value_counts().iter_rows()) == {"train": 700, "validation": 150, "test": 150}


def test_by_time_papers_without_a_date_are_the_oldest() -> None:
    keys = pl.Series([f"W{n}" for n in range(100)])
    created = pl.Series([None] * 10 + [date(2020, 1, 1)] * 90)
    sides = split_by_time(created, keys)
    assert sides[:10].unique().to_list() == ["train"]
    assert sides.value_counts().sort("count")["count"].to_list() == [15, 15, 70]
