"""The linear model: a weight for each hashed feature and label. It needs no torch, and labels some 20,000 papers/s.

A text's features (model.words) count 1 + ln(times it is there), weighted by how rare their place is and brought to
length one; a label's logit is their product with its weights, plus an intercept, plus the logit of a small network over
embeddings of words where it has one (model.dense).
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from arxivclf.errors import ModelError, one_line
from arxivclf.model.dense import Dense, Years
from arxivclf.model.labels import Scores
from arxivclf.model.safety import LINEAR_WEIGHTS
from arxivclf.model.words import BITS, PLACES, Counted, count

# How often a word is there, from 0 to 255, to what it counts.
DAMPED = np.concatenate([[0.0], 1.0 + np.log(np.arange(1, 256))]).astype(np.float32)

# Memory while scoring depends on this many texts.
_MOST_AT_ONCE = 4_096

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Linear:
    """Weights by place: of the PLACES those in `used` have a row, in the order of the places.

    `used` is a bit for each place, uint8 (PLACES / 8,); `rarity` uint8 (rows,) and `weights` int8 (labels, rows) are
    in units of `rarity_unit` and `weight_units` (labels,); `shifts` (labels,) are added, and the logits of the `dense`
    part, if there is one. Labels are in the order of the task.
    """

    used: npt.NDArray[np.uint8]
    rarity: npt.NDArray[np.uint8]
    rarity_unit: float
    weights: npt.NDArray[np.int8]
    weight_units: Floats
    shifts: Floats
    dense: Dense | None = None

    @cached_property
    def _rows(self) -> npt.NDArray[np.int32]:
        """The row of each place, counted from 1; 0 of one that has none."""
        there = np.unpackbits(self.used)
        return np.where(there, np.cumsum(there, dtype=np.int32), 0).astype(np.int32)

    @cached_property
    def _table(self) -> Floats:
        """Of each row how rare it is, and of each label its weight times that: (rows + 1, 1 + labels), row 0 zeros.

        One place is one stretch of memory: the gathers, not the sums, are what takes time.
        """
        rarity = np.append(0.0, self.rarity * self.rarity_unit).astype(np.float32)
        weights = self.weights.T * self.weight_units
        weights = np.concatenate([np.zeros((1, len(self.shifts)), np.float32), weights.astype(np.float32)])
        return np.ascontiguousarray(np.concatenate([rarity[:, None], weights * rarity[:, None]], axis=1))

    def logits(self, texts: pl.Series, years: Years = None) -> Scores:
        """A logit for each cleaned text and label, float32 (texts, labels). It depends on the text and its year only.

        `years` (texts,) are 0 where unknown; None where all are.
        """
        parts, first = [np.zeros((0, len(self.shifts)), np.float32)], 0
        for counted in count(texts):
            last = first + len(counted)
            parts.append(self.logits_of_features(counted, years[first:last] if years is not None else None))
            first = last
        return np.concatenate(parts)

    def logits_of_many(self, texts: pl.Series, years: Years = None) -> Scores:
        """The same, by all cores."""
        cores = _cores()
        size = -(-len(texts) // cores) if len(texts) else 1
        if cores == 1 or len(texts) < 1_000:
            return self.logits(texts, years)
        _ = self._rows, self._table, self.dense and self.dense.embeddings  # Once, and not in each thread.

        def of_stretch(first: int) -> Scores:
            part = slice(first, first + size)
            return self.logits(texts[part], years[part] if years is not None else None)

        with ThreadPoolExecutor(cores) as pool:
            return np.concatenate(list(pool.map(of_stretch, range(0, len(texts), size))))

    def logits_of_features(self, counted: Counted, years: Years = None) -> Scores:
        """The same from the features of the texts."""
        if len(counted) > _MOST_AT_ONCE:
            edges = [(first, first + _MOST_AT_ONCE) for first in range(0, len(counted), _MOST_AT_ONCE)]
            when = [years[first:last] if years is not None else None for first, last in edges]
            blocks = [counted.slice(first, last) for first, last in edges]
            return np.concatenate([self.logits_of_features(*block) for block in zip(blocks, when, strict=True)])
        # One row of zeros behind the last, so that each text, the last one too, ends where another segment starts: the
        # order in which numpy adds depends on how long a segment is.
        rows = np.append(self._rows[counted.places], 0)
        values = np.ascontiguousarray(np.take(self._table, rows, axis=0).T)
        values *= DAMPED[np.append(counted.counts, 0)]
        values[0] *= values[0]
        sums = np.stack([np.add.reduceat(row, counted.bounds)[:-1] for row in values])
        # reduceat gives a text without words the value at its start; such a text, as one of unknown words, has none.
        known = (np.diff(counted.bounds) > 0) & (sums[0] > 0)
        lengths = np.sqrt(np.where(known, sums[0], np.float32(1.0)))
        logits: Scores = ((np.where(known, sums[1:], np.float32(0.0)) / lengths).T + self.shifts).astype(np.float32)
        return logits if self.dense is None else logits + self.dense.logits(counted, years)

    def save(self, folder: Path) -> None:
        """Write it into a model folder, as safetensors."""
        from safetensors.numpy import save_file

        tensors: dict[str, npt.NDArray[Any]] = {
            "used": self.used,
            "rarity": self.rarity,
            "weights": self.weights,
            "weight_units": self.weight_units,
            "shifts": self.shifts,
            **(self.dense.tensors() if self.dense is not None else {}),
        }
        # One entry, for the library writes several in any order, and the same model is to be the same bytes.
        about = json.dumps({"bits": BITS, "rarity_unit": self.rarity_unit})
        save_file(tensors, folder / LINEAR_WEIGHTS, {"about": about})

    @classmethod
    def load(cls, folder: Path, labels: int) -> Linear:
        """Read it from a model folder. Raises ModelError where it is not as `save` writes it, for so many labels."""
        from safetensors import SafetensorError, safe_open

        path = folder / LINEAR_WEIGHTS
        try:
            with safe_open(path, "numpy") as file:
                about = json.loads((file.metadata() or {})["about"])
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            if about["bits"] != BITS:
                raise ValueError(f"{about['bits']!r} bits, not {BITS}")
            model = cls(
                found["used"],
                found["rarity"],
                float(about["rarity_unit"]),
                found["weights"],
                found["weight_units"],
                found["shifts"],
                Dense.from_tensors(found, labels),
            )
            model._check(labels)
        except FileNotFoundError:
            why = "cannot be read" if path.exists() else "not there, and the model cannot do without it"
            raise ModelError(f"{path}: {why}") from None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: not a linear model of this version: {one_line(error)}") from None
        return model

    def _check(self, labels: int) -> None:
        rows = len(self.rarity)
        wanted = {
            "used": ((PLACES // 8,), np.uint8),
            "rarity": ((rows,), np.uint8),
            "weights": ((labels, rows), np.int8),
            "weight_units": ((labels,), np.float32),
            "shifts": ((labels,), np.float32),
        }
        for name, (shape, kind) in wanted.items():
            value = getattr(self, name)
            if value.shape != shape or value.dtype != kind:
                raise ValueError(f"{name} is {value.dtype} {value.shape}, not {np.dtype(kind)} {shape}")
        finite = np.isfinite([self.rarity_unit, *self.weight_units, *self.shifts]).all()
        if int(np.unpackbits(self.used).sum()) != rows or not finite:
            raise ValueError("places and rows are not as many, or a unit is no number")


def _cores() -> int:
    """As many as torch takes: OMP_NUM_THREADS, the first of a list, where it is a number, or else all."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return (int(wanted) if wanted.isdecimal() else 0) or os.cpu_count() or 1
