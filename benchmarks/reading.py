"""How fast a dump is read, without scoring, beside what polars takes for the same columns of the same file.

    python benchmarks/reading.py arxiv.parquet

Prints papers per second for the Parquet file and for the same papers as JSON lines, each with its ratio to polars, the
best of three runs in turn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from arxivclf.corpus.snapshot import Snapshot
from arxivclf.corpus.sources import Source

COLUMNS = ["id", "title", "abstract", "categories", "versions"]


def rows_read(path: Path) -> int:
    return sum(len(chunk.papers) + len(chunk.rejects) for chunk in Snapshot((Source(str(path), path),)).chunks())


def rate(read: Callable[[], int]) -> float:
    started = time.perf_counter()
    return read() / (time.perf_counter() - started)


def compare(name: str, ours: Callable[[], int], peer_name: str, peer: Callable[[], int]) -> None:
    rates = [(rate(ours), rate(peer)) for _ in range(3)]
    mine, theirs = (max(side) for side in zip(*rates, strict=True))
    print(f"{name:<12} {mine:>9,.0f} papers/s   {peer_name} {theirs:>9,.0f} rows/s   ratio {mine / theirs:.2f}")


def main(path: Path) -> None:
    with TemporaryDirectory() as folder:
        lines = Path(folder) / "dump.jsonl"
        pl.read_parquet(path).write_ndjson(lines)
        compare(
            "Parquet",
            lambda: rows_read(path),
            "polars.read_parquet",
            lambda: len(pl.read_parquet(path, columns=COLUMNS)),
        )
        schema = pl.read_ndjson(lines, n_rows=1_000).select(COLUMNS).schema
        compare(
            "JSON lines",
            lambda: rows_read(lines),
            "polars.read_ndjson",
            lambda: len(pl.read_ndjson(lines, schema=schema)),
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
