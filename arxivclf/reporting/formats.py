"""What there is to report in other forms than a terminal's: JSON (docs/report-json.md), Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from arxivclf.reporting.charts import drawing
from arxivclf.reporting.compare import FIGURES, Comparison
from arxivclf.reporting.content import content_of, key, number
from arxivclf.reporting.drift import Drift
from arxivclf.reporting.overall import NAMES
from arxivclf.reporting.page import page_of
from arxivclf.reporting.report import Report
from arxivclf.reporting.tables import report_tables, tables
from arxivclf.reporting.unjudged import Unjudged

Found = Report | Comparison | Drift

_CSV_COLUMNS = ("label", "by", "slice", "figure", "value", "low", "high")


def as_json(found: Found) -> str:
    """JSON with a line break at its end; null where there is no number."""
    return json.dumps(content_of(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_table(found: Found) -> str:
    """What a terminal of 100 columns shows, without colours."""
    out = io.StringIO()
    console = Console(file=out, width=100, color_system=None, markup=False, emoji=False)
    for part in tables(found):
        console.print(part)
    return out.getvalue()


def as_markdown(found: Found) -> str:
    """What the terminal shows, as Markdown: bold lines in bold, tables as tables."""
    blocks = []
    for part in tables(found):
        if isinstance(part, Table):
            blocks.append(_markdown_table(part))
        elif isinstance(part, Text):
            blocks.append(_markdown_line(part))
    return "\n\n".join(blocks) + "\n"


def as_csv(found: Found) -> str:
    """One line for each figure of each label and slice, with the bounds of its 95 % interval where it has them."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(_CSV_COLUMNS)
    if isinstance(found, Report):
        rows = _report_rows(found)
    else:
        rows = _comparison_rows(found) if isinstance(found, Comparison) else _drift_rows(found)
    table.writerows([["" if value is None else value for value in row] for row in rows])
    return out.getvalue()


def as_html(found: Found) -> str:
    """One page that loads nothing."""
    if isinstance(found, Report):
        return page_of(f"Labels in {found.source}", report_tables(found, drawing))
    heading = f"{'What changed' if isinstance(found, Comparison) else 'Drift'} from {found.first} to {found.second}"
    return page_of(heading, tables(found))


FORMS: Mapping[str, Callable[[Found], str]] = {
    "table": as_table,
    "json": as_json,
    "markdown": as_markdown,
    "csv": as_csv,
    "html": as_html,
}


def _report_rows(report: Report) -> Iterator[Sequence[Any]]:
    for label in report.labels:
        for name, count in label.confusion.counts().items():
            yield (label.name, None, None, name, count, None, None)
        for one in label.figures:
            yield (label.name, None, None, key(one.name), *one.interval.as_list())
            if not math.isnan(one.by_chance):
                yield (label.name, None, None, f"{key(one.name)}_by_chance", one.by_chance, None, None)
        for target in label.thresholds.targets if label.thresholds is not None else ():
            head = (label.name, "target", target.name)
            yield (*head, "threshold", target.threshold, None, None)
            yield (*head, "observed", number(target.observed), number(target.lower_bound), None)
            yield (*head, "needed", target.needed, None, None)
        for slices in label.slices:
            for part in slices.slices:
                head = (label.name, slices.by, part.value)
                for name, count in part.confusion.counts().items():
                    yield (*head, name, count, None, None)
                yield (*head, "prevalence", part.prevalence, None, None)
                yield (*head, "labelled_share", part.labelled_share, None, None)
                for name in ("precision", "recall", "f1"):
                    yield (*head, name, *getattr(part, name).as_list())
    for found in report.unjudged:
        yield from _unjudged_rows(found)
    if report.overall is not None:
        for which, intervals in (("micro", report.overall.micro), ("macro", report.overall.macro)):
            for name, interval in zip(NAMES, intervals, strict=True):
                yield (None, None, None, f"{which}_{key(name)}", *interval.as_list())


def _unjudged_rows(found: Unjudged) -> Iterator[Sequence[Any]]:
    for by, shares in (("", (found.whole,)), *found.slices):
        for one in shares:
            head = (found.name, by or None, one.value if by else None)
            yield (*head, "papers", one.papers, None, None)
            yield (*head, "labelled", one.labelled, None, None)
            yield (*head, "share", *one.share.as_list())
            if (adjusted := found.adjusted(one)) is not None:
                yield (*head, "adjusted_share", *adjusted.as_list())


def _drift_rows(found: Drift) -> Iterator[Sequence[Any]]:
    for label in found.labels:
        for before, now in ((label.before, label.now), *label.years):
            by, value = (None, None) if before is label.before else ("year", before.value)
            for when, one in (("before", before), ("now", now)):
                yield (label.name, by, value, f"papers_{when}", one.papers, None, None)
                yield (label.name, by, value, f"share_{when}", *one.share.as_list())
        yield (label.name, None, None, "difference", *label.difference.as_list())
        if label.within_years is not None:
            yield (label.name, None, None, "difference_within_years", *label.within_years.as_list())
            yield (label.name, None, None, "papers_within_years", label.papers_within_years, None, None)
        if label.f1 is not None:
            for when, interval in zip(("before", "now", "difference"), label.f1, strict=True):
                yield (label.name, None, None, f"f1_{when}", *interval.as_list())
        for name, test in (
            ("kolmogorov_smirnov", label.distance),
            ("kolmogorov_smirnov_p", label.p),
            ("stability", label.stability),
        ):
            yield (label.name, None, None, name, test, None, None)


def _comparison_rows(both: Comparison) -> Iterator[Sequence[Any]]:
    for label in both.labels:
        yield (label.name, None, None, "agreement", *label.agreement.as_list())
        yield (label.name, None, None, "kappa", number(label.kappa), None, None)
        if (judged := label.judgement) is not None:
            for name, one in zip(FIGURES, judged.differences, strict=True):
                yield (label.name, None, None, f"{key(name)}_difference", *one.as_list())
            yield (label.name, None, None, "mcnemar_p", judged.p, None, None)
        for by, changes in (("", (label.whole,)), *label.slices):
            for change in changes:
                head = (label.name, by or None, change.value if by else None)
                yield (*head, "gained", change.gained, None, None)
                yield (*head, "lost", change.lost, None, None)
                yield (*head, "changed", *change.changed.as_list())


def _markdown_line(text: Text) -> str:
    """A line with what is bold in it as bold."""
    bold = [(span.start, span.end) for span in text.spans if span.style == "bold"]
    if text.style == "bold":
        bold = [(len(text.plain) - len(text.plain.lstrip()), len(text.plain))]
    done, at = "", 0
    for start, end in bold:
        done += f"{_escaped(text.plain[at:start])}**{_escaped(text.plain[start:end])}**"
        at = end
    return (done + _escaped(text.plain[at:])).strip()


def _markdown_table(table: Table) -> str:
    heads = [_escaped(str(column.header)) for column in table.columns]
    lines = ["| " + " | ".join(heads) + " |"]
    rules = ["---:" if column.justify == "right" else "---" for column in table.columns]
    lines.append("| " + " | ".join(rules) + " |")
    for row in zip(*(column.cells for column in table.columns), strict=True):
        cells = (cell.plain if isinstance(cell, Text) else str(cell) for cell in row)
        lines.append("| " + " | ".join(map(_escaped, cells)) + " |")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return "".join(f"\\{each}" if each in "\\|*_<>[]`&$~" else each for each in text)
