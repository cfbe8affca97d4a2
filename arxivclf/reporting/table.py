"""A file of labels: which labels and other columns it has, and its rows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from arxivclf.corpus.columns import LISTS
from arxivclf.corpus.ids import arxiv_key
from arxivclf.corpus.parquet import joined
from arxivclf.corpus.seen import Seen
from arxivclf.corpus.snapshot import BROKEN, is_parquet, unpacked
from arxivclf.corpus.sources import Source
from arxivclf.corpus.truths import yes_no_or_nothing
from arxivclf.errors import DataError, ModelError, UsageError, one_line
from arxivclf.reporting.made import Made
from arxivclf.reporting.text_tables import numbers, read_text

# The name is that of model.folder: reports know models as folders, and not what is in them.
TEST_LABELS = "test.labels.parquet"

ASSUMED_THRESHOLD = 0.5
# Columns that no file of labels has.
KEY, _LIKELY = "key of the paper", "key that it may have"
# What a table is about that has a `score` and a `truth` and names no label.
_PLAIN = "positive"


@dataclass(frozen=True)
class LabelsFile:
    """A file of labels that is open: its columns, and the `names` of those that are labels with scores.

    A score without a label, in any other table, is labelled from 0.5 on; such labels are `assumed`. `made` is what it
    tells of how it was made.
    """

    path: str
    columns: tuple[str, ...]
    names: tuple[str, ...]
    assumed: tuple[str, ...]
    frame: pl.LazyFrame
    made: Made

    @classmethod
    def open(cls, path: str | Path) -> LabelsFile:
        """A file of labels, or those of the test split in a model folder.

        Raises UsageError where there is no such file, DataError where it is no table, ModelError for another folder.
        """
        if "://" in str(path):
            raise UsageError(f"{path}: labels are read from this disk; copy them here first")
        made, path = Made.of(Path(path)), _labels_in(Path(path))
        frame = _read(path, made)
        columns = frame.collect_schema().names()
        if "score" in columns and not any(name.endswith("_score") for name in columns):
            plain = {"score": f"{_PLAIN}_score", "truth": f"{_PLAIN}_truth"}
            frame = frame.rename({one: other for one, other in plain.items() if one in columns})
            columns = [plain.get(name, name) for name in columns]
        names = _labels_among(made, columns)
        assumed = tuple(name for name in names if name not in columns)
        frame = frame.with_columns(
            (pl.col(f"{name}_score").cast(pl.Float64, strict=False) >= ASSUMED_THRESHOLD).alias(name)
            for name in assumed
        )
        return cls(str(path), (*columns, *assumed), tuple(names), assumed, frame, made)

    @property
    def others(self) -> list[str]:
        """The columns that are no label's."""
        taken = {column for name in self.names for column in columns_of(name)}
        return [column for column in self.columns if column not in taken]

    def of_labels(self, names: Sequence[str]) -> list[str]:
        """The columns of these labels that the file has."""
        return [column for name in names for column in columns_of(name) if column in self.columns]

    def read(self, columns: Sequence[str], truths: Sequence[str] = ()) -> pl.DataFrame:
        """These columns of all rows, those of its labels, and any of `truths`, as booleans.

        Raises DataError where one is missing or unreadable, or where there is no row.
        """
        for column in columns:
            if column not in self.columns:
                raise DataError(f"{self.path}: no column {column!r}; its columns are {', '.join(self.columns)}")
        try:
            table = self.frame.select(columns).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{self.path}: cannot be read: {one_line(error)}") from None
        if not len(table):
            raise DataError(f"{self.path}: holds no rows")
        table = table.with_columns(_as_text(table.get_column(name)) for name in table.columns)
        if "id" in table.columns:
            table = table.with_columns(pl.col("id").cast(pl.String))
        said = {*truths, *self.names, *(f"{name}_truth" for name in self.names)}
        answers = [name for name in table.columns if name in said]
        return table.with_columns(self._booleans(table.get_column(name)) for name in answers)

    def keyed(self, names: Sequence[str], beside: Sequence[str]) -> pl.DataFrame:
        """These labels and these further columns of all rows, told apart as by `keyed`; `read` says what it raises."""
        dates = [column for column in ("created",) if column in self.others]
        return keyed(self.read(list(dict.fromkeys(["id", *dates, *self.of_labels(names), *beside]))))

    def _booleans(self, column: pl.Series) -> pl.Series:
        """Labels or truths as booleans, however a table writes them: 0 and 1, or a word for yes or no."""
        if column.dtype == pl.Boolean:
            return column
        said = column.cast(pl.String, strict=False)
        answers = dict(zip(("yes", "no", "none"), yes_no_or_nothing(pl.col("said")), strict=True))
        yes, no, none = said.to_frame("said").select(**answers).get_columns()
        strange = said.filter(~(yes | no | none))
        if len(strange):
            raise DataError(
                f"{self.path}: the column {column.name!r} holds no labels: {len(strange):,} values are neither yes nor"
                f" no, such as {strange[0]!r}"
            )
        return pl.select(pl.when(yes).then(True).when(no).then(False)).to_series().rename(column.name)


