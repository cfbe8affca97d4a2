"""How a long job tells what it is doing, without knowing who listens.

A job calls the methods of a Watcher; this one keeps silent. The command line has one that draws a bar and one that
writes events to a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class Watcher:
    """Hears of the stages of a job. All methods may be overridden."""

    def begin(self, stage: str, total: int | None, done: int = 0) -> None:
        """A stage starts; `total` is its count of papers, None where nobody knows it, `done` those done before."""

    def advance(self, papers: int, share: float | None = None, **facts: float) -> None:
        """`papers` more are done; `share` is the share of the stage done so far, where papers cannot be counted ahead.

        `facts` are the latest figures of interest: `loss`, `rejects`.
        """

    def end(self) -> None:
        """The stage that began last is over."""

    def say(self, text: str, **facts: object) -> None:
        """A line that a person should read, and the figures in it."""

    @contextmanager
    def stage(self, stage: str, total: int | None = None, done: int = 0) -> Iterator[None]:
        """Begin and end a stage around a block."""
        self.begin(stage, total, done)
        try:
            yield
        finally:
            self.end()


def is_first() -> bool:
    """Whether this process is the one that writes and speaks: of several that torchrun started the first."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
