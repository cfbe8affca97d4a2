"""Where labels are good and where not: the papers of each year, category, archive, or value of a kept column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from arxivclf.errors import UsageError
from arxivclf.reporting.intervals import Interval, f1_interval, wilson
from arxivclf.reporting.metrics import Confusion

# The interval of an F1 over fewer positive papers is wider than what sets one slice apart from another.
FEWEST_POSITIVE = 20
NO_VALUE = "(none)"
# Of so many categories at most it is told where errors are.
_WHERE = 5

_DERIVED = {"year": "created", "primary": "categories", "archive": "categories"}


@dataclass(frozen=True)
class Slice:
    """The papers of one value, with what their labels are worth."""

    value: str
    confusion: Confusion

    @property
    def judged(self) -> bool:
        """Whether enough of them are positive to compare it with others."""
        return self.confusion.support >= FEWEST_POSITIVE

    @property
    def prevalence(self) -> float:
        """The share that is positive in truth."""
        return self.confusion.support / self.confusion.papers

    @property
    def labelled_share(self) -> float:
        """The share that is labelled, to be read next to the prevalence."""
        return (self.confusion.true_positives + self.confusion.false_positives) / self.confusion.papers

    @property
    def precision(self) -> Interval:
        return wilson(self.confusion.true_positives, self.confusion.true_positives + self.confusion.false_positives)

    @property
    def recall(self) -> Interval:
        return wilson(self.confusion.true_positives, self.confusion.support)

    @cached_property
    def f1(self) -> Interval:
        return f1_interval(self.confusion)


@dataclass(frozen=True)
class Slices:
    """All slices by one column: the judged ones from the worst F1 on, then the others by name."""

    by: str
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class WhereErrors:
    """The primary categories with most false positives, and with most false negatives, most first."""

    false_positives: tuple[Slice, ...]
    false_negatives: tuple[Slice, ...]


def where_errors(compared: pl.DataFrame) -> WhereErrors:
    """From papers with `given`, `truth` and `categories`, those that have any; at most five categories each."""
    slices = sliced(compared.drop_nulls("categories"), "primary").slices

    def of(count: Callable[[Slice], int]) -> tuple[Slice, ...]:
        wrong = [one for one in slices if count(one)]
        return tuple(sorted(wrong, key=lambda one: (-count(one), one.value))[:_WHERE])

    return WhereErrors(of(lambda one: one.confusion.false_positives), of(lambda one: one.confusion.false_negatives))


def source_of(by: str, columns: Sequence[str]) -> str:
    """The column that papers are parted by: `year`, `primary` and `archive` are in others unless they are columns.

    Raises UsageError where none of `columns` is it.
    """
    source = by if by in columns else _DERIVED.get(by, by)
    if source not in columns:
        there = [name for name, column in _DERIVED.items() if column in columns] + list(columns)
        raise UsageError(f"--by {by}: the labels have no column {source!r}; there are {', '.join(there)}")
    return source


def sliced(compared: pl.DataFrame, by: str) -> Slices:
    """The slices of papers, with `given` and `truth`, booleans without nulls, and the column that is `source_of` it."""
    keyed = compared.select(key_of(by, compared.columns).alias("value"), "given", "truth")
    counted = keyed.group_by("value", "given", "truth").len()
    cells: dict[str, dict[tuple[bool, bool], int]] = {}
    for value, given, truth, papers in counted.iter_rows():
        cells.setdefault(value, {})[given, truth] = papers
    found = [
        Slice(
            value,
            Confusion(
                of.get((True, True), 0),
                of.get((True, False), 0),
                of.get((False, True), 0),
                of.get((False, False), 0),
            ),
        )
        for value, of in cells.items()
    ]
    found.sort(key=lambda one: (not one.judged, one.f1.value if one.judged else 0.0, one.value))
    return Slices(by, tuple(found))


def key_of(by: str, columns: Sequence[str]) -> pl.Expr:
    """What papers with these columns are parted by, as text; `NO_VALUE` where that is nothing or blank."""
    source = source_of(by, columns)
    key = pl.col(source).cast(pl.String, strict=False)
    if source != by and by == "year":
        # A date that is not written the year first tells none.
        key = key.str.extract(r"^\s*([12]\d{3})(?:[01]\d[0-3]\d)?(?:\D|$)", 1)
    elif source != by:
        # As categories may be parted: `corpus.tasks`.
        key = key.str.extract(r"""([^\s,;|"'\[\]]+)""", 1)
        key = key.str.split(".").list.first() if by == "archive" else key
    return pl.when(key.str.strip_chars() != "").then(key).otherwise(pl.lit(NO_VALUE))
