"""The truth of labelled papers from another file: a dump with categories or a label column, or other labels."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from arxivclf.corpus.columns import Naming
from arxivclf.corpus.snapshot import Snapshot, is_parquet
from arxivclf.corpus.sources import Source, fetch, resolve
from arxivclf.corpus.tasks import Label, Task, built_in, truth
from arxivclf.errors import DataError
from arxivclf.reporting.table import KEY, LabelsFile, keyed


@dataclass(frozen=True)
class Match:
    """How labels and a file of truth go together: the papers in both, and those in one of them alone."""

    source: str
    papers: int
    labels_alone: int
    truth_alone: int


def with_truth(table: pl.DataFrame, names: Sequence[str], path: str, naming: Naming) -> tuple[pl.DataFrame, Match]:
    """The table with the columns `<name>_truth` and, where the file has it, `title`, of the papers of the same id.

    `table` has `id` and may have `created`, which tells damaged ids. Ids of arXiv are the same in all their spellings;
    of several rows of one paper the last tells its truth. A built-in label is told from categories, any other from a
    column `<name>_truth` or `label`; `naming` is what a dump calls its columns. Raises DataError where no id is in
    both, or where no label's truth is told.
    """
    told = _told(path, names, naming).unique(KEY, keep="last", maintain_order=True)
    columns = [f"{name}_truth" for name in names]
    silent = [name for name, column in zip(names, columns, strict=True) if not told.get_column(column).count()]
    if len(silent) == len(names):
        alone = "" if len(names) == 1 else ", which is for one label: name it with --label"
        raise DataError(
            f"--truth {path}: tells no truth for {', '.join(names)}; it takes categories for a built-in task, or a"
            f" column {columns[0]}, or a column label{alone}"
        )
    own = keyed(table).drop(*columns, strict=False)
    if "title" in told.columns:
        own = own.drop("title", strict=False)
    both = own.join(told.with_columns(there=pl.lit(True)), on=KEY, how="left", maintain_order="left")
    matched = int(both.get_column("there").sum())
    if not matched:
        first, other = (frame.get_column(KEY).drop_nulls().head(1).to_list() for frame in (own, told))
        raise DataError(
            f"--truth {path}: none of its {len(told):,} ids is among those of {len(own):,} labels (here"
            f" {', '.join(other) or 'none'}, there {', '.join(first) or 'none'})"
        )
    seen = own.get_column(KEY).unique().implode()
    unlabelled = int(told.select((~pl.col(KEY).is_in(seen)).sum()).item())
    return both.drop(KEY, "there"), Match(path, matched, len(own) - matched, unlabelled)


def _told(path: str, names: Sequence[str], naming: Naming) -> pl.DataFrame:
    """The key, the truth of each label and, where it is there, the title of each paper of a file."""
    known = {label.name: label for label in built_in().labels}
    task = Task(tuple(known.get(name, Label(name, name, ())) for name in names))
    columns = [f"{name}_truth" for name in names]
    if _is_table(path):
        table = LabelsFile.open(path)
        if not set(columns).isdisjoint(table.columns):
            return _of_table(table, task)
    try:
        return _of_dump(path, task, naming)
    except DataError as error:
        # Labels have no text, and so are no dump; their truth, or their categories, will do.
        if not Path(path).is_file():
            raise
        try:
            table = LabelsFile.open(path)
        except DataError:
            raise error from None
        if "id" not in table.columns or {"categories", *columns}.isdisjoint(table.columns):
            raise
        return _of_table(table, task)


def _is_table(path: str) -> bool:
    """Whether a file is Parquet or CSV, and no JSON lines, which may be too large to be looked into."""
    if not Path(path).is_file():
        return False
    if is_parquet(Source(path, Path(path))):
        return True
    with open(path, "rb") as file:
        start = file.read(8).removeprefix(codecs.BOM_UTF8).lstrip()
        return not start.startswith((b"{", b"\x1f\x8b", b"\x28\xb5"))


def _of_table(table: LabelsFile, task: Task) -> pl.DataFrame:
    columns = [f"{name}_truth" for name in task.names]
    there = [name for name in ("id", "created", "title", "categories", *columns) if name in table.columns]
    frame = table.read(there)
    listed = pl.col("categories").cast(pl.String) if "categories" in there else pl.lit(None, pl.String)
    papers = frame.with_columns(listed=listed, label=pl.lit(None, pl.String))
    answers = [series.rename(f"{series.name}_truth") for series in truth(task, papers)]
    own = frame.select(column for column in columns if column in there)
    title = ["title"] if "title" in there else []
    papers = keyed(frame).select(KEY, *title)
    return papers.hstack([own.get_column(one.name) if one.name in own.columns else one for one in answers])


def _of_dump(path: str, task: Task, naming: Naming) -> pl.DataFrame:
    parts = []
    rejects: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        sources = tuple(fetch(resolve((path,)), Path(folder)))
        for chunk in Snapshot(sources, naming).chunks():
            rejects.update(row.reason for row in chunk.rejects)
            if not len(chunk.papers):
                continue
            answers = [series.rename(f"{series.name}_truth") for series in truth(task, chunk.papers)]
            parts.append(chunk.papers.select(pl.col("key").alias(KEY), "title").hstack(answers))
    if not parts:
        why = ", ".join(f"{count:,} {reason}" for reason, count in rejects.most_common())
        raise DataError(f"--truth {path}: no paper in it" + (f": {why}" if why else ""))
    return pl.concat(parts)
