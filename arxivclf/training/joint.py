"""How encoder and linear model work together: blend, calibration, thresholds and gate, from validation papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arxivclf.config import TrainSettings
from arxivclf.model.calibration import Calibration, calibrated, fit
from arxivclf.model.gate import Blend, Gate, cross_fitted, find_gate, fit_blend
from arxivclf.model.labels import BY_ENCODER, BY_GATE, Flags, Scores
from arxivclf.model.linear import Linear
from arxivclf.reporting.metrics import Confusion, best_threshold
from arxivclf.training.dataset import Dataset

if TYPE_CHECKING:
    from arxivclf.training.encoder import Trained


@dataclass(frozen=True)
class Joint:
    """How encoder and linear model work together, fitted on validation papers, and the logits that this gives.

    `logits` are those of the whole model without its gate, by part (validation, test), `alone` those of each of
    the two.
    """

    logits: Mapping[str, Scores]
    alone: Mapping[str, Mapping[str, Scores]]
    calibrations: Sequence[Calibration]
    thresholds: Mapping[str, float]
    linear_calibrations: Sequence[Calibration]
    blends: Sequence[Blend]
    gates: Sequence[Gate]
    told: Sequence[str]
    decided_by: str

    @classmethod
    def fit(cls, settings: TrainSettings, dataset: Dataset, words: Linear | None, trained: Trained | None) -> Joint:
        """From the linear model, the encoder, or both."""
        names = dataset.validation.names
        alone: dict[str, Mapping[str, Scores]] = {}
        if words is not None:
            sides = {"validation": dataset.validation, "test": dataset.test}
            alone["linear"] = {part: words.logits_of_many(papers.texts) for part, papers in sides.items()}
        if trained is not None:
            alone["encoder"] = {"validation": trained.validation_logits, "test": trained.test_logits}
        known, truth = ~np.isnan(dataset.validation.truth), dataset.validation.truth > 0.5
        blends: list[Blend] = []
        logits: Mapping[str, Scores] = alone["encoder"] if "encoder" in alone else alone["linear"]
        if len(alone) == 2:
            for at in range(len(names)):
                there = known[:, at]
                first, second = (alone[which]["validation"][there, at] for which in ("encoder", "linear"))
                blends.append(_better_blend(first, second, truth[there, at]))
            logits = {part: _blended(blends, alone["encoder"][part], alone["linear"][part]) for part in logits}
        own = logits["validation"]
        calibrations = _fitted(own, truth, known, settings)
        scores = calibrated(own, calibrations)
        thresholds = {
            name: best_threshold(truth[known[:, at], at], scores[known[:, at], at]) for at, name in enumerate(names)
        }
        told = [f"{name}: {_told_of_blend(blend)}" for name, blend in zip(names, blends, strict=False)]
        gates: list[Gate] = []
        linear_calibrations: list[Calibration] = []
        if len(alone) == 2:
            linear_logits = alone["linear"]["validation"]
            linear_calibrations = _fitted(linear_logits, truth, known, settings)
            linear_scores = calibrated(linear_logits, linear_calibrations)
            # Of papers whose truth is known: others may have taught the linear model.
            found = {
                name: find_gate(
                    linear_scores[known[:, at], at],
                    scores[known[:, at], at] >= threshold,
                    threshold,
                    settings.gate_risk,
                    len(names),
                )
                for at, (name, threshold) in enumerate(thresholds.items())
            }
            gates = [gate for gate in found.values() if gate is not None]
            if len(gates) < len(names):
                gates = []
            told += _told_of_gates(found, known.sum(axis=0).tolist(), settings)
        decided_by = BY_GATE if trained is None else BY_ENCODER
        return cls(logits, alone, calibrations, thresholds, linear_calibrations, blends, gates, told, decided_by)


def _better_blend(encoder: np.ndarray, linear_logits: np.ndarray, truth: Flags) -> Blend:
    """The blend of a label where it raises the F1 of papers that it was not fitted on, else the encoder alone."""
    if min(truth.sum(), (~truth).sum()) < 10:
        return Blend()
    mixed = cross_fitted(encoder, linear_logits, truth)
    blend = fit_blend(encoder, linear_logits, truth)
    return blend if _best_f1(truth, mixed) > _best_f1(truth, encoder) else Blend()


def _best_f1(truth: Flags, logits: np.ndarray) -> float:
    return Confusion.count(truth, logits >= best_threshold(truth, logits)).f1


def _blended(blends: Sequence[Blend], encoder: Scores, linear_logits: Scores) -> Scores:
    columns = [one.logits(encoder[:, at], linear_logits[:, at]) for at, one in enumerate(blends)]
    return np.stack(columns, axis=1).astype(np.float32)


def _fitted(logits: Scores, truth: np.ndarray, known: np.ndarray, settings: TrainSettings) -> list[Calibration]:
    return [
        fit(logits[known[:, at], at], truth[known[:, at], at], settings.calibration) for at in range(logits.shape[1])
    ]


def _told_of_blend(blend: Blend) -> str:
    if not blend.linear:
        return "the encoder's logit alone; mixing in the linear model's did not raise the validation F1"
    return f"the logit is {blend.encoder:.2f} x the encoder's + {blend.linear:.2f} x the linear model's"


def _told_of_gates(gates: Mapping[str, Gate | None], papers: Sequence[int], settings: TrainSettings) -> list[str]:
    """A line for each label; those that have no gate alone where one has none, for then no label has."""
    without = [
        f"{name}: no gate, for on {count:,} validation papers none keeps to --gate-risk {settings.gate_risk:g} with"
        " 95 % confidence"
        for (name, gate), count in zip(gates.items(), papers, strict=True)
        if gate is None
    ]
    if without and len(without) < len(gates):
        without.append("So no label has a gate: a paper goes past the encoder where all of its labels are sure")
    return without or [
        f"{name}: the gate decides {gate.decided:.1%}; {gate.disagreements} of {gate.papers:,} labels differ, and"
        f" with 95 % confidence {gate.risk:.2%} at most do"
        for name, gate in gates.items()
        if gate is not None
    ]