def _labels_among(made: Made, columns: Sequence[str]) -> list[str]:
    """The labels of a file, in the order of their scores: those that it says it was made with, or else those of a score
    that stands beside a label or a truth, or else those of any score."""
    scores = [name.removesuffix("_score") for name in columns if name.endswith("_score") and name != "_score"]
    known = [name for name in scores if name in made.thresholds]
    beside = [name for name in scores if name in columns or f"{name}_truth" in columns]
    return known or beside or scores


def scored_from(score: pl.Expr, threshold: float) -> pl.Expr:
    """Which scores are a yes. A model gives its labels by scores of single precision, and so is this."""
    return score.cast(pl.Float32) >= pl.lit(threshold, pl.Float32)


def _labels_in(path: Path) -> Path:
    if not path.is_dir():
        return path
    if not (path / TEST_LABELS).exists():
        raise ModelError(f"{path}: no {TEST_LABELS} there; not a model that `arxivclf train` made")
    return path / TEST_LABELS


def shared(first: LabelsFile, second: LabelsFile, label: str | None) -> list[str]:
    """The labels that both files have, or just `label`. Raises UsageError where there is none."""
    names = [name for name in second.names if name in first.names and label in (None, name)]
    if not names:
        theirs = "; ".join(f"{file.path} has {', '.join(file.names) or 'no labels'}" for file in (first, second))
        raise UsageError(f"{'no label' if label is None else f'no label {label!r}'} in both: {theirs}")
    return names


def columns_of(name: str) -> tuple[str, str, str]:
    """A label's columns: the label, its score and its truth."""
    return name, f"{name}_score", f"{name}_truth"


def keyed(table: pl.DataFrame) -> pl.DataFrame:
    """A table with `id`, and `created` maybe, and in the column KEY what tells its papers apart.

    arXiv's ids are one in all their spellings, damaged ones told by their dates; any other id is itself. For two tables
    of the same papers there is `alike` besides.
    """
    paper_id = pl.col("id").cast(pl.String)
    # CSV and JSON lines have no dates.
    written = pl.col("created").cast(pl.String).str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    created = written if "created" in table.columns else pl.lit(None, pl.Date)
    key = pl.coalesce(arxiv_key(paper_id, created), paper_id.str.strip_chars())
    likely = pl.when(created.is_null()).then(arxiv_key(paper_id, created, trust=True))
    return table.with_columns(key.alias(KEY), likely.alias(_LIKELY))


