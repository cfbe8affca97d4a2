"""The cascade: from the logits of the linear model and the encoder to scores, the same in training and in labelling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arxivclf.model.calibration import Calibration, calibrated
from arxivclf.model.gate import Blend, Gate
from arxivclf.model.labels import Flags, Scores

Years = npt.NDArray[np.int32] | None


@dataclass(frozen=True)
class Cascade:
    """Gates, stacking weights and calibrations, each with an item per label, in the order of the labels.

    `calibrations` turn the logits of the model without its gate into scores, `linear_calibrations` those of a linear
    model in front of an encoder (a model without an encoder has only `calibrations`). `blends` are empty where the
    encoder's logits are used as they are, `gates` where the encoder sees every paper. Logits and scores are (papers,
    labels); `years` (papers,) are 0 for papers of unknown year, None where all are.
    """

    calibrations: Sequence[Calibration]
    linear_calibrations: Sequence[Calibration] = ()
    blends: Sequence[Blend] = ()
    gates: Sequence[Gate] = ()

    def deferred(self, linear_logits: Scores, years: Years = None) -> Flags:
        """Which papers an encoder must see, bool (papers,): all except those that the gate of every label decides."""
        if not self.gates:
            return np.ones(len(linear_logits), dtype=bool)
        scores = calibrated(linear_logits, self.linear_calibrations, years)
        decided = [gate.decides(scores[:, label]) for label, gate in enumerate(self.gates)]
        sure: Flags = np.logical_and.reduce(decided)
        return ~sure

    def stacked(self, linear_logits: Scores, encoder_logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The logits of the model without its gate, float64, from the logits of both models."""
        encoder = np.asarray(encoder_logits, dtype=np.float64)
        if not self.blends:
            return encoder
        columns = [blend.logits(encoder[:, at], linear_logits[:, at]) for at, blend in enumerate(self.blends)]
        return np.stack(columns, axis=1)

    def stacked_scores(self, linear_logits: Scores, encoder_logits: npt.ArrayLike, years: Years = None) -> Scores:
        """The scores of the model without its gate, float32 in [0, 1]."""
        return calibrated(self.stacked(linear_logits, encoder_logits), self.calibrations, years)

    def linear_scores(self, linear_logits: Scores, years: Years = None) -> Scores:
        """The scores of papers that the linear model decides, float32 in [0, 1]."""
        return calibrated(linear_logits, self.linear_calibrations or self.calibrations, years)

    def scores(
        self, linear_logits: Scores, encoder_logits: npt.ArrayLike, deferred: Flags, years: Years = None
    ) -> Scores:
        """The scores of the model as it is used, float32 in [0, 1], from the logits of both models on all papers."""
        without_gate = self.stacked_scores(linear_logits, encoder_logits, years)
        return np.where(deferred[:, None], without_gate, self.linear_scores(linear_logits, years))
