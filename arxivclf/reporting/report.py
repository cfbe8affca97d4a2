"""What a table of labels says of their quality: one confusion for each label, with how it came about."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import zstandard

from arxivclf.errors import DataError, UsageError
from arxivclf.reporting.metrics import Confusion

_PARQUET, _GZIP, _ZSTD = b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class LabelReport:
    """One label against its truth: all papers, those `labelled`, those of `unknown` truth, and the rest compared."""

    name: str
    papers: int
    labelled: int
    unknown: int
    confusion: Confusion


@dataclass(frozen=True)
class Report:
    """A report on a file of labels, its labels in the order of its columns."""

    source: str
    labels: tuple[LabelReport, ...]


def report(path: str | Path, label: str | None = None, threshold: float | None = None) -> Report:
    """Compare labels with their truth: all labels of a file, or just `label`.

    `threshold` in [0, 1] makes labels of the scores anew. Raises DataError where the file has no labels or no truth,
    UsageError where it has no such label.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"threshold must be at least 0 and at most 1, not {threshold}")
    frame = _read(Path(path))
    there = frame.collect_schema().names()
    names = [name for name in there if f"{name}_score" in there and f"{name}_truth" in there]
    if not names:
        raise DataError(f"{path}: no labels with scores and truth; its columns are {', '.join(there)}")
    if label is not None and label not in names:
        raise UsageError(f"{path}: no label {label!r}; there are {', '.join(names)}")
    chosen = [label] if label else names
    wanted = [column for name in chosen for column in (name, f"{name}_score", f"{name}_truth")]
    try:
        table = frame.select(wanted).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: cannot be read: {_one_line(error)}") from None
    if not len(table):
        raise DataError(f"{path}: holds no rows")
    return Report(str(path), tuple(_compare(table, name, threshold, str(path)) for name in chosen))


def _compare(table: pl.DataFrame, name: str, threshold: float | None, path: str) -> LabelReport:
    given = pl.col(name) if threshold is None else pl.col(f"{name}_score") >= threshold
    truth = pl.col(f"{name}_truth")
    try:
        both = table.select(given=given.cast(pl.Boolean), truth=truth.cast(pl.Boolean))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: the columns of {name!r} are no labels: {_one_line(error)}") from None
    known = both.drop_nulls()
    if not len(known):
        raise DataError(
            f"{path}: no truth for {name!r} in any of {len(table):,} papers (the dump had no categories and no label"
            " column); only with a truth can labels be judged"
        )
    confusion = Confusion.count(known.get_column("truth").to_numpy(), known.get_column("given").to_numpy())
    return LabelReport(name, len(table), int(both.get_column("given").sum()), len(both) - len(known), confusion)


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
        raise DataError(f"{path}: not a whole table of labels: {_one_line(error)}") from None


def _typed(read: Callable[[dict[str, pl.DataType]], pl.DataFrame]) -> pl.LazyFrame:
    """A table of text whose columns of labels are what they are, however many nulls come first."""
    names = read({}).columns
    types: dict[str, pl.DataType] = {}
    for name in names:
        if f"{name}_score" in names:
            types |= {name: pl.Boolean(), f"{name}_score": pl.Float64()}
            types |= {f"{name}_truth": pl.Boolean()} if f"{name}_truth" in names else {}
    return read(types).lazy()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
