"""A report as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from arxivclf.reporting.metrics import Confusion
from arxivclf.reporting.report import LabelReport, Report


def tables(report: Report) -> Iterator[RenderableType]:
    """Everything that a report shows, from top to bottom."""
    for label in report.labels:
        yield from label_tables(label)


def label_tables(label: LabelReport) -> Iterator[RenderableType]:
    """A label's heading, its confusion matrix and its figures."""
    counted = f"{label.papers:,} papers, {label.labelled:,} labelled ({_percent(label.labelled, label.papers)})"
    without = f", {label.unknown:,} without truth left out" if label.unknown else ""
    yield Text.assemble("\n", (label.name, "bold"), f"  {counted}{without}")
    yield confusion_table(label.name, label.confusion)
    yield figures_table(label)


def confusion_table(name: str, confusion: Confusion) -> Table:
    """Counts by truth and label; the shares are those of the row."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("truth")
    for heading in (f"labelled {name}", f"not {name}", "papers"):
        table.add_column(heading, justify="right")
    for row, right, wrong, first in (
        (name, confusion.true_positives, confusion.false_negatives, True),
        (f"not {name}", confusion.true_negatives, confusion.false_positives, False),
    ):
        papers = right + wrong
        good = Text(f"{right:,} ({_percent(right, papers)})", style="green")
        bad = Text(f"{wrong:,} ({_percent(wrong, papers)})", style="red" if wrong else "")
        table.add_row(row, *((good, bad) if first else (bad, good)), f"{papers:,}")
    return table


def figures_table(label: LabelReport) -> Table:
    """Every figure with its interval and how that was found, and what calling all papers what most are would have."""
    most = label.name if label.confusion.support > label.confusion.papers / 2 else f"not {label.name}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure")
    for heading in (label.name, "95 % interval"):
        table.add_column(heading, justify="right")
    table.add_column("by")
    table.add_column(f"always {most}", justify="right")
    for one in label.figures:
        between = "-" if math.isnan(one.interval.low) else f"{one.interval.low:.4f} - {one.interval.high:.4f}"
        style = "bold" if one.name == "F1" else ""
        table.add_row(
            one.name, _figure(one.interval.value), between, one.method, _figure(one.larger_class), style=style
        )
    return table


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
