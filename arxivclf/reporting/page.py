"""A report as one HTML page that loads nothing: charts, tables that sort, and links to the papers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from arxivclf.reporting.charts import Line, chart, histogram
from arxivclf.reporting.disagreements import Disagreement
from arxivclf.reporting.intervals import Interval
from arxivclf.reporting.metrics import CALIBRATION_BINS
from arxivclf.reporting.overall import NAMES, Overall
from arxivclf.reporting.ranked import Ranked
from arxivclf.reporting.report import LabelReport, Report
from arxivclf.reporting.slices import Slice, Slices
from arxivclf.reporting.table import ASSUMED_THRESHOLD
from arxivclf.reporting.tables import told_of_match, told_of_unjudged
from arxivclf.reporting.unjudged import Unjudged

_BINS = 20
# Columns of words, which start at the left; those of numbers end at the right.
_OF_TEXT = ("paper", "categories", "title", "why it is here", "by")

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #565b63; --line: #d0d4da; --paper: #fff; --band: #f4f6f8;
  --one: #1559b3; --two: #a8450b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a9b0b9; --line: #3c4148; --paper: #16181b;
  --band: #1f2226; --one: #7db4ff; --two: #ffab70; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
a { color: var(--one); }
p { max-width: 45rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, td:first-child, .text { text-align: left; }
thead th { background: var(--band); }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-decoration: underline dotted; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
.dim { color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; }
figcaption { font-weight: 600; }
svg { width: 100%; height: auto; }
.axis { fill: none; stroke: var(--soft); }
.grid { stroke: var(--line); stroke-width: .5; }
svg text { fill: var(--soft); font-size: 12px; }
.line, .chance { fill: none; stroke: var(--one); stroke-width: 2; }
.chance { stroke: var(--soft); stroke-dasharray: 4 4; stroke-width: 1; }
.line-mark, .bar-1 { fill: var(--one); }
.bar-0 { fill: var(--two); }
.key { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: 0; padding: 0; font-size: .9rem; }
.key li::before { content: ""; display: inline-block; width: 1rem; border-top: 3px solid var(--one);
  margin-right: .4rem; vertical-align: middle; }
.key .chance-key::before { border-top: 1px dashed var(--soft); }
.key .bar-0-key::before { border-color: var(--two); }
@media print { body { max-width: none; } th button { text-decoration: none; } figure, tr { break-inside: avoid; } }
"""

