"""One model, loaded and ready to score: its linear model, its encoder, and what its folder says of labels and text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from arxivclf.corpus.seen import Seen
from arxivclf.corpus.tasks import Label, Task, built_in, taken
from arxivclf.errors import ModelError, UsageError
from arxivclf.model.calibration import Calibration, logit
from arxivclf.model.cascade import Cascade, Years
from arxivclf.model.folder import INFO_FILE, MODEL_FILES, ModelInfo, fingerprint
from arxivclf.model.gate import Blend, Gate
from arxivclf.model.hub import find_folder
from arxivclf.model.labels import Flags, Scores
from arxivclf.model.linear import Linear
from arxivclf.model.safety import read_json, refuse_unsafe
from arxivclf.model.training_range import TrainingRange

if TYPE_CHECKING:
    from arxivclf.model.encoder import Encoder

# What a classifier that was not made here is given: texts as they stand, and all the tokens that its base takes.
_PLAIN_MAX_TOKENS = 512
_PLAIN_THRESHOLD = 0.5

# The counts of a confusion matrix, as a model's metrics name them.
_COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")

# The part of a fingerprint that says how an encoder is computed.
COMPUTED = "computed"


@dataclass(frozen=True)
class Model:
    """A trained model: an encoder, a linear model, or both. `outputs` are the outputs that are labels, in the order of
    `task`.

    `calibrations` make scores of what the two give together, `linear_calibrations` of what the linear model gives.
    `gates` are empty where the encoder sees every paper. `seen` are the papers of its training, where it tells them.
    `fingerprint` is the same for two models that give the same
    scores to the same dump; all but its COMPUTED is the same wherever a model is loaded. `evaluation` holds the four
    counts of each label's confusion on the model's test split, where they are known for the model as it is loaded.
    `training_range` are the years and archives that it was trained on, None where it has no record of them,
    `prevalence` is the share of each label among the papers that its calibration was fitted on, empty without a record;
    `target_prevalence` are the shares that its scores were shifted to, if any.
    """

    name: str
    task: Task
    cleaning: str
    thresholds: Mapping[str, float]
    calibrations: Sequence[Calibration]
    encoder: Encoder | None
    outputs: Sequence[int]
    fingerprint: Mapping[str, str]
    linear: Linear | None = None
    linear_calibrations: Sequence[Calibration] = ()
    blends: Sequence[Blend] = ()
    gates: Sequence[Gate] = ()
    seen: Seen | None = None
    evaluation: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    training_range: TrainingRange | None = None
    prevalence: Mapping[str, float] = field(default_factory=dict)
    target_prevalence: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str, device: str = "auto", task: Task | None = None, gate: bool = True) -> Model:
        """Load a model folder or hub name: one that `arxivclf train` made, or any sequence classifier.

        Of the latter the labels are those of its `id2label`; a binary one has one label, class 1. `task` gives the
        labels their names and says what makes them true. Without `gate` the encoder sees every paper. Raises
        ModelError, DeviceError, or UsageError for a task that does not fit.
        """
        folder = find_folder(name)
        if not (folder / INFO_FILE).exists():
            return cls._load_plain(name, folder, device, task)
        info = ModelInfo.read(folder)
        refuse_unsafe(folder)
        names = info.task.names
        if task is not None and task.names != names:
            raise UsageError(f"{name}: gives the labels {', '.join(names)}; --task is for models without names")
        encoder = None
        if info.has_encoder:
            encoder = _encoder(folder, info.max_tokens, device)
            if encoder.label_names != names:
                raise ModelError(f"{folder}: config.json has the labels {encoder.label_names}, not {names}")
        gates = [info.gates[label] for label in names] if info.gates and gate and encoder is not None else []
        blends = [info.blends[label] for label in names] if info.blends else []
        linear = None
        if encoder is None or gates or any(blend.linear for blend in blends):
            linear = Linear.load(folder, len(names))
        of_linear = [info.linear_calibrations[label] for label in names] if gates else []
        calibrations = [info.calibrations[label] for label in names]
        model = cls(
            name,
            info.task,
            info.cleaning,
            info.thresholds,
            calibrations,
            encoder,
            range(len(names)),
            {},
            linear,
            of_linear,
            blends if linear is not None else [],
            gates,
            Seen.read(folder),
            # A model that has a gate is evaluated with it: without the gate its error rates are others.
            _evaluation(info.metrics, names) if gate or not info.gates else {},
            TrainingRange.of(info.papers),
            info.prevalence,
        )
        return model._fastest(folder)

    def _fastest(self, folder: Path) -> Model:
        """With the fastest arithmetic that the papers kept in its folder allow, and the fingerprint of it."""
        encoder = self.encoder
        if encoder is not None:
            from arxivclf.model.backends import Judge, choose

            thresholds = list(self.thresholds.values())
            # Not of the gate: with it and without, one check and one conversion serve.
            mark = _mark(folder, self.cleaning, encoder, [self.calibrations, self.blends, thresholds])
            encoder = choose(folder, encoder, Judge(self.mixed, thresholds, repr(mark)))
        gates = [(one.low, one.high) for one in self.gates]
        decides = [self.calibrations, self.linear_calibrations, self.blends, gates]
        mark = _mark(folder, self.cleaning, encoder, decides) | _named(self.task)
        return replace(self, encoder=encoder, fingerprint=mark)

    @classmethod
    def _load_plain(cls, name: str, folder: Path, device: str, task: Task | None) -> Model:
        config = read_json(folder / "config.json")
        refuse_unsafe(folder)
        if not any("SequenceClassification" in kind for kind in config.get("architectures") or []):
            raise ModelError(f"{folder}: no {INFO_FILE} there and no sequence classifier; not a model to label with")
        encoder = _encoder(folder, _PLAIN_MAX_TOKENS, device)
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
        mark = _mark(folder, "none", encoder, [plain]) | _named(task)
        return cls(name, task, "none", thresholds, plain, encoder, outputs, mark)

    def at_prevalence(self, targets: Mapping[str, float]) -> Model:
        """The model for papers of which other shares have its labels: `targets`, in (0, 1), by label.

        Under label shift the log-odds of a paper change by logit(target) - logit(prevalence of the papers that the
        calibration was fitted on) (Saerens, Latinne and Decaestecker 2002). The encoder sees every paper: gates are
        proven only for the scores as they were. Raises UsageError where the model has no record of the prevalence of a
        label.
        """
        targets = {label: share for label, share in targets.items() if label in self.task.names}
        for label in targets:
            if label not in self.prevalence:
                raise UsageError(
                    f"--prevalence: {self.name} has no record of the prevalence that its scores for {label!r} hold for"
                )
        if not targets:
            return self
        shifts = [
            logit(targets[name]) - logit(self.prevalence[name]) if name in targets else 0.0 for name in self.task.names
        ]
        calibrations = [one.shifted(shift) for one, shift in zip(self.calibrations, shifts, strict=True)]
        fitted = xxhash.xxh3_64_hexdigest(f"{self.fingerprint['fitted']} {shifts!r}".encode())
        fingerprint = {**self.fingerprint, "fitted": fitted}
        return replace(
            self,
            calibrations=calibrations,
            linear_calibrations=(),
            gates=(),
            fingerprint=fingerprint,
            evaluation={},
            target_prevalence=targets,
        )

    @property
    def cascade(self) -> Cascade:
        """How the logits of linear model and encoder become scores."""
        return Cascade(self.calibrations, self.linear_calibrations, self.blends, self.gates)

    @property
    def reason(self) -> str:
        """Where it computes, in which precision, and why, for a person."""
        return self.encoder.device.reason if self.encoder is not None else "cpu: a linear model, without an encoder"

    @property
    def tokenizing(self) -> str:
        """The same for two models that make the same token ids of a paper."""
        return f"{self.cleaning} {self.encoder.tokenizing}" if self.encoder is not None else ""

    def linear_logits(self, texts: pl.Series, years: Years = None) -> Scores:
        """The linear model's logits of cleaned texts, float32 (texts, labels); zeros where there is none.

        `years` (texts,) are 0 where unknown.
        """
        if self.linear is None:
            return np.zeros((len(texts), len(self.task.names)), np.float32)
        return self.linear.logits_of_many(texts, years)

    def undecided(self, linear_logits: Scores, years: Years = None) -> Flags:
        """Which papers the encoder must see, bool (papers,): those that the gates do not decide."""
        if self.encoder is None:
            return np.zeros(len(linear_logits), dtype=bool)
        return self.cascade.deferred(linear_logits, years)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of cleaned texts, for a model that has an encoder."""
        return _there(self.encoder).tokenize(texts)

    def scores(
        self,
        linear_logits: Scores,
        undecided: Flags,
        token_ids: Sequence[list[int]],
        advance: Callable[[int], None] = lambda papers: None,
        years: Years = None,
    ) -> Scores:
        """The scores of papers, float32 (papers, labels) in [0, 1], labels in the order of `task`.

        `linear_logits` and `years` are those of all papers, `token_ids` those of the undecided ones. `advance` is
        called with counts of papers, of all in the end.
        """
        decided = len(undecided) - int(undecided.sum())
        if decided:
            advance(decided)
        scores = np.empty((len(undecided), len(self.task.names)), dtype=np.float32)
        years = np.zeros(len(undecided), np.int32) if years is None else years
        if undecided.any():
            logits = _there(self.encoder).logits(token_ids, advance)
            scores[undecided] = self.mixed(linear_logits[undecided], logits, years[undecided])
        if decided:
            scores[~undecided] = self.cascade.linear_scores(linear_logits[~undecided], years[~undecided])
        if not np.isfinite(scores).all():
            raise ModelError(f"{self.name}: gives scores that are no numbers; its weights are broken")
        return scores

    def mixed(self, linear_logits: Scores, encoder_logits: npt.ArrayLike, years: Years = None) -> Scores:
        """The scores that the model gives without its gate, float32 (papers, labels), from the logits of both.

        `linear_logits` are (papers, labels), `encoder_logits` (papers, outputs), for a model that has an encoder.
        """
        logits = np.asarray(encoder_logits, dtype=np.float64)
        if _there(self.encoder).softmax:
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            chances: Scores = (shares / shares.sum(axis=1, keepdims=True))[:, list(self.outputs)].astype(np.float32)
            return chances
        return self.cascade.stacked_scores(linear_logits, logits[:, list(self.outputs)], years)


