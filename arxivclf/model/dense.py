"""The dense part of the linear model: a small network over the mean embedding of a text's words.

It knows which words resemble each other, which weights for single words cannot, and costs about as much time as they do
(docs/benchmarks.md). A text is the mean of the embeddings of all its words beside that of its title's; one hidden layer
of rectified linear units follows ("deep averaging network", Iyyer et al. 2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from arxivclf.model.words import WORD_PLACES, Counted

Floats = npt.NDArray[np.float32]

# Every matrix product has this many rows, so that the arithmetic of a text does not depend on its neighbours.
_ROWS = 256
_LARGEST_CODE = 7
_PREFIX = "dense_"


@dataclass(frozen=True)
class Dense:
    """Embeddings of words and a network with one hidden layer.

    `codes` are the embeddings, uint8 (WORD_PLACES, width / 2), two signed 4-bit values in each byte (low half first,
    stored plus 8), in units of `units`, float32 (width,). `hidden` is float32 (2 x width, units), `hidden_bias`
    (units,), `output` (units, labels). The bias of the output is the intercept of the linear model.
    """

    codes: npt.NDArray[np.uint8]
    units: Floats
    hidden: Floats
    hidden_bias: Floats
    output: Floats

    @classmethod
    def quantised(cls, embeddings: Floats, hidden: Floats, hidden_bias: Floats, output: Floats) -> Dense:
        """From float32 embeddings (WORD_PLACES, width), width even; three standard deviations fill the range of codes.

        Values beyond are clipped: they are few, and a wider range would make all others coarser.
        """
        units = np.maximum(3 * embeddings.std(axis=0) / _LARGEST_CODE, 1e-12).astype(np.float32)
        codes = np.clip(np.round(embeddings / units), -_LARGEST_CODE, _LARGEST_CODE).astype(np.int8) + 8
        low, high = codes[:, 0::2].astype(np.uint8), codes[:, 1::2].astype(np.uint8)
        return cls(low | (high << 4), units, hidden, hidden_bias, output)

    @cached_property
    def embeddings(self) -> Floats:
        """The embeddings, float32 (WORD_PLACES, width)."""
        codes = np.empty((len(self.codes), 2 * self.codes.shape[1]), np.float32)
        codes[:, 0::2], codes[:, 1::2] = self.codes & 15, self.codes >> 4
        codes -= 8.0
        codes *= self.units
        return codes

    def pooled(self, counted: Counted) -> Floats:
        """Mean embedding of all words beside that of the title's words, float32 (texts, 2 x width); zeros if none."""
        texts = len(counted)
        ones = np.ones(len(counted.words), np.float32)
        # The title's words come first, so that each text is two stretches of words.
        ends = np.empty(2 * texts + 1, np.int64)
        ends[0::2] = counted.word_bounds
        ends[1::2] = counted.word_bounds[:-1] + counted.title_words
        parts = csr_array((ones, counted.words, ends), shape=(2 * texts, WORD_PLACES)) @ self.embeddings
        title, whole = parts[0::2], parts[0::2] + parts[1::2]
        words = np.diff(counted.word_bounds)
        means = [whole / np.maximum(words, 1)[:, None], title / np.maximum(counted.title_words, 1)[:, None]]
        return np.concatenate(means, axis=1).astype(np.float32)

    def logits(self, counted: Counted) -> Floats:
        """Logits without intercept, float32 (texts, labels). They depend on each text only."""
        pooled = self.pooled(counted)
        padded = np.zeros((-(-len(pooled) // _ROWS) * _ROWS, pooled.shape[1]), np.float32)
        padded[: len(pooled)] = pooled
        logits = np.empty((len(padded), self.output.shape[1]), np.float32)
        for first in range(0, len(padded), _ROWS):
            rows = slice(first, first + _ROWS)
            units = np.maximum(padded[rows] @ self.hidden + self.hidden_bias, np.float32(0))
            logits[rows] = units @ self.output
        return logits[: len(pooled)]

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Its arrays by name, as a model folder keeps them."""
        names = ("codes", "units", "hidden", "hidden_bias", "output")
        return {_PREFIX + name: np.ascontiguousarray(getattr(self, name)) for name in names}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]], labels: int) -> Dense | None:
        """The dense part of a linear model; None if it has none. Raises KeyError or ValueError if it is damaged."""
        if _PREFIX + "codes" not in tensors:
            return None
        dense = cls(*(tensors[_PREFIX + name] for name in ("codes", "units", "hidden", "hidden_bias", "output")))
        width, hidden = dense.units.size, dense.hidden_bias.size
        wanted = {
            "codes": ((WORD_PLACES, width // 2), np.uint8),
            "units": ((width,), np.float32),
            "hidden": ((2 * width, hidden), np.float32),
            "hidden_bias": ((hidden,), np.float32),
            "output": ((hidden, labels), np.float32),
        }
        for name, (shape, kind) in wanted.items():
            value = getattr(dense, name)
            if value.shape != shape or value.dtype != kind:
                raise ValueError(f"{_PREFIX}{name} is {value.dtype} {value.shape}, not {np.dtype(kind)} {shape}")
            if value.dtype == np.float32 and not np.isfinite(value).all():
                raise ValueError(f"{_PREFIX}{name} holds values that are not finite")
        return dense
