"""Writing tables as they come: a file that appears whole or not at all, in the form that its name asks for."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import polars as pl
import pyarrow.parquet as pq

from arxivclf.errors import UsageError
from arxivclf.files import whole_file

STANDARD_OUTPUT = "-"
FORMS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv")


class Sink(Protocol):
    """Takes tables of one schema, in order."""

    def write(self, table: pl.DataFrame) -> None: ...


@contextmanager
def open_sink(path: str, schema: pl.Schema) -> Iterator[Sink]:
    """A sink for the file at `path`, or JSON lines to standard output for `-`.

    The file is written beside its final name and takes it when the block ends well; else nothing of it stays. Raises
    UsageError for a name of another form, DataError where it cannot be written.
    """
    form = check_form(path, schema)
    if path == STANDARD_OUTPUT:
        yield _Lines(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    with whole_file(Path(path)) as file:
        if form == ".parquet":
            with pq.ParquetWriter(file, schema.to_frame().to_arrow().schema, compression="zstd") as writer:
                yield _Parquet(writer)
        elif form == ".csv":
            file.write(schema.to_frame().write_csv().encode())
            yield _Csv(file)
        elif form == ".jsonl.gz":
            # No time and no name in the header: equal labels make equal bytes.
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                yield _Lines(cast(BinaryIO, packed))
        elif form == ".jsonl.zst":
            import zstandard

            with zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False) as packed:
                yield _Lines(cast(BinaryIO, packed))
        else:
            yield _Lines(file)


def check_form(path: str, schema: pl.Schema) -> str:
    """The form that a file's name asks for, one of FORMS, or `-`. Raises UsageError for any other."""
    if path == STANDARD_OUTPUT:
        return path
    form = next((form for form in sorted(FORMS, key=len, reverse=True) if path.endswith(form)), None)
    if form is None:
        raise UsageError(f"{path}: the name of a labels file ends in {', '.join(FORMS)}, or is -")
    nested = [name for name, kind in schema.items() if kind.is_nested()]
    if form == ".csv" and nested:
        raise UsageError(f"{path}: the column {nested[0]} is nested and cannot go into CSV")
    return form


class _Parquet:
    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer

    def write(self, table: pl.DataFrame) -> None:
        self._writer.write_table(table.to_arrow())


class _Lines:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, table: pl.DataFrame) -> None:
        buffer = io.BytesIO()
        table.write_ndjson(buffer)
        self._file.write(buffer.getvalue())


class _Csv:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, table: pl.DataFrame) -> None:
        self._file.write(table.write_csv(include_header=False).encode())
