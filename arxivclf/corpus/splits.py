"""Which side of the split a paper is on, and which papers a sample takes, from nothing but its id.

A hash of the id decides, so that a paper never changes sides when the dump grows, is sorted, or loses papers.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import xxhash

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SHARES = {TRAIN: 0.70, VALIDATION: 0.15, TEST: 0.15}

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

_SPLIT_SEED = 0x5B17
_SAMPLE_SEED = 0x5A3B1E


def split_by_hash(keys: pl.Series) -> pl.Series:
    """The side of each paper: 70 % train, 15 % validation, 15 % test, as strings."""
    position = _unit_hash(keys, _SPLIT_SEED)
    return _sides(position)


def split_by_time(created: pl.Series, keys: pl.Series) -> pl.Series:
    """The side of each paper by age: the oldest 70 % train, then 15 % validation, the newest 15 % test.

    Papers of one date are ordered by their hash; those of unknown date count as the oldest.
    """
    frame = pl.DataFrame({"created": created, "tie": _unit_hash(keys, _SPLIT_SEED)}).with_row_index("row")
    order = frame.sort("created", "tie", nulls_last=False).get_column("row")
    position = np.empty(len(frame))
    position[order.to_numpy()] = np.arange(len(frame)) / max(1, len(frame))
    return _sides(position)


def sample_order(keys: pl.Series, seed: int) -> pl.Series:
    """A number in [0, 1) for each paper, float64: a sample of a share s is all papers below s, one of n the n lowest.

    It is independent of the split, so that a sample holds 70, 15 and 15 % of each side.
    """
    return pl.Series("sample_order", _unit_hash(keys, _SAMPLE_SEED + seed))


def _sides(position: Floats) -> pl.Series:
    frame = pl.DataFrame({"position": position})
    return frame.select(
        side=pl.when(pl.col("position") < SHARES[TRAIN])
        .then(pl.lit(TRAIN))
        .when(pl.col("position") < SHARES[TRAIN] + SHARES[VALIDATION])
        .then(pl.lit(VALIDATION))
        .otherwise(pl.lit(TEST))
    ).get_column("side")


def _unit_hash(keys: pl.Series, seed: int) -> Floats:
    digests = (xxhash.xxh3_64_intdigest(key, seed) for key in keys.cast(pl.Binary))
    hashes = np.fromiter(digests, dtype=np.uint64, count=len(keys))
    # 53 bits are what a float64 holds: more would round some papers up to 1.0.
    return (hashes >> np.uint64(11)).astype(np.float64) / 2.0**53
