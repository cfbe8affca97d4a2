"""Reports, comparisons and drifts as lines and tables, which a terminal, a page and Markdown show alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from arxivclf.corpus.seen import told
from arxivclf.errors import plain
from arxivclf.reporting.compare import FIGURES, Change, Changed, Comparison, Judgement
from arxivclf.reporting.disagreements import Disagreement, Disagreements
from arxivclf.reporting.drift import Drift, LabelDrift, told_p
from arxivclf.reporting.intervals import Interval
from arxivclf.reporting.metrics import Confusion
from arxivclf.reporting.overall import NAMES, Overall
from arxivclf.reporting.report import LabelReport, Report
from arxivclf.reporting.slices import Slices, WhereErrors
from arxivclf.reporting.table import ASSUMED_THRESHOLD, LeftOut
from arxivclf.reporting.thresholds import Thresholds
from arxivclf.reporting.unjudged import Unjudged

if TYPE_CHECKING:
    from arxivclf.reporting.truth import Match


# Of a column with a value of its own for each paper nobody reads all.
_MOST_SLICES = 200


class Named(Table):
    """A table with a name, which a terminal does not show: a page has it as a caption."""

    def __init__(self, name: str) -> None:
        super().__init__(box=box.SIMPLE_HEAD, pad_edge=False)
        self.name = _shown(name)


Part = Text | Named | str
"""A line or more to read, a table, or what was drawn. What is bold, a whole line or its beginning, is a heading."""

Drawing = Callable[[LabelReport | Unjudged], str]


def tables(found: Report | Comparison | Drift) -> Iterator[Part]:
    """Everything that there is to show, from top to bottom."""
    if isinstance(found, Report):
        yield Text(f"Labels in {_shown(found.source)}")
        yield from report_tables(found)
    else:
        yield from comparison_tables(found) if isinstance(found, Comparison) else drift_tables(found)


def report_tables(report: Report, drawing: Drawing | None = None) -> Iterator[Part]:
    """A report: each label, with what `drawing` makes of it, then all at once."""
    if report.match is not None:
        yield Text(_told_of_match(report.match))
    if report.seen:
        yield Text(_told_of_seen(report.seen))
    if report.left_out is not None:
        yield Text(_told_of_left_out(report.left_out))
    for label in report.labels:
        yield from label_tables(label, drawing)
    for one in report.unjudged:
        yield from unjudged_tables(one, drawing)
    if report.unjudged:
        yield Text(_told_of_unjudged(len(report.unjudged)))
    if report.overall is not None:
        yield from overall_tables(report.overall)


def label_tables(label: LabelReport, drawing: Drawing | None = None) -> Iterator[Part]:
    """A label's heading, its confusion matrix, its figures, and what else was asked for."""
    label = replace(label, name=_shown(label.name))
    counted = f"{label.papers:,} papers, {label.labelled:,} labelled ({_percent(label.labelled, label.papers)})"
    without = f", {label.unknown:,} without truth or score left out" if label.unknown else ""
    if label.assumed:
        without += f"; labelled from a score of {ASSUMED_THRESHOLD:g} on, for there is no column {label.name}"
    yield Text.assemble("\n", (label.name, "bold"), f"  {counted}{without}")
    yield confusion_table(label.name, label.confusion)
    yield figures_table(label)
    yield Text(_told_of_methods(label), style="dim")
    if drawing is not None:
        yield drawing(label)
    if label.thresholds is not None:
        yield thresholds_table(label.thresholds)
        yield from (Text(target.describe()) for target in label.thresholds.targets)
    if label.where is not None and (label.where.false_positives or label.where.false_negatives):
        yield Text("\nWhere the errors are", style="bold")
        yield where_table(label.where)
    for slices in label.slices:
        yield from slices_tables(slices)
    if label.disagreements is not None:
        yield from disagreements_tables(label.name, label.disagreements)


def _told_of_match(match: Match) -> str:
    """How labels and a file of truth go together, in a line, and in others what of the truth is in doubt."""
    lines = [
        f"Truth from {_shown(match.source)}: {match.papers:,} papers in both,"
        f" {match.labels_alone:,} in the labels alone, {match.truth_alone:,} in the truth alone"
    ]
    if match.silent:
        lines.append(f"Of {match.silent:,} of the papers in both it says nothing; they count for no figure")
    if match.not_understood:
        lines.append(_shown(f"In it, {match.not_understood}"))
    if match.passed_over:
        column = _shown(match.passed_over)
        lines.append(
            f"Its column {column} does not count, for another goes before it; --label-column {column} takes it"
        )
    if match.repeated:
        differ = f", in {match.contradictory:,} of these with another answer" if match.contradictory else ""
        lines.append(f"It has {match.repeated:,} of them more than once{differ}; the last row counts")
    return "\n".join(lines)


