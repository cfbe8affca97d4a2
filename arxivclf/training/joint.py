"""How encoder and linear model work together: blend, calibration, thresholds and gate, from validation papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from arxivclf.config import TrainSettings
from arxivclf.model.calibration import Calibration, calibrated, fit, fit_years
from arxivclf.model.cascade import Cascade
from arxivclf.model.gate import Blend, Gate, GateSample, cross_fitted, fewest_labelled, find_gates, fit_blend
from arxivclf.model.labels import Flags, Scores
from arxivclf.model.linear import Linear
from arxivclf.reporting.metrics import Confusion, best_threshold
from arxivclf.training.dataset import Dataset, Papers

if TYPE_CHECKING:
    from arxivclf.training.encoder import Trained


@dataclass(frozen=True)
class Joint:
    """How encoder and linear model work together, fitted on validation papers.

    `alone` are the logits of each of the two models ("linear", "encoder") by split (validation, test); `cascade` and
    `thresholds` turn them into scores and labels. `told` are messages for the person who trains.
    """

    alone: Mapping[str, Mapping[str, Scores]]
    cascade: Cascade
    thresholds: Mapping[str, float]
    told: Sequence[str]

    @classmethod
    def fit(cls, settings: TrainSettings, dataset: Dataset, words: Linear | None, trained: Trained | None) -> Joint:
        """From the linear model, the encoder, or both."""
        names = dataset.validation.names
        alone: dict[str, Mapping[str, Scores]] = {}
        if words is not None:
            sides = {"validation": dataset.validation, "test": dataset.test}
            alone["linear"] = {part: words.logits_of_many(papers.texts, papers.years) for part, papers in sides.items()}
        if trained is not None:
            alone["encoder"] = {"validation": trained.validation_logits, "test": trained.test_logits}
        known, truth = ~np.isnan(dataset.validation.truth), dataset.validation.truth > 0.5
        blends: list[Blend] = []
        own: npt.NDArray[np.floating] = alone["encoder" if "encoder" in alone else "linear"]["validation"]
        if len(alone) == 2:
            linear_logits = alone["linear"]["validation"]
            for at in range(len(names)):
                there = known[:, at]
                blends.append(_better_blend(own[there, at], linear_logits[there, at], truth[there, at]))
            own = Cascade((), blends=blends).stacked(linear_logits, own)
        years = dataset.validation.years
        calibrations = _fitted(own, dataset.validation, settings)
        scores = calibrated(own, calibrations, years)
        thresholds = {
            name: best_threshold(truth[known[:, at], at], scores[known[:, at], at]) for at, name in enumerate(names)
        }
        told = [f"{name}: {_told_of_blend(blend)}" for name, blend in zip(names, blends, strict=False)]
        if len(alone) < 2:
            return cls(alone, Cascade(calibrations), thresholds, told)
        linear_calibrations = _fitted(linear_logits, dataset.validation, settings)
        linear_scores = calibrated(linear_logits, linear_calibrations, years)
        samples = {}
        for at, (name, threshold) in enumerate(thresholds.items()):
            # Only papers with ground truth: the linear model may be trained on the others.
            there = known[:, at]
            samples[name] = GateSample(linear_scores[there, at], scores[there, at] >= threshold, threshold)
        gates = find_gates(samples, settings.gate_risk)
        usable = [gate for gate in gates.values() if gate is not None]
        told += _gate_messages(gates, samples, settings.gate_risk)
        cascade = Cascade(calibrations, linear_calibrations, blends, usable if len(usable) == len(names) else ())
        return cls(alone, cascade, thresholds, told)


def _better_blend(encoder: np.ndarray, linear_logits: np.ndarray, truth: Flags) -> Blend:
    """The blend of a label where it raises the F1 of papers that it was not fitted on, else the encoder alone."""
    if min(truth.sum(), (~truth).sum()) < 10:
        return Blend()
    mixed = cross_fitted(encoder, linear_logits, truth)
    blend = fit_blend(encoder, linear_logits, truth)
    return blend if _best_f1(truth, mixed) > _best_f1(truth, encoder) else Blend()


def _best_f1(truth: Flags, logits: np.ndarray) -> float:
    return Confusion.count(truth, logits >= best_threshold(truth, logits)).f1


def _fitted(logits: npt.NDArray[np.floating], papers: Papers, settings: TrainSettings) -> list[Calibration]:
    """The calibration of each label, with offsets by year where they help."""
    truth, years = papers.truth, papers.years
    calibrations = []
    for label in range(logits.shape[1]):
        known = ~np.isnan(truth[:, label])
        given, positive = logits[known, label], truth[known, label] > 0.5
        calibration = fit(given, positive, settings.calibration)
        by_year = settings.calibration == "auto"
        calibrations.append(fit_years(calibration, given, positive, years[known]) if by_year else calibration)
    return calibrations


def _told_of_blend(blend: Blend) -> str:
    if not blend.linear:
        return "the encoder's logit alone; mixing in the linear model's did not raise the validation F1"
    return f"the logit is {blend.encoder:.2f} x the encoder's + {blend.linear:.2f} x the linear model's"


def _gate_messages(gates: Mapping[str, Gate | None], samples: Mapping[str, GateSample], risk: float) -> Sequence[str]:
    """A line per label; where labels have no gate only those that prevent it, as then the encoder sees every paper."""
    without = [name for name, gate in gates.items() if gate is None]
    fewest = fewest_labelled(risk, len(gates))
    # A rare label stops the test of all labels at one margin, so that others may lack a gate only because of it.
    preventing = [name for name in without if samples[name].labels.sum() < fewest] or without
    messages = [f"{name}: no gate. {_why_no_gate(samples[name], risk, fewest)}" for name in preventing]
    if messages and len(preventing) < len(gates):
        messages.append("The encoder sees every paper: it is skipped only where the gates of all labels decide")
    return messages or [
        f"{name}: this gate by itself decides {gate.decided:.1%} of {gate.papers:,} validation papers; of"
        f" {gate.labelled:,} labelled without it {gate.lost:,} lose the label, and {gate.gained:,} gain it: at most"
        f" {gate.bound:.2%} of the labelled papers with 95 % confidence (--gate-risk {risk:g})"
        for name, gate in gates.items()
        if gate is not None
    ]


def _why_no_gate(sample: GateSample, risk: float, fewest: int) -> str:
    """Why no gate can be proven for a label, and how many validation papers that would take."""
    labelled, papers = int(sample.labels.sum()), len(sample.labels)
    if labelled >= fewest:
        return (
            f"Too many of the {labelled:,} validation papers that the model labels change for --gate-risk {risk:g},"
            " even where the linear model is most certain"
        )
    message = (
        f"--gate-risk {risk:g} takes at least {fewest:,} validation papers that the model labels; it labels"
        f" {labelled:,} of {papers:,}"
    )
    if labelled == 0:
        return message
    return f"{message}, so about {_rounded_up(fewest * papers / labelled):,} validation papers would be needed"


def _rounded_up(papers: float) -> int:
    """Two significant digits: it is an estimate."""
    unit: int = 10 ** max(0, int(np.log10(papers)) - 1)
    return int(np.ceil(papers / unit)) * unit
