"""The id of a paper: which forms there are, and which paper an id stands for.

An id is a string everywhere. One that went through a number on its way into a dump has lost zeros (`0704.0010` became
`704.001`) or gained digits (`1502.04796` became `1502.0479599999999`). Such an id still has one meaning, for arXiv's
numbers have a fixed count of digits, but that it is an arXiv number at all is known only when the date of the paper
bears it out; otherwise it is malformed, and nothing is guessed.
"""

from __future__ import annotations

import numpy as np
import polars as pl

# As arXiv itself prints it, as a page, and as the DOI that arXiv gives it.
_PREFIX = (
    r"^(?i:(?:oai:)?arxiv(?:\.org)?:\s*|(?:https?://)?(?:www\.|export\.)?arxiv\.org/(?:abs|pdf|html)/"
    r"|(?:doi:\s*|(?:https?://)?(?:dx\.)?doi\.org/)?10\.48550/arxiv\.)"
)
# From 0704 four digits follow the month, from 1501 five. (For \d polars takes the digits of every script.)
_NEW = r"(?:0[7-9]|1[0-4])(?:0[1-9]|1[0-2])\.[0-9]{4}|(?:1[5-9]|[2-9][0-9])(?:0[1-9]|1[0-2])\.[0-9]{5}"
_ARCHIVE = r"[a-z]+(?:-[a-z]+)?"
_PAPER = rf"{_NEW}|{_ARCHIVE}(?:\.[A-Z]{{2}})?/[0-9]{{7}}"
_VERSION = r"(?:[vV][1-9][0-9]*)?"
_SOUND = rf"^({_PAPER}){_VERSION}(?:\.pdf)?/?(?:[?#]\S*)?(?:\s*\[[A-Za-z.-]+\])?$"
# White space, and what cannot be seen either.
_AROUND = " \t\r\n\u00a0\u200b\ufeff"
# An id as arXiv writes it, with its version or without.
WRITTEN = rf"(?:{_PAPER})(?:v[1-9][0-9]*)?"
# What is its own key.
_KEY = rf"^(?:{_NEW}|{_ARCHIVE}/[0-9]{{7}})$"
# The digits of year and month in a key.
_MONTH = r"^(?:[a-z-]+/)?([0-9]{2})([0-9]{2})(?:[0-9]{3}|\.[0-9]{4,5})$"
# A number that has lost zeros has none at its end.
_NUMBER = r"^([0-9]{3,4}\.(?:[0-9]{0,19}[1-9]|[0-9]{4,5}))$"
_FIRST_FIVE_DIGIT_MONTH = 1501
# What is left of the digits of a float64 after the four of the month, in units of the last digit of the id, and more.
_ROUNDING = 1e-4

# Of 256,859 sound ids in real dumps 96 % tell the month of version 1, nearly all others a month soon after (a paper
# gets its id when it is announced), 16 one more than a year later, and 2 one before.
_LONGEST_WAIT_MONTHS = 12


def arxiv_key(paper_id: pl.Expr, created: pl.Expr, trust: bool = False) -> pl.Expr:
    """The one form of an arXiv id that all its spellings share, without prefix, subject class and version.

    `paper_id` is a string, `created` the date of version 1 (null when unknown). The result is a string, null where the
    id is malformed: `math.GT/0309136v2` gives `math/0309136`, and `704.001` gives `0704.0010` if the paper was made in
    April 2007 or up to a year before. With `trust` a damaged id is told without its date.
    """
    # Nearly all are, and to take others apart is most of the work.
    plain = paper_id.str.contains(_KEY)
    bare = pl.when(~plain).then(paper_id).str.strip_chars(_AROUND).str.replace(_PREFIX, "")
    sound = bare.str.extract(_SOUND, 1).str.replace(r"\.[A-Z]{2}/", "/")
    number = bare.str.extract(_NUMBER, 1).cast(pl.Float64)
    month = number.floor().cast(pl.Int32)
    five = month >= _FIRST_FIVE_DIGIT_MONTH
    scaled = (number - month) * pl.when(five).then(100_000).otherwise(10_000)
    sequence = scaled.round().cast(pl.Int64)
    whole = (scaled - sequence).abs() < _ROUNDING
    restored = pl.format(
        "{}.{}",
        month.cast(pl.String).str.zfill(4),
        sequence.cast(pl.String).str.zfill(pl.when(five).then(5).otherwise(4)),
    ).str.extract(_SOUND, 1)
    months_waited = (month // 100 + 2000 - created.dt.year()) * 12 + month % 100 - created.dt.month()
    borne_out = months_waited.is_between(0, _LONGEST_WAIT_MONTHS)
    return pl.coalesce(
        pl.when(plain).then(paper_id), sound, pl.when(whole & (borne_out | pl.lit(trust))).then(restored)
    )


def possible_keys(papers: pl.DataFrame) -> pl.Series:
    """The keys of papers (columns `id`, `created`, `key`), and after them those that their damaged ids may mean."""
    likely = papers.select(arxiv_key(pl.col("id"), pl.col("created"), trust=True)).to_series()
    return pl.concat([papers.get_column("key"), likely.filter(likely != papers.get_column("key"))])


def count_restored(papers: pl.DataFrame) -> int:
    """How many papers (columns `id`, `key`) have an id that lost its form on the way, and was told by its date."""
    bare = pl.col("id").str.strip_chars(_AROUND).str.replace(_PREFIX, "")
    lost = bare.str.contains(_NUMBER) & ~bare.str.contains(_SOUND) & pl.col("key").str.contains(_SOUND)
    return int(papers.select(lost.sum()).item())


def year_of(key: pl.Expr) -> pl.Expr:
    """The year that an arXiv key tells, int32: 2007 for `0704.0010`, 1994 for `cmp-lg/9406012`; null for other ids."""
    two_digits = _digits(key, 1)
    return pl.when(two_digits > 90).then(two_digits + 1900).otherwise(two_digits + 2000)


def years_of(papers: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """The year of papers (columns `key`, `created`, `year`), int32 (papers,), 0 where it is unknown.

    It is that of the date of version 1, or else that of the arXiv ID, or else what the file itself says.
    """
    year = pl.coalesce(pl.col("created").dt.year(), year_of(pl.col("key")), pl.col("year"))
    years: np.ndarray[tuple[int], np.dtype[np.int32]] = (
        papers.select(year.fill_null(0).cast(pl.Int32)).to_series().to_numpy()
    )
    return years


def month_of(key: pl.Expr) -> pl.Expr:
    """The first day of the month that an arXiv key tells: of June 1994 for `cmp-lg/9406012`; null for other ids."""
    month = _digits(key, 2)
    return pl.date(year_of(key), pl.when(month.is_between(1, 12)).then(month), 1)


def _digits(key: pl.Expr, place: int) -> pl.Expr:
    """Those of the year (1) or the month (2), int32."""
    # Seven digits without an archive are somebody else's id.
    return pl.when(key.str.contains(r"[/.]")).then(key).str.extract(_MONTH, place).cast(pl.Int32)
