"""Who decides: the linear model in front of the encoder, how the two are mixed, and what that is proven to cost.

The gate lets the linear model decide the papers that it is sure of, so that the encoder sees the others alone. How sure
it must be comes from validation papers: of the labels that the model gives without its gate, at most a share `risk`
differ, with 95 % confidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from arxivclf.model.labels import Flags

CONFIDENCE = 0.95

# Distances from the threshold, in log-odds of the linear score, from the surest on. Fixed beforehand and tried in this
# order up to the first that fails: then no more than 1 - CONFIDENCE of all gates break their bound, although the papers
# that choose among them are those that judge (fixed-sequence testing; Angelopoulos et al. 2021, "Learn then Test").
_MARGINS = np.arange(8.0, 0.2, -0.1)


@dataclass(frozen=True)
class Blend:
    """A logit of both: `encoder` times the encoder's plus `linear` times the linear model's."""

    encoder: float = 1.0
    linear: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite([self.encoder, self.linear]).all() and self.encoder > 0 and self.linear >= 0):
            raise ValueError(
                "a blend has finite weights, that of the encoder above 0, that of the linear model not below"
            )

    def logits(self, encoder: npt.ArrayLike, linear: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Logits of the shape of both, float64."""
        return self.encoder * np.asarray(encoder, np.float64) + self.linear * np.asarray(linear, np.float64)

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Gate:
    """A label is decided where the linear score is `low` at most or `high` at least, all scores in [0, 1].

    The evidence: of `papers` validation papers the linear model decided the share `decided`, and `disagreements` of
    them got another label than the model gives without its gate. With 95 % confidence no more than `risk` of all
    papers like these do; of several labels with that confidence for all of them together (each at its share of what is
    left, Bonferroni). `bound` is the limit at just these two scores (Clopper and Pearson 1934, one-sided); that they
    were chosen by these papers costs it a little of its confidence, and costs `risk` none: margins are tried from the
    widest on, and the first that breaks it ends the search.
    """

    low: float
    high: float
    papers: int
    disagreements: int
    bound: float
    decided: float
    risk: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError("a gate's low is below its high, both in [0, 1]")

    def decides(self, scores: npt.ArrayLike) -> Flags:
        """Which papers are decided, bool (papers,), by their linear scores."""
        given = np.asarray(scores)
        return np.asarray((given <= np.float32(self.low)) | (given >= np.float32(self.high)))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Gate:
        """Raises TypeError or ValueError where the content is no gate."""
        return cls(**content)


def find_gate(
    scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float, risk: float, of_labels: int = 1
) -> Gate | None:
    """The gate that decides most papers and keeps to `risk`, from validation papers; None where none does.

    `scores` are linear scores in [0, 1], float32 (papers,); `labels` are what the model gives without its gate, bool
    (papers,), from a score of `threshold` in (0, 1) on; `of_labels` is how many labels the model has.
    """
    confidence = 1 - (1 - CONFIDENCE) / of_labels
    given, wanted = np.asarray(scores, np.float32), np.asarray(labels, bool)
    middle = _log_odds(threshold)
    found = None
    for margin in _MARGINS:
        low, high = (float(np.float32(_share(middle + side * margin))) for side in (-1, 1))
        if not (low < threshold <= high and len(given)):
            continue
        decided = (given <= np.float32(low)) | (given >= np.float32(high))
        disagreements = int((decided & ((given >= threshold) != wanted)).sum())
        bound = upper_bound(disagreements, len(given), confidence)
        if bound > risk:
            break
        found = Gate(low, high, len(given), disagreements, bound, float(decided.mean()), risk)
    return found


def upper_bound(events: int, papers: int, confidence: float = CONFIDENCE) -> float:
    """The largest share that `events` among `papers` still allow: the exact one-sided binomial bound."""
    from scipy.special import betaincinv

    return 1.0 if events >= papers else float(betaincinv(events + 1, papers - events, confidence))


def fit_blend(encoder: npt.ArrayLike, linear: npt.ArrayLike, truth: npt.ArrayLike) -> Blend:
    """The mixture of two logits (papers,) that tells the truth, bool (papers,), best: logistic regression.

    The encoder alone where the linear model adds nothing, or would count against.
    """
    from sklearn.linear_model import LogisticRegression

    both = np.stack([np.asarray(encoder, np.float64), np.asarray(linear, np.float64)], axis=1)
    first, second = LogisticRegression(tol=1e-8).fit(both, np.asarray(truth, bool)).coef_[0].tolist()
    return Blend(first, second) if first > 0 and second > 0 else Blend()


def cross_fitted(encoder: npt.ArrayLike, linear: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The logits of blends, each fitted on those four fifths of the papers which it is not used on, float64 (papers,).

    Every fold's are brought to the scale of log-odds, so that they can be ranked together.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    both = np.stack([np.asarray(encoder, np.float64), np.asarray(linear, np.float64)], axis=1)
    true = np.asarray(truth, bool)
    logits = np.empty(len(true))
    for fitted, judged in StratifiedKFold(5, shuffle=True, random_state=0).split(both, true):
        logits[judged] = LogisticRegression(tol=1e-8).fit(both[fitted], true[fitted]).decision_function(both[judged])
    return logits


def _log_odds(share: float) -> float:
    inside = min(max(share, 1e-9), 1 - 1e-9)
    return float(np.log(inside) - np.log1p(-inside))


def _share(log_odds: float) -> float:
    return float(1.0 / (1.0 + np.exp(-log_odds)))
