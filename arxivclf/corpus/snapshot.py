"""Reading a dump: any snapshot in, chunks of papers out, and beside them the rows that are no papers.

The form of a file is told by its content. What it is packed in (JSON lines or Parquet, compressed or not) ends here:
all that comes after sees frames of the same columns.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import polars as pl
import zstandard

from arxivclf.corpus import jsonlines, parquet
from arxivclf.corpus.columns import Naming, Rows, Wanted
from arxivclf.corpus.rejects import Reject
from arxivclf.corpus.sources import PACKED, STANDARD_INPUT, SUFFIXES, Source
from arxivclf.errors import DataError

CHUNK_ROWS = 8_192

_CHECKED_ROWS = 100
_BUFFER = 1 << 18
# Half a kilobyte may unpack to some 20 MB, of which there are three in memory for a moment.
_PACKED_AT_ONCE = 1 << 9
# What reading what is `unpacked` raises where it is cut short or damaged.
BROKEN = (EOFError, OSError, zlib.error, zstandard.ZstdError)
_PARQUET, _GZIP, _ZSTD = b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Chunk:
    """Some papers of a dump in its order (columns.PAPER and what is kept), and the rows among them that are none.

    `number` counts the chunks of the dump from 0, `file` is the place of its file among the sources, `share` how much
    of the whole dump has been read by the end of this chunk, in [0, 1].
    """

    number: int
    file: int
    papers: pl.DataFrame
    rejects: list[Reject]
    share: float
    reject: Callable[[Sequence[int], str], list[Reject]]

    @property
    def rows(self) -> tuple[int, int]:
        """The first and the last row (or line) of the file that is in it."""
        numbers = [reject.row for reject in self.rejects]
        if len(self.papers):
            numbers += self.papers.get_column("row").gather([0, -1]).to_list()
        return min(numbers, default=0), max(numbers, default=0)


@dataclass(frozen=True)
class Snapshot:
    """A dump: one or more files, read in the order given. `keep` are further columns that its papers carry."""

    sources: tuple[Source, ...]
    naming: Naming = field(default_factory=Naming)
    keep: tuple[str, ...] = ()

    def chunks(self, chunk_rows: int = CHUNK_ROWS, wanted: Wanted | None = None) -> Iterator[Chunk]:
        """Read it once. A chunk holds at most `chunk_rows` rows, all of one file; those that are not `wanted`, by
        their number in the dump, are passed over, which is quicker by far than to read them.

        Raises DataError for a file that is no dump.
        """
        sizes = [source.path.stat().st_size for source in self.sources]
        before = first = 0
        for file, (source, size) in enumerate(zip(self.sources, sizes, strict=True)):
            number = first
            for rows, share in _read(
                source, self.naming, self.keep, chunk_rows, wanted and partial(_from, first, wanted)
            ):
                if rows is not None:
                    done = (before + share * size) / max(1, sum(sizes))
                    yield Chunk(number, file, rows.papers, rows.rejects, done, rows.reject)
                number += 1
            before, first = before + size, number

    def check(self) -> None:
        """Read the first rows of each file, so that one that is no dump fails before the work on the others starts."""
        for source in self.sources:
            next(iter(_read(source, self.naming, self.keep, _CHECKED_ROWS)))

    def kept_types(self) -> dict[str, pl.DataType]:
        """The type of each kept column: as in the files where they are all Parquet and agree, else string."""
        if not self.keep:
            return {}
        schemas = [parquet.schema(source) if is_parquet(source) else pl.Schema() for source in self.sources]
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
    for suffix in (*PACKED[1:], *SUFFIXES):
        name = name.removesuffix(suffix)
    return name.translate(str.maketrans("*?[]", "____")) or "dump"


def lines_of(source: Source) -> Iterator[tuple[bytes, float]]:
    """The lines of a file of JSON lines, packed or not, with the share of the file that is read after each."""
    size = max(1, source.path.stat().st_size)
    with _open_bytes(source) as raw, unpacked(raw) as stream:
        try:
            for line in stream:
                # What is read ahead counts as read; only at the end is it all.
                yield line, min(1.0, raw.tell() / size)
        except BROKEN as error:
            raise DataError(f"{source.name}: cannot be read to its end: {error}") from None


def _from(first: int, wanted: Wanted, number: int) -> bool:
    return wanted(first + number)


def _read(
    source: Source, naming: Naming, keep: Sequence[str], chunk_rows: int, wanted: Wanted | None = None
) -> Iterator[tuple[Rows | None, float]]:
    """The chunks of a file, None for those that are not wanted, and the share of it that is read after each."""
    if is_parquet(source):
        total, done = parquet.rows(source), 0
        if not total:
            raise DataError(f"{source.name}: holds no rows")
        for rows in parquet.read(source, naming, keep, chunk_rows, wanted):
            done += rows if isinstance(rows, int) else len(rows.papers) + len(rows.rejects)
            yield None if isinstance(rows, int) else rows, done / total
        return
    seen = False
    with _open_bytes(source) as raw, unpacked(raw) as stream:
        _refuse_what_is_no_json_lines(stream, source.name)
        size = source.path.stat().st_size
        try:
            for lines in jsonlines.read(cast(BinaryIO, stream), source.name, naming, keep, chunk_rows, wanted):
                seen = True
                yield lines, min(1.0, raw.tell() / size) if size else 1.0
        except BROKEN as error:
            raise DataError(f"{source.name}: cannot be read to its end: {error}") from None
    if not seen:
        raise DataError(f"{source.name}: an empty file")


def is_parquet(source: Source) -> bool:
    """Whether a file is Parquet, by its content."""
    with _open_bytes(source) as raw:
        return raw.read(4) == _PARQUET


def is_packed(source: Source) -> bool:
    """Whether a file is gzip or zstd, by its content."""
    with _open_bytes(source) as raw:
        return _packed_by(raw.read(4)) is not None


def _packed_by(start: bytes) -> bytes | None:
    """Which of _GZIP and _ZSTD the first four bytes of a file are."""
    return next((sign for sign in (_GZIP, _ZSTD) if start.startswith(sign)), None)


@contextmanager
def _open_bytes(source: Source) -> Iterator[BinaryIO]:
    try:
        file = open(source.path, "rb")  # noqa: SIM115 (closed below; only opening it is guarded)
    except OSError as error:
        raise DataError(f"{source.name}: {error.strerror}") from None
    with file:
        yield file


@contextmanager
def unpacked(raw: BinaryIO) -> Iterator[io.BufferedReader]:
    """What a file holds, unpacked where it begins as gzip or zstd does."""
    packed = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    packed_by = _packed_by(packed.peek(4)[:4])
    if packed_by == _GZIP:
        with gzip.GzipFile(fileobj=packed) as unzipped:
            yield io.BufferedReader(cast(io.RawIOBase, unzipped), _BUFFER)
    elif packed_by == _ZSTD:
        yield io.BufferedReader(_Unzstd(packed), _BUFFER)
    else:
        yield packed


class _Unzstd(io.RawIOBase):
    """What zstd frames hold, one after the other; the library's own reader takes a frame cut short for whole."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._ready:
            if self._frame is not None and self._frame.eof:
                rest, self._frame = self._frame.unused_data, None
            else:
                rest = b""
            block = rest or self._packed.read(_PACKED_AT_ONCE)
            if not block:
                if self._frame is not None:
                    raise EOFError("compressed file ended before the end of its frame")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._ready = memoryview(self._frame.decompress(block))
        count = min(len(target), len(self._ready))
        target[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def _refuse_what_is_no_json_lines(stream: io.BufferedReader, name: str) -> None:
    try:
        start = stream.peek(4096)[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    except BROKEN as error:
        raise DataError(f"{name}: cannot be unpacked: {error}") from None
    if start.startswith(b"["):
        raise DataError(f"{name}: one JSON array, not JSON lines; `jq -c '.[]'` makes lines of it")
    named_json = any(name.endswith(suffix + packed) for suffix in SUFFIXES[:-1] for packed in PACKED)
    if start and not start.startswith(b"{") and not named_json:
        hint = ""
        if any(name.lower().endswith(ending + packed) for ending in (".csv", ".tsv") for packed in PACKED):
            hint = "; a table of text becomes Parquet by polars or pandas: read_csv(...), write_parquet(...)"
        raise DataError(f"{name}: neither Parquet nor JSON lines{hint}")
