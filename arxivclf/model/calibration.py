"""Calibration: from a logit to a score that means what it says, fitted for each label on validation papers.

Of all papers that score 0.7, seven in ten should be positive. A label's calibration is a rising function of its logit,
so that it moves no paper past another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Kind = Literal["none", "temperature", "platt", "beta", "isotonic"]

# How many papers of the rarer class a kind takes before its parameters are worth fitting; the simplest comes first.
# Of the rarer class, for each kind.
LEAST_PAPERS: Mapping[Kind, int] = {"none": 0, "temperature": 10, "platt": 20, "beta": 100, "isotonic": 1_000}
_FOLDS = 5
# Where the two slopes of a beta calibration may meet, and where its curve has knots from there.
_BENDS = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0)
_CURVE = np.concatenate([[-60.0], np.linspace(-8.0, 8.0, 33), [60.0]])
# Where the offsets of years have their knots among the validation papers, and how far from 0 they are expected to lie.
_YEAR_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_OFFSET_DEVIATION = 0.5
# A model that knows nothing would have all its logits pressed into one score, and with them the order of its papers.
_LEAST_SLOPE = 0.1


@dataclass(frozen=True)
class Calibration:
    """A rising, piecewise linear function of the logit; the score is the sigmoid of its value.

    `logits` are its knots, rising, `values` what it gives there, rising too; beyond the outer knots it goes on with
    `slope`. One knot is a straight line: `temperature` is value = logit / T (Guo et al. 2017), `platt` has a shift, too
    (Platt 1999), for papers that are not as many as in training; `beta` goes over from one slope to another, for a
    model that is surer of its negatives than of its positives, or less (Kull et al. 2017, whose curve bends at 0: here
    it does where that is likeliest); `isotonic` has a knot for each level of the isotonic regression (Zadrozny and
    Elkan 2002), in its middle, so that there are no ties.

    A field grows, so that the same text is more likely to be positive in one year than in another: in each of `years`,
    rising, the log-odds are shifted by one of `offsets`, in between by a straight line, and beyond as at the ends. A
    paper of unknown year is not shifted, which gives it the average.
    """

    kind: Kind = "none"
    slope: float = 1.0
    logits: tuple[float, ...] = (0.0,)
    values: tuple[float, ...] = (0.0,)
    years: tuple[int, ...] = ()
    offsets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        rising = all(low < high for knots in (self.logits, self.values, self.years) for low, high in pairwise(knots))
        finite = np.isfinite([self.slope, *self.logits, *self.values, *self.offsets]).all()
        if not (finite and rising and self.slope > 0 and 0 < len(self.logits) == len(self.values)):
            raise ValueError("a calibration is a rising function: finite knots, each above the last")
        if len(self.years) != len(self.offsets):
            raise ValueError("a calibration has an offset for each of its years")

    def shifted(self, log_odds: float) -> Calibration:
        """The calibration with all its values raised by `log_odds`, and without offsets by year.

        The shift stands for the prevalence of a whole dump; offsets by year would count its years a second time.
        """
        return replace(self, values=tuple(value + log_odds for value in self.values), years=(), offsets=())

    def scores(self, logits: npt.ArrayLike, years: npt.ArrayLike | None = None) -> Floats:
        """Scores in [0, 1], float64 in the shape of the logits, of papers of these `years`, 0 where unknown."""
        return sigmoid(self.log_odds(np.asarray(logits, dtype=np.float64)) + self._offset(years))

    def log_odds(self, logits: Floats) -> Floats:
        """The log-odds of papers of unknown year, in the shape of the logits."""
        inside = np.interp(logits, self.logits, self.values)
        below, above = np.minimum(logits - self.logits[0], 0.0), np.maximum(logits - self.logits[-1], 0.0)
        return inside + self.slope * (below + above)

    def _offset(self, years: npt.ArrayLike | None) -> Floats | float:
        if years is None or not self.years:
            return 0.0
        given = np.asarray(years)
        return np.where(given > 0, np.interp(given, self.years, self.offsets), 0.0)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """Raises ValueError, KeyError or TypeError where the content is no calibration."""
        if content["kind"] not in LEAST_PAPERS:
            raise ValueError(f"no calibration of the kind {content['kind']!r}")
        logits, values, offsets = (tuple(map(float, content[name])) for name in ("logits", "values", "offsets"))
        years = tuple(map(int, content["years"]))
        return cls(content["kind"], float(content["slope"]), logits, values, years, offsets)


def calibrated(
    logits: npt.ArrayLike, calibrations: Sequence[Calibration], years: npt.ArrayLike | None = None
) -> npt.NDArray[np.float32]:
    """Scores in [0, 1], float32 (papers, labels), from logits (papers, labels) and a calibration for each label.

    `years` (papers,) are those of the papers, 0 where unknown; None where none is known.
    """
    given = np.asarray(logits, dtype=np.float64)
    columns = [calibration.scores(given[:, label], years) for label, calibration in enumerate(calibrations)]
    return np.stack(columns, axis=1).astype(np.float32)


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-logits)), without overflow."""
    share = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, share) / (1.0 + share)