def _told_of_seen(counts: Mapping[str, int]) -> str:
    """How many of all labelled papers, whichever are judged here, a model had met in training, in a line."""
    return f"Of all papers labelled {told(counts)}: there it looks better than it is; --unseen-by MODEL leaves them out"


def _told_of_left_out(found: LeftOut) -> str:
    return f"{found.papers:,} papers that {', '.join(map(_shown, found.models))} met in training are left out"


def _told_of_unjudged(labels: int) -> str:
    """What cannot be said of labels without a truth, and why."""
    these, theirs = ("this label is", "Its truth is") if labels == 1 else ("these labels are", "Their truth is")
    return (
        f"\n{theirs} not known (the dump had neither categories nor a column that tells it of each label), so how good"
        f" {these} cannot be told: no confusion matrix, precision, recall, F1, thresholds or errors. --truth FILE gives"
        " a truth; --compare and --drift need none."
    )


def unjudged_tables(found: Unjudged, drawing: Drawing | None = None) -> Iterator[Part]:
    """A label without a truth: its share, the scores, and its share by slice."""
    found = replace(found, name=_shown(found.name))
    whole = found.whole
    told = f"{whole.papers:,} papers, {whole.labelled:,} labelled ({_between_percent(whole.share)})"
    yield Text.assemble("\n", (found.name, "bold"), "  ", told)
    if found.rates is not None and (adjusted := found.adjusted(whole)) is not None:
        rates, counts = found.rates, found.rates.confusion
        value, bounds = _share_with_bounds(adjusted)
        yield Text(
            f"Adjusted for classification error, {value} ({bounds}) are {found.name}, provided that the model"
            f" errs as on its test split: it labels {_share(rates.true_positive_rate)} of {counts.support:,} papers"
            f" that are {found.name}, and {_share(rates.false_positive_rate)} of {counts.negatives:,} others"
            " (Rogan-Gladen)."
        )
    if drawing is not None:
        yield drawing(found)
    table = Named("Scores")
    for heading in ("score", "papers", "share"):
        table.add_column(heading, justify="right")
    bins = len(found.scores)
    for place, papers in enumerate(found.scores):
        table.add_row(
            f"{place / bins:.1f} - {(place + 1) / bins:.1f}", f"{papers:,}", _percent(papers, found.whole.papers)
        )
    yield table
    for by, shares in found.slices:
        headings = ["papers", found.name, "share", "95 % interval"]
        headings += ["adjusted", "95 % interval"] if found.rates is not None else []
        table = _plain_table(f"By {by}", by, *headings)
        for one in shares[:_MOST_SLICES]:
            intervals = filter(None, [one.share, found.adjusted(one)])
            cells = [cell for interval in intervals for cell in _share_with_bounds(interval)]
            table.add_row(_shown(one.value), f"{one.papers:,}", f"{one.labelled:,}", *cells)
        yield table
        yield from _told_of_more(shares)


def where_table(where: WhereErrors) -> Named:
    """The primary categories with most of the errors, and the false positive and negative rates within each."""
    table = Named("Primary categories with most of the errors")
    for heading in ("false positives", "false negatives"):
        table.add_column("primary", overflow="fold")
        table.add_column(heading, justify="right")
        table.add_column("rate", justify="right")
    for wrong, missed in zip_longest(where.false_positives, where.false_negatives):
        cells = ["", "", ""]
        if wrong is not None:
            count = wrong.confusion.false_positives
            cells = [_shown(wrong.value), f"{count:,}", _percent(count, wrong.confusion.negatives)]
        if missed is not None:
            count = missed.confusion.false_negatives
            cells += [_shown(missed.value), f"{count:,}", _percent(count, missed.confusion.support)]
        table.add_row(*cells)
    return table


