"""What a terminal shows as one HTML page that loads nothing: tables that sort, links to the papers, and drawings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from rich.table import Column
from rich.text import Text

from arxivclf.reporting.tables import Named, Part

_LINK = "link "
# A cell that is a number, with commas between its thousands or without; more may follow after a blank or a bracket.
_NUMBER = re.compile(r"([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?)%?(?=$|[\s(])", re.ASCII)

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
.text { text-align: left; }
thead tr { background: var(--band); }
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

# A click on a heading sorts its table, numbers as numbers and before words, empty cells last; a second turns it round.
_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, row = head.parentElement, body = row.closest("table").tBodies[0];
  const place = [...row.children].indexOf(head), up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of row.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = [...body.rows].sort((one, other) => {
    const [a, b] = [one, other].map(row => row.children[place].textContent);
    const [x, y] = [one, other].map(row => row.children[place].dataset.value);
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = x === undefined && y === undefined ? a.localeCompare(b)
      : x === undefined || y === undefined ? (x === undefined) - (y === undefined) : x - y;
    return up ? order : -order;
  });
  body.append(...rows);
});
"""


def page_of(title: str, parts: Iterable[Part]) -> str:
    """The page of these parts. A string among them is HTML, and stands as it is."""
    names: list[str] = []
    blocks: list[str] = []
    heading = ""
    for part in parts:
        if isinstance(part, str):
            blocks.append(part)
        elif isinstance(part, Named):
            blocks.append(_table(part, [*names[-1:], heading]))
        else:
            bold = [span for span in part.spans if span.style == "bold"]
            if bold:
                name = part.plain[bold[0].start : bold[0].end]
                blocks += ["</section>"] if names else []
                names.append(name)
                heading, place = "", _id(len(names))
                blocks.append(f'<section aria-labelledby="{place}"><h2 id="{place}">{escape(name)}</h2>')
            if part.style == "bold":
                heading = part.plain.strip()
                blocks.append(f"<h3>{escape(heading)}</h3>")
            else:
                blocks += _paragraphs(part.plain[bold[0].end if bold else 0 :], dim=part.style == "dim")
    links = "".join(f'<li><a href="#{_id(place)}">{escape(name)}</a></li>' for place, name in enumerate(names, 1))
    index = f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n' if len(names) > 1 else ""
    return _page(title, index + "\n".join([*blocks, *(["</section>"] if names else [])]))


def _id(place: int) -> str:
    # Two names may be one but for a blank, and a label may be called what a section is.
    return f"section-{place}"


def _paragraphs(text: str, dim: bool) -> Iterator[str]:
    how = ' class="dim"' if dim else ""
    return (f"<p{how}>{escape(line.strip())}</p>" for line in text.splitlines() if line.strip())


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


def _table(table: Named, within: Sequence[str]) -> str:
    """A table, in the section and under the heading of these names."""
    heads = [str(column.header) for column in table.columns]
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    # Where two columns have one name, a row is of two things.
    sorts = len(rows) > 2 and len(set(heads)) == len(heads)
    lines = []
    for row in rows:
        first, *others = (_cell(cell, column) for cell, column in zip(row, table.columns, strict=True))
        named = f'<th scope="row"{first}</th>' if str(row[0]) else f"<td{first}</td>"
        lines.append(f"<tr>{named}{''.join(f'<td{each}</td>' for each in others)}</tr>")
    shown = [f'<button type="button">{escape(head)}</button>' if sorts and head else escape(head) for head in heads]
    columns = "".join(
        f'<th scope="col"{_aligned(column)}>{head}</th>' if head else f"<td{_aligned(column)}></td>"
        for head, column in zip(shown, table.columns, strict=True)
    )
    region = escape(", ".join(filter(None, [*within, table.name])))
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{region}"><table>'
        f"<caption>{escape(table.name)}</caption>"
        f"<thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(cell: object, column: Column) -> str:
    """The attributes and the content of a cell; an attribute is its number, if it is one."""
    text, style = (cell.plain, str(cell.style)) if isinstance(cell, Text) else (str(cell), "")
    number = _NUMBER.match(text)
    value = f' data-value="{number[1].replace(",", "")}"' if number else ""
    content = escape(text)
    if style.startswith(_LINK):
        content = f'<a href="{escape(style.removeprefix(_LINK))}" rel="noreferrer">{content}</a>'
    return f"{value}{_aligned(column)}>{content}"


def _aligned(column: Column) -> str:
    """Numbers end at the right, words start at the left."""
    return "" if column.justify == "right" else ' class="text"'
