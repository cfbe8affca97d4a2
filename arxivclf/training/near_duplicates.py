"""Texts that are nearly the same as a training text, which would make a test split look better than it is.

Two papers are near-duplicates where the sets of their features (model.words) have a Jaccard similarity of SIMILAR or
more. Candidates come from MinHash signatures (Broder 1997) in bands, of one permutation in bins (Li, Owen and Zhang
2012): features stand in the order of their hashes, so that the first of each bin is its minimum. The features of
candidates are compared in full.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from arxivclf.model.words import Counted

SIMILAR = 0.8

_BINS = 16
# Four bands of four bins: of pairs with similarity 0.9 some 99 % are candidates, of 0.8 some 88 %, of 0.3 some 3 %.
_BAND = 4
# Enough of the smallest features of a text for each bin to have one, and few enough to be quick.
_SMALLEST = 96
_AT_ONCE = 8_192
# A common phrase can make one band of many texts equal; such a group says nothing, and its pairs would be too many.
_LARGEST_GROUP = 200

Flags = npt.NDArray[np.bool_]


def near_duplicates(texts: Counted, among: Counted) -> Flags:
    """Which of the `texts` are nearly the same as one of the texts `among`, bool (texts,)."""
    pairs = _candidates(_signatures(texts), _signatures(among))
    duplicate = np.zeros(len(texts), dtype=bool)
    for mine, theirs in pairs.iter_rows():
        duplicate[mine] = duplicate[mine] or _similarity(_features(texts, mine), _features(among, theirs)) >= SIMILAR
    return duplicate


def _signatures(counted: Counted) -> npt.NDArray[np.int32]:
    """The smallest feature of each bin, int32 (texts, _BINS), -1 where none of the smallest of a text is in it."""
    signatures = np.full((len(counted), _BINS), -1, dtype=np.int32)
    for first in range(0, len(counted), _AT_ONCE):
        starts, ends = counted.bounds[:-1][first : first + _AT_ONCE], counted.bounds[1:][first : first + _AT_ONCE]
        which = starts[:, None] + np.arange(_SMALLEST)
        # What lies beyond the end of a text is in no bin.
        features = np.where(which < ends[:, None], np.append(counted.places, -1)[np.minimum(which, ends[:, None])], -1)
        bins = np.where(features >= 0, features & (_BINS - 1), _BINS)
        for each in range(_BINS):
            there = bins == each
            smallest = features[np.arange(len(starts)), there.argmax(axis=1)]
            signatures[first : first + _AT_ONCE, each] = np.where(there.any(axis=1), smallest, -1)
    return signatures


def _candidates(mine: npt.NDArray[np.int32], theirs: npt.NDArray[np.int32]) -> pl.DataFrame:
    """Pairs of rows that agree in a whole band and in half of all bins, each once."""
    found = [pl.DataFrame(schema={"mine": pl.Int64, "theirs": pl.Int64})]
    for first in range(0, _BINS, _BAND):
        bands = [f"bin {which}" for which in range(first, first + _BAND)]
        tables = [
            pl.DataFrame(signatures[:, first : first + _BAND], schema=bands)
            .with_columns(pl.int_range(pl.len()).alias(side))
            .filter(pl.all_horizontal(pl.col(name) >= 0 for name in bands))
            for side, signatures in (("mine", mine), ("theirs", theirs))
        ]
        small = tables[1].filter(pl.len().over(bands) <= _LARGEST_GROUP)
        found.append(tables[0].join(small, on=bands).select("mine", "theirs"))
    pairs = pl.concat(found).unique().sort("mine", "theirs")
    agree = (mine[pairs["mine"].to_numpy()] == theirs[pairs["theirs"].to_numpy()]).sum(axis=1)
    return pairs.filter(pl.Series(agree >= _BINS // 2))


def _features(counted: Counted, text: int) -> npt.NDArray[np.int32]:
    return counted.places[counted.bounds[text] : counted.bounds[text + 1]]


def _similarity(first: npt.NDArray[np.int32], second: npt.NDArray[np.int32]) -> float:
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)
