"""Parquet: row groups in, rows under the names of RAW out."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from functools import partial
from typing import cast

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from arxivclf.corpus.columns import (
    LISTS,
    NOT_UTF8,
    NUMERIC_ID,
    RAW,
    Columns,
    Naming,
    Rows,
    Wanted,
    date_column,
    kept_column,
    settle,
)
from arxivclf.corpus.openalex import abstract_of
from arxivclf.corpus.rejects import RAW_CHARACTERS
from arxivclf.corpus.sources import Source
from arxivclf.errors import DataError, one_line


def rows(source: Source) -> int:
    """How many rows a file holds, from its footer."""
    with opened(source) as file:
        return int(file.metadata.num_rows)


def schema(source: Source) -> pl.Schema:
    """The columns of a file and their types, from its footer."""
    with opened(source) as file:
        return pl.Schema(pl.from_arrow(file.schema_arrow.empty_table()).schema)  # type: ignore[union-attr]


def read(
    source: Source, naming: Naming, keep: Sequence[str], chunk_rows: int, wanted: Wanted | None = None
) -> Iterator[Rows | int]:
    """Papers and rejects of each `chunk_rows` rows; of chunks that are not `wanted` the count of rows alone."""
    with opened(source) as file:
        columns = Columns.recognise(file.schema_arrow.names, naming, keep, source.name)
        before = 0
        # What is only kept may hold bytes that are no text.
        needed = {*filter(None, columns.names.values()), *columns.dated}
        try:
            # By one thread a batch is there in half of the time; several lock each other out.
            batches = file.iter_batches(chunk_rows, columns=columns.used, use_threads=False)
            for place, batch in enumerate(batches):
                if wanted is not None and not wanted(place):
                    before += batch.num_rows
                    yield batch.num_rows
                    continue
                table, faults = _decoded(batch, needed)
                raw = _frame(table, columns, before, faults)
                yield settle(raw, columns, source.name, "row", partial(_shown, table))
                before += len(table)
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{source.name}: cannot be read past row {before}: {one_line(error)}") from None


def settle_frame(table: pl.DataFrame, naming: Naming, keep: Sequence[str], name: str) -> Rows:
    """Papers and rejects of a frame that has the columns of a dump; `name` stands for it in messages."""
    columns = Columns.recognise(table.columns, naming, keep, name)
    used = table.select(columns.used)
    return settle(_frame(used, columns, 0, _no_faults(len(used))), columns, name, "row", partial(_shown, used))


def opened(source: Source) -> pq.ParquetFile:
    """A file, to be read in parts. Raises DataError where it is not whole."""
    try:
        return pq.ParquetFile(source.path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{source.name}: no whole Parquet file (cut short?): {one_line(error)}") from None


def _decoded(batch: pa.RecordBatch, needed: Container[str]) -> tuple[pl.DataFrame, pl.Series]:
    """A batch with the bytes of the columns that are `needed` as text, and a fault for each row with some that are not
    UTF-8.

    A Parquet file may call bytes text that are none, and whoever believes it crashes.
    """
    for place, field in enumerate(batch.schema):
        if field.name in needed and pa.types.is_dictionary(field.type):
            batch = batch.set_column(place, field.name, batch.column(place).dictionary_decode())
    kinds = {field.name: field.type for field in batch.schema}
    suspects = [name for name, kind in kinds.items() if name in needed and _holds_bytes(kind)]
    lying = False
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        lying = True
        suspects += [name for name, kind in kinds.items() if _holds_text(kind)]
    broken = [False] * batch.num_rows

    def decoded(value: bytes | None, row: int) -> str | None:
        try:
            return None if value is None else value.decode("utf-8")
        except UnicodeDecodeError:
            broken[row] = True
            return cast(bytes, value).decode("utf-8", errors="replace")

    for name in suspects:
        column: pa.Array
        if _is_list(kinds[name]):
            lists = batch.column(name).cast(pa.large_list(pa.large_binary())).to_pylist()
            texts = [
                None if items is None else [decoded(item, row) for item in items] for row, items in enumerate(lists)
            ]
            column = pa.array(texts, pa.large_list(pa.large_string()))
        else:
            values = batch.column(name).cast(pa.large_binary()).to_pylist()
            column = pa.array([decoded(value, row) for row, value in enumerate(values)], pa.large_string())
        batch = batch.set_column(batch.schema.get_field_index(name), name, column)
    if lying:
        # What is still none is within records, or is no table at all: an error that says so.
        batch.validate(full=True)
    faults = pl.Series([NOT_UTF8 if row else None for row in broken], dtype=pl.String) if any(broken) else None
    return cast(pl.DataFrame, pl.from_arrow(batch)), _no_faults(batch.num_rows) if faults is None else faults


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column, or the lists in it, are of bytes."""
    types, kind = pa.types, kind.value_type if _is_list(kind) else kind
    of_any_length = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return bool(of_any_length or types.is_fixed_size_binary(kind))


