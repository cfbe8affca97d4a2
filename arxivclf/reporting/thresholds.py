"""What a threshold costs: precision, recall, F1 and share labelled along it, and the thresholds worth knowing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arxivclf.errors import UsageError
from arxivclf.reporting.metrics import Confusion
from arxivclf.reporting.ranked import Ranked
from arxivclf.reporting.targets import FIGURES, Target

_ALONG = tuple(round(tenth / 10, 1) for tenth in range(1, 10))


@dataclass(frozen=True)
class Cut:
    """Labelling from a score of `threshold` on, what that gives, and why it is told: "" for one of the round ones.

    Where it is told for several reasons, commas stand between. `shown` is a threshold of few digits, four at least,
    from which on the same papers are labelled.
    """

    threshold: float
    shown: str
    confusion: Confusion
    why: str

    @property
    def labelled(self) -> float:
        """The share of papers that are labelled."""
        counts = self.confusion
        return (counts.true_positives + counts.false_positives) / counts.papers


@dataclass(frozen=True)
class Thresholds:
    """Cuts by rising threshold, and what was found for each wanted precision and recall."""

    cuts: tuple[Cut, ...]
    targets: tuple[Target, ...] = ()


def along(
    ranked: Ranked, used: float | None, for_precision: Sequence[float] = (), for_recall: Sequence[float] = ()
) -> Thresholds:
    """Round thresholds, the one `used`, that of the best F1, and those for a wanted precision or recall in (0, 1].

    For a precision it is the lowest that is proven to have it, for a recall the highest (`targets`), so that the other
    of the two is best. Raises UsageError for a target outside of that range.
    """
    wanted = [("precision", target) for target in for_precision] + [("recall", target) for target in for_recall]
    for figure, target in wanted:
        if not 0 < target <= 1:
            raise UsageError(f"--for-{figure} must be above 0 and at most 1, not {target:g}")
    found = [(one, "") for one in _ALONG]
    if used is not None:
        found.append((used, "in use"))
    if ranked.positives.any():
        hits, labelled = ranked.confusions()[:, 0], ranked.confusions().sum(axis=1)
        f1 = 2 * hits / (labelled + ranked.positives.sum())
        found.append((float(ranked.scores[int(np.argmax(f1))]), "best F1"))
    targets = tuple(FIGURES[figure](ranked, target) for figure, target in wanted)
    found += [(target.threshold, target.name) for target in targets if target.threshold is not None]
    reasons: dict[float, list[str]] = {}
    for threshold, why in sorted((_short(threshold), why) for threshold, why in found):
        reasons.setdefault(threshold, []).extend(filter(None, [why]))
    cuts = tuple(
        Cut(threshold, _shown(threshold, ranked), ranked.at(threshold), ", ".join(whys))
        for threshold, whys in reasons.items()
    )
    return Thresholds(cuts, targets)


def _shown(threshold: float, ranked: Ranked) -> str:
    # Rounded up it may be above the score that it is, rounded down below another.
    rounded = (
        f"{direction(threshold * 10**digits) / 10**digits:.{digits}f}"
        for digits in range(4, 9)
        for direction in (round, math.floor)
    )
    return next((one for one in rounded if ranked.at(float(one)) == ranked.at(threshold)), str(threshold))


def _short(threshold: float) -> float:
    """The number of fewest digits that is the same in single precision, which scores have."""
    return float(str(np.float32(threshold)))


def in_use(given: npt.ArrayLike, scores: npt.ArrayLike, told: float | None = None) -> float | None:
    """The threshold that labels, bool (papers,), follow from: the one that is `told`, if they do, or the lowest score,
    float32 (papers,), that was labelled. None where none was, or where no threshold makes these labels.
    """
    labelled, every = np.asarray(given, dtype=bool), np.asarray(scores, dtype=np.float32)
    if told is not None and ((every >= np.float32(told)) == labelled).all():
        return told
    if not labelled.any():
        return None
    lowest = every[labelled].min()
    return float(lowest) if (every[~labelled] < lowest).all() else None
