"""Repeats: papers whose id comes again later in the dump, in this or another version.

Found in a pass of its own over the whole dump. Memory stays bounded: ids are kept as 128-bit hashes, and from
SPILL_PAPERS on they go to disk, parted by their first bits, so that one part at a time is sorted; what remains is one
bit for each paper.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import xxhash

SPILL_PAPERS = 500_000

_PARTS = 64
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("place", "<i8")])

Records = np.ndarray[tuple[int], np.dtype[np.void]]
Bits = np.ndarray[tuple[int], np.dtype[np.uint8]]
Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]


class Repeats:
    """Which papers of a dump are superseded, by their place among all its papers (from 0)."""

    def __init__(self, bits: Bits) -> None:
        self._bits = bits

    @classmethod
    def find(cls, keys: Iterable[pl.Series], folder: Path, spill_papers: int = SPILL_PAPERS) -> Repeats:
        """From the keys (columns.PAPER) of all papers in the order of the dump, chunk by chunk.

        `folder` is where hashes go that are too many; nothing stays there.
        """
        waiting: list[Records] = []
        files = [folder / f"repeats-{part:02d}" for part in range(_PARTS)]
        for file in folder.glob("repeats-*"):
            # What a run that was killed here had counted would be counted twice.
            file.unlink(missing_ok=True)
        papers = held = 0
        spilled = False
        for series in keys:
            waiting.append(_records(series, papers))
            papers += len(series)
            held += len(series)
            if held >= spill_papers:
                _spill(np.concatenate(waiting), files)
                waiting, held, spilled = [], 0, True
        bits = np.zeros(papers // 8 + 1, dtype=np.uint8)
        if not spilled:
            if waiting:
                _mark(np.concatenate(waiting), bits)
            return cls(bits)
        if waiting:
            _spill(np.concatenate(waiting), files)
        for file in files:
            if file.exists():
                _mark(np.fromfile(file, dtype=_RECORD), bits)
                file.unlink()
        return cls(bits)

    def among(self, first: int, count: int) -> Flags:
        """For `count` papers from place `first` on, whether a later paper of the dump has the same id."""
        start = first // 8
        bits = np.unpackbits(self._bits[start : (first + count) // 8 + 1], bitorder="little")
        return bits[first - 8 * start : first - 8 * start + count].astype(bool)


def _records(keys: pl.Series, first: int) -> Records:
    digests = b"".join(map(xxhash.xxh3_128_digest, keys.cast(pl.Binary)))
    halves = np.frombuffer(digests, dtype=">u8").reshape(-1, 2)
    records = np.empty(len(keys), dtype=_RECORD)
    records["high"], records["low"] = halves[:, 0], halves[:, 1]
    records["place"] = np.arange(first, first + len(keys))
    return records


def _spill(records: Records, files: list[Path]) -> None:
    part = (records["high"] >> np.uint64(58)).astype(np.int64)
    for number, file in enumerate(files):
        with open(file, "ab") as out:
            out.write(records[part == number].tobytes())


def _mark(records: Records, bits: Bits) -> None:
    records = records[np.lexsort((records["place"], records["low"], records["high"]))]
    same = (records["high"][:-1] == records["high"][1:]) & (records["low"][:-1] == records["low"][1:])
    superseded = records["place"][:-1][same]
    np.bitwise_or.at(bits, superseded >> 3, (1 << (superseded & 7)).astype(np.uint8))
