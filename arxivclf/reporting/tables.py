"""A report as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from arxivclf.reporting.compare import FIGURES, Change, Changed, Comparison, Judgement
from arxivclf.reporting.disagreements import Disagreements, link
from arxivclf.reporting.intervals import Interval
from arxivclf.reporting.metrics import Confusion
from arxivclf.reporting.overall import NAMES, Overall
from arxivclf.reporting.report import LabelReport, Report
from arxivclf.reporting.slices import Slices
from arxivclf.reporting.thresholds import Thresholds


def tables(found: Report | Comparison) -> Iterator[RenderableType]:
    """Everything that there is to show, from top to bottom."""
    yield from report_tables(found) if isinstance(found, Report) else comparison_tables(found)


def report_tables(report: Report) -> Iterator[RenderableType]:
    """A report: each label, then all at once."""
    yield Text(f"Labels in {report.source}")
    for label in report.labels:
        yield from label_tables(label)
    if report.overall is not None:
        yield from overall_tables(report.overall)


def label_tables(label: LabelReport) -> Iterator[RenderableType]:
    """A label's heading, its confusion matrix and its figures."""
    counted = f"{label.papers:,} papers, {label.labelled:,} labelled ({_percent(label.labelled, label.papers)})"
    without = f", {label.unknown:,} without truth left out" if label.unknown else ""
    yield Text.assemble("\n", (label.name, "bold"), f"  {counted}{without}")
    yield confusion_table(label.name, label.confusion)
    yield figures_table(label)
    if label.thresholds is not None:
        yield thresholds_table(label.thresholds)
        yield from map(Text, label.thresholds.missing)
    for slices in label.slices:
        yield slices_table(label.name, slices)
    if label.disagreements is not None:
        yield from disagreements_tables(label.name, label.disagreements)


def overall_tables(found: Overall) -> Iterator[RenderableType]:
    """The figures of all labels at once."""
    yield Text.assemble("\n", ("all labels", "bold"), f"  {found.papers:,} papers with the truth of each")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure")
    for heading in ("micro", "95 % interval", "macro", "95 % interval"):
        table.add_column(heading, justify="right")
    for name, micro, macro in zip(NAMES, found.micro, found.macro, strict=True):
        table.add_row(name, *_with_bounds(micro), *_with_bounds(macro), style="bold" if name == "F1" else "")
    yield table


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
        style = "bold" if one.name == "F1" else ""
        table.add_row(one.name, *_with_bounds(one.interval), one.method, _figure(one.larger_class), style=style)
    return table


def thresholds_table(found: Thresholds) -> Table:
    """What labelling from each threshold on gives; those with a reason stand out."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("threshold", "labelled", "precision", "recall", "F1"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for cut in found.cuts:
        counts = cut.confusion
        figures = map(_figure, (counts.precision, counts.recall, counts.f1))
        table.add_row(f"{cut.threshold:.4f}", f"{cut.labelled:.1%}", *figures, cut.why, style="bold" if cut.why else "")
    return table


def slices_table(name: str, slices: Slices) -> Table:
    """Each slice's papers, prevalence, precision, recall and F1 with its interval, the worst first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(slices.by, overflow="fold")
    for heading in ("papers", name, "precision", "recall", "F1", "95 % interval"):
        table.add_column(heading, justify="right")
    for one in slices.slices:
        cells = [f"{one.confusion.papers:,}", f"{one.prevalence:.1%}"]
        if one.judged:
            f1 = one.f1
            cells += [_figure(one.precision.value), _figure(one.recall.value), _figure(f1.value)]
            table.add_row(one.value, *cells, f"{f1.low:.3f} - {f1.high:.3f}")
        else:
            table.add_row(one.value, *cells, "", "", "", "too few", style="dim")
    return table