def _encoder(folder: Path, max_tokens: int, device: str) -> Encoder:
    # A model without an encoder needs no torch, which takes seconds to import.
    from arxivclf.model.devices import find
    from arxivclf.model.encoder import Encoder

    return Encoder.load(folder, max_tokens, find(device))


def _there(encoder: Encoder | None) -> Encoder:
    if encoder is None:
        raise ModelError("a model without an encoder was asked for what only an encoder does")
    return encoder


def _mark(folder: Path, cleaning: str, encoder: Encoder | None, decides: Sequence[object]) -> dict[str, str]:
    return {
        "files": fingerprint(folder, MODEL_FILES),
        "text": cleaning if encoder is None else f"{cleaning} {encoder.max_tokens}",
        "fitted": xxhash.xxh3_64_hexdigest(repr(decides).encode()),
        COMPUTED: "linear" if encoder is None else encoder.arithmetic,
    }


def _named(task: Task) -> dict[str, str]:
    """What each output is called: labels whose names change places are others."""
    return {"labels": " ".join(task.names)}


def _evaluation(metrics: Mapping[str, Any], labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """By label the counts of its confusion on the test split, or where that has none, on the validation set."""
    found: dict[str, dict[str, int]] = {}
    for label in labels:
        for part in ("validation", "test"):
            figures = metrics.get(part)
            of = figures.get(label) if isinstance(figures, dict) else None
            counts: list[Any] = [of.get(name) for name in _COUNTS] if isinstance(of, dict) else []
            if any(counts) and all(isinstance(count, int) and count >= 0 for count in counts):
                found[label] = dict(zip(_COUNTS, counts, strict=True))
    return found


def _plain_label(name: object, labels: int) -> Label:
    """A label from what a foreign model calls it; built-in names mean what they mean here."""
    plain = re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")
    if labels == 1 and plain in ("1", "label_1", "label_0", "true", ""):
        plain = "positive"
    if not plain[:1].isalpha() or taken(plain):
        plain = f"label_{plain}".removesuffix("_score").removesuffix("_truth")
    known = {label.name: label for label in built_in().labels}
    return known.get(plain, Label(plain, str(name), ()))