# A click on a heading sorts its table, numbers as numbers; a second click the other way round.
_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, row = head.parentElement, body = row.closest("table").tBodies[0];
  const place = [...row.children].indexOf(head), up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of row.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = tr => { const cell = tr.children[place]; return cell.dataset.value ?? cell.textContent; };
  const rows = [...body.rows].sort((one, other) => {
    const a = value(one), b = value(other), x = parseFloat(a), y = parseFloat(b);
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = isNaN(x) || isNaN(y) ? a.localeCompare(b) : x - y;
    return up ? order : -order;
  });
  body.append(...rows);
});
"""


def page_of(report: Report) -> str:
    """The page of a report, complete."""
    parts = [_label(label) for label in report.labels] + [_unjudged(one) for one in report.unjudged]
    if report.overall is not None:
        parts.append(_overall(report.overall))
    if report.match is not None:
        parts.insert(0, f"<p>{escape(told_of_match(report.match))}.</p>")
    names = [label.name for label in report.labels] + [one.name for one in report.unjudged]
    links = "".join(f'<li><a href="#{escape(name)}">{escape(name)}</a></li>' for name in names)
    index = f'<nav aria-label="Labels"><ul>{links}</ul></nav>' if len(names) > 1 else ""
    return _page(f"Labels in {report.source}", index + "\n".join(parts))


def page_of_tables(title: str, parts: Iterable[Text | Table]) -> str:
    """The page of what a terminal shows: a line that begins in bold is a heading, the rest paragraphs and tables."""
    blocks = []
    heading = title
    for part in parts:
        if isinstance(part, Table):
            heads = [str(column.header) for column in part.columns]
            rows = zip(*([_plain(cell) for cell in column.cells] for column in part.columns), strict=True)
            blocks.append(_table(heading, heads, rows, sortable=True))
            continue
        bold = [span for span in part.spans if span.style == "bold"]
        if bold or part.style == "bold":
            heading = part.plain[bold[0].start : bold[0].end] if bold else part.plain.strip()
            blocks.append(f"<h2>{escape(heading)}</h2>")
        rest = part.plain[bold[0].end :] if bold else "" if part.style == "bold" else part.plain
        blocks += [f"<p>{escape(line.strip())}</p>" for line in rest.splitlines() if line.strip()]
    return _page(title, "\n".join(blocks))


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def _page(title: str, content: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing is loaded from anywhere, whatever a dump may have put into a title.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline';"
        " script-src 'unsafe-inline'; img-src data:\">\n"
        f'<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n'
        f"{content}\n</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _label(label: LabelReport) -> str:
    counts = label.confusion
    without = f" {label.unknown:,} have no truth and are left out." if label.unknown else ""
    if label.assumed:
        without += f" Labelled from a score of {ASSUMED_THRESHOLD:g} on, for there is no column {escape(label.name)}."
    parts = [
        f'<section aria-labelledby="{escape(label.name)}"><h2 id="{escape(label.name)}">{escape(label.name)}</h2>',
        f"<p>{label.papers:,} papers, {label.labelled:,} of them labelled {escape(label.name)}.{without}</p>",
        _table(
            "Confusion matrix: papers, and their share of those with that truth",
            ["truth", f"labelled {label.name}", f"not {label.name}", "papers"],
            [
                _matrix_row(label.name, counts.true_positives, counts.false_negatives),
                _matrix_row(f"not {label.name}", counts.false_positives, counts.true_negatives),
            ],
        ),
        _figures(label),
        _charts(label),
    ]
    if label.thresholds is not None:
        cuts = label.thresholds.cuts
        rows = [
            [
                f"{cut.threshold:.4f}",
                f"{cut.labelled:.2%}",
                *map(_figure, (cut.confusion.precision, cut.confusion.recall, cut.confusion.f1)),
                cut.why,
            ]
            for cut in cuts
        ]
        heads = ["threshold", "labelled", "precision", "recall", "F1", "why it is here"]
        parts.append(_table("Thresholds", heads, rows, sortable=True))
        parts += [f"<p>{escape(wish)}</p>" for wish in label.thresholds.missing]
    if (where := label.where) is not None:
        for title, missed, slices in (
            ("The primary categories with most false positives", False, where.false_positives),
            ("The primary categories with most false negatives", True, where.false_negatives),
        ):
            parts.append(_where(title, label.name, missed, slices))
    parts += [_slices(label.name, one) for one in label.slices]
    if (papers := label.disagreements) is not None:
        parts.append(_papers(f"Labelled {label.name} for sure, and arXiv says no", papers.labelled))
        parts.append(_papers(f"Not labelled {label.name} for sure, and arXiv says yes", papers.missed))
    return "\n".join(parts) + "</section>"


def _figures(label: LabelReport) -> str:
    heads = ["figure", label.name, "95 % interval", "by", "larger class", *(["gate alone"] if label.gate_alone else [])]
    rows = []
    for one in label.figures:
        row = [one.name, _figure(one.interval.value), _between(one.interval), one.method, _figure(one.larger_class)]
        rows.append([*row, *([_figure(one.gate_alone)] if label.gate_alone else [])])
    return _table("Figures, with 95 % intervals", heads, rows)


def _where(title: str, name: str, missed: bool, slices: Sequence[Slice]) -> str:
    if not slices:
        return ""
    rows = []
    for one in slices:
        counts = one.confusion
        wrong = counts.false_negatives if missed else counts.false_positives
        papers = counts.support if missed else counts.negatives
        rows.append([one.value, f"{wrong:,}", f"{papers:,}", f"{wrong / papers:.1%}"])
    heads = ["primary", "false negatives" if missed else "false positives"]
    return _table(title, [*heads, f"papers that are {'' if missed else 'not '}{name}", "rate"], rows, sortable=True)


def _unjudged(found: Unjudged) -> str:
    bins = len(found.scores)
    name = escape(found.name)
    parts = [
        f'<section aria-labelledby="{name}"><h2 id="{name}">{name}</h2><p>{escape(told_of_unjudged(found))}</p>',
        '<div class="charts">',
        histogram("Scores", "score", [("papers", found.scores)], f"In {bins} equal parts of 0 to 1."),
        "</div>",
    ]
    for by, shares in found.slices:
        rows = [
            [one.value, f"{one.papers:,}", f"{one.labelled:,}", f"{one.share.value:.1%}", _between(one.share)]
            for one in shares
        ]
        parts.append(_table(f"By {by}", [by, "papers", found.name, "share", "95 % interval"], rows, sortable=True))
    return "\n".join(parts) + "</section>"


def _matrix_row(name: str, labelled: int, other: int) -> list[str]:
    papers = labelled + other
    cells = [f"{count:,} ({count / papers:.1%})" if papers else "0" for count in (labelled, other)]
    return [name, *cells, f"{papers:,}"]


def _charts(label: LabelReport) -> str:
    ranked = label.ranked
    positive, negative = int(ranked.positives.sum()), int(ranked.negatives.sum())
    charts = []
    if positive:
        hits = np.cumsum(ranked.positives)
        precision, recall = hits / (hits + np.cumsum(ranked.negatives)), hits / positive
        area = next(one.interval.value for one in label.figures if one.name == "average precision")
        lines = [
            Line("precision at each recall", _points(recall, precision)),
            Line("prevalence", [(0, positive / ranked.papers), (1, positive / ranked.papers)], "chance"),
        ]
        told = f"Average precision {area:.4f}, prevalence {positive / ranked.papers:.4f}."
        charts.append(chart("Precision and recall", "recall", "precision", lines, told))
    if positive and negative:
        false, true = np.cumsum(ranked.negatives) / negative, np.cumsum(ranked.positives) / positive
        area = next(one.interval.value for one in label.figures if one.name == "ROC area")
        lines = [Line("true at each false rate", [(0.0, 0.0), *_points(false, true)]), _CHANCE]
        charts.append(chart("ROC", "false positive rate", "true positive rate", lines, f"Area {area:.4f}."))
    charts.append(_calibration(ranked))
    bins = np.minimum((ranked.scores * _BINS).astype(np.int64), _BINS - 1)
    counts = [np.bincount(bins, each, _BINS).astype(int).tolist() for each in (ranked.negatives, ranked.positives)]
    names = (f"not {label.name}", label.name)
    told = f"Of {negative:,} papers that are {names[0]} and {positive:,} that are {names[1]} in truth."
    charts.append(histogram("Scores", "score", list(zip(names, counts, strict=True)), told))
    return f'<div class="charts">{"".join(charts)}</div>'


_CHANCE = Line("chance", [(0.0, 0.0), (1.0, 1.0)], "chance")


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


def _slices(name: str, slices: Slices) -> str:
    heads = [slices.by, "papers", name, "precision", "recall", "F1", "95 % interval"]
    rows = []
    for one in slices.slices:
        row = [one.value, f"{one.confusion.papers:,}", f"{one.prevalence:.1%}"]
        if one.judged:
            row += [_figure(one.precision.value), _figure(one.recall.value), _figure(one.f1.value), _between(one.f1)]
        else:
            row += ["", "", "", "too few to judge"]
        rows.append(row)
    return _table(f"By {slices.by}, the worst F1 first", heads, rows, sortable=True)


def _papers(title: str, papers: Sequence[Disagreement]) -> str:
    if not papers:
        return f"<h3>{escape(title)}</h3><p>none</p>"
    rows = "".join(
        f"<tr><td>{paper.score:.3f}</td><td class=text>{_linked(paper)}</td>"
        f"<td class=text>{escape(paper.categories or '')}</td>"
        f"<td class=text>{escape(' '.join((paper.title or '').split()))}</td></tr>"
        for paper in papers
    )
    return _whole_table(title, ["score", "paper", "categories", "title"], rows, sortable=True)


def _linked(paper: Disagreement) -> str:
    if paper.link is None:
        return escape(paper.id)
    return f'<a href="{escape(paper.link, quote=True)}" rel="noreferrer">{escape(paper.id)}</a>'


def _overall(found: Overall) -> str:
    rows = [
        [name, _figure(micro.value), _between(micro), _figure(macro.value), _between(macro)]
        for name, micro, macro in zip(NAMES, found.micro, found.macro, strict=True)
    ]
    table = _table("Figures", ["figure", "micro", "95 % interval", "macro", "95 % interval"], rows)
    told = f"{found.papers:,} papers with the truth of each label."
    return f'<section aria-labelledby="all-labels"><h2 id="all-labels">All labels</h2><p>{told}</p>{table}</section>'


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], sortable: bool = False) -> str:
    lines = []
    for row in rows:
        cells = [_cell(cell, head in _OF_TEXT) for cell, head in zip(row[1:], heads[1:], strict=True)]
        lines.append(f'<tr><th scope="row">{escape(row[0])}</th>{"".join(cells)}</tr>')
    return _whole_table(title, heads, "".join(lines), sortable)


def _whole_table(title: str, heads: Sequence[str], rows: str, sortable: bool) -> str:
    named = [f'<button type="button">{escape(head)}</button>' if sortable else escape(head) for head in heads]
    aligned = [" class=text" if head in _OF_TEXT else "" for head in heads]
    columns = "".join(f'<th scope="col"{how}>{each}</th>' for how, each in zip(aligned, named, strict=True))
    label = escape(title, quote=True)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table><caption>{escape(title)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(text: str, of_text: bool) -> str:
    plain = text.replace(",", "")
    value = f' data-value="{plain}"' if plain != text and plain.isdigit() else ""
    return f"<td{value}{' class=text' if of_text else ''}>{escape(text)}</td>"


def _points(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _between(interval: Interval) -> str:
    return "" if math.isnan(interval.low) else f"{interval.low:.4f} - {interval.high:.4f}"


def _figure(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