def disagreements_tables(name: str, found: Disagreements) -> Iterator[RenderableType]:
    """The papers to look at, surest first, each with its score and its page."""
    for heading, papers in (
        (f"Labelled {name} for sure, and arXiv says no", found.labelled),
        (f"Not labelled {name} for sure, and arXiv says yes", found.missed),
    ):
        yield Text(f"\n{heading}", style="bold")
        if not papers:
            yield Text("none")
            continue
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("score", justify="right")
        table.add_column("paper", overflow="fold")
        if any(paper.categories for paper in papers):
            table.add_column("categories", overflow="fold")
        if any(paper.title for paper in papers):
            table.add_column("title", overflow="fold")
        for paper in papers:
            cells = [f"{paper.score:.3f}", (paper.link or paper.id).removeprefix("https://")]
            cells += [paper.categories or ""] if any(one.categories for one in papers) else []
            cells += [" ".join((paper.title or "").split())] if any(one.title for one in papers) else []
            table.add_row(*cells)
        yield table


def comparison_tables(comparison: Comparison) -> Iterator[RenderableType]:
    """Everything that a comparison of two files shows, from top to bottom."""
    yield Text(f"Before: {comparison.first}\nNow:    {comparison.second}")
    yield Text(
        f"{comparison.papers:,} papers in both, {comparison.first_alone:,} before alone,"
        f" {comparison.second_alone:,} now alone"
    )
    for label in comparison.labels:
        whole, agreed = label.whole, label.agreement
        yield Text.assemble("\n", (label.name, "bold"), f"  {whole.gained:,} papers gained it, {whole.lost:,} lost it")
        yield Text(
            f"agreement {agreed.value:.4f} ({agreed.low:.4f} - {agreed.high:.4f}, Wilson), Cohen's kappa"
            f" {_figure(label.kappa)}"
        )
        if label.judgement is None:
            yield Text("no truth in either file, so neither can be said to be better")
        else:
            yield from judgement_tables(label.name, label.judgement)
        for by, changes in label.slices:
            yield changes_table(by, changes)
        if label.papers:
            yield changed_table(label.name, label.papers)


def judgement_tables(name: str, found: Judgement) -> Iterator[RenderableType]:
    """Both confusion matrices, the figures side by side, and a verdict."""
    for which, confusion in (("before", found.first), ("now", found.second)):
        yield Text(f"\n{which}", style="bold")
        yield confusion_table(name, confusion)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure")
    for heading in ("before", "now", "difference", "95 % interval"):
        table.add_column(heading, justify="right")
    for figure, difference in zip(FIGURES, found.differences, strict=True):
        first, second = (getattr(each, figure.lower()) for each in (found.first, found.second))
        bounds = "-" if math.isnan(difference.low) else f"{difference.low:+.4f} - {difference.high:+.4f}"
        change = "-" if math.isnan(difference.value) else f"{difference.value:+.4f}"
        style = "bold" if figure == "F1" else ""
        table.add_row(figure, _figure(first), _figure(second), change, bounds, style=style)
    yield table
    better = f"they are right more often {'now' if found.second_alone > found.first_alone else 'before'}"
    verdict = better if found.p < 0.05 else "which of them is right more often cannot be told from chance"
    yield Text(
        f"{found.first_alone:,} papers were labelled rightly before alone, {found.second_alone:,} now alone:"
        f" {verdict} (McNemar, exact, p = {found.p:.2g}). The intervals are of a paired bootstrap."
    )


def changes_table(by: str, changes: Sequence[Change]) -> Table:
    """What changed in each slice, most of it first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(by, overflow="fold")
    for heading in ("papers", "gained", "lost", "changed", "95 % interval"):
        table.add_column(heading, justify="right")
    for one in changes:
        share = one.changed
        counts = (f"{one.papers:,}", f"{one.gained:,}", f"{one.lost:,}")
        table.add_row(one.value, *counts, f"{share.value:.2%}", f"{share.low:.2%} - {share.high:.2%}")
    return table


def changed_table(name: str, papers: Sequence[Changed]) -> Table:
    """Papers whose label is another, with both scores."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("paper", overflow="fold")
    for heading in ("score before", "score now"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for paper in papers:
        page = (link(paper.id) or paper.id).removeprefix("https://")
        scores = (f"{paper.first_score:.3f}", f"{paper.second_score:.3f}")
        table.add_row(page, *scores, f"{'gained' if paper.gained else 'lost'} {name}")
    return table


def _with_bounds(interval: Interval) -> tuple[str, str]:
    nothing = math.isnan(interval.low)
    return _figure(interval.value), "-" if nothing else f"{interval.low:.4f} - {interval.high:.4f}"


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
