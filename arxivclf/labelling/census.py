"""The first pass over a dump: how many papers each chunk holds, which ids come again, and whether it is a dump."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import polars as pl

from arxivclf.config import LabelSettings
from arxivclf.corpus.columns import MALFORMED_ID, NUMERIC_ID
from arxivclf.corpus.rejects import Reject, in_words, rejects_at
from arxivclf.corpus.repeats import Repeats
from arxivclf.corpus.snapshot import Snapshot
from arxivclf.corpus.tasks import Task
from arxivclf.corpus.truths import Wording
from arxivclf.errors import DataError
from arxivclf.labelling.ahead import ahead
from arxivclf.labelling.parts import Parts
from arxivclf.progress import Watcher

REPEATED = "the id comes again later"
_HINTS = {
    NUMERIC_ID: "ids are text, for as numbers they lose zeros",
    MALFORMED_ID: "ids that are not arXiv's are taken from a column that --id-column names",
}

Place = tuple[int, int, int, int]
"""Of a chunk: its number, its file, its first and its last row."""


@dataclass(frozen=True)
class Census:
    """What the first pass found: the papers of each chunk, rejects by reason, repeated ids, and how labels are worded.

    With it any chunk can be labelled without those before it: where its papers stand among all, and how many of a
    `limit` are left for it.
    """

    papers: Sequence[int]
    reasons: Mapping[str, int]
    repeats: Repeats | None
    wording: Wording
    limit: int | None

    @property
    def count(self) -> int:
        """All papers, repeats among them."""
        return sum(self.papers)

    @cached_property
    def chunks(self) -> int:
        """The chunks that a run labels: all, or those until the limit is reached."""
        if self.limit is None:
            return len(self.papers)
        return next((at for at, taken in enumerate(self._taken) if taken == self.limit), len(self.papers))

    def papers_of(self, number: int) -> int:
        """The papers of a chunk that are labelled."""
        return self._taken[number + 1] - self._taken[number]

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate(self.papers, initial=0))

    @cached_property
    def _taken(self) -> list[int]:
        """How many papers are labelled before each chunk, and in all."""
        kept = [
            papers - (int(self.repeats.among(start, papers).sum()) if self.repeats is not None else 0)
            for start, papers in zip(self._starts, self.papers, strict=False)
        ]
        taken = list(accumulate(kept, initial=0))
        return taken if self.limit is None else [min(self.limit, each) for each in taken]

    def chosen(
        self, snapshot: Snapshot, chunk_rows: int, wanted: Callable[[int], bool]
    ) -> Iterator[tuple[Place, pl.DataFrame, list[Reject]]]:
        """The chunks that are `wanted`, each by its place, without repeats and what is over the limit."""
        for chunk in snapshot.chunks(chunk_rows, lambda number: number < self.chunks and wanted(number)):
            # A file that has not told its columns yet hands out every chunk.
            if chunk.number >= self.chunks or not wanted(chunk.number):
                continue
            papers, rejects = chunk.papers, chunk.rejects
            if self.repeats is not None and len(papers):
                repeated = pl.Series(self.repeats.among(self._starts[chunk.number], len(papers)))
                if repeated.any():
                    rejects = rejects + chunk.reject(papers.filter(repeated).get_column("row").to_list(), REPEATED)
                    rejects = sorted(rejects, key=lambda reject: reject.row)
                    papers = papers.filter(~repeated)
            if len(papers):
                papers = self.wording.understood(papers)
            if self.limit is not None:
                papers = papers.head(self.papers_of(chunk.number))
                if len(papers) and self._taken[chunk.number + 1] == self.limit:
                    last = papers.get_column("row").to_list()[-1]
                    rejects = [reject for reject in rejects if reject.row <= last]
            yield (chunk.number, chunk.file, *chunk.rows), papers, rejects
            if chunk.number == self.chunks - 1:
                return


def take_census(
    snapshot: Snapshot, task: Task, settings: LabelSettings, folder: Path, watcher: Watcher, wanted: threading.Event
) -> Census:
    """Read the dump once; `folder` is for hashes too many for memory. KeyboardInterrupt once a stop is `wanted`."""
    papers: list[int] = []
    wording = Wording(task)
    reasons: dict[str, int] = {}

    def keys() -> Iterator[pl.Series]:
        for chunk in ahead(snapshot.chunks(settings.chunk_rows)):
            stop_if(wanted)
            papers.append(len(chunk.papers))
            for reason, count in reasons_of(chunk.rejects).items():
                reasons[reason] = reasons.get(reason, 0) + count
            watcher.advance(len(chunk.papers), chunk.share, rejects=sum(reasons.values()))
            if len(chunk.papers):
                wording.add(chunk.papers)
                yield chunk.papers.get_column("key")

    with watcher.stage("Counting"):
        if settings.keep_duplicates:
            repeats = None
            for _ in keys():
                pass
        else:
            repeats = Repeats.find(keys(), folder)
    return Census(papers, reasons, repeats, wording, settings.limit)


def refuse_wrong_file(
    snapshot: Snapshot, census: Census, settings: LabelSettings, rejects_path: str, parts: Parts | None
) -> None:
    """Raise DataError, with the rejects in their file, where the share of rejects is more than was allowed.

    Repeated ids are rejects, too, but no sign of a wrong file. Of several shards one writes; `parts` tell which.
    """
    rejected = sum(census.reasons.values())
    rows = rejected + census.count
    if census.count and rejected <= settings.max_rejects * rows:
        return
    with parts.alone() if parts is not None else nullcontext(True) as may:
        if may:
            with rejects_at(rejects_path) as file:
                for chunk in snapshot.chunks():
                    file.write(chunk.rejects)
    names, why = ", ".join(settings.snapshots), in_words(census.reasons)
    most = max(census.reasons, key=lambda reason: census.reasons[reason], default="")
    hint = f"; {_HINTS[most]}" if most in _HINTS else ""
    if not census.count:
        raise DataError(f"no paper in {names}: {why}; see {rejects_path}{hint}")
    raise DataError(
        f"{rejected:,} of {rows:,} rows of {names} would be rejected ({why}), a larger share than"
        f" --max-rejects {settings.max_rejects:g}; nothing was labelled, see {rejects_path}{hint}"
    )


def stop_if(wanted: threading.Event) -> None:
    """KeyboardInterrupt once a stop is wanted."""
    if wanted.is_set():
        raise KeyboardInterrupt


def reasons_of(rejects: Iterable[Reject]) -> dict[str, int]:
    """How many rejects there are for each reason."""
    return dict(Counter(reject.reason for reject in rejects))
