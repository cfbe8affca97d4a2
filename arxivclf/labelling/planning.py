"""How long a dump will take: a sample of it is labelled here, for real, and the rest is arithmetic."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pyarrow.parquet as pq

from arxivclf.config import LabelSettings
from arxivclf.corpus import parquet
from arxivclf.corpus.columns import Naming
from arxivclf.corpus.snapshot import Snapshot, is_packed, is_parquet, lines_of
from arxivclf.corpus.sources import STANDARD_INPUT, Source, fetch, is_remote, resolve
from arxivclf.errors import DataError, UsageError
from arxivclf.labelling.job import LabelSummary
from arxivclf.labelling.run import label
from arxivclf.model.labels import BY_GATE
from arxivclf.progress import Watcher

# Papers of one time stand together in a dump, and of some the gate decides more: so many places are looked at.
_STRETCHES = 16
_FIRST_ROWS = 512
_LINES_READ = 20_000
_BATCH_ROWS = 1_024
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


def _rows(source: Source) -> tuple[int, bool]:
    """The rows of a file, and whether they were counted: those of JSON lines are told by the bytes of the first."""
    if is_parquet(source):
        return parquet.rows(source), True
    shares = [share for _, share in itertools.islice(lines_of(source), _LINES_READ)]
    return (len(shares), True) if len(shares) < _LINES_READ else (round(len(shares) / shares[-1]), False)


def _sample(sources: Sequence[Source], rows: Sequence[int], size: int, folder: Path) -> list[Path]:
    """Files of `size` rows together, from all over each source by its share of all rows, in the form that it has."""
    paths, before, whole = [], 0, sum(rows)
    for number, (source, count) in enumerate(zip(sources, rows, strict=True)):
        taken = size * (before + count) // whole - size * before // whole
        before += count
        if not taken:
            continue
        if is_parquet(source):
            paths.append(folder / f"{number:06d}.parquet")
            _sample_parquet(source, count, taken, paths[-1])
        else:
            paths.append(folder / f"{number:06d}.jsonl")
            paths[-1].write_bytes(b"".join(_sample_lines(source, count, taken)))
    return paths


def _sample_parquet(source: Source, rows: int, size: int, path: Path) -> None:
    with parquet.opened(source) as file:
        groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = list(itertools.accumulate(groups, initial=0))
        with pq.ParquetWriter(path, file.schema_arrow, compression="zstd") as writer:
            for first, count in _stretches(rows, size):
                group = max(place for place in range(len(groups)) if starts[place] <= first)
                skip = first - starts[group]
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=list(range(group, len(groups)))):
                    part = batch.slice(skip, count)
                    skip = max(0, skip - batch.num_rows)
                    writer.write_batch(part)
                    count -= part.num_rows
                    if not count:
                        break


def _sample_lines(source: Source, rows: int, size: int) -> Iterator[bytes]:
    """Lines from all over a plain file; of a packed one, which is read from its start alone, the first."""
    if size >= rows or is_packed(source):
        yield from (line for line, _ in itertools.islice(lines_of(source), size))
        return
    bytes_ = source.path.stat().st_size
    with open(source.path, "rb") as file:
        for place, (_, count) in enumerate(_stretches(size, size)):
            file.seek(bytes_ * place // min(_STRETCHES, size))
            if place:
                file.readline()
            yield from itertools.islice(file, count)


def _stretches(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """First row and count of evenly spaced stretches, that are `size` rows together."""
    many = min(_STRETCHES, size)
    for number in range(many):
        count = size * (number + 1) // many - size * number // many
        yield min(rows * number // many, rows - count), count
