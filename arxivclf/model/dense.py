"""The dense part of the linear model: a small network over the mean embedding of a text's words.

It knows which words resemble each other, which weights for single words cannot. A text is the mean embedding of all its
words, the mean embedding of its title's words, and its year; one hidden layer of rectified linear units follows ("deep
averaging network", Iyyer et al. 2015). The year is there since fields grow: the same words are listed under AI far more
often today than in 2010.
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
Years = npt.NDArray[np.int32] | None

# Every matrix product has this many rows, so that the arithmetic of a text does not depend on its neighbours.
_ROWS = 256
_LARGEST_CODE = 7
_PREFIX = "dense_"
_TENSORS = ("codes", "units", "hidden", "hidden_bias", "output", "years")
YEAR_INPUTS = 2


@dataclass(frozen=True)
class Dense:
    """Embeddings of words and a network with one hidden layer.

    `codes` are the embeddings, uint8 (WORD_PLACES, width / 2), two signed 4-bit values in each byte (low half first,
    stored plus 8), in units of `units`, float32 (width,). `hidden` is float32 (2 x width + 2, units), `hidden_bias`
    (units,), `output` (units, labels). The bias of the output is the intercept of the linear model. `years` are the
    first and the last year of training, float32 (2,).
    """

    codes: npt.NDArray[np.uint8]
    units: Floats
    hidden: Floats
    hidden_bias: Floats
    output: Floats
    years: Floats

    @classmethod
    def quantised(cls, embeddings: Floats, hidden: Floats, hidden_bias: Floats, output: Floats, years: Floats) -> Dense:
        """From float32 embeddings (WORD_PLACES, width), width even; three standard deviations fill the range of codes.

        Values beyond are clipped: they are few, and a wider range would make all others coarser.
        """
        units = np.maximum(3 * embeddings.std(axis=0) / _LARGEST_CODE, 1e-12).astype(np.float32)
        codes = np.clip(np.round(embeddings / units), -_LARGEST_CODE, _LARGEST_CODE).astype(np.int8) + 8
        low, high = codes[:, 0::2].astype(np.uint8), codes[:, 1::2].astype(np.uint8)
        return cls(low | (high << 4), units, hidden, hidden_bias, output, years)

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

    def logits(self, counted: Counted, years: Years = None) -> Floats:
        """Logits without intercept, float32 (texts, labels), of texts of these years (0 or None: unknown).

        They depend on each text and its year only.
        """
        pooled = np.concatenate([self.pooled(counted), year_inputs(years, self.years, len(counted))], axis=1)
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
        return {_PREFIX + name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]], labels: int) -> Dense | None:
        """The dense part of a linear model; None if it has none. Raises KeyError or ValueError if it is damaged."""
        if _PREFIX + "codes" not in tensors:
            return None
        dense = cls(*(tensors[_PREFIX + name] for name in _TENSORS))
        width, hidden = dense.units.size, dense.hidden_bias.size
        wanted = {
            "codes": ((WORD_PLACES, width // 2), np.uint8),
            "units": ((width,), np.float32),
            "hidden": ((2 * width + YEAR_INPUTS, hidden), np.float32),
            "hidden_bias": ((hidden,), np.float32),
            "output": ((hidden, labels), np.float32),
            "years": ((2,), np.float32),
        }
        for name, (shape, kind) in wanted.items():
            value = getattr(dense, name)
            if value.shape != shape or value.dtype != kind:
                raise ValueError(f"{_PREFIX}{name} is {value.dtype} {value.shape}, not {np.dtype(kind)} {shape}")
            if value.dtype == np.float32 and not np.isfinite(value).all():
                raise ValueError(f"{_PREFIX}{name} holds values that are not finite")
        return dense


def year_inputs(years: Years, trained: Floats, texts: int) -> Floats:
    """What the network sees of the years (texts,), float32 (texts, 2): where a year lies among those of training, from
    -1 to 1, and 1 because it is known; twice 0 for an unknown year.

    It is one straight scale, so that the network learns how fields grow and not how papers of a single year were
    sampled; later years count as the last.
    """
    inputs = np.zeros((texts, YEAR_INPUTS), np.float32)
    if years is not None and trained[0] < trained[1]:
        known = years > 0
        place = 2 * (np.clip(years, *trained) - trained[0]) / (trained[1] - trained[0]) - 1
        inputs[known, 0], inputs[known, 1] = place[known], 1.0
    return inputs
