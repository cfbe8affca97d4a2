"""How a long job tells what it is doing, without knowing who listens.

A job calls the methods of a Watcher; this one keeps silent. The command line has one that draws a bar and one that
writes events to a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from arxivclf.errors import DeviceError


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


def rank_and_count() -> tuple[int, int]:
    """The number of this process, from 0, and how many there are, as torchrun says it in the environment; 0 and 1 where
    it says nothing. DeviceError where these are no numbers."""
    try:
        count = int(os.environ.get("WORLD_SIZE", "1"))
        # A rank alone is none of torchrun's.
        return (int(os.environ.get("RANK", "0")) if count > 1 else 0), count
    except ValueError:
        raise DeviceError("RANK and WORLD_SIZE are set, but not to numbers; torchrun sets them") from None


def is_first() -> bool:
    """Whether this process is the one that writes and speaks: of several the first."""
    return rank_and_count()[0] == 0
