"""The text of a paper, as a model sees it: the only place where it is made, for training and labelling alike.

Title and abstract are joined by ". ", then cleaned in one of three ways. `none` folds white space. `cset2020` and
`cset2023` are the cleanings of CSET's arXiv classifiers of those years, character for character: their steps were
a regular expression for mathematics, Unicode normalisation, and textacy's preprocessing of punctuation, currency
symbols, accents and numbers. All are polars expressions.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import polars as pl
import xxhash

_TEXT = pl.col("text")
_CURRENCY_SYMBOLS = r"[$¢£¤¥ƒ֏؋৲৳૱௹฿៛ℳ元円圆圓﷼\u{20A0}-\u{20C0}]"
# What textacy calls a number. The character before it is part of the match, since the engine has no look-behind, and
# is put back; two numbers never share it, because a number cannot end in such a character.
_NUMBER = (
    r"(^|[^\w,.])[+\u{2013}-]?(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?|[1-9]\d{0,2}(?:[ .]\d{3})+(?:,\d*)?"
    r"|\d*?[.,]\d+|\d+)(?:$|\b)"
)


def compose(papers: pl.DataFrame, cleaning: str) -> pl.Series:
    """The cleaned text of each paper, as a string series in the order of the rows.

    `papers` has string columns `title`, `abstract` and `text`; where `text` is not null it is taken as it stands, and a
    paper with only one of title and abstract has only that. `cleaning` is one of CLEANINGS.
    """
    joined = pl.concat_str(pl.col("title"), pl.col("abstract"), separator=". ", ignore_nulls=True)
    whole = papers.select(text=pl.coalesce(pl.col("text"), joined)).with_columns(ascii=_is_ascii())
    lazy = whole.lazy()
    for step in _STEPS[cleaning]():
        lazy = lazy.with_columns(text=step)
    return lazy.collect().get_column("text")


def hash_texts(texts: pl.Series) -> pl.Series:
    """XXH3 (64 bits, seed 0) of the UTF-8 bytes of each text: the `text_hash` of the labels, uint64."""
    hashes = np.fromiter(map(xxhash.xxh3_64_intdigest, texts.cast(pl.Binary)), dtype=np.uint64, count=len(texts))
    return pl.Series("text_hash", hashes)


def _fold_white_space() -> Iterator[pl.Expr]:
    # A single blank is nearly all the white space there is, and replacing it by itself would be most of the work.
    yield _TEXT.str.replace_all(r"\s{2,}|[^\S ]", " ").str.strip_chars()


def _cset(currency: str, number: str) -> Iterator[pl.Expr]:
    yield _TEXT.str.replace_all(r"\s*\$[^$]+\$\s*", " ")
    yield _not_ascii(lambda text: text.str.normalize("NFKC"))
    yield _TEXT.str.replace_all(r"[\p{P}--.]", " ")
    yield _TEXT.str.replace_all(_CURRENCY_SYMBOLS, currency)
    yield _not_ascii(lambda text: text.str.normalize("NFKD").str.replace_all(_combining_marks(), ""))
    yield _TEXT.str.replace_all(_NUMBER, "${1}" + number)
    yield from _fold_white_space()


def _cset2020() -> Iterator[pl.Expr]:
    yield from _cset(currency="", number="")
    yield _TEXT.str.to_lowercase()


def _cset2023() -> Iterator[pl.Expr]:
    yield from _cset(currency="_CUR_", number="_NUMBER_")


_STEPS = {"none": _fold_white_space, "cset2020": _cset2020, "cset2023": _cset2023}
CLEANINGS = tuple(_STEPS)


def _is_ascii() -> pl.Expr:
    return _TEXT.str.len_bytes() == _TEXT.str.len_chars()


def _not_ascii(change: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    """Change just the texts that are not ASCII: normalising the others took half of the time and altered nothing."""
    return pl.coalesce(change(pl.when(~pl.col("ascii")).then(_TEXT)), _TEXT)


@cache
def _combining_marks() -> str:
    """A character class of all that `unicodedata.combining` calls combining; no property of the engine equals it."""
    runs: list[list[int]] = []
    for point in range(sys.maxunicode + 1):
        if unicodedata.combining(chr(point)):
            if runs and runs[-1][1] == point - 1:
                runs[-1][1] = point
            else:
                runs.append([point, point])
    return "[" + "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in runs) + "]"