def overall_tables(found: Overall) -> Iterator[Part]:
    """The figures of all labels at once."""
    yield Text.assemble("\n", ("all labels", "bold"), f"  {found.papers:,} papers with truth and score of each")
    table = _plain_table("Figures", "figure", "micro", "95 % interval", "macro", "95 % interval")
    for name, micro, macro in zip(NAMES, found.micro, found.macro, strict=True):
        table.add_row(name, *_with_bounds(micro), *_with_bounds(macro), style="bold" if name == "F1" else "")
    yield table


def confusion_table(name: str, confusion: Confusion) -> Named:
    """Counts by truth and label; the shares are those of the row."""
    table = _plain_table("Confusion matrix", "truth", f"labelled {name}", f"not {name}", "papers")
    for row, right, wrong, first in (
        (name, confusion.true_positives, confusion.false_negatives, True),
        (f"not {name}", confusion.true_negatives, confusion.false_positives, False),
    ):
        papers = right + wrong
        good = Text(f"{right:,} ({_percent(right, papers)})", style="green")
        bad = Text(f"{wrong:,} ({_percent(wrong, papers)})", style="red" if wrong else "")
        table.add_row(row, *((good, bad) if first else (bad, good)), f"{papers:,}")
    return table


def figures_table(label: LabelReport) -> Named:
    """Every figure with its interval, and those without the gate, of the larger class and of the linear model."""
    most = label.name if label.confusion.support > label.confusion.papers / 2 else f"not {label.name}"
    baselines = {}
    if label.without_gate:
        baselines["no gate"] = [figure.without_gate for figure in label.figures]
    baselines[f"always {most}"] = [figure.larger_class for figure in label.figures]
    if label.gate_alone:
        baselines["linear alone"] = [figure.gate_alone for figure in label.figures]
    table = _plain_table("Figures", "figure", label.name, "95 % interval", *baselines)
    for at, figure in enumerate(label.figures):
        cells = [*_with_bounds(figure.interval), *(_figure(values[at]) for values in baselines.values())]
        table.add_row(figure.name, *cells, style="bold" if figure.name == "F1" else "")
    return table


def _told_of_methods(label: LabelReport) -> str:
    by = {method: [one.name for one in label.figures if one.method == method] for method in ("Wilson", "bootstrap")}
    by_chance = next(one.by_chance for one in label.figures if one.name == "calibration error")
    return (
        f"Intervals: Wilson's of {', '.join(by['Wilson'])}; a bootstrap's of {', '.join(by['bootstrap'])}. The"
        f" calibration error has none; that of calibrated scores would be {_figure(by_chance)} by chance on so many"
        " papers."
    )


