"""Parquet: row groups in, rows under the names of RAW out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from arxivclf.corpus.columns import NUMERIC_ID, RAW, Columns, Naming, kept_column, settle
from arxivclf.corpus.openalex import abstract_of
from arxivclf.corpus.rejects import RAW_CHARACTERS, Reject
from arxivclf.errors import DataError


def rows(path: Path) -> int:
    """How many rows a file holds, from its footer."""
    with _open(path) as file:
        return int(file.metadata.num_rows)


def schema(path: Path) -> pl.Schema:
    """The columns of a file and their types, from its footer."""
    with _open(path) as file:
        return pl.Schema(pl.from_arrow(file.schema_arrow.empty_table()).schema)  # type: ignore[union-attr]


def read(
    path: Path, naming: Naming, keep: Sequence[str], chunk_rows: int
) -> Iterator[tuple[pl.DataFrame, list[Reject]]]:
    """Papers and rejects of each `chunk_rows` rows."""
    source = str(path)
    with _open(path) as file:
        columns = Columns.recognise(file.schema_arrow.names, naming, keep, source)
        before = 0
        try:
            for batch in file.iter_batches(chunk_rows, columns=columns.used):
                table = cast(pl.DataFrame, pl.from_arrow(batch))
                raw = _frame(table, columns, before, source)
                yield settle(raw, columns, source, "row", partial(_shown, table))
                before += len(table)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{source}: cannot be read past row {before}: {_one_line(error)}") from None


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: no whole Parquet file (cut short?): {_one_line(error)}") from None


def _frame(table: pl.DataFrame, columns: Columns, before: int, source: str) -> pl.DataFrame:
    series: dict[str, pl.Series] = {}
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(table))
    fault = nothing
    for name in RAW:
        its_name = columns.names[name]
        column = nothing if its_name is None else table.get_column(its_name)
        if name == "id" and column.dtype.is_numeric():
            fault = pl.select(pl.when(column.is_not_null()).then(pl.lit(NUMERIC_ID))).to_series()
        series[name] = _as_text(name, column, columns, source)
    kept = {kept_column(name): table.get_column(name) for name in columns.kept}
    return pl.DataFrame(
        {"row": pl.int_range(before + 1, before + 1 + len(table), eager=True), **series, "fault": fault, **kept}
    )


def _as_text(name: str, column: pl.Series, columns: Columns, source: str) -> pl.Series:
    if name == "created" and isinstance(column.dtype, pl.List):
        column = column.list.first()
        if isinstance(column.dtype, pl.Struct):
            fields = [field.name for field in column.dtype.fields]
            column = column.struct.field("created") if "created" in fields else column.struct.field(fields[0])
    if name == "abstract" and columns.inverted:
        try:
            return pl.Series([abstract_of(value) for value in column.to_list()], dtype=pl.String)
        except (ValueError, AttributeError):
            raise DataError(f"{source}: abstract_inverted_index is no index of words") from None
    if isinstance(column.dtype, pl.Categorical | pl.Enum) or not column.dtype.is_nested():
        return column.cast(pl.String)
    raise DataError(f'{source}: column "{columns.names[name]}" is {column.dtype}, not text')


def _shown(table: pl.DataFrame, place: int) -> str:
    row = table.row(place, named=True)
    short = {name: value[:RAW_CHARACTERS] if isinstance(value, str) else value for name, value in row.items()}
    return orjson.dumps(short, default=str).decode()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
