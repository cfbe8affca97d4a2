"""One model, loaded and ready to score: its encoder, and what its folder says about labels and text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from arxivclf.corpus.tasks import Label, Task, built_in
from arxivclf.errors import ModelError, UsageError
from arxivclf.model import backends
from arxivclf.model.calibration import Calibration, calibrated
from arxivclf.model.devices import Device
from arxivclf.model.encoder import MODEL_FILES, Encoder, Scores, fingerprint
from arxivclf.model.folder import INFO_FILE, ModelInfo
from arxivclf.model.hub import find_folder
from arxivclf.model.safety import read_json, refuse_unsafe

# What a classifier that was not made here is given: texts as they stand, and all the tokens that its base takes.
_PLAIN_MAX_TOKENS = 512
_PLAIN_THRESHOLD = 0.5


@dataclass(frozen=True)
class Model:
    """A trained model. `outputs` are the encoder's outputs that are labels, in the order of `task`.

    `fingerprint` is the same for two models that give the same scores to the same dump.
    """

    name: str
    task: Task
    cleaning: str
    thresholds: Mapping[str, float]
    calibrations: Sequence[Calibration]
    encoder: Encoder
    outputs: Sequence[int]
    fingerprint: str

    @classmethod
    def load(cls, name: str, device: Device, task: Task | None = None) -> Model:
        """Load a model folder or hub name: one that `arxivclf train` made, or any sequence classifier.

        Of the latter the labels are those of its `id2label`; a binary one has one label, class 1. `task` gives the
        labels their names and says what makes them true. Raises ModelError, or UsageError for a task that does not fit.
        """
        folder = find_folder(name)
        if not (folder / INFO_FILE).exists():
            return cls._load_plain(name, folder, device, task)
        info = ModelInfo.read(folder)
        refuse_unsafe(folder)
        encoder = Encoder.load(folder, info.max_tokens, device)
        if encoder.label_names != info.task.names:
            raise ModelError(f"{folder}: config.json has the labels {encoder.label_names}, not {info.task.names}")
        if task is not None and task.names != info.task.names:
            raise UsageError(
                f"{name}: gives the labels {', '.join(info.task.names)}; --task is for models without names"
            )
        outputs = range(len(info.task.names))
        calibrations = [info.calibrations[label] for label in info.task.names]
        judge = backends.Judge(
            lambda logits: calibrated(logits, calibrations),
            [info.thresholds[label] for label in info.task.names],
            f"{_mark(folder, info.cleaning, encoder, calibrations)} {dict(info.thresholds)}",
        )
        encoder = backends.choose(folder, encoder, judge)
        return cls(
            name,
            info.task,
            info.cleaning,
            info.thresholds,
            calibrations,
            encoder,
            outputs,
            _mark(folder, info.cleaning, encoder, calibrations),
        )

    @classmethod
    def _load_plain(cls, name: str, folder: Path, device: Device, task: Task | None) -> Model:
        config = read_json(folder / "config.json")
        refuse_unsafe(folder)
        if not any("SequenceClassification" in kind for kind in config.get("architectures") or []):
            raise ModelError(f"{folder}: no {INFO_FILE} there and no sequence classifier; not a model to label with")
        encoder = Encoder.load(folder, _PLAIN_MAX_TOKENS, device)
        names = encoder.label_names
        outputs = [1] if encoder.softmax and len(names) == 2 else list(range(len(names)))
        if task is None:
            task = Task(tuple(_plain_label(names[output], len(outputs)) for output in outputs))
        elif len(task.labels) != len(outputs):
            raise UsageError(f"{name}: gives {len(outputs)} labels, but --task names {len(task.labels)}")
        if len(set(task.names)) < len(outputs):
            raise ModelError(
                f"{folder}: two of its labels have one name: {', '.join(task.names)}; --task names them anew"
            )
        thresholds = dict.fromkeys(task.names, _PLAIN_THRESHOLD)
        plain = [Calibration()] * len(outputs)
        return cls(name, task, "none", thresholds, plain, encoder, outputs, _mark(folder, "none", encoder, plain))

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of cleaned texts."""
        return self.encoder.tokenize(texts)

    def scores(self, token_ids: Sequence[list[int]], **how: Any) -> Scores:
        """The scores of tokenised texts, float32 (texts, labels) in [0, 1], labels in the order of `task`."""
        logits = self.encoder.logits(token_ids, **how).astype(np.float64)
        if self.encoder.softmax:
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            chances: Scores = (shares / shares.sum(axis=1, keepdims=True))[:, list(self.outputs)].astype(np.float32)
            return chances
        return calibrated(logits[:, list(self.outputs)], self.calibrations)


def _mark(folder: Path, cleaning: str, encoder: Encoder, calibrations: Sequence[Calibration]) -> str:
    fitted = xxhash.xxh3_64_hexdigest(repr(calibrations).encode())
    return f"{fingerprint(folder, MODEL_FILES)} {cleaning} {encoder.max_tokens} {encoder.arithmetic} {fitted}"


def _plain_label(name: object, labels: int) -> Label:
    """A label from what a foreign model calls it; built-in names mean what they mean here."""
    plain = re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")
    if labels == 1 and plain in ("1", "label_1", "label_0", "true", ""):
        plain = "positive"
    plain = plain if plain[:1].isalpha() else f"label_{plain}"
    known = {label.name: label for label in built_in().labels}
    return known.get(plain, Label(plain, str(name), ()))
