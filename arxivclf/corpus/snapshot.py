"""Reading a dump: any snapshot in, chunks of papers out, and beside them the rows that are no papers.

The form of a file is told by its content. What it is packed in (JSON lines or Parquet, compressed or not) ends here:
all that comes after sees frames of the same columns.
"""

from __future__ import annotations

import glob
import gzip
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl

from arxivclf.corpus import jsonlines, parquet
from arxivclf.corpus.columns import Naming
from arxivclf.corpus.rejects import Reject
from arxivclf.errors import DataError, UsageError

STANDARD_INPUT = "-"
CHUNK_ROWS = 8_192

_CHECKED_ROWS = 100
_SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet")
_PACKED = ("", ".gz", ".zst")
_PARQUET, _GZIP, _ZSTD = b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Chunk:
    """Some papers of a dump in its order (columns.PAPER and what is kept), and the rows among them that are none.

    `share` is how much of the whole dump has been read by the end of this chunk, in [0, 1]; None if nobody can know.
    """

    papers: pl.DataFrame
    rejects: list[Reject]
    share: float | None


@dataclass(frozen=True)
class Snapshot:
    """A dump: one or more files, read in the order given. `keep` are further columns that its papers carry."""

    paths: tuple[str, ...]
    naming: Naming = field(default_factory=Naming)
    keep: tuple[str, ...] = ()

    def chunks(self, chunk_rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Read it once. A chunk holds at most `chunk_rows` rows, all of one file.

        Raises DataError for a file that is no dump, UsageError for one that is not there.
        """
        files = self.files()
        sizes = [0 if path == STANDARD_INPUT else Path(path).stat().st_size for path in files]
        known = STANDARD_INPUT not in files
        before = 0
        for path, size in zip(files, sizes, strict=True):
            for papers, rejects, share in _read(path, self.naming, self.keep, chunk_rows):
                done = (before + share * size) / max(1, sum(sizes)) if known else None
                yield Chunk(papers, rejects, done)
            before += size

    def check(self) -> None:
        """Read the first rows of each file, so that one that is no dump fails before the work on the others starts.

        Raises what `chunks` would raise for them. Standard input can be read just once, and is left alone.
        """
        for path in self.files():
            if path != STANDARD_INPUT:
                next(iter(_read(path, self.naming, self.keep, _CHECKED_ROWS)))

    def files(self) -> list[str]:
        """The files, with globs and folders spelled out, sorted by name; labels and rejects of ours are no dumps."""
        found: list[str] = []
        for path in self.paths:
            found += _resolve(path)
        return list(dict.fromkeys(found))

    def kept_types(self) -> dict[str, pl.DataType]:
        """The type of each kept column: as in the files where they are all Parquet and agree, else string."""
        if not self.keep:
            return {}
        schemas = [
            parquet.schema(Path(path)) if path != STANDARD_INPUT and _first_bytes(path) == _PARQUET else pl.Schema()
            for path in self.files()
        ]
        types: dict[str, pl.DataType] = {}
        for name in self.keep:
            seen = {schema.get(name, pl.String()) for schema in schemas}
            types[name] = seen.pop() if len(seen) == 1 else pl.String()
        return types


def stem(path: str) -> str:
    """The name of a snapshot without folder and endings: `dump` for `data/dump.jsonl.gz`, `stdin` for `-`."""
    if path == STANDARD_INPUT:
        return "stdin"
    name = Path(path).name or Path(path).resolve().name
    for suffix in (*_PACKED[1:], *_SUFFIXES):
        name = name.removesuffix(suffix)
    return name.translate(str.maketrans("*?[]", "____")) or "dump"


def _resolve(path: str) -> list[str]:
    if path == STANDARD_INPUT or Path(path).is_file():
        return [path]
    if Path(path).is_dir():
        names = sorted(str(entry) for entry in Path(path).iterdir() if _is_dump(entry))
        if not names:
            raise DataError(
                f"{path}: no dump in this folder (files that end in {', '.join(_SUFFIXES)}, or these .gz, .zst)"
            )
        return names
    names = sorted(name for name in glob.glob(path, recursive=True) if Path(name).is_file())
    if not names:
        raise UsageError(f"{path}: no such file")
    return names


def _is_dump(entry: Path) -> bool:
    endings = tuple(suffix + packed for suffix in _SUFFIXES for packed in _PACKED)
    ours = any(mark in entry.name for mark in (".labels.", ".rejects."))
    return entry.is_file() and entry.name.endswith(endings) and not ours and not entry.name.startswith(".")


def _read(
    path: str, naming: Naming, keep: Sequence[str], chunk_rows: int
) -> Iterator[tuple[pl.DataFrame, list[Reject], float]]:
    if path != STANDARD_INPUT and _first_bytes(path) == _PARQUET:
        total, done = parquet.rows(Path(path)), 0
        if not total:
            raise DataError(f"{path}: holds no rows")
        for papers, rejects in parquet.read(Path(path), naming, keep, chunk_rows):
            done += len(papers) + len(rejects)
            yield papers, rejects, done / total
        return
    name = "standard input" if path == STANDARD_INPUT else path
    seen = False
    with _open_bytes(path) as raw, _unpacked(raw, name) as stream:
        _refuse_what_is_no_json_lines(stream, name)
        size = 0 if path == STANDARD_INPUT else Path(path).stat().st_size
        try:
            for papers, rejects in jsonlines.read(cast(BinaryIO, stream), name, naming, keep, chunk_rows):
                seen = True
                yield papers, rejects, min(1.0, raw.tell() / size) if size else 0.0
        except (EOFError, OSError) as error:
            raise DataError(f"{name}: cannot be read to its end: {error}") from None
    if not seen:
        raise DataError(f"{name}: an empty file")


def _first_bytes(path: str) -> bytes:
    with _open_bytes(path) as raw:
        return raw.read(4)


@contextmanager
def _open_bytes(path: str) -> Iterator[BinaryIO]:
    if path == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below; only opening it is guarded)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    with file:
        yield file


@contextmanager
def _unpacked(raw: BinaryIO, name: str) -> Iterator[io.BufferedReader]:
    packed = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    start = packed.peek(4)[:4]
    if start.startswith(_GZIP):
        with gzip.GzipFile(fileobj=packed) as unzipped:
            yield io.BufferedReader(cast(io.RawIOBase, unzipped))
    elif start == _ZSTD:
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as unpacked:
            yield io.BufferedReader(cast(io.RawIOBase, unpacked))
    else:
        yield packed


def _refuse_what_is_no_json_lines(stream: io.BufferedReader, name: str) -> None:
    try:
        start = stream.peek(4096)[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    except (EOFError, OSError) as error:
        raise DataError(f"{name}: cannot be unpacked: {error}") from None
    if start.startswith(b"["):
        raise DataError(f"{name}: one JSON array, not JSON lines; `jq -c '.[]'` makes lines of it")
    named_json = any(name.endswith(suffix + packed) for suffix in _SUFFIXES[:-1] for packed in _PACKED)
    if start and not start.startswith(b"{") and not named_json:
        raise DataError(f"{name}: neither Parquet nor JSON lines")
