"""The gate: the linear model decides the papers that it is sure of, and the encoder sees only the others.

Validation papers say how sure is sure enough: of the papers that the model labels without its gate, at most a share
`risk` may get another label because of the gate, for all labels at once with 95 % confidence. This module also holds
the stacking weights that combine the logits of the two models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from arxivclf.model.labels import Flags

CONFIDENCE = 0.95

# The probability of a broken bound, 1 - CONFIDENCE, is divided between two tests where there are several labels.
_TOGETHER, _EACH = 0.04, 0.01

# Distances from the label's threshold in log-odds of the linear score, widest first. This sequence does not depend on
# the papers, so it can be tested in its order up to the first failure without a correction for its length
# (fixed-sequence testing; Angelopoulos et al. 2021, "Learn then Test").
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
    """The deferral thresholds of a label: decided where the linear score is at most `low` or at least `high`.

    The evidence comes from `papers` validation papers, of which the model without its gate gives the label to
    `labelled`. If this gate decided by itself, it would decide the share `decided` of the papers; `lost` of them would
    lose the label and `gained` would get it. `bound` is the upper confidence bound of (lost + gained) / labelled, at
    most `risk`. A paper skips the encoder only where the gates of all labels decide it, so with several labels fewer
    labels change than this says.

    The bound holds for papers that are exchangeable with the validation papers, such as a random sample of the same
    dump; papers of other years or fields may disagree more often.
    """

    low: float
    high: float
    papers: int
    labelled: int
    lost: int
    gained: int
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


@dataclass(frozen=True)
class GateSample:
    """Validation papers of one label: linear scores in [0, 1], float32 (papers,); the labels that the model gives them
    without its gate, bool (papers,); and the label's score threshold."""

    scores: npt.NDArray[np.float32]
    labels: Flags
    threshold: float


def find_gates(samples: Mapping[str, GateSample], risk: float) -> dict[str, Gate | None]:
    """The gate of each label that decides most papers within `risk`; None for a label whose bound cannot be proven.

    Let U be the papers that have the label without the gate or with it, and D those of them that the gate changes. The
    count of D is binomial in that of U with a share q = P(D) / P(U), and since the papers labelled without the gate are
    U less the gained ones, lost + gained is at most q / (1 - q) of them. The exact upper bound of q (Clopper and
    Pearson 1934) therefore bounds the risk relative to the labelled papers.

    With several labels, two tests of the margins divide the 5 %, and each label takes the better result. With 4 %, one
    margin for all labels, at which each of them must pass: it is wrong only if the first label to break its bound
    passes, so it needs no correction for the number of labels (intersection-union test, Berger 1982). With 1 %, each
    label by itself, corrected by Bonferroni. The first needs fewer papers of a rare label, and the second keeps one
    difficult label from stopping the others.
    """
    paths = {name: _Path.of(sample) for name, sample in samples.items()}
    together = 1 - CONFIDENCE if len(samples) == 1 else _TOGETHER
    shared = min((path.within(risk, 1 - together) for path in paths.values()), default=0)
    gates = {}
    for name, path in paths.items():
        own = path.within(risk, 1 - _EACH / len(samples))
        confidence = 1 - together if shared >= own else 1 - _EACH / len(samples)
        gates[name] = path.gate(max(shared, own) - 1, risk, confidence) if max(shared, own) else None
    return gates


def fewest_labelled(risk: float, labels: int = 1) -> int:
    """The smallest count of labelled validation papers that can prove the bound: none of them may change."""
    alpha = 1 - CONFIDENCE if labels == 1 else _TOGETHER
    return int(np.ceil(np.log(alpha) / -np.log1p(risk) - 1e-9))


@dataclass(frozen=True)
class _Path:
    """What each margin, widest first, would change for one label: counts of lost and gained labels, (margins,)."""

    sample: GateSample
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    lost: npt.NDArray[np.int64]
    gained: npt.NDArray[np.int64]

    @classmethod
    def of(cls, sample: GateSample) -> _Path:
        middle = _log_odds(sample.threshold)
        low, high = (_share(middle + side * _MARGINS).astype(np.float32) for side in (-1, 1))
        labelled, others = np.sort(sample.scores[sample.labels]), np.sort(sample.scores[~sample.labels])
        lost = np.searchsorted(labelled, low, side="right")
        gained = len(others) - np.searchsorted(others, high, side="left")
        return cls(sample, low, high, lost, gained)

    def bounds(self, confidence: float) -> npt.NDArray[np.float64]:
        """The upper bound of (lost + gained) / labelled at each margin."""
        shares = upper_bound(self.lost + self.gained, int(self.sample.labels.sum()) + self.gained, confidence)
        with np.errstate(divide="ignore"):
            return shares / (1 - shares)

    def within(self, risk: float, confidence: float) -> int:
        """How many margins pass before the first that fails."""
        # A threshold next to 0 leaves no scores below it to decide.
        usable = (self.low < self.sample.threshold) & (self.sample.threshold <= self.high)
        passed = usable & (self.bounds(confidence) <= risk)
        return len(passed) if passed.all() else int(passed.argmin())

    def gate(self, margin: int, risk: float, confidence: float) -> Gate:
        low, high = float(self.low[margin]), float(self.high[margin])
        decided = (self.sample.scores <= self.low[margin]) | (self.sample.scores >= self.high[margin])
        return Gate(
            low=low,
            high=high,
            papers=len(self.sample.scores),
            labelled=int(self.sample.labels.sum()),
            lost=int(self.lost[margin]),
            gained=int(self.gained[margin]),
            bound=float(self.bounds(confidence)[margin]),
            decided=float(decided.mean()),
            risk=risk,
        )


def upper_bound(
    events: npt.ArrayLike, papers: npt.ArrayLike, confidence: float = CONFIDENCE
) -> npt.NDArray[np.float64]:
    """The largest share that `events` among `papers` still allow: the exact one-sided binomial bound, elementwise."""
    from scipy.special import betaincinv

    count, rest = np.asarray(events), np.asarray(papers) - np.asarray(events)
    return np.where(rest > 0, betaincinv(count + 1, np.maximum(rest, 1), confidence), 1.0)


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


def _share(log_odds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-log_odds))
