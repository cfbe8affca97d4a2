"""Writing labels: a file that appears whole or not at all, in the form that its name asks for, and knows its job."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from arxivclf.corpus.sources import is_remote, remote_output
from arxivclf.errors import DataError, UsageError
from arxivclf.files import whole_file

STANDARD_OUTPUT = "-"
FORMS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv")

_JOB_KEY = b"arxivclf"
# A file system takes names of 255 bytes, and what lies beside labels while they are made has longer ones.
_LONGEST_NAME = 230


class Sink(Protocol):
    """Takes tables of one schema, in order."""

    def write(self, table: pl.DataFrame) -> None: ...


@contextmanager
def open_sink(path: str, schema: pl.Schema, job: Mapping[str, Any]) -> Iterator[Sink]:
    """A sink for the file at `path`, local or remote, or JSON lines to standard output for `-`.

    It appears whole when the block ends well, else nothing of it stays. Parquet holds the `job` (JSON) in its footer;
    `read_job` reads it back. Raises UsageError for a name of another form, DataError where it cannot be written.
    """
    form = check_form(path, schema)
    if path == STANDARD_OUTPUT:
        yield _Lines(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    with remote_output(path) if is_remote(path) else whole_file(Path(path)) as file:
        if form == ".parquet":
            arrow = pa.schema(schema.to_frame().to_arrow().schema, metadata={_JOB_KEY: json.dumps(job)})
            with pq.ParquetWriter(file, arrow, compression="zstd") as writer:
                yield _Parquet(writer, arrow)
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
        if sys.stdout is None:
            raise UsageError("-: standard output is closed")
        return path
    form = form_of(path)
    if form is None:
        raise UsageError(f"{path}: the name of a labels file ends in {', '.join(FORMS)}, or is -")
    if not is_remote(path) and Path(path).is_dir():
        raise UsageError(f"{path}: is a folder; -o names a file")
    if len(os.fsencode(Path(path).name)) > _LONGEST_NAME:
        raise UsageError(f"{path}: a name of more than {_LONGEST_NAME} bytes; -o names another file")
    for name, kind in schema.items():
        if form != ".parquet" and (kind in (pl.Binary, pl.Duration) or (form == ".csv" and kind.is_nested())):
            where = "Parquet or JSON lines" if kind.is_nested() else "Parquet alone"
            raise UsageError(f"{path}: the column {name} ({kind}) can go into {where}")
    return form


def form_of(path: str) -> str | None:
    """The ending of a path that is one of FORMS, the longest that fits."""
    return next((form for form in sorted(FORMS, key=len, reverse=True) if path.endswith(form)), None)


def read_job(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The job that labels hold in their footer (None where they hold none), and a fingerprint of their bytes.

    Raises UsageError where the file is not there, DataError where it is not Parquet.
    """
    digest = xxhash.xxh3_128()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        metadata = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException):
        raise DataError(f"{path}: no whole Parquet file") from None
    job = json.loads(metadata[_JOB_KEY]) if _JOB_KEY in metadata else None
    return job, str(digest.hexdigest())


def is_whole(path: Path, rows: int) -> bool:
    """Whether Parquet can be read to its end, and has so many rows."""
    try:
        return bool(sum(batch.num_rows for batch in pq.ParquetFile(path).iter_batches(65_536)) == rows)
    except (OSError, pa.ArrowException):
        return False


class _Parquet:
    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema

    def write(self, table: pl.DataFrame) -> None:
        self._writer.write_table(table.to_arrow().cast(self._schema))


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