def alike(first: pl.DataFrame, second: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two tables that are `keyed`, with one KEY for a paper: a damaged id without a date is the paper that it may name,
    if the other table has that one."""
    ours, theirs = (table.get_column(KEY).drop_nulls().unique() for table in (first, second))

    def told(table: pl.DataFrame, own: pl.Series, others: pl.Series) -> pl.DataFrame:
        # An id that the other has as it stands is that one, and a paper that stands here already is not here twice.
        known, own = others.implode(), own.implode()
        named = pl.col(_LIKELY).is_in(known) & ~pl.col(KEY).is_in(known) & ~pl.col(_LIKELY).is_in(own)
        return table.with_columns(pl.when(named).then(_LIKELY).otherwise(KEY).alias(KEY)).drop(_LIKELY)

    return told(first, ours, theirs), told(second, theirs, ours)


@dataclass(frozen=True)
class LeftOut:
    """How many papers were left out because these models had seen them."""

    models: tuple[str, ...]
    papers: int


def without_seen(table: pl.DataFrame, seen: Seen, path: str) -> tuple[pl.DataFrame, LeftOut]:
    """A table with `id`, and `created` maybe, without the papers that were seen. DataError where none is left."""
    keys = table if KEY in table.columns else keyed(table)
    found = [seen.among(keys.get_column(name).fill_null("")) for name in (KEY, _LIKELY) if name in keys.columns]
    met = pl.Series(np.logical_or.reduce(found))
    if met.all():
        raise DataError(f"{path}: all of its {len(table):,} papers were seen by {', '.join(seen.models)} in training")
    return table.filter(~met), LeftOut(seen.models, int(met.sum()))


def labels_of(
    table: pl.DataFrame, name: str, path: str, beside: Sequence[str] = (), threshold: float | None = None
) -> pl.DataFrame:
    """The papers that have this label and a score, as `given` and `score`; `truth`, null where unknown; and `beside`.

    With a `threshold` the label is made of the score. Raises DataError where there is no such paper, or where scores
    are no probabilities.
    """
    score = pl.col(f"{name}_score")
    given = pl.col(name) if threshold is None else scored_from(score, threshold)
    truth = pl.col(f"{name}_truth") if f"{name}_truth" in table.columns else pl.lit(None)
    try:
        every = table.select(
            *beside, given=given.cast(pl.Boolean), truth=truth.cast(pl.Boolean), score=score.cast(pl.Float32)
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: the columns of {name!r} are no labels: {one_line(error)}") from None
    papers = every.drop_nulls(["given", "score"])
    if not len(papers):
        raise DataError(f"{path}: none of {len(table):,} papers has both a label {name!r} and a score")
    wrong = papers.filter(~pl.col("score").is_between(0, 1) | pl.col("score").is_nan())
    if len(wrong):
        raise DataError(f"{path}: {len(wrong):,} scores of {name!r} are no probabilities in [0, 1]")
    return papers


def _read(path: Path, made: Made) -> pl.LazyFrame:
    """The table in a file, by its content: Parquet, or one of text, packed or not."""
    try:
        if not path.exists():
            raise UsageError(f"{path}: no such file")
        if is_parquet(Source(str(path), path)):
            frame = pl.scan_parquet(path, glob=False)
            frame.collect_schema()
            return frame
        with open(path, "rb") as file, unpacked(file) as stream:
            table = read_text(stream.read(), str(path))
        scores = [f"{name}_score" for name in _labels_among(made, table.columns)]
        return numbers(table, [*scores, *({"score"} & {*table.columns})], str(path)).lazy()
    except (pl.exceptions.PolarsError, *BROKEN) as error:
        # What polars says after that is for programmers: which arguments to change.
        told = re.split(r" Consider | try ", one_line(error))[0]
        raise DataError(f"{path}: not a whole table of labels: {told}") from None


def _as_text(column: pl.Series) -> pl.Series:
    """A column of bytes, lists or records as text, the items of a list with commas between; any other as it is."""
    if column.dtype == pl.Binary:
        said = [None if value is None else value.decode("utf-8", "replace") for value in column.to_list()]
        return pl.Series(column.name, said, pl.String)
    if isinstance(column.dtype, pl.List) and not column.dtype.inner.is_nested():
        return joined(column, *LISTS.get(column.name, LISTS["label"]))
    if column.dtype.is_nested():
        said = [None if value is None else json.dumps(value, default=str) for value in column.to_list()]
        return pl.Series(column.name, said, pl.String)
    return column
