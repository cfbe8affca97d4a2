"""The text of a paper, against a plain-Python telling of the original's steps and against its real output."""

from __future__ import annotations

import re
import unicodedata

import polars as pl
import pytest
import xxhash
from conftest import DATA, real_data
from hypothesis import given
from hypothesis import strategies as st

from arxivclf.corpus.text import CLEANINGS, compose, hash_texts

NUMBER = re.compile(
    r"(?:^|(?<=[^\w,.]))[+\u2013-]?"
    r"(([1-9]\d{0,2}(,\d{3})+(\.\d*)?)|([1-9]\d{0,2}([ .]\d{3})+(,\d*)?)|(\d*?[.,]\d+)|\d+)(?:$|(?=\b))"
)


def cleaned(title: str | None, abstract: str | None, cleaning: str, text: str | None = None) -> str:
    frame = pl.DataFrame(
        {"title": [title], "abstract": [abstract], "text": [text]},
        schema={"title": pl.String, "abstract": pl.String, "text": pl.String},
    )
    result: str = compose(frame, cleaning).item()
    return result


def step_by_step(text: str, year: int) -> str:
    """The original's steps, one character at a time."""
    text = re.sub(r"\s*\$[^$]+\$\s*", " ", text)
    text = unicodedata.normalize("NFKC", text)
    text = "".join(" " if unicodedata.category(c).startswith("P") and c != "." else c for c in text)
    text = "".join(("" if year == 2020 else "_CUR_") if c in "$¢£¤¥₹€₿" else c for c in text)
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = NUMBER.sub("" if year == 2020 else "_NUMBER_", text)
    text = re.sub(r"\s+", " ", text).strip()
    return text.lower() if year == 2020 else text


@pytest.mark.parametrize(
    ("raw", "in_2020", "in_2023"),
    [
        ("On $SU(2)$ and 3d models.", "on and 3d models.", "On and 3d models."),
        ("An Erdős–Rényi graph, again", "an erdos renyi graph again", "An Erdos Renyi graph again"),
        ("It costs €5 or $20 more", "it costs or more", "It costs _CUR_5 or _CUR_20 more"),
        ("1,234 papers and 0.5 % of 17", "papers and of", "_NUMBER_ papers and _NUMBER_ of _NUMBER_"),
        ("two  blanks\n and\ta tab", "two blanks and a tab", "two blanks and a tab"),
        ("a+b<c", "a+b<c", "a+b<c"),
        ("ﬁne ２ ½", "fine ⁄", "fine _NUMBER_ _NUMBER_⁄_NUMBER_"),
    ],
)
def test_worked_examples(raw: str, in_2020: str, in_2023: str) -> None:
    assert cleaned(None, None, "cset2020", raw) == in_2020
    assert cleaned(None, None, "cset2023", raw) == in_2023


def test_title_and_abstract_are_joined_as_the_original_did() -> None:
    assert cleaned("A  title\n  wraps", "  An abstract.\n", "none") == "A title wraps. An abstract."
    assert cleaned("Only a title", None, "none") == "Only a title"
    assert cleaned(None, "Only an abstract.", "none") == "Only an abstract."
    assert cleaned("t", "a", "none", text="A text of its own") == "A text of its own"


PIECES = st.sampled_from(
    ["word", "Über", "naïve", "12", "1,000", "1 000", "3.14", "-7", "$x^2$", "$", "\n", "  ", ".", ",", "–", "%", "€",
     "x2", "ﬁ", "Ⅷ", "´", "\u0301", "\u0915\u094d", "(a)", "~", "+", "=", "日本", "\u00a0"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).flatmap(lambda parts: st.sampled_from(["", " "]).map(lambda gap: gap.join(parts))))
def test_the_expressions_do_what_the_steps_do(text: str) -> None:
    for year in (2020, 2023):
        assert cleaned(None, None, f"cset{year}", text) == step_by_step(text, year)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6), st.sampled_from(CLEANINGS))
def test_a_text_does_not_depend_on_its_neighbours(texts: list[str], cleaning: str) -> None:
    nothing = [None] * len(texts)
    frame = pl.DataFrame(
        {"title": nothing, "abstract": nothing, "text": texts},
        schema={"title": pl.String, "abstract": pl.String, "text": pl.String},
    )
    assert compose(frame, cleaning).to_list() == [cleaned(None, None, cleaning, text) for text in texts]


def test_the_hash_is_the_published_one() -> None:
    texts = ["", "a paper", "Ünïcode"]
    # XXH3 64 of nothing with seed 0, from the reference implementation's own test vectors.
    assert hash_texts(pl.Series(texts)).to_list()[0] == 0x2D06800538D394C2
    assert hash_texts(pl.Series(texts)).to_list() == [xxhash.xxh3_64_intdigest(text.encode()) for text in texts]


@real_data
def test_cset2020_gives_the_originals_text_to_the_character() -> None:
    pairs = pl.read_parquet(DATA / "cset-cleaning-pairs.parquet").rename({"text": "original"})
    ours = compose(pairs.with_columns(text=pl.lit(None, pl.String)), "cset2020")
    assert (ours == pairs.get_column("original")).sum() >= 4_106