def _holds_text(kind: pa.DataType) -> bool:
    """Whether a column, or the lists in it, are of text."""
    types, kind = pa.types, kind.value_type if _is_list(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _no_faults(rows: int) -> pl.Series:
    return pl.Series([None], dtype=pl.String).new_from_index(0, rows)


def _frame(table: pl.DataFrame, columns: Columns, before: int, faults: pl.Series) -> pl.DataFrame:
    series: dict[str, pl.Series] = {}
    nothing = _no_faults(len(table))
    for name in RAW:
        its_name = columns.names[name]
        if its_name is None:
            series[name] = nothing
            continue
        column = table.get_column(its_name)
        if name == "id" and column.dtype.is_numeric():
            faults = _first(faults, column.is_not_null(), NUMERIC_ID)
        if name == "abstract" and columns.inverted:
            series[name], spelled = _abstracts(column)
            faults = _first(faults, ~spelled, "abstract_inverted_index is no index of words")
        elif name in LISTS and isinstance(column.dtype, pl.List | pl.Array) and not column.dtype.inner.is_nested():
            series[name] = joined(column, *LISTS[name])
        elif column.dtype.is_nested():
            series[name] = nothing
            # A paper of which nothing is told is a paper all the same.
            if name in ("id", "title", "abstract", "text"):
                faults = _first(faults, column.is_not_null(), f"{its_name} is no text")
        else:
            series[name] = column.cast(pl.String)
    for place, name in enumerate(columns.dated):
        series[date_column(place)] = _dates(table.get_column(name))
    kept = {kept_column(name): table.get_column(name) for name in columns.kept}
    rows = pl.int_range(before + 1, before + 1 + len(table), eager=True)
    return pl.DataFrame({"row": rows, **series, "fault": faults, **kept})


def joined(column: pl.Series, between: str, empty: str) -> pl.Series:
    """Lists as text, what is in them with `between` between, and those that are `empty` as that."""
    lists = column.cast(pl.List(pl.String))
    text = pl.when(lists.list.len() == 0).then(pl.lit(empty)).otherwise(lists.list.join(between, ignore_nulls=True))
    return pl.select(text).to_series().rename(column.name)


def _first(faults: pl.Series, where: pl.Series, fault: str) -> pl.Series:
    """The faults there are, and `fault` in other rows `where` it holds."""
    return pl.select(pl.coalesce(faults, pl.when(where).then(pl.lit(fault)))).to_series()


def _dates(column: pl.Series) -> pl.Series:
    """Dates as their column writes them; null where it is in no form that a date is in."""
    while isinstance(column.dtype, pl.List):
        column = column.list.first()
    if isinstance(column.dtype, pl.Struct):
        if "created" not in [field.name for field in column.dtype.fields]:
            return _no_faults(len(column))
        column = column.struct.field("created")
    return column.cast(pl.String) if not column.dtype.is_nested() else _no_faults(len(column))


def _abstracts(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    texts: list[str | None] = []
    spelled: list[bool] = []
    for value in column.to_list():
        try:
            texts.append(abstract_of(value))
            spelled.append(True)
        except ValueError:
            texts.append(None)
            spelled.append(False)
    return pl.Series(texts, dtype=pl.String), pl.Series(spelled, dtype=pl.Boolean)


def _shown(table: pl.DataFrame, place: int) -> str:
    row = table.row(place, named=True)
    short = {name: value[:RAW_CHARACTERS] if isinstance(value, str) else value for name, value in row.items()}
    return orjson.dumps(short, default=str).decode()
