"""Weights of training papers by year and by primary category."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from arxivclf.errors import DataError
from arxivclf.training import balance
from arxivclf.training.balance import effective_size, read_mix


def sampled(year: int, received: int, papers: int, categories: list[str], seed: int = 0) -> pl.DataFrame:
    """Papers of twelve months, each with `received` numbers, of which `papers` are drawn."""
    random = np.random.default_rng([seed, year])
    keys = [
        f"{year % 100:02}{month:02}.{number + 1:05}"
        for month in range(1, 13)
        for number in sorted(random.choice(received, papers, replace=False))
    ]
    return pl.DataFrame(
        {
            "key": keys,
            "created": pl.Series([None] * len(keys), dtype=pl.Date),
            "year": pl.Series([None] * len(keys), dtype=pl.Int64),
            "categories": random.choice(categories, len(keys)),
        }
    )


def test_years_count_as_many_papers_as_arxiv_received():
    papers = pl.concat([sampled(2018, 4_000, 200, ["cs.LG"]), sampled(2020, 8_000, 100, ["cs.LG"])])

    weights = balance.balance(papers).weights

    of_2018, of_2020 = weights[:2_400].sum(), weights[2_400:].sum()
    assert weights.mean() == pytest.approx(1.0)
    assert of_2020 / of_2018 == pytest.approx(2.0, rel=0.02)


def test_a_complete_dump_is_left_as_it_is():
    weights = balance.balance(
        pl.concat([sampled(2018, 300, 300, ["cs.LG"]), sampled(2019, 900, 900, ["cs.LG"])])
    ).weights

    assert weights == pytest.approx(1.0)


def test_old_numbers_count_for_each_archive():
    keys = ["hep-th/9901100", "hep-th/9901001", "math/9901010", "math/9901001"]
    papers = pl.DataFrame(
        {"key": keys, "created": [date(1999, 1, 5)] * 4, "year": [1999] * 4, "categories": ["hep-th"] * 4}
    )

    assert balance.balance(papers).weights == pytest.approx(1.0)


def test_no_paper_counts_more_than_four_times_the_average_before_they_are_brought_to_mean_one():
    papers = pl.concat([sampled(2018, 100, 100, ["cs.LG"]), sampled(2020, 20_000, 1, ["cs.LG"])])

    weights = balance.balance(papers).weights

    assert weights.max() / weights.min() <= 4.0 * 4.0 + 1e-3
    assert effective_size(weights) < len(weights)


def test_categories_are_brought_to_the_mix_under_their_canonical_names():
    papers = sampled(2020, 1_000, 500, ["math.NA", "cs.NA", "cs.CV", "cs.CV"])
    mix = {"math.NA": 10.0, "cs.CV": 30.0}

    weights = balance.balance(papers, mix).weights

    numerics = papers.get_column("categories").is_in(["math.NA", "cs.NA"]).to_numpy()
    assert weights[numerics].sum() / weights.sum() == pytest.approx(0.25, abs=0.01)


def test_years_before_the_mix_keep_their_own_and_later_ones_approach_it():
    years = [sampled(year, 500, 250, ["cs.CV", "math.CO"], seed=year) for year in (2018, 2019, 2020, 2021)]
    papers = pl.concat(years)

    weights = balance.balance(papers, {"cs.CV": 9.0, "math.CO": 1.0}, mix_since=2020).weights

    vision = (papers.get_column("categories") == "cs.CV").to_numpy()
    shares = [weights[part][vision[part]].sum() / weights[part].sum() for part in np.split(np.arange(len(papers)), 4)]
    assert shares[:2] == pytest.approx([0.5, 0.5], abs=0.03)
    assert shares[2] == pytest.approx(0.7, abs=0.03)
    assert shares[3] == pytest.approx(0.9, abs=0.03)


def test_papers_without_an_arxiv_id_or_categories_are_not_lost():
    papers = sampled(2020, 500, 50, ["cs.CV"])
    others = pl.DataFrame(
        {"key": ["W1", "W2"], "created": [None, None], "year": [2021, None], "categories": [None, None]}
    )

    weights = balance.balance(pl.concat([papers, others.cast(papers.schema)]), {"cs.CV": 1.0}).weights

    assert len(weights) == 602
    assert np.isfinite(weights).all()
    assert (weights > 0).all()


def test_a_mix_is_read_with_aliases_added_up(tmp_path):
    (tmp_path / "mix.csv").write_text("primary,papers\ncs.NA,3\nmath.NA,4\ncs.CV,5\n")

    assert read_mix(str(tmp_path / "mix.csv")) == {"math.NA": 7.0, "cs.CV": 5.0}


@pytest.mark.parametrize(
    "content", ["primary\ncs.CV\n", "primary,papers\ncs.CV,-1\n", "primary,papers\n", "primary,papers\ncs.CV,x\n"]
)
def test_a_file_that_is_not_a_mix_is_refused(tmp_path, content):
    (tmp_path / "mix.csv").write_text(content)

    with pytest.raises(DataError, match=r"mix\.csv"):
        read_mix(str(tmp_path / "mix.csv"))
