"""Rejects: the rows of a dump that are no papers, each with where it stands and why it is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import orjson

from arxivclf.corpus.sources import is_remote, remote_output
from arxivclf.files import whole_file

RAW_CHARACTERS = 2_000


@dataclass(frozen=True)
class Reject:
    """A row that is no paper. `unit` is line or row, counted from 1; `raw` what it holds, cut as `id` is to
    RAW_CHARACTERS."""

    source: str
    unit: str
    row: int
    id: str | None
    reason: str
    raw: str

    def as_dict(self) -> dict[str, Any]:
        paper_id = self.id[:RAW_CHARACTERS] if self.id is not None else None
        return {"source": self.source, self.unit: self.row, "id": paper_id, "reason": self.reason, "raw": self.raw}


def in_words(reasons: Mapping[str, int]) -> str:
    """Counts by reason, the most frequent first: `14 malformed id, 2 not JSON`."""
    frequent = sorted(reasons.items(), key=lambda item: -item[1])
    return ", ".join(f"{count:,} {reason}" for reason, count in frequent)


class RejectsFile:
    """Rejects as JSON lines; use it as a context. There is no file where there are no rejects, or no path is given:
    that of an earlier run goes when all is well.

    `reasons` counts them as they come.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.reasons: dict[str, int] = {}
        self._open = ExitStack()
        self._file: BinaryIO | None = None

    @property
    def count(self) -> int:
        return sum(self.reasons.values())

    def write(self, rejects: Iterable[Reject]) -> None:
        for reject in rejects:
            self.reasons[reject.reason] = self.reasons.get(reject.reason, 0) + 1
            if self.path is None:
                continue
            if self._file is None:
                self._file = self._open.enter_context(whole_file(self.path))
            self._file.write(orjson.dumps(reject.as_dict(), option=orjson.OPT_APPEND_NEWLINE))

    def __enter__(self) -> RejectsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Closed as if all were well: what was rejected before a failure is what tells its cause.
        self._open.close()
        if kind is None and self._file is None and self.path is not None:
            take_away(self.path)


@contextmanager
def rejects_at(path: str) -> Iterator[RejectsFile]:
    """Rejects that go to a file here or in a remote store, where nothing appears before the block ends."""
    if not is_remote(path):
        with RejectsFile(Path(path)) as file:
            yield file
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder, "rejects.jsonl")
        try:
            with RejectsFile(copy) as file:
                yield file
        finally:
            if copy.exists():
                with open(copy, "rb") as found, remote_output(path) as remote:
                    shutil.copyfileobj(found, remote)


def take_away(path: Path) -> None:
    """Remove the rejects of an earlier run: beside new results they would tell of rows that are none of theirs."""
    if holds_rejects(path):
        path.unlink(missing_ok=True)


def holds_rejects(path: Path) -> bool:
    """Whether a file may give way to new rejects: it is not there, is empty, or holds rejects of an earlier run."""
    try:
        with open(path, "rb") as file:
            first = file.readline(1 << 20)
        return not first or {"source", "reason", "raw"} <= set(orjson.loads(first))
    except FileNotFoundError:
        return True
    except (OSError, orjson.JSONDecodeError, TypeError):
        return False
