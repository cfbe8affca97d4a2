"""Ids: their forms, what they stand for, and what must never be guessed."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arxivclf.corpus.ids import arxiv_key, count_restored, year_of


def key(paper_id: str, created: date | None = None) -> str | None:
    frame = pl.DataFrame({"id": [paper_id], "created": [created]}, schema={"id": pl.String, "created": pl.Date})
    found: str | None = frame.select(arxiv_key(pl.col("id"), pl.col("created"))).item()
    return found


@pytest.mark.parametrize(
    ("paper_id", "expected"),
    [
        ("0704.0001", "0704.0001"),
        ("1412.9999v3", "1412.9999"),
        ("1501.00001", "1501.00001"),
        ("hep-th/9901001", "hep-th/9901001"),
        ("math.GT/0309136v2", "math/0309136"),
        ("cmp-lg/9406012", "cmp-lg/9406012"),
        ("arXiv:2101.00001v1", "2101.00001"),
        ("oai:arXiv.org:0704.0001", "0704.0001"),
        ("https://arxiv.org/abs/math/0309136", "math/0309136"),
        ("https://arxiv.org/pdf/2101.00001v2.pdf", "2101.00001"),
        (" 2101.00001 ", "2101.00001"),
        ("\u200b2101.00001\ufeff", "2101.00001"),
        ("2101.00001V2", "2101.00001"),
        ("arXiv: 2101.00001v1 [cs.AI]", "2101.00001"),
        ("arxiv.org/abs/2101.00001", "2101.00001"),
        ("https://arxiv.org/abs/2101.00001v2/", "2101.00001"),
        ("http://www.arxiv.org/html/2101.00001v2?context=cs", "2101.00001"),
        ("https://doi.org/10.48550/arXiv.2101.00001", "2101.00001"),
        ("10.48550/ARXIV.HEP-TH/9901001", None),
        ("doi:10.48550/arXiv.hep-th/9901001", "hep-th/9901001"),
        ("2101.00001 [not it", None),
        ("0704.00001", None),
        ("1501.0001", None),
        ("2113.00001", None),
        ("0703.0001", "0703.0001"),
        ("hep-th/99010011", None),
        ("paper-17", None),
        ("10.5555/12345678", None),
        ("10.48551/arXiv.2101.00001", None),
        ("2101.00001v0", None),
        ("", None),
    ],
)
def test_forms(paper_id: str, expected: str | None) -> None:
    assert key(paper_id) == expected


@pytest.mark.parametrize("damaged", ["812.3874", "1502.075", "1502.0479599999999", "1001.0"])
def test_an_id_that_went_through_a_number_is_no_id_without_a_date(damaged: str) -> None:
    assert key(damaged) is None


@pytest.mark.parametrize(
    ("damaged", "created", "expected"),
    [
        ("812.3874", date(2008, 12, 19), "0812.3874"),
        ("1502.075", date(2015, 2, 26), "1502.07500"),
        ("1502.0479599999999", date(2015, 2, 16), "1502.04796"),
        ("1001.021", date(2009, 12, 31), "1001.0210"),
        ("1412.601", date(2013, 8, 10), None),
        ("1502.075", date(2015, 3, 1), None),
        ("1513.075", date(2015, 2, 1), None),
        ("704.12345", date(2007, 4, 1), None),
    ],
)
def test_the_date_tells_what_a_damaged_id_was(damaged: str, created: date, expected: str | None) -> None:
    assert key(damaged, created) == expected


@given(
    month=st.integers(0, 18 * 12).map(lambda months: date(2007 + (3 + months) // 12, (3 + months) % 12 + 1, 1)),
    number=st.integers(1, 9_999),
)
def test_every_id_survives_being_a_number_when_its_date_is_known(month: date, number: int) -> None:
    digits = 4 if month < date(2015, 1, 1) else 5
    sound = f"{month:%y%m}.{number:0{digits}d}"
    assert key(sound) == sound
    assert key(str(float(sound)), month) == sound


@pytest.mark.parametrize("strange", ["２１０１.１２３４５", "hep-th/٩٩٠١٠٠١", "２１０.٤", "2101.1２345"])
def test_digits_of_other_scripts_are_no_number(strange: str) -> None:
    frame = pl.DataFrame({"id": [strange], "created": [date(2021, 1, 1)]})
    assert frame.select(arxiv_key(pl.col("id"), pl.col("created"), trust=True)).item() is None
    assert frame.select(year_of(pl.col("id"))).item() is None


def test_restored_ids_are_counted() -> None:
    frame = pl.DataFrame(
        {"id": ["812.3874", "0704.0001", "W12"], "key": ["0812.3874", "0704.0001", "W12"]},
    )
    assert count_restored(frame) == 1


def test_the_year_stands_in_the_id() -> None:
    keys = pl.DataFrame({"key": ["0704.0010", "cmp-lg/9406012", "2101.00001", "hep-th/0001001", "W123", None]})
    assert keys.select(year_of(pl.col("key"))).to_series().to_list() == [2007, 1994, 2021, 2000, None, None]


@pytest.mark.parametrize(
    ("damaged", "created", "expected"),
    [
        # A digit more than its month had is no rounding of a number.
        ("812.38742", date(2008, 12, 19), None),
        ("1502.047962", date(2015, 2, 16), None),
        # It gets its id in the month in which it is made, or up to a year later.
        ("812.3874", date(2007, 12, 19), "0812.3874"),
        ("812.3874", date(2007, 11, 30), None),
        ("812.3874", date(2009, 1, 1), None),
    ],
)
def test_what_is_told_of_a_damaged_id_is_no_guess(damaged: str, created: date, expected: str | None) -> None:
    assert key(damaged, created) == expected


@pytest.mark.parametrize(
    ("paper_key", "year"), [("hep-th/9108001", 1991), ("math/0001001", 2000), ("9001.00001", 2090)]
)
def test_the_century_of_an_id(paper_key: str, year: int) -> None:
    assert pl.select(year_of(pl.lit(paper_key))).item() == year