def logit(share: float) -> float:
    """The log-odds of a share in (0, 1)."""
    return float(np.log(share) - np.log1p(-share))


def fit(logits: npt.ArrayLike, truth: npt.ArrayLike, kind: Literal["auto"] | Kind = "auto") -> Calibration:
    """The calibration of a label from its logits (papers,) and truth, boolean (papers,).

    `auto` takes the simplest kind whose log loss in five-fold cross-validation is within a standard error of the lowest
    (Breiman et al. 1984), among those that the papers are enough for: what follows every chance of these papers is
    steep, so that a small change of a logit becomes a large one of a score. A kind that was asked for but that they are
    not enough for is replaced by none.
    """
    given, true = np.asarray(logits, dtype=np.float64), np.asarray(truth, dtype=bool)
    rarer = int(min(true.sum(), (~true).sum()))
    kinds: list[Kind] = [one for one, papers in LEAST_PAPERS.items() if rarer >= papers and kind in ("auto", one)]
    if len(kinds) < 2:
        return _fit(given, true, kinds[0] if kinds else "none")
    losses = np.stack([_cross_validated(given, true, one) for one in kinds])
    more = losses - losses[losses.mean(axis=1).argmin()]
    within = more.mean(axis=1) <= more.std(axis=1) / np.sqrt(len(true))
    return _fit(given, true, kinds[int(within.argmax())])


def fit_years(
    calibration: Calibration, logits: npt.ArrayLike, truth: npt.ArrayLike, years: npt.ArrayLike
) -> Calibration:
    """The calibration with offsets by year, where they lower the cross-validated log loss; else as it is.

    `years` (papers,) are 0 where unknown; such papers say nothing here. Offsets have a normal prior around 0, so that
    few papers shift little.
    """
    given, true, when = np.asarray(logits, np.float64), np.asarray(truth, bool), np.asarray(years)
    known = when > 0
    log_odds, true, when = calibration.log_odds(given[known]), true[known], when[known]
    knots = np.unique(np.quantile(when, _YEAR_QUANTILES).round().astype(int)) if len(when) else np.zeros(0, int)
    if len(knots) < 2 or min(true.sum(), (~true).sum()) < LEAST_PAPERS["beta"]:
        return calibration
    basis = np.stack([np.interp(when, knots, row) for row in np.eye(len(knots))], axis=1)
    fold = np.random.default_rng(0).permutation(len(true)) % _FOLDS
    shifted = np.empty(len(true))
    for part in range(_FOLDS):
        offsets = _offsets(log_odds[fold != part], true[fold != part], basis[fold != part])
        shifted[fold == part] = log_odds[fold == part] + basis[fold == part] @ offsets
    if log_loss(sigmoid(shifted), true) >= log_loss(sigmoid(log_odds), true):
        return calibration
    offsets = _offsets(log_odds, true, basis)
    return replace(calibration, years=tuple(knots.tolist()), offsets=tuple(offsets.tolist()))


