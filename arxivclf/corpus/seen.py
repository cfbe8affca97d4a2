"""Which papers a model has seen before it labels any, so that nobody judges it by these without knowing.

The model folder keeps 40 bits of a hash of each paper's ID, in `seen.safetensors`, in about three bytes a paper. With
half a million training papers, one of two million other papers has the same bits as one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import zstandard

from arxivclf.corpus.text import hash_texts
from arxivclf.errors import ModelError, one_line

SEEN_FILE = "seen.safetensors"
LEARNT, FITTED = "learnt", "fitted"

_BITS = 40
# More papers than there are: 8 bytes each of 500 million.
_LARGEST = 4_000_000_000

Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """The papers that models have `learnt` from, and others that thresholds and the like were `fitted` to.

    Both are the first 40 bits of the XXH3 (64 bits) of the one spelling of each paper's ID (`corpus.ids`), ascending,
    each once. `models` are the names of the models, where somebody is to be told.
    """

    learnt: Hashes
    fitted: Hashes
    models: tuple[str, ...] = ()

    @classmethod
    def of(cls, learnt: pl.Series, fitted: pl.Series) -> Seen:
        """Of papers by the one spelling of their ids."""
        return cls.union([cls(_hashes(learnt), _hashes(fitted))])

    @classmethod
    def union(cls, parts: Iterable[Seen]) -> Seen:
        """What any of them has seen; to have learnt from a paper is the more."""
        parts = [*parts, cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64))]
        learnt = np.unique(np.concatenate([one.learnt for one in parts]))
        fitted = np.setdiff1d(np.concatenate([one.fitted for one in parts]), learnt)
        return cls(learnt, fitted, tuple(name for one in parts for name in one.models))

    def among(self, keys: pl.Series) -> Flags:
        """Which papers it has seen at all, bool (papers,)."""
        hashes = _hashes(keys)
        found: Flags = _in(hashes, self.learnt) | _in(hashes, self.fitted)
        return found

    def count(self, keys: pl.Series) -> dict[str, int]:
        """How many papers are LEARNT, and how many FITTED; without what is none."""
        hashes = _hashes(keys)
        counts = {LEARNT: int(_in(hashes, self.learnt).sum()), FITTED: int(_in(hashes, self.fitted).sum())}
        return {name: count for name, count in counts.items() if count}

    def write(self, folder: Path) -> None:
        """Keep it in a model folder."""
        from safetensors.numpy import save_file

        save_file({LEARNT: _packed(self.learnt), FITTED: _packed(self.fitted)}, folder / SEEN_FILE)

    @classmethod
    def read(cls, folder: Path) -> Seen | None:
        """That of a model folder; None where none is told. Raises ModelError where it is broken."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = folder / SEEN_FILE
        if not path.exists():
            return None
        try:
            found = load_file(path)
            seen = cls(_unpacked(found[LEARNT]), _unpacked(found[FITTED]))
        except (SafetensorError, OSError, KeyError, ValueError, zstandard.ZstdError) as error:
            raise ModelError(f"{path}: cannot be read: {one_line(error)}") from None
        return seen


def told(counts: Mapping[str, int]) -> str:
    """Counts of papers in words."""
    words = ((LEARNT, "taught the model"), (FITTED, "tuned it" if LEARNT in counts else "tuned the model"))
    return ", ".join(f"{counts[name]:,} {what}" for name, what in words if name in counts)


def _hashes(keys: pl.Series) -> Hashes:
    hashes: Hashes = hash_texts(keys).to_numpy() >> np.uint64(64 - _BITS)
    return hashes


def _packed(hashes: Hashes) -> Bytes:
    """Ascending hashes as the bytes of their differences, all first bytes before all second ones, compressed."""
    differences = np.diff(hashes, prepend=np.uint64(0)).astype("<u8")
    planes = np.ascontiguousarray(differences.view(np.uint8).reshape(-1, 8).T)
    return np.frombuffer(zstandard.ZstdCompressor(level=9).compress(planes.tobytes()), np.uint8)


def _unpacked(packed: Bytes) -> Hashes:
    """The hashes that `_packed` wrote. Raises ValueError or ZstdError for anything else."""
    if packed.dtype != np.uint8 or packed.ndim != 1:
        raise ValueError("the hashes are not bytes")
    data = packed.tobytes()
    # The header states the size, so that damaged or hostile data cannot fill the memory.
    if not 0 <= zstandard.frame_content_size(data) <= _LARGEST:
        raise ValueError("the hashes state no plausible size")
    planes = np.frombuffer(zstandard.ZstdDecompressor().decompress(data), np.uint8)
    if len(planes) % 8:
        raise ValueError("the hashes are cut short")
    differences = np.ascontiguousarray(planes.reshape(8, -1).T).view("<u8").ravel()
    hashes = differences.astype(np.uint64).cumsum(dtype=np.uint64)
    if (hashes >= np.uint64(1 << _BITS)).any() or not (hashes[:-1] < hashes[1:]).all():
        raise ValueError("the hashes are not ascending numbers of 40 bits")
    return hashes


def _in(hashes: Hashes, sorted_ones: Hashes) -> Flags:
    places = np.searchsorted(sorted_ones, hashes)
    found: Flags = np.append(sorted_ones, np.uint64(0))[places] == hashes
    return found & (places < len(sorted_ones))
