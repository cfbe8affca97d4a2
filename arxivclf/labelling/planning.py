"""How long a dump will take: a sample of it is labelled here, for real, and the rest is arithmetic."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from arxivclf.config import LabelSettings
from arxivclf.corpus.columns import Naming
from arxivclf.corpus.snapshot import Snapshot
from arxivclf.corpus.sources import STANDARD_INPUT, fetch, is_remote, resolve
from arxivclf.errors import DataError, UsageError
from arxivclf.labelling.job import LabelSummary
from arxivclf.labelling.run import label
from arxivclf.labelling.sampling import count_rows as _rows
from arxivclf.labelling.sampling import sample as _sample
from arxivclf.model.labels import BY_GATE
from arxivclf.progress import Watcher

_FIRST_ROWS = 512
_MOST_ROWS = 400_000
# What the larger of two samples should take; their difference is the rate, without what every run costs once.
_SECONDS = 30.0


@dataclass(frozen=True)
class Plan:
    """What labelling a dump of `rows` rows takes, from `sampled` papers that were labelled.

    A run takes `fixed_s` seconds, whatever its size, and a second for each `papers_per_s` papers. `gate_share` is the
    share of papers that the gate decides, `exact` whether the rows were counted, and not estimated from their bytes.
    """

    rows: int
    exact: bool
    sampled: int
    gate_share: float
    fixed_s: float
    papers_per_s: float

    def seconds(self, workers: int = 1) -> float:
        """On so many machines like this one."""
        return self.fixed_s + self.rows / self.papers_per_s / workers

    def price(self, per_hour: float, workers: int = 1) -> float:
        """What they cost, at a price per machine and hour."""
        return self.seconds(workers) / 3600 * workers * per_hour


class _Sayings(Watcher):
    """Hears what is said in a job, such as which model labels, and nothing of its stages."""

    def __init__(self, listener: Watcher) -> None:
        self._listener = listener

    def say(self, text: str, **facts: object) -> None:
        self._listener.say(text, **facts)


def plan(settings: LabelSettings, watcher: Watcher | None = None) -> Plan:
    """Label samples from all over a dump with these settings, on this machine, and throw the labels away.

    Raises as `label` does, UsageError where the dump is not a file of this machine, DataError where it has no rows.
    """
    watcher = watcher or Watcher()
    names = resolve(settings.snapshots)
    for name in names:
        if name == STANDARD_INPUT or is_remote(name):
            raise UsageError(f"--plan {name}: only files of this machine can be sampled")
    with TemporaryDirectory() as folder:
        sources = fetch(names, Path(folder))
        counted = [_rows(source) for source in sources]
        rows = sum(count for count, _ in counted)
        if not rows:
            raise DataError(f"--plan {', '.join(names)}: no rows there")

        # What is wrong with a file is told of it, and not of its samples.
        Snapshot(tuple(sources), Naming.of(settings), settings.keep).check()

        def run(size: int, listener: Watcher | None = None) -> tuple[LabelSummary, float]:
            place = Path(mkdtemp(dir=folder))
            sample = _sample(sources, [count for count, _ in counted], size, place)
            started = time.monotonic()
            summary = label(
                replace(
                    settings,
                    snapshots=tuple(map(str, sample)),
                    output=str(place / "sample.labels.parquet"),
                    rejects=None,
                    limit=None,
                    engine="local",
                    ray_address=None,
                    workers=None,
                    shard=None,
                    max_rejects=1.0,
                ),
                listener,
            )
            return summary, time.monotonic() - started

        with watcher.stage("Labelling samples"):
            first, _ = run(min(rows, _FIRST_ROWS), _Sayings(watcher))
            watcher.advance(first.papers)
            small, small_s = run(min(rows, _FIRST_ROWS + 1))
            watcher.advance(small.papers)
            size, large, large_s = _FIRST_ROWS, small, small_s
            while large_s - small_s < _SECONDS / 2 and size < min(rows, _MOST_ROWS):
                # At first what is slow may be the start; a fourfold step cannot go far beyond what is wanted.
                aim = 4 * size if large is small else size * _SECONDS / max(large_s - small_s, 0.5)
                size = int(min(rows, _MOST_ROWS, max(2 * size, min(aim, 8 * size))))
                large, large_s = run(size)
                watcher.advance(large.papers)
    papers, seconds = large.papers - small.papers, large_s - small_s
    if papers <= 0 or seconds <= 0:
        # The whole dump is no more than a sample: it takes what it took.
        papers, seconds, fixed = max(1, small.papers), small_s, 0.0
    else:
        fixed = max(0.0, small_s - small.papers * seconds / papers)
    decided = large.decided.get(BY_GATE, 0) / max(1, large.papers)
    left = rows if settings.limit is None else min(rows, settings.limit)
    return Plan(left, all(exact for _, exact in counted), large.papers, decided, fixed, papers / seconds)
