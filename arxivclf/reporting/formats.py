"""A report or a comparison in other forms than a terminal's: JSON (docs/report-json.md), Markdown and CSV."""

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

from arxivclf.errors import UsageError
from arxivclf.reporting.compare import FIGURES, Change, Comparison, LabelComparison
from arxivclf.reporting.intervals import Interval
from arxivclf.reporting.metrics import Confusion
from arxivclf.reporting.overall import NAMES, Overall
from arxivclf.reporting.page import page_of
from arxivclf.reporting.report import LabelReport, Report
from arxivclf.reporting.slices import Slice
from arxivclf.reporting.tables import tables

# To be raised when a name goes or means something else; new names may come without.
SCHEMA = 1

_CSV_COLUMNS = ("label", "by", "slice", "figure", "value", "low", "high")


def as_json(found: Report | Comparison) -> str:
    """JSON with a line break at its end; null where there is no number."""
    content = _of_report(found) if isinstance(found, Report) else _of_comparison(found)
    return json.dumps({"schema": SCHEMA, **content}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_table(found: Report | Comparison) -> str:
    """What a terminal of 100 columns shows, without colours."""
    out = io.StringIO()
    console = Console(file=out, width=100, color_system=None)
    for part in tables(found):
        console.print(part)
    return out.getvalue()


def as_markdown(found: Report | Comparison) -> str:
    """What the terminal shows, as Markdown: bold lines in bold, tables as tables."""
    blocks = []
    for part in tables(found):
        if isinstance(part, Table):
            blocks.append(_markdown_table(part))
        elif isinstance(part, Text):
            blocks.append(_markdown_line(part))
    return "\n\n".join(blocks) + "\n"


def as_csv(found: Report | Comparison) -> str:
    """One line for each figure of each label and slice, with the bounds of its 95 % interval where it has them."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(_CSV_COLUMNS)
    rows = _report_rows(found) if isinstance(found, Report) else _comparison_rows(found)
    table.writerows([["" if value is None else value for value in row] for row in rows])
    return out.getvalue()


def as_html(found: Report | Comparison) -> str:
    """One page that loads nothing. Raises UsageError for a comparison."""
    if isinstance(found, Comparison):
        raise UsageError("--format html shows one file of labels; json, markdown and csv show a comparison, too")
    return page_of(found)


FORMS: Mapping[str, Callable[[Report | Comparison], str]] = {
    "table": as_table,
    "json": as_json,
    "markdown": as_markdown,
    "csv": as_csv,
    "html": as_html,
}


def _of_report(report: Report) -> dict[str, Any]:
    return {
        "kind": "report",
        "source": report.source,
        "labels": [_of_label(label) for label in report.labels],
        "overall": _of_overall(report.overall) if report.overall is not None else None,
    }


def _of_label(label: LabelReport) -> dict[str, Any]:
    thresholds, papers = label.thresholds, label.disagreements
    return {
        "label": label.name,
        "papers": label.papers,
        "labelled": label.labelled,
        "without_truth": label.unknown,
        "confusion": _counts(label.confusion),
        "figures": {
            _key(one.name): _bounds(one.interval) | {"method": one.method, "larger_class": _number(one.larger_class)}
            for one in label.figures
        },
        "thresholds": None
        if thresholds is None
        else [
            {
                "threshold": cut.threshold,
                "why": cut.why or None,
                "labelled": cut.labelled,
                **{name: _number(getattr(cut.confusion, name)) for name in ("precision", "recall", "f1")},
            }
            for cut in thresholds.cuts
        ],
        "slices": {one.by: [_of_slice(part) for part in one.slices] for one in label.slices},
        "disagreements": None
        if papers is None
        else {
            side: [
                {"id": one.id, "score": one.score, "categories": one.categories, "title": one.title, "link": one.link}
                for one in of
            ]
            for side, of in (("labelled", papers.labelled), ("missed", papers.missed))
        },
    }


def _of_slice(part: Slice) -> dict[str, Any]:
    figures = {"precision": part.precision, "recall": part.recall, "f1": part.f1}
    return {
        "value": part.value,
        "confusion": _counts(part.confusion),
        "prevalence": part.prevalence,
        "judged": part.judged,
        **{name: _bounds(interval) for name, interval in figures.items()},
    }


def _of_overall(overall: Overall) -> dict[str, Any]:
    return {
        "papers": overall.papers,
        **{
            which: {_key(name): _bounds(one) for name, one in zip(NAMES, intervals, strict=True)}
            for which, intervals in (("micro", overall.micro), ("macro", overall.macro))
        },
    }


def _of_comparison(both: Comparison) -> dict[str, Any]:
    return {
        "kind": "comparison",
        "before": both.first,
        "now": both.second,
        "papers": both.papers,
        "before_alone": both.first_alone,
        "now_alone": both.second_alone,
        "labels": [_of_compared(label) for label in both.labels],
    }


def _of_compared(label: LabelComparison) -> dict[str, Any]:
    judged = label.judgement
    return {
        "label": label.name,
        **_of_change(label.whole),
        "agreement": _bounds(label.agreement),
        "kappa": _number(label.kappa),
        "judgement": None
        if judged is None
        else {
            "before": _counts(judged.first),
            "now": _counts(judged.second),
            "differences": {_key(name): _bounds(one) for name, one in zip(FIGURES, judged.differences, strict=True)},
            "right_before_alone": judged.first_alone,
            "right_now_alone": judged.second_alone,
            "mcnemar_p": judged.p,
        },
        "slices": {by: [{"value": one.value, **_of_change(one)} for one in changes] for by, changes in label.slices},
        "changed": [
            {
                "id": paper.id,
                "score_before": paper.first_score,
                "score_now": paper.second_score,
                "gained": paper.gained,
            }
            for paper in label.papers
        ],
    }


def _of_change(change: Change) -> dict[str, Any]:
    return {"papers": change.papers, "gained": change.gained, "lost": change.lost}


def _counts(confusion: Confusion) -> dict[str, int]:
    return {
        "true_positives": confusion.true_positives,
        "false_positives": confusion.false_positives,
        "false_negatives": confusion.false_negatives,
        "true_negatives": confusion.true_negatives,
    }


def _bounds(interval: Interval) -> dict[str, float | None]:
    return dict(zip(("value", "low", "high"), interval.as_list(), strict=True))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _key(name: str) -> str:
    return name.lower().replace(" ", "_")


def _report_rows(report: Report) -> Iterator[Sequence[Any]]:
    for label in report.labels:
        for name, count in _counts(label.confusion).items():
            yield (label.name, None, None, name, count, None, None)
        for one in label.figures:
            yield (label.name, None, None, _key(one.name), *one.interval.as_list())
        for slices in label.slices:
            for part in slices.slices:
                head = (label.name, slices.by, part.value)
                for name, count in _counts(part.confusion).items():
                    yield (*head, name, count, None, None)
                for name in ("precision", "recall", "f1"):
                    yield (*head, name, *getattr(part, name).as_list())
    if report.overall is not None:
        for which, intervals in (("micro", report.overall.micro), ("macro", report.overall.macro)):
            for name, interval in zip(NAMES, intervals, strict=True):
                yield (None, None, None, f"{which}_{_key(name)}", *interval.as_list())


def _comparison_rows(both: Comparison) -> Iterator[Sequence[Any]]:
    for label in both.labels:
        yield (label.name, None, None, "agreement", *label.agreement.as_list())
        yield (label.name, None, None, "kappa", _number(label.kappa), None, None)
        if (judged := label.judgement) is not None:
            for name, one in zip(FIGURES, judged.differences, strict=True):
                yield (label.name, None, None, f"{_key(name)}_difference", *one.as_list())
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
    return "".join(f"\\{each}" if each in "\\|*_<>[]`" else each for each in text)
