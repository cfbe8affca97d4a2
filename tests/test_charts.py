"""What is drawn is what was counted: the way of each curve, and the height of each bar."""

from __future__ import annotations

import re

import numpy as np
import pytest

from arxivclf.reporting.charts import Line, chart, drawing, histogram
from arxivclf.reporting.report import compared

# The plot: from 0 to 1 to the right, and from 0 at the bottom up to 1.
LEFT, RIGHT, TOP, BOTTOM = 48, 348, 12, 256


def curves(svg: str) -> list[list[tuple[float, float]]]:
    """The points of each line, as shares of the plot."""
    found = []
    for points in re.findall(r'<polyline class="[a-z]+" points="([^"]*)"', svg):
        pairs = [tuple(map(float, pair.split(","))) for pair in points.split()]
        found.append([((x - LEFT) / (RIGHT - LEFT), (BOTTOM - y) / (BOTTOM - TOP)) for x, y in pairs])
    return found


def bars(svg: str) -> list[tuple[int, float, float]]:
    """Kind, left end and height of each bar that has any, the latter two as shares of the plot."""
    found = []
    shape = r'<rect class="bar-(\d)" x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"/>'
    for kind, x, y, high in re.findall(shape, svg):
        assert float(y) + float(high) == pytest.approx(BOTTOM)
        if float(high):
            found.append((int(kind), (float(x) - LEFT) / (RIGHT - LEFT), float(high) / (BOTTOM - TOP)))
    return found


def near(points: list[tuple[float, float]]) -> object:
    return [pytest.approx(point, abs=0.001) for point in points]


def test_a_line_goes_up_and_to_the_right() -> None:
    line = [(0.0, 0.0), (0.5, 1.0), (1.0, 0.25)]
    svg = chart("title", "to the right", "up", [Line("line", line)], "told")
    assert curves(svg) == [near(line)]
    assert re.search(r"rotate\(-90\)\"><text[^>]*>up</text>", svg)
    assert re.search(r'y="292.0" text-anchor="middle">to the right</text>', svg)


def test_the_curves_of_three_papers() -> None:
    """Positive, negative, positive by falling score."""
    label = compared("ai", [True, False, True], [True, True, False], np.array([0.9, 0.6, 0.3], np.float32))
    recall, roc, calibration, _ = re.findall(r"<figure>.*?</figure>", drawing(label))
    assert ">recall</text>" in recall.partition("rotate")[0]
    assert curves(recall) == [near([(0.5, 1.0), (0.5, 0.5), (1.0, 2 / 3)]), near([(0, 2 / 3), (1, 2 / 3)])]
    assert ">false positive rate</text>" in roc.partition("rotate")[0]
    assert curves(roc) == [near([(0, 0), (0, 0.5), (1, 0.5), (1, 1)]), near([(0, 0), (1, 1)])]
    assert curves(calibration)[0] == near([(0.3, 1), (0.6, 0), (0.9, 1)])


def test_the_bars_of_two_papers() -> None:
    """A positive one of a high score and a negative one of a low."""
    label = compared("ai", [True, False], [True, False], np.array([0.92, 0.12], np.float32))
    svg = re.findall(r"<figure>.*?</figure>", drawing(label))[-1]
    # Twenty bins of two bars: those of negatives first, as the key has it.
    assert bars(svg) == [(0, pytest.approx(0.1, abs=0.001), 1.0), (1, pytest.approx(0.925, abs=0.001), 1.0)]
    assert re.findall(r'<li class="bar-(\d)-key">([^<]*)</li>', svg) == [("0", "not ai"), ("1", "ai")]


def test_bars_are_on_a_scale_of_square_roots() -> None:
    found = bars(histogram("title", "score", [("papers", [0, 4, 16])], "told"))
    assert found == [(0, pytest.approx(1 / 3, abs=0.001), 0.5), (0, pytest.approx(2 / 3, abs=0.001), 1.0)]
