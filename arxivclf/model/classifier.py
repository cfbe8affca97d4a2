"""The classifier: texts in, scores and labels out, as its model folder says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from arxivclf.errors import ModelError
from arxivclf.model.devices import find
from arxivclf.model.encoder import Encoder, Scores
from arxivclf.model.folder import ModelInfo, open_folder


@dataclass(frozen=True)
class Classifier:
    """A trained model, ready to score. `info` says which labels it gives and how the text must be cleaned."""

    info: ModelInfo
    encoder: Encoder

    @classmethod
    def load(cls, name: str | Path, device: str = "auto") -> Classifier:
        """Load a model folder or hub name. Raises ModelError or DeviceError."""
        where = find(device)
        folder, info = open_folder(str(name))
        encoder = Encoder.load(folder, info.max_tokens, where)
        if encoder.label_names != info.task.names:
            raise ModelError(f"{folder}: config.json has the labels {encoder.label_names}, not {info.task.names}")
        return cls(info, encoder)

    def scores(self, texts: pl.Series, advance: Callable[[int], None] = lambda papers: None) -> Scores:
        """Scores of cleaned texts, float32 (texts, labels) in [0, 1], labels in the order of `info.task`."""
        return self.encoder.scores(texts.to_list(), advance)
