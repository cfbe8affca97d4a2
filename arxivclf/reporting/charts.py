"""What is drawn of a label, as SVG, for a page that loads nothing: colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from arxivclf.reporting.metrics import CALIBRATION_BINS
from arxivclf.reporting.ranked import Ranked
from arxivclf.reporting.report import LabelReport
from arxivclf.reporting.unjudged import Unjudged

# The plot within its viewBox; what is left of it holds the names of the axes.
_WIDTH, _HEIGHT = 360, 300
_LEFT, _TOP, _RIGHT, _BOTTOM = 48, 12, 12, 44
# A line of more points looks the same, and a page of a million papers would hold a million.
_MOST_POINTS = 400
_BINS = 20


@dataclass(frozen=True)
class Line:
    """Points of rising or falling x, both in [0, 1]; `style` names it in the style sheet, `name` for the reader."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "line"
    marks: bool = False


_CHANCE = Line("chance", [(0.0, 0.0), (1.0, 1.0)], "chance")


def drawing(found: LabelReport | Unjudged) -> str:
    """The curves of a label and how its scores are spread; of one without a truth the latter alone."""
    return f'<div class="charts">{"".join(_unjudged(found) if isinstance(found, Unjudged) else _judged(found))}</div>'


def _unjudged(found: Unjudged) -> Iterator[str]:
    told = f"In {len(found.scores)} equal parts of 0 to 1."
    yield histogram("Scores", "score", [("papers", found.scores)], told)


def _judged(label: LabelReport) -> Iterator[str]:
    ranked = label.ranked
    positive, negative = int(ranked.positives.sum()), int(ranked.negatives.sum())
    if positive:
        hits = np.cumsum(ranked.positives)
        precision, recall = hits / (hits + np.cumsum(ranked.negatives)), hits / positive
        area = next(one.interval.value for one in label.figures if one.name == "average precision")
        lines = [
            Line("precision at each recall", _points(recall, precision)),
            Line("prevalence", [(0, positive / ranked.papers), (1, positive / ranked.papers)], "chance"),
        ]
        told = f"Average precision {area:.4f}, prevalence {positive / ranked.papers:.4f}."
        yield chart("Precision and recall", "recall", "precision", lines, told)
    if positive and negative:
        false, true = np.cumsum(ranked.negatives) / negative, np.cumsum(ranked.positives) / positive
        area = next(one.interval.value for one in label.figures if one.name == "ROC area")
        lines = [Line("true at each false rate", [(0.0, 0.0), *_points(false, true)]), _CHANCE]
        yield chart("ROC", "false positive rate", "true positive rate", lines, f"Area {area:.4f}.")
    yield _calibration(ranked)
    bins = np.minimum((ranked.scores * _BINS).astype(np.int64), _BINS - 1)
    counts = [np.bincount(bins, each, _BINS).astype(int).tolist() for each in (ranked.negatives, ranked.positives)]
    names = (f"not {label.name}", label.name)
    told = f"Of {negative:,} papers that are {names[0]} and {positive:,} that are {names[1]} in truth."
    yield histogram("Scores", "score", list(zip(names, counts, strict=True)), told)


def _calibration(ranked: Ranked) -> str:
    papers = ranked.positives + ranked.negatives
    place = np.minimum((ranked.scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    of = np.bincount(place, papers, CALIBRATION_BINS)
    there = of > 0
    score = np.bincount(place, papers * ranked.scores, CALIBRATION_BINS)[there] / of[there]
    share = np.bincount(place, ranked.positives, CALIBRATION_BINS)[there] / of[there]
    lines = [
        Line("share of positives by mean score", _points(score, share), marks=True),
        Line("calibrated", [(0.0, 0.0), (1.0, 1.0)], "chance"),
    ]
    told = f"Expected calibration error {ranked.error:.4f}."
    return chart("Calibration", "mean score", "share of positives", lines, told)


def _points(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    return list(zip(x.tolist(), y.tolist(), strict=True))


def chart(title: str, x_name: str, y_name: str, lines: Sequence[Line], told: str) -> str:
    """A figure with axes from 0 to 1; `told` says in words what is to be seen, for who cannot see it."""
    parts = [_axes(x_name, y_name)]
    for line in lines:
        points = _thinned(line.points)
        path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="{line.style}" points="{path}"/>')
        if line.marks:
            parts += [f'<circle class="{line.style}-mark" cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="3"/>' for x, y in points]
    key = "".join(f'<li class="{line.style}-key">{escape(line.name)}</li>' for line in lines)
    return _figure(title, told, "".join(parts), f'<ul class="key">{key}</ul>')


def histogram(title: str, x_name: str, bars: Sequence[tuple[str, Sequence[int]]], told: str) -> str:
    """Counts of equally wide bins of [0, 1], for each kind a row of bars in its own style, on a scale of square roots.

    Most papers score near 0; on a plain scale nothing else could be seen.
    """
    most = max((count for _, counts in bars for count in counts), default=0) ** 0.5 or 1.0
    parts = [_axes(x_name, "papers (square root)", numbers=False)]
    for kind, (_, counts) in enumerate(bars):
        wide = (_WIDTH - _LEFT - _RIGHT) / len(counts)
        for place, count in enumerate(counts):
            high = count**0.5 / most * (_HEIGHT - _TOP - _BOTTOM)
            left = _LEFT + place * wide + kind * wide / len(bars)
            parts.append(
                f'<rect class="bar-{kind}" x="{left:.1f}" y="{_HEIGHT - _BOTTOM - high:.1f}"'
                f' width="{max(0.5, wide / len(bars) - 0.5):.1f}" height="{high:.1f}"/>'
            )
    key = "".join(f'<li class="bar-{kind}-key">{escape(name)}</li>' for kind, (name, _) in enumerate(bars))
    return _figure(title, told, "".join(parts), f'<ul class="key">{key}</ul>')


def _figure(title: str, told: str, inside: str, key: str) -> str:
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
        f' aria-label="{escape(f"{title}. {told}", quote=True)}">{inside}</svg>{key}</figure>'
    )


def _axes(x_name: str, y_name: str, numbers: bool = True) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>']
    for step in range(6):
        share = step / 5
        parts.append(
            f'<text class="number" x="{_x(share):.1f}" y="{bottom + 16}" text-anchor="middle">{share:g}</text>'
        )
        if numbers:
            parts.append(f'<path class="grid" d="M{_LEFT} {_y(share):.1f}H{right}"/>')
            parts.append(_text(_LEFT - 6, _y(share) + 4, f"{share:g}", "end"))
    parts.append(_text((_LEFT + right) / 2, _HEIGHT - 8, x_name, "middle"))
    parts.append(f'<g transform="translate(12 {(_TOP + bottom) / 2}) rotate(-90)">{_text(0, 0, y_name, "middle")}</g>')
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most so many points, the first and the last among them, evenly along the line."""
    if len(points) <= _MOST_POINTS:
        return points
    lengths = [0.0]
    for (x, y), (to_x, to_y) in pairwise(points):
        lengths.append(lengths[-1] + abs(to_x - x) + abs(to_y - y))
    kept, due = [points[0]], 0.0
    step = lengths[-1] / (_MOST_POINTS - 2)
    for point, length in zip(points[1:-1], lengths[1:-1], strict=True):
        if length >= due:
            kept.append(point)
            due = length + step
    return [*kept, points[-1]]


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)