def _offsets(log_odds: Floats, truth: npt.NDArray[np.bool_], basis: Floats) -> Floats:
    """Maximum a posteriori offsets (knots,) to known log-odds, by Newton's method; the problem is strictly convex."""
    offsets = np.zeros(basis.shape[1])
    for _ in range(25):
        share = sigmoid(log_odds + basis @ offsets)
        slope = basis.T @ (share - truth) + offsets / _OFFSET_DEVIATION**2
        bend = (basis * (share * (1 - share))[:, None]).T @ basis + np.eye(len(offsets)) / _OFFSET_DEVIATION**2
        step = np.linalg.solve(bend, slope)
        offsets -= step
        if np.abs(step).max() < 1e-10:
            break
    return offsets


def log_loss(scores: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """The mean negative logarithm of the probability that was given to the truth."""
    return float(_losses(np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=bool)).mean())


def _losses(scores: Floats, truth: npt.NDArray[np.bool_]) -> Floats:
    losses: Floats = -np.log(np.clip(np.where(truth, scores, 1.0 - scores), 1e-15, None))
    return losses


def _cross_validated(logits: Floats, truth: npt.NDArray[np.bool_], kind: Kind) -> Floats:
    """The loss of each paper under the calibration of the others."""
    # Folds of like prevalence: the papers of each class are dealt out in turn.
    fold = np.empty(len(truth), dtype=np.int64)
    for one in (True, False):
        fold[truth == one] = np.random.default_rng(0).permutation(int((truth == one).sum())) % _FOLDS
    scores = np.empty(len(truth))
    for part in range(_FOLDS):
        scores[fold == part] = _fit(logits[fold != part], truth[fold != part], kind).scores(logits[fold == part])
    return _losses(scores, truth)


def _fit(logits: Floats, truth: npt.NDArray[np.bool_], kind: Kind) -> Calibration:
    if kind == "isotonic":
        return _isotonic(logits, truth)
    if kind == "beta":
        return _beta(logits, truth)
    if kind != "none":
        # Where the classes part wholly the best slope is infinite: the penalty, of one paper's weight, keeps it finite.
        from sklearn.linear_model import LogisticRegression

        line = LogisticRegression(fit_intercept=kind == "platt", tol=1e-8).fit(logits[:, None], truth)
        slope, shift = float(line.coef_[0, 0]), float(np.ravel(line.intercept_)[0])
        if slope > _LEAST_SLOPE:
            return Calibration(kind, slope, (0.0,), (shift,))
    return Calibration()


def _beta(logits: Floats, truth: npt.NDArray[np.bool_]) -> Calibration:
    from sklearn.linear_model import LogisticRegression

    def sides(given: Floats) -> Floats:
        return np.stack([-np.logaddexp(0.0, -given), np.logaddexp(0.0, given)], axis=1)

    best, lowest = Calibration(), np.inf
    for bend in _BENDS:
        line = LogisticRegression(tol=1e-8, max_iter=1_000).fit(sides(logits - bend), truth)
        loss = log_loss(line.predict_proba(sides(logits - bend))[:, 1], truth)
        if line.coef_.min() > _LEAST_SLOPE and loss < lowest:
            values = sides(_CURVE) @ line.coef_[0] + line.intercept_[0]
            best, lowest = Calibration("beta", 1.0, tuple((_CURVE + bend).tolist()), tuple(values.tolist())), loss
    return best


def _isotonic(logits: Floats, truth: npt.NDArray[np.bool_]) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    level = IsotonicRegression().fit_transform(logits, truth.astype(np.float64))
    _, place = np.unique(level, return_inverse=True)
    papers, positive = np.bincount(place), np.bincount(place, truth)
    # Half a paper of each class more (Krichevsky and Trofimov 1981): no score is quite 0 or 1. It lifts levels of few
    # papers most, and those that no longer rise are made one.
    smoothed = IsotonicRegression().fit_transform(
        np.arange(len(papers)), (positive + 0.5) / (papers + 1.0), sample_weight=papers + 1.0
    )
    shares, step = np.unique(smoothed, return_inverse=True)
    middles = np.bincount(step, np.bincount(place, logits)) / np.bincount(step, papers)
    values = np.log(shares) - np.log1p(-shares)
    rises = np.append(True, np.diff(values) > 1e-9)
    return Calibration("isotonic", 1.0, tuple(middles[rises].tolist()), tuple(values[rises].tolist()))
