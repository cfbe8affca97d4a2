"""Which papers a model has seen before it labels any, so that nobody judges it by these without knowing.

The model folder keeps a hash of each paper's id, in `seen.safetensors`. Of a million papers one has, once in 10^13, the
hash of a given other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from arxivclf.corpus.text import hash_texts
from arxivclf.errors import ModelError, one_line

SEEN_FILE = "seen.safetensors"
LEARNT, FITTED = "learnt", "fitted"

Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """The papers that models have `learnt` from, and others that thresholds and the like were `fitted` to.

    Both are the XXH3 (64 bits) of the one spelling of each paper's id (`corpus.ids`), ascending, each once. `models`
    are the names of the models, where somebody is to be told.
    """

    learnt: Hashes
    fitted: Hashes
    models: tuple[str, ...] = ()

    @classmethod
    def of(cls, learnt: pl.Series, fitted: pl.Series) -> Seen:
        """Of papers by the one spelling of their ids."""
        return cls.union([cls(hash_texts(learnt).to_numpy(), hash_texts(fitted).to_numpy())])

    @classmethod
    def union(cls, parts: Iterable[Seen]) -> Seen:
        """What any of them has seen; to have learnt from a paper is the more."""
        parts = [*parts, cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64))]
        learnt = np.unique(np.concatenate([one.learnt for one in parts]))
        fitted = np.setdiff1d(np.concatenate([one.fitted for one in parts]), learnt)
        return cls(learnt, fitted, tuple(name for one in parts for name in one.models))

    def among(self, keys: pl.Series) -> Flags:
        """Which papers it has seen at all, bool (papers,)."""
        hashes = hash_texts(keys).to_numpy()
        found: Flags = _in(hashes, self.learnt) | _in(hashes, self.fitted)
        return found

    def count(self, keys: pl.Series) -> dict[str, int]:
        """How many papers are LEARNT, and how many FITTED; without what is none."""
        hashes = hash_texts(keys).to_numpy()
        counts = {LEARNT: int(_in(hashes, self.learnt).sum()), FITTED: int(_in(hashes, self.fitted).sum())}
        return {name: count for name, count in counts.items() if count}

    def write(self, folder: Path) -> None:
        """Keep it in a model folder."""
        from safetensors.numpy import save_file

        save_file({LEARNT: self.learnt, FITTED: self.fitted}, folder / SEEN_FILE)

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
            seen = cls(found[LEARNT], found[FITTED])
            for part in (seen.learnt, seen.fitted):
                if part.dtype != np.uint64 or part.ndim != 1 or not (part[:-1] < part[1:]).all():
                    raise ValueError("hashes that are no ascending numbers")
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise ModelError(f"{path}: cannot be read: {one_line(error)}") from None
        return seen


def told(counts: Mapping[str, int]) -> str:
    """Counts of papers in words."""
    words = ((LEARNT, "taught the model"), (FITTED, "tuned it" if LEARNT in counts else "tuned the model"))
    return ", ".join(f"{counts[name]:,} {what}" for name, what in words if name in counts)


def _in(hashes: Hashes, sorted_ones: Hashes) -> Flags:
    places = np.searchsorted(sorted_ones, hashes)
    found: Flags = np.append(sorted_ones, np.uint64(0))[places] == hashes
    return found & (places < len(sorted_ones))
