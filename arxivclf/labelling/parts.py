"""Exactly once: the labels of a run as parts on disk, so that one that was killed goes on where it was.

Beside the output lies a hidden folder with a lock, a manifest and the parts. The manifest's first line is the job; each
part is written, put in place by a rename, and only then gets its line. What has no line was never made. At the end the
parts become the output, which appears by one rename and holds the job, too; then the folder goes.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock
import orjson
import polars as pl
import xxhash

from arxivclf.corpus.rejects import Reject
from arxivclf.errors import DataError
from arxivclf.files import cannot_write, sync_folder

Job = dict[str, Any]
"""What decides the bytes of the output: inputs, models and settings, as JSON."""


@dataclass(frozen=True)
class Part:
    """A finished part: its number, where its rows stand in the dump, the hashes of its files, and its counts.

    `file` is the place of the file among those of the job; rows (or lines) count from 1.
    """

    number: int
    file: int
    first_row: int
    last_row: int
    labels: str
    rejects: str
    papers: int
    labelled: Mapping[str, int]
    decided: Mapping[str, int]
    reasons: Mapping[str, int]
    ids_restored: int


class Parts:
    """The folder of parts of one output, locked for as long as the context lasts."""

    def __init__(self, output: Path) -> None:
        self.folder = output.with_name(f".{output.name}.parts")
        self._output = output
        self._lock = filelock.FileLock(self.folder / "lock", timeout=0)
        self._manifest = self.folder / "manifest.jsonl"
        self.done: dict[int, Part] = {}

    def __enter__(self) -> Parts:
        """Raises DataError where another run holds the folder, or it cannot be made."""
        try:
            while True:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire()
                if (self.folder / "lock").exists():
                    return self
                # The run that held it took the folder away in between.
                self._lock.release()
        except filelock.Timeout:
            raise DataError(
                f"{self._output}: another run is writing it; wait for that one, or name another file"
            ) from None
        except OSError as error:
            raise cannot_write(self._output, error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A job without a finished part has nothing to go on with; one that we were refused to touch may have.
        if len(self._lines()) <= 1:
            self.remove()
        self._lock.release()

    def job(self) -> Job | None:
        """The job that the folder was begun for, None if it is new."""
        lines = self._lines()
        return lines[0] if lines else None

    def begin(self, job: Job) -> None:
        """Start, or go on where a killed run of the same job was; parts that changed since then are made anew."""
        lines = self._lines()
        if not lines or lines[0] != job:
            self.clear()
            self._append(job)
            return
        self.done = {}
        for line in lines[1:]:
            part = Part(**line)
            found = (self._hash(self._labels(part.number)), self._hash(self._rejects(part.number)))
            if found == (part.labels, part.rejects):
                self.done[part.number] = part

    def add(self, part: Part, table: pl.DataFrame, rejects: Sequence[Reject]) -> None:
        """Write a part: its labels and its rejects, then its line. `part` comes without hashes."""
        buffer = io.BytesIO()
        table.write_parquet(buffer, compression="zstd")
        lines = b"".join(orjson.dumps(reject.as_dict(), option=orjson.OPT_APPEND_NEWLINE) for reject in rejects)
        try:
            self._write(self._labels(part.number), buffer.getvalue())
            self._write(self._rejects(part.number), lines)
            whole = Part(**asdict(part) | {"labels": _digest(buffer.getvalue()), "rejects": _digest(lines)})
            self._append(asdict(whole))
        except OSError as error:
            raise cannot_write(self._output, error) from None
        self.done[part.number] = whole

    def tables(self) -> Iterator[pl.DataFrame]:
        """The labels of all parts, in order."""
        for number in sorted(self.done):
            yield pl.read_parquet(self._labels(number))

    def reject_lines(self) -> Iterator[bytes]:
        """The rejects of all parts as JSON lines, in order."""
        for number in sorted(self.done):
            yield self._rejects(number).read_bytes()

    def clear(self) -> None:
        """Forget the job and every part."""
        self.done = {}
        for path in [*self.folder.glob("part-*"), self._manifest]:
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Take the folder away: its work is done, or there is none in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _labels(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    def _rejects(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.rejects.jsonl"

    def _write(self, path: Path, content: bytes) -> None:
        unfinished = path.with_suffix(".unfinished")
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)

    def _lines(self) -> list[Any]:
        """The manifest; a last line that was cut short by a kill is no line, and is cut off."""
        try:
            content = self._manifest.read_bytes()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self._manifest, len(whole))
        return [json.loads(line) for line in whole.splitlines()]

    def _append(self, line: Mapping[str, Any]) -> None:
        with open(self._manifest, "ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.folder)

    @staticmethod
    def _hash(path: Path) -> str | None:
        try:
            return _digest(path.read_bytes())
        except OSError:
            return None


def _digest(content: bytes) -> str:
    return str(xxhash.xxh3_128_hexdigest(content))