def thresholds_table(found: Thresholds) -> Named:
    """What labelling from each threshold on gives; those with a reason stand out."""
    table = Named("Thresholds")
    for heading in ("threshold", "labelled", "precision", "recall", "F1"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for cut in found.cuts:
        counts = cut.confusion
        figures = map(_figure, (counts.precision, counts.recall, counts.f1))
        table.add_row(cut.shown, f"{cut.labelled:.1%}", *figures, cut.why, style="bold" if cut.why else "")
    return table


def slices_tables(slices: Slices) -> Iterator[Part]:
    """Each slice's papers, true and labelled share, precision, recall and F1 with its interval, the worst first."""
    yield Text(
        f"\nBy {_shown(slices.by)}, the worst F1 first; true and labelled are shares of its papers", style="bold"
    )
    table = Named(f"By {slices.by}")
    table.add_column(_shown(slices.by), overflow="fold")
    # So many columns leave room for the name of a category on 80 characters only if they stand closer than elsewhere;
    # longer names are folded, so that no heading is cut.
    table.padding = (0, 1, 0, 0)
    for heading in ("papers", "true", "labelled", "precision", "recall", "F1", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in slices.slices[:_MOST_SLICES]:
        cells = [f"{one.confusion.papers:,}", _share(one.prevalence), _share(one.labelled_share)]
        if one.judged:
            f1 = one.f1
            cells += [_rounded(one.precision.value), _rounded(one.recall.value), _rounded(f1.value)]
            table.add_row(_shown(one.value), *cells, f"{f1.low:.3f} - {f1.high:.3f}")
        else:
            table.add_row(_shown(one.value), *cells, "", "", "", "too few", style="dim")
    yield table
    yield from _told_of_more(slices.slices)


def disagreements_tables(name: str, found: Disagreements) -> Iterator[Part]:
    """The papers to look at, surest first, each with its score and its page."""
    for heading, papers in (
        (f"Labelled {name} for sure, and arXiv says no", found.labelled),
        (f"Not labelled {name} for sure, and arXiv says yes", found.missed),
    ):
        yield Text(f"\n{heading}", style="bold")
        if not papers:
            yield Text("none")
            continue
        table = Named("Papers, the surest first")
        table.add_column("score", justify="right")
        # A page that is broken over two lines cannot be clicked.
        table.add_column("paper", no_wrap=True)
        known = [name for name in ("categories", "title") if any(getattr(paper, name) for paper in papers)]
        for name in known:
            table.add_column(name, overflow="fold")
        for paper in papers:
            table.add_row(f"{paper.score:.3f}", _page(paper), *(_shown(getattr(paper, name)) for name in known))
        yield table


def comparison_tables(comparison: Comparison) -> Iterator[Part]:
    """Everything that a comparison of two files shows, from top to bottom."""
    yield Text(f"Before: {_shown(comparison.first)}\nNow:    {_shown(comparison.second)}")
    yield Text(
        f"{comparison.papers:,} papers in both, {comparison.first_alone:,} before alone,"
        f" {comparison.second_alone:,} now alone"
    )
    if comparison.left_out is not None:
        yield Text(_told_of_left_out(comparison.left_out))
    for compared in comparison.labels:
        label = replace(compared, name=_shown(compared.name))
        whole, agreed = label.whole, label.agreement
        yield Text.assemble("\n", (label.name, "bold"), f"  {whole.gained:,} papers gained it, {whole.lost:,} lost it")
        yield Text(
            f"agreement {agreed.value:.4f} ({agreed.low:.4f} - {agreed.high:.4f}, Wilson), Cohen's kappa"
            f" {_figure(label.kappa)}"
        )
        if label.truths_differ:
            yield Text(
                f"the two files tell the truth of {label.truths_differ:,} papers differently; that of"
                f" {_shown(comparison.second)} counts"
            )
        if label.judgement is None:
            yield Text("no truth in either file, so neither can be said to be better")
        else:
            yield from judgement_tables(label.name, label.judgement)
        for by, changes in label.slices:
            yield from changes_tables(by, changes)
        if label.papers:
            yield changed_table(label.name, label.papers)


def judgement_tables(name: str, found: Judgement) -> Iterator[Part]:
    """Both confusion matrices, the figures side by side, and a verdict."""
    for which, confusion in (("before", found.first), ("now", found.second)):
        yield Text(f"\n{which}", style="bold")
        yield confusion_table(name, confusion)
    table = _plain_table("Figures", "figure", "before", "now", "difference", "95 % interval")
    for figure, difference in zip(FIGURES, found.differences, strict=True):
        first, second = (getattr(each, figure.lower()) for each in (found.first, found.second))
        bounds = "-" if math.isnan(difference.low) else f"{difference.low:+.4f} to {difference.high:+.4f}"
        change = "-" if math.isnan(difference.value) else f"{difference.value:+.4f}"
        style = "bold" if figure == "F1" else ""
        table.add_row(figure, _figure(first), _figure(second), change, bounds, style=style)
    yield table
    better = f"they are right more often {'now' if found.second_alone > found.first_alone else 'before'}"
    verdict = better if found.p < 0.05 else "which of them is right more often cannot be told from chance"
    yield Text(
        f"{found.first_alone:,} papers were labelled rightly before alone, {found.second_alone:,} now alone:"
        f" {verdict} (McNemar, exact, p {told_p(found.p)}). The intervals are of a paired bootstrap."
    )


def changes_tables(by: str, changes: Sequence[Change]) -> Iterator[Part]:
    """What changed in each slice where something did, most of it first."""
    yield Text(f"\nBy {_shown(by)}, most changes first", style="bold")
    there = [one for one in changes if one.gained or one.lost]
    if not there:
        yield Text("no change in any of them")
        return
    table = _plain_table(f"By {by}", by, "papers", "gained", "lost", "changed", "95 % interval")
    for one in there[:_MOST_SLICES]:
        share = one.changed
        counts = (f"{one.papers:,}", f"{one.gained:,}", f"{one.lost:,}")
        table.add_row(_shown(one.value), *counts, f"{share.value:.2%}", f"{share.low:.2%} - {share.high:.2%}")
    yield table
    yield from _told_of_more(there)
    if len(there) < len(changes):
        yield Text(f"In {len(changes) - len(there):,} others nothing changed.")


def changed_table(name: str, papers: Sequence[Changed]) -> Named:
    """Papers whose label is another, with both scores."""
    table = _plain_table("Papers with another label", "paper", "score before", "score now")
    table.add_column("change")
    for paper in papers:
        scores = (f"{paper.first_score:.3f}", f"{paper.second_score:.3f}")
        table.add_row(_page(paper), *scores, f"{'gained' if paper.gained else 'lost'} {name}")
    return table


def drift_tables(found: Drift) -> Iterator[Part]:
    """Everything that a drift shows, from top to bottom."""
    yield Text(f"Before: {_shown(found.first)}, {found.papers_before:,} papers")
    left_out = f" ({found.shared:,} more are in both, and left out)" if found.shared else ""
    yield Text(f"Now:    {_shown(found.second)}, {found.papers_now:,} papers{left_out}")
    if found.unlike:
        yield Text(f"They were labelled {found.unlike}: what differs may be the labels' doing, not that of the papers")
    for drifted in found.labels:
        label = replace(drifted, name=_shown(drifted.name))
        yield Text.assemble("\n", (label.name, "bold"), "  ", label.verdict)
        yield drifted_table(label)
        if label.f1 is not None:
            before, now, change = label.f1
            yield Text(
                f"F1 before {_told(before)}, now {_told(now)}; difference {change.value:+.4f} ({change.low:+.4f} to"
                f" {change.high:+.4f})"
            )
    words = found.words
    if words is None:
        yield Text("\nTo see which words are new, label both with --keep title --keep abstract.")
        return
    yield Text.assemble(
        "\n",
        ("words", "bold"),
        f"  of a new paper's words {words.unseen_now:.2%} are in none of a sample of the earlier papers, of"
        f" an earlier paper's {words.unseen_before:.2%} ({words.now:,} and {words.before:,} papers; Welch's test, p"
        f" {told_p(words.p)})",
    )
    if words.new:
        table = _plain_table("New words", "word that is new", "papers")
        for word, papers in words.new:
            table.add_row(word, f"{papers:,}")
        yield table


def drifted_table(label: LabelDrift) -> Named:
    """The share of a label in both dumps, by year and as a whole."""
    table = _plain_table("By year", "year", "papers before", label.name, "papers now", label.name, "difference")
    for before, now in (*label.years, (label.before, label.now)):
        whole = before is label.before
        cells = [f"{before.papers:,}", _percent(before.labelled, before.papers)]
        cells += [f"{now.papers:,}", _percent(now.labelled, now.papers)]
        change = now.share.value - before.share.value
        cells += ["-" if math.isnan(change) else f"{100 * change:+.1f}"]
        table.add_row(_shown(before.value), *cells, style="bold" if whole else "")
    return table


def _told(interval: Interval) -> str:
    return f"{interval.value:.4f} ({interval.low:.4f} - {interval.high:.4f})"


def _told_of_more(slices: Sequence[object]) -> Iterator[Part]:
    if (more := len(slices) - _MOST_SLICES) > 0:
        yield Text(f"And {more:,} more, which --format csv and json have.")


def _shown(value: str | None) -> str:
    """What a dump holds, in one line, and without what a terminal would take for a command."""
    return plain(value or "")


def _page(paper: Disagreement | Changed) -> Text:
    """Where a paper can be read, as it is written and where a click leads; its id where that is not known."""
    page = paper.link
    return Text(_shown(paper.id)) if page is None else Text(page.removeprefix("https://"), style=f"link {page}")


def _plain_table(name: str, first: str, *others: str) -> Named:
    table = Named(name)
    table.add_column(_shown(first), overflow="fold")
    for heading in map(_shown, others):
        # An interval over two lines is hard to read; a heading is not.
        table.add_column(heading, justify="right", no_wrap="interval" in heading)
    return table


def _with_bounds(interval: Interval) -> tuple[str, str]:
    nothing = math.isnan(interval.low)
    return _figure(interval.value), "-" if nothing else f"{interval.low:.4f} - {interval.high:.4f}"


def _rounded(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _between_percent(share: Interval) -> str:
    return ", ".join(_share_with_bounds(share))


def _share_with_bounds(share: Interval) -> tuple[str, str]:
    return _share(share.value), f"{_share(share.low)} - {_share(share.high)}"


def _share(value: float) -> str:
    """In per cent, with a digit more where there are few."""
    return f"{value:.2%}" if 0 < value < 0.01 else f"{value:.1%}"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
