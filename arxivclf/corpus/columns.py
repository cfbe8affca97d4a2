"""Which column of a dump holds what, and which of its rows are papers.

The readers hand over rows under the names of RAW, whatever the file called them; `settle` turns them into papers with
the names of PAPER, and tells of every other row why it is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from arxivclf.corpus.ids import arxiv_key, year_of
from arxivclf.corpus.rejects import RAW_CHARACTERS, Reject
from arxivclf.errors import DataError

RAW = ("id", "title", "abstract", "text", "categories", "label", "created", "year")
PAPER = (*RAW, "key", "listed", "row")

NO_ID, NUMERIC_ID, MALFORMED_ID = "no id", "numeric id", "malformed id"
NO_TEXT = "neither title nor abstract"

_DATED = ("versions", "created", "published", "publication_date", "date")
_YEARS = ("year", "publication_year")
_KEPT = "keep:"


@dataclass(frozen=True)
class Naming:
    """The columns that a dump calls otherwise, as the user named them; None where the usual name holds."""

    id: str | None = None
    text: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Columns:
    """The file's own name for each of RAW (None where it has none), and what kind of dump that makes it.

    `inverted` says that the abstract is an inverted index (OpenAlex); `arxiv` that ids must be those of arXiv, which is
    so in a dump with arXiv categories whose id column the user did not name.
    """

    names: dict[str, str | None]
    kept: tuple[str, ...]
    inverted: bool
    arxiv: bool

    @classmethod
    def recognise(cls, there: Sequence[str], naming: Naming, keep: Sequence[str], where: str) -> Columns:
        """Find the columns among those that are `there`; DataError names what is missing and what there is."""

        def first(*candidates: str) -> str | None:
            return next((name for name in candidates if name in there), None)

        def must(name: str, option: str) -> str:
            if name not in there:
                raise DataError(
                    f'{where}: no column "{name}"; there are {", ".join(there) or "none"}. {option} names another.'
                )
            return name

        names: dict[str, str | None] = dict.fromkeys(RAW)
        names["id"] = must(naming.id or "id", "--id-column")
        inverted = naming.text is None and "abstract_inverted_index" in there and "abstract" not in there
        if naming.text is not None:
            names["text"] = must(naming.text, "--text-column")
        elif inverted:
            names["title"], names["abstract"] = first("title", "display_name"), "abstract_inverted_index"
        elif "text" in there and not {"title", "abstract"} <= set(there):
            names["text"] = "text"
        else:
            names["title"] = must("title", "--text-column")
            names["abstract"] = must("abstract", "--text-column")
        names["categories"] = first("categories")
        if naming.label is not None:
            names["label"] = must(naming.label, "--label-column")
        elif names["categories"] is None:
            names["label"] = first("label")
        names["created"], names["year"] = first(*_DATED), first(*_YEARS)
        for column in keep:
            must(column, "--keep")
        arxiv = names["categories"] is not None and naming.id is None
        return cls(names, tuple(keep), inverted, arxiv)

    @property
    def used(self) -> list[str]:
        """The file's columns that must be read, each once."""
        return list(dict.fromkeys([*(name for name in self.names.values() if name), *self.kept]))


def kept_column(name: str) -> str:
    """The name under which papers carry a column that the user wishes to keep, apart from those of PAPER."""
    return _KEPT + name


def settle(
    raw: pl.DataFrame, columns: Columns, source: str, unit: str, raw_text: Callable[[int], str]
) -> tuple[pl.DataFrame, list[Reject]]:
    """Part the rows of a dump into papers and rejects, each in the order of the rows.

    `raw` has the columns of RAW as strings, `row` (int64, counted from 1), and `fault`, a reason where the reader saw
    one already. `raw_text` gives the text of a row by its place in the frame, for the rejects. Papers have the columns
    of PAPER: `created` is a date, `year` an int32, `key` the one spelling of the id, and `listed` the categories where
    they, and no column of labels, tell the truth.
    """
    blank_is_null = [
        pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name)) for name in ("id", "title", "abstract", "text")
    ]
    date = _date(pl.col("created"))
    rows = raw.lazy().with_columns(*blank_is_null, created=date).collect()
    key = arxiv_key(pl.col("id"), pl.col("created"))
    if not columns.arxiv:
        key = pl.coalesce(key, pl.col("id").str.strip_chars())
    rows = rows.with_columns(key=key)
    year = pl.coalesce(
        pl.col("created").dt.year(),
        pl.col("year").cast(pl.Float64, strict=False).cast(pl.Int32, strict=False),
        year_of(pl.col("key")),
    )
    reason = (
        pl.when(pl.col("fault").is_not_null())
        .then(pl.col("fault"))
        .when(pl.col("id").is_null())
        .then(pl.lit(NO_ID))
        .when(pl.col("key").is_null())
        .then(pl.lit(MALFORMED_ID))
        .when(pl.all_horizontal(pl.col("title", "abstract", "text").is_null()))
        .then(pl.lit(NO_TEXT))
    )
    listed = pl.col("categories") if columns.names["label"] is None else pl.lit(None, pl.String)
    rows = rows.with_columns(year=year, fault=reason, listed=listed)
    papers = rows.filter(pl.col("fault").is_null()).drop("fault")
    faulty = rows.with_row_index("place").filter(pl.col("fault").is_not_null())
    rejects = [
        Reject(source, unit, row, paper_id, fault, raw_text(place)[:RAW_CHARACTERS])
        for place, row, paper_id, fault in faulty.select("place", "row", "id", "fault").iter_rows()
    ]
    return papers, rejects


def _date(written: pl.Expr) -> pl.Expr:
    kaggle = written.str.to_datetime("%a, %d %b %Y %H:%M:%S GMT", strict=False).dt.date()
    iso = written.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    return pl.coalesce(kaggle, iso)
