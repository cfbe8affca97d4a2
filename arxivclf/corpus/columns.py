"""Which column of a dump holds what, and which of its rows are papers.

The readers hand over rows under the names of RAW, whatever the file called them; `settle` turns them into papers with
the names of PAPER, and tells of every other row why it is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import polars as pl

from arxivclf.config import LabelSettings, TrainSettings
from arxivclf.corpus.ids import arxiv_key, year_of
from arxivclf.corpus.rejects import RAW_CHARACTERS, Reject
from arxivclf.errors import DataError

RAW = ("id", "title", "abstract", "text", "categories", "label", "year")
PAPER = (*RAW, "created", "key", "listed", "row")
# What may be a list as well as a text; what then stands between its items, for labels may have several words; and what
# an empty one is, for a paper that has none of the labels says more than one of which nothing is said.
LISTS = {"categories": (" ", ""), "label": (", ", "[]")}

NO_ID, NUMERIC_ID, MALFORMED_ID = "no id", "numeric id", "malformed id"
NOT_UTF8 = "not UTF-8"
NO_TEXT = "neither title nor abstract"

_DATED = ("versions", "created", "published", "publication_date", "date")
_YEARS = ("year", "publication_year")
# A column of that name may hold something else, such as 20150401.
_PLAUSIBLE_YEARS = (1000, 2999)
_OTHER_DATE = r"^(?:[0-9]{4}/[0-9]{2}/[0-9]{2}|[0-9]{2}\.[0-9]{2}\.[0-9]{4}|(?:1[89]|20)[0-9]{6})$"
# "March 1998" and the like, which is no date.
_YEAR_IN_WORDS = r"(?:^|[^0-9])((?:1[89]|20)[0-9]{2})(?:[^0-9]|$)"
_KEPT, _DATE = "keep:", "date:"


Wanted = Callable[[int], bool]
"""Which chunks of a file are to be read, by their number in it, from 0."""


@dataclass(frozen=True)
class Naming:
    """The columns that a dump calls otherwise, as the user named them; None where the usual name holds.

    With `if_there` a name counts for those files alone that have such a column. Without `texts` a file may be a list of
    ids.
    """

    id: str | None = None
    text: str | None = None
    label: str | None = None
    if_there: bool = False
    texts: bool = True

    @classmethod
    def of(cls, settings: TrainSettings | LabelSettings, if_there: bool = False) -> Naming:
        """As the settings of a job have them."""
        return cls(settings.id_column, settings.text_column, settings.label_column, if_there)

    def among(self, there: Sequence[str]) -> Naming:
        """What holds for a file with these columns."""
        if not self.if_there:
            return self
        own, text, label = (name if name in there else None for name in (self.id, self.text, self.label))
        return Naming(own, text, label, texts=self.texts)


@dataclass(frozen=True)
class Columns:
    """The file's own name for each of RAW (None where it has none), and what kind of dump that makes it.

    `dated` are the columns that may hold the date of a paper, the best first; `inverted` says that the abstract is an
    inverted index (OpenAlex); `arxiv` that ids must be those of arXiv, which is so in a dump with arXiv categories
    whose id column the user did not name; `named` that he named what tells the truth, so that nothing else does.
    """

    names: dict[str, str | None]
    dated: tuple[str, ...]
    kept: tuple[str, ...]
    inverted: bool
    arxiv: bool
    named: bool

    @classmethod
    def recognise(cls, there: Sequence[str], naming: Naming, keep: Sequence[str], where: str) -> Columns:
        """Find the columns among those that are `there`; DataError names what is missing and what there is."""
        twice = sorted(name for name, times in Counter(there).items() if times > 1)
        if twice:
            raise DataError(f'{where}: has two columns "{twice[0]}"')
        naming = naming.among(there)

        # "Title" is the title where there is no "title". Categories of that spelling are others' than arXiv's.
        folded = {name.casefold(): name for name in reversed(there)}

        def first(*candidates: str) -> str | None:
            exact = next((name for name in candidates if name in there), None)
            return exact or next((folded[name] for name in candidates if name in folded), None)

        def must(name: str, option: str, exact: bool = True) -> str:
            found = name if exact and name in there else None if exact else first(name)
            if found is None:
                raise DataError(
                    f'{where}: no column "{name}"; there are {", ".join(there) or "none"}. {option} names another.'
                )
            return found

        names: dict[str, str | None] = dict.fromkeys(RAW)
        names["id"] = must(naming.id or "id", "--id-column", exact=naming.id is not None)
        inverted = naming.text is None and "abstract_inverted_index" in there and first("abstract") is None
        if not naming.texts:
            pass
        elif naming.text is not None:
            names["text"] = must(naming.text, "--text-column")
        elif inverted:
            names["title"], names["abstract"] = first("title", "display_name"), "abstract_inverted_index"
        elif (text := first("text")) and None in (first("title"), first("abstract")):
            names["text"] = text
        else:
            names["title"] = must("title", "--text-column", exact=False)
            names["abstract"] = must("abstract", "--text-column", exact=False)
        names["categories"] = "categories" if "categories" in there else None
        if naming.label is None:
            names["label"] = first("label")
        elif must(naming.label, "--label-column") != names["categories"]:
            names["label"] = naming.label
        names["year"] = first(*_YEARS)
        for column in keep:
            must(column, "--keep")
        arxiv = names["categories"] is not None and naming.id is None
        dated = tuple(found for name in _DATED if (found := first(name)))
        return cls(names, dated, tuple(keep), inverted, arxiv, named=naming.label is not None)

    @property
    def has_texts(self) -> bool:
        """Whether there are texts at all: else it is a list of ids."""
        return any(self.names[name] is not None for name in ("title", "abstract", "text"))

    @property
    def used(self) -> list[str]:
        """The file's columns that must be read, each once."""
        return list(dict.fromkeys([*(name for name in self.names.values() if name), *self.dated, *self.kept]))

    def telling(self, label: pl.Expr, categories: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
        """What of a paper's label and categories, as strings, tells the truth: never both."""
        if not self.named and None not in (self.names["categories"], self.names["label"]):
            label = pl.when(categories.fill_null("").str.contains(r"\S")).then(None).otherwise(label)
        elif self.names["label"] is not None:
            categories = pl.lit(None, pl.String)
        return label, categories

    def open_ended(self) -> Columns:
        """For a file whose rows may have columns that its first ones have not: the usual names count there, too."""
        names = dict(self.names)
        names["year"] = names["year"] or _YEARS[self.inverted]
        if not self.named:
            names |= {name: name for name in ("label", "categories") if names[name] is None}
        return replace(self, names=names, dated=tuple(dict.fromkeys([*self.dated, *_DATED])))


def kept_column(name: str) -> str:
    """The name under which papers carry a column that the user wishes to keep, apart from those of PAPER."""
    return _KEPT + name


def date_column(place: int) -> str:
    """The name under which rows carry the date columns of their file, the best first."""
    return f"{_DATE}{place}"


@dataclass(frozen=True)
class Rows:
    """Some rows of a file, parted into papers and rejects, each in the order of the rows.

    `reject` makes rejects of papers after all, by their `row`, for a reason that only the whole dump shows.
    """

    papers: pl.DataFrame
    rejects: list[Reject]
    reject: Callable[[Sequence[int], str], list[Reject]]


def settle(raw: pl.DataFrame, columns: Columns, source: str, unit: str, raw_text: Callable[[int], str]) -> Rows:
    """Part the rows of a dump into papers and rejects.

    `raw` has the columns of RAW and any of `date_column` as strings, `row` (int64, counted from 1), and `fault`, a
    reason where the reader saw one already. `raw_text` gives the text of a row by its place in the frame, for the
    rejects. Papers have the columns of PAPER: `created` is a date, `year` an int32, `key` the one spelling of the id,
    and `listed` the categories where they, and no column of labels, tell the truth.
    """
    blank_is_null = [
        pl.when(pl.col(name).str.contains(r"\S")).then(pl.col(name)) for name in ("id", "title", "abstract", "text")
    ]
    # Each is read, for a column that holds no date must not hide one that does.
    dated = [name for name in raw.columns if name.startswith(_DATE)]
    said = [pl.col(name) for name in dated if raw.get_column(name).null_count() < len(raw)]
    created = pl.coalesce(map(_date, said)) if said else pl.lit(None, pl.Date)
    in_words = pl.coalesce(said) if said else pl.lit(None, pl.String)
    rows = raw.lazy().with_columns(*blank_is_null, created=created, in_words=in_words).drop(dated).collect()
    key = arxiv_key(pl.col("id"), pl.col("created"))
    if not columns.arxiv:
        key = pl.coalesce(key, pl.col("id").str.strip_chars())
    rows = rows.with_columns(key=key)
    written = pl.col("year").cast(pl.Float64, strict=False).cast(pl.Int32, strict=False)
    told = pl.coalesce(
        pl.col("created").dt.year(),
        pl.when(written.is_between(*_PLAUSIBLE_YEARS)).then(written),
        pl.when(pl.col("created").is_null()).then("in_words").str.extract(_YEAR_IN_WORDS).cast(pl.Int32),
    )
    year = pl.coalesce(told, year_of(pl.when(told.is_null()).then(pl.col("key"))))
    reason = (
        pl.when(pl.col("fault").is_not_null())
        .then(pl.col("fault"))
        .when(pl.col("id").is_null())
        .then(pl.lit(NO_ID))
        .when(pl.col("key").is_null())
        .then(pl.lit(MALFORMED_ID))
        .when(pl.lit(columns.has_texts) & pl.all_horizontal(pl.col("title", "abstract", "text").is_null()))
        .then(pl.lit(NO_TEXT))
    )
    label, listed = columns.telling(pl.col("label"), pl.col("categories"))
    rows = rows.with_columns(year=year, fault=reason, label=label, listed=listed)
    rows = rows.with_row_index("place")

    def reject(chosen: pl.DataFrame, reason: str | None = None) -> list[Reject]:
        return [
            Reject(source, unit, row, paper_id, reason or fault, raw_text(place)[:RAW_CHARACTERS])
            for place, row, paper_id, fault in chosen.select("place", "row", "id", "fault").iter_rows()
        ]

    def reject_rows(numbers: Sequence[int], reason: str) -> list[Reject]:
        return reject(rows.filter(pl.col("row").is_in(list(numbers))), reason)

    papers = rows.filter(pl.col("fault").is_null()).drop("fault", "place", "in_words")
    return Rows(papers, reject(rows.filter(pl.col("fault").is_not_null())), reject_rows)


def _date(written: pl.Expr) -> pl.Expr:
    """The date that a string tells: Kaggle's form, ISO, others that mean one day alone, or the first version's in a
    list as JSON or Python write it."""
    listed = written.str.starts_with("[")
    inside = pl.when(listed).then(written).str.extract(r"""["']created["']\s*:\s*["']([^"']+)""")
    written = pl.coalesce(inside, pl.when(~listed).then(written))
    kaggle = written.str.to_datetime("%a, %d %b %Y %H:%M:%S GMT", strict=False).dt.date()
    iso = written.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    # Nearly all are of the first two, and each form that is tried takes its time.
    other = pl.when(kaggle.is_null() & iso.is_null() & written.str.contains(_OTHER_DATE)).then(written)
    others = (other.str.to_date(form, strict=False) for form in ("%Y/%m/%d", "%d.%m.%Y", "%Y%m%d"))
    return pl.coalesce(kaggle, iso, *others)
