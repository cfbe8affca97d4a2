"""Samples of a dump: rows from all over it, in files of the form that the dump has."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from arxivclf.corpus import parquet
from arxivclf.corpus.snapshot import is_packed, is_parquet, lines_of
from arxivclf.corpus.sources import Source

# Papers of one time stand together in a dump, and of some the gate decides more: so many places are looked at.
_STRETCHES = 16
_LINES_READ = 20_000
_BATCH_ROWS = 1_024


def count_rows(source: Source) -> tuple[int, bool]:
    """The rows of a file, and whether they were counted: those of JSON lines are told by the bytes of the first."""
    if is_parquet(source):
        return parquet.rows(source), True
    shares = [share for _, share in itertools.islice(lines_of(source), _LINES_READ)]
    return (len(shares), True) if len(shares) < _LINES_READ else (round(len(shares) / shares[-1]), False)


def sample(sources: Sequence[Source], rows: Sequence[int], size: int, folder: Path) -> list[Path]:
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
