"""The labels of papers as a table: its columns, their order and their types, wherever labels are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import polars as pl

from arxivclf.corpus.columns import kept_column
from arxivclf.errors import UsageError

BY_GATE, BY_ENCODER, BY_REUSE = "gate", "encoder", "reused"

Scores = np.ndarray[tuple[int, int], np.dtype[np.float32]]
Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True)
class Layout:
    """The columns of the labels, in order; `thresholds` are the scores from which each label is given.

    `kept` are columns of the dump that go along, with their types. Raises UsageError where one of them would stand
    twice.
    """

    thresholds: Mapping[str, float]
    kept: Mapping[str, pl.DataType]

    def __post_init__(self) -> None:
        taken = sorted(set(self.kept) & set(self._own()))
        if taken:
            raise UsageError(f"--keep {taken[0]}: the labels have a column of that name already")

    def schema(self) -> pl.Schema:
        return pl.Schema(self._own() | dict(self.kept))

    def _own(self) -> dict[str, pl.DataType]:
        own: dict[str, pl.DataType] = {"id": pl.String(), "created": pl.Date(), "categories": pl.String()}
        for name in self.thresholds:
            own |= {name: pl.Boolean(), f"{name}_score": pl.Float32(), f"{name}_truth": pl.Boolean()}
        return own | {"decided_by": pl.String(), "text_hash": pl.UInt64()}

    def table(
        self,
        papers: pl.DataFrame,
        hashes: pl.Series,
        scores: Scores,
        truths: Sequence[pl.Series],
        decided_by: pl.Series,
    ) -> pl.DataFrame:
        """The labels of `papers` (`id`, `created`, `categories` and what is kept), one row each, in their order.

        `hashes` are those of the texts that the model saw, `scores` float32 (papers, labels), `truths` a boolean series
        for each label, `decided_by` who gave the score.
        """
        columns: list[pl.Series] = papers.select("id", "created", "categories").get_columns()
        for index, (name, threshold) in enumerate(self.thresholds.items()):
            score = pl.Series(f"{name}_score", scores[:, index], dtype=pl.Float32)
            columns += [(score >= threshold).rename(name), score, truths[index].rename(f"{name}_truth")]
        columns += [decided_by.rename("decided_by"), hashes.rename("text_hash")]
        columns += [_as(papers.get_column(kept_column(name)), kind).rename(name) for name, kind in self.kept.items()]
        return pl.DataFrame(columns)


def _as(column: pl.Series, kind: pl.DataType) -> pl.Series:
    """A kept column as the type that it has in all files, which for nested ones may be JSON text."""
    if kind == pl.String() and column.dtype.is_nested():
        texts = [None if value is None else orjson.dumps(value, default=str).decode() for value in column.to_list()]
        return pl.Series(texts, dtype=pl.String)
    if kind == pl.String() and column.dtype == pl.Binary:
        # Text in another file; what is none here must not end the run.
        return pl.Series([None if value is None else value.decode("utf-8", "replace") for value in column.to_list()])
    return column.cast(kind)
