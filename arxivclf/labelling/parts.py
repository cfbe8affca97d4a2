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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock
import orjson
import polars as pl
import xxhash

from arxivclf.corpus.rejects import Reject
from arxivclf.errors import DataError
from arxivclf.files import cannot_write, hold, sync_folder, whole_file

Job = dict[str, Any]
"""What decides the bytes of the output: inputs, models and settings, as JSON."""


@dataclass(frozen=True)
class Part:
    """A finished part: its number, where its rows stand in the dump, the hashes of its files, and its counts.

    `file` is the place of the file among those of the job; rows (or lines) count from 1. `outside` counts papers
    outside of the years and archives that a model was trained on.
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
    seen: Mapping[str, int] = field(default_factory=dict)
    outside: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """One of `count` runs that label one dump between them, each a stretch of its chunks; `number` counts from 0."""

    number: int
    count: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """From `I/N`. Raises ValueError for any other text, and where I is not below N."""
        number, count = (int(part) for part in text.split("/"))
        if not 0 <= number < count:
            raise ValueError(text)
        return cls(number, count)

    def of_chunks(self, chunks: int) -> range:
        """Its stretch of so many chunks; those of all shards are the whole."""
        return range(self.number * chunks // self.count, (self.number + 1) * chunks // self.count)


class Parts:
    """The folder of parts of one output, locked for as long as the context lasts.

    Shards share the folder, each with a lock and a manifest of its own; what one has made all others find done.
    """

    def __init__(self, output: Path, shard: Shard | None = None) -> None:
        self.folder = output.with_name(f".{output.name}.parts")
        self._output, self._shard = output, shard
        suffix = f"-{shard.number}-of-{shard.count}" if shard is not None else ""
        self._lock = filelock.FileLock(self.folder / f"lock{suffix}", timeout=0)
        self._manifest = self.folder / f"manifest{suffix}.jsonl"
        self._plan = self.folder / f"plan{suffix}.json"
        self._unfinished = f"{suffix}.unfinished"
        self._made = False
        self.done: dict[int, Part] = {}

    def __enter__(self) -> Parts:
        """Raises DataError where another run holds the folder, or it cannot be made."""
        with ExitStack() as undo:
            try:
                hold(self._lock)
                undo.callback(self._lock.release)
                # Shards go side by side; a run of all of it goes alone.
                self._refuse_live("lock" if self._shard is not None else "lock-*")
            except filelock.Timeout:
                raise self._busy() from None
            except OSError as error:
                raise cannot_write(self._output, error) from None
            undo.pop_all()
        return self

    def _refuse_live(self, locks: str) -> None:
        """Raise DataError where another run holds one of these locks."""
        for path in self.folder.glob(locks):
            if path != Path(self._lock.lock_file):
                try:
                    # Another that looks, too, holds it for an instant.
                    with filelock.FileLock(path, timeout=2):
                        pass
                except filelock.Timeout:
                    raise self._busy() from None

    def _busy(self) -> DataError:
        return DataError(f"{self._output}: another run is writing it; wait for that one, or name another file")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A job without a finished part has nothing to go on with; one that we were refused to touch may have.
        begun = [manifest for manifest in self._manifests() if len(self._lines(manifest)) > 1]
        if self._made or (self._shard is None and not begun):
            self.remove()
        elif self._manifest not in begun:
            for path in (self._manifest, self._plan, Path(self._lock.lock_file)):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                self.folder.rmdir()
        self._lock.release()

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this run may make the output: among shards that finish at the same time one does."""
        lock = filelock.FileLock(self.folder / "lock", timeout=0)
        with ExitStack() as stack:
            if self._shard is not None:
                try:
                    stack.enter_context(lock)
                except (filelock.Timeout, OSError):
                    yield False
                    return
            yield self.job() is not None

    def finish(self) -> None:
        """The output is made of the parts, which nobody needs any more."""
        self.clear()
        self._made = True

    def job(self) -> Job | None:
        """The job that the folder was begun for, None if it is new."""
        return next(iter(self.jobs()), None)

    def jobs(self) -> list[Job]:
        """Those of all manifests: another one than that of the rest is of a run that ended at its start."""
        return [Job(job) for manifest in self._manifests() for job in self._lines(manifest)[:1]]

    def begin(self, job: Job) -> None:
        """Start, or go on where a killed run of the same job was; parts that changed since then are made anew."""
        if self.jobs() and job not in self.jobs():
            # What others are at must not vanish under their hands.
            self._refuse_live("lock*")
            self.clear()
        if not self._lines(self._manifest):
            self._append(job)
        for manifest in self._manifests():
            if self._lines(manifest)[:1] not in ([], [job]):
                # Of two jobs that began at the same time the other must have ended before its work began.
                self._refuse_live(f"lock{manifest.stem.removeprefix('manifest')}")
                manifest.unlink(missing_ok=True)
        self.look()

    def look(self) -> None:
        """Find the parts that are done, those of other shards among them."""
        self.done = {}
        job = self.job()
        for manifest in self._manifests():
            first, *lines = self._lines(manifest) or [job]
            for line in lines if first == job else []:
                part = Part(**line)
                found = (self._hash(self._labels(part.number)), self._hash(self._rejects(part.number)))
                if found == (part.labels, part.rejects):
                    self.done[part.number] = part

    def plan(self, content: Mapping[str, Any]) -> None:
        """Keep what is needed to make the output without the dump: any shard may be the last, or `merge` come later."""
        with whole_file(self._plan) as file:
            file.write(json.dumps(content).encode())

    def planned(self) -> dict[str, Any] | None:
        """What `plan` kept, of whichever shard."""
        paths = sorted(self.folder.glob("plan*.json"))
        found: dict[str, Any] | None = json.loads(paths[0].read_bytes()) if paths else None
        return found

    def schema(self) -> pl.Schema:
        """The columns of the labels, from a part."""
        return pl.Schema(pl.read_parquet_schema(self._labels(min(self.done))))

    def _manifests(self) -> list[Path]:
        return sorted(self.folder.glob("manifest*.jsonl"))

    def add(self, part: Part, table: pl.DataFrame, rejects: Sequence[Reject]) -> None:
        """Write a part: its labels and its rejects, then its line. `part` comes without hashes."""
        buffer = io.BytesIO()
        table.write_parquet(buffer, compression="zstd")
        lines = b"".join(orjson.dumps(reject.as_dict(), option=orjson.OPT_APPEND_NEWLINE) for reject in rejects)
        try:
            self._write(self._labels(part.number), buffer.getvalue())
            self._write(self._rejects(part.number), lines)
            whole = replace(part, labels=_digest(buffer.getvalue()), rejects=_digest(lines))
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
        for path in [*self.folder.glob("part-*"), *self._manifests(), *self.folder.glob("plan*.json")]:
            path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Forget the parts that this run has made, or of a run without shards every part."""
        if self._shard is None:
            self.clear()
        for path in (self._manifest, self._plan):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Take the folder away: its work is done, or there is none in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _labels(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    def _rejects(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.rejects.jsonl"

    def _write(self, path: Path, content: bytes) -> None:
        unfinished = path.with_name(path.name + self._unfinished)
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)

    def _lines(self, manifest: Path) -> list[Any]:
        """A manifest; a last line that was cut short by a kill is no line, and of our own is cut off."""
        try:
            content = manifest.read_bytes()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content) and manifest == self._manifest:
            os.truncate(manifest, len(whole))
        lines = []
        for line in whole.splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break  # What rotted was never made, and what comes after it is made anew as well.
        return lines

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
