"""A file of labels: which labels and other columns it has, and its rows."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import zstandard

from arxivclf.errors import DataError, UsageError

_PARQUET, _GZIP, _ZSTD = b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class LabelsFile:
    """A file of labels that is open: its columns, and the `names` of those that are labels with scores."""

    path: str
    columns: tuple[str, ...]
    names: tuple[str, ...]
    frame: pl.LazyFrame

    @classmethod
    def open(cls, path: str | Path) -> LabelsFile:
        """Raises UsageError where there is no such file, DataError where it is no table."""
        frame = _read(Path(path))
        columns = tuple(frame.collect_schema().names())
        return cls(str(path), columns, tuple(name for name in columns if f"{name}_score" in columns), frame)

    @property
    def others(self) -> list[str]:
        """The columns that are no label's."""
        taken = {column for name in self.names for column in columns_of(name)}
        return [column for column in self.columns if column not in taken]

    def read(self, columns: Sequence[str]) -> pl.DataFrame:
        """These columns of all rows. Raises DataError where one is missing or unreadable, or where there is no row."""
        for column in columns:
            if column not in self.columns:
                raise DataError(f"{self.path}: no column {column!r}; its columns are {', '.join(self.columns)}")
        try:
            table = self.frame.select(columns).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{self.path}: cannot be read: {one_line(error)}") from None
        if not len(table):
            raise DataError(f"{self.path}: holds no rows")
        return table


def columns_of(name: str) -> tuple[str, str, str]:
    """A label's columns: the label, its score and its truth."""
    return name, f"{name}_score", f"{name}_truth"


def _read(path: Path) -> pl.LazyFrame:
    """The table in a file, by its content: Parquet, JSON lines or CSV, the latter two packed or not."""
    try:
        with open(path, "rb") as file:
            start = file.read(4)
        if start == _PARQUET:
            frame = pl.scan_parquet(path, glob=False)
            frame.collect_schema()
            return frame
        content = path.read_bytes()
        if start.startswith(_GZIP):
            content = gzip.decompress(content)
        elif start == _ZSTD:
            content = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read()
        if not content.strip():
            raise DataError(f"{path}: an empty file")
        if content.lstrip().startswith(b"{"):
            return _typed(lambda types: pl.read_ndjson(content, schema_overrides=types, infer_schema_length=None))
        return _typed(lambda types: pl.read_csv(content, schema_overrides=types, infer_schema_length=0))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(f"{path}: not a whole table of labels: {one_line(error)}") from None


def _typed(read: Callable[[dict[str, pl.DataType]], pl.DataFrame]) -> pl.LazyFrame:
    """A table of text whose columns of labels are what they are, however many nulls come first."""
    names = read({}).columns
    types: dict[str, pl.DataType] = {}
    for name in names:
        if f"{name}_score" in names:
            types |= {name: pl.Boolean(), f"{name}_score": pl.Float64()}
            types |= {f"{name}_truth": pl.Boolean()} if f"{name}_truth" in names else {}
    return read(types).lazy()


def one_line(error: Exception) -> str:
    """What an error says, cut to what a line of a terminal can hold."""
    return " ".join(str(error).split())[:300]
