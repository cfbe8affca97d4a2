"""JSON lines: lines in, rows under the names of RAW out, and every line that holds no row with its reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, islice
from typing import Any, BinaryIO

import orjson
import polars as pl

from arxivclf.corpus.columns import (
    LISTS,
    MALFORMED_ID,
    NOT_UTF8,
    NUMERIC_ID,
    RAW,
    Columns,
    Naming,
    Rows,
    Wanted,
    date_column,
    kept_column,
    settle,
)
from arxivclf.corpus.openalex import abstract_of
from arxivclf.corpus.rejects import Reject

_HEAD_LINES = 1_000
_NO_NUMBER = re.compile(r"[:\[,]\s*(?:NaN|-?Infinity)")
_UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class _Line:
    number: int
    text: bytes


def read(
    stream: BinaryIO, source: str, naming: Naming, keep: Sequence[str], chunk_rows: int, wanted: Wanted | None = None
) -> Iterator[Rows | None]:
    """Papers and rejects of each `chunk_rows` lines, None for those that are not `wanted`; blank lines are no rows.

    The first _HEAD_LINES lines tell which columns there are, whatever `chunk_rows` is.
    """
    every = (_Line(number, text) for number, text in enumerate(stream, 1) if not text.isspace())
    head = list(islice(every, _HEAD_LINES))
    there = dict.fromkeys(name for line in head for name in parsed(line.text)[0] or ())
    columns = Columns.recognise(list(there), naming, keep, source).open_ended() if there else None
    numbered = chain(head, every)
    for place in count():
        lines = list(islice(numbered, chunk_rows))
        if not lines:
            return
        # Where the head tells no columns the first row that comes does.
        if columns is not None and wanted is not None and not wanted(place):
            yield None
            continue
        rows: list[tuple[_Line, dict[str, Any]]] = []
        broken: list[Reject] = []
        for line in lines:
            row, reason = parsed(line.text)
            if row is None:
                broken.append(Reject(source, "line", line.number, None, reason, _shown(line)))
            else:
                rows.append((line, row))
        if not rows:
            yield Rows(pl.DataFrame(), broken, lambda _numbers, _reason: [])
            continue
        if columns is None:
            columns = Columns.recognise(list(rows[0][1]), naming, keep, source).open_ended()
        shown = partial(_shown_at, rows)
        found = settle(_frame(rows, columns), columns, source, "line", shown)
        yield replace(found, rejects=sorted(broken + found.rejects, key=lambda reject: reject.row))


def parsed(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """The record of a line, or else None and why it is none."""
    # Within a file, too, where several were joined.
    text = line.removeprefix(_UTF8_MARK)
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            decoded = text.decode("utf-8")
        except UnicodeDecodeError:
            return None, NOT_UTF8
        try:
            # Python's own writer says NaN, which is no JSON.
            there = _NO_NUMBER.search(decoded) is not None
            row = orjson.loads(json.dumps(json.loads(decoded, parse_constant=lambda _: None))) if there else None
        except (ValueError, RecursionError):
            row = None
        if row is None:
            return None, "not JSON"
    return (row, "") if isinstance(row, dict) else (None, "not a JSON object")


def _frame(rows: list[tuple[_Line, dict[str, Any]]], columns: Columns) -> pl.DataFrame:
    """The rows as strings under the names of RAW; `fault` names the first value that is not what it should be."""
    dates = {date_column(place): name for place, name in enumerate(columns.dated)}
    table: dict[str, list[Any]] = {name: [] for name in (*RAW, *dates, "fault", *map(kept_column, columns.kept))}
    names = [(name, columns.names[name]) for name in RAW]
    for _, row in rows:
        fault = None
        for name, its_name in names:
            value = row.get(its_name) if its_name else None
            if value is not None and (type(value) is not str or (name == "abstract" and columns.inverted)):
                value, its_fault = _as_text(name, value, columns)
                fault = fault or its_fault
            table[name].append(value)
        for own, dated in dates.items():
            table[own].append(_date_text(row.get(dated)))
        table["fault"].append(fault)
        for kept in columns.kept:
            value = row.get(kept)
            if value is not None and not isinstance(value, str):
                try:
                    value = orjson.dumps(value).decode()
                except TypeError:
                    # It reads lists within lists deeper than it writes them.
                    value, table["fault"][-1] = None, table["fault"][-1] or f"{kept} is too deep to be kept"
            table[kept_column(kept)].append(value)
    return pl.DataFrame(
        {"row": [line.number for line, _ in rows], **table},
        schema_overrides={"row": pl.Int64, **dict.fromkeys(table, pl.String)},
    )


def _as_text(name: str, value: Any, columns: Columns) -> tuple[str | None, str | None]:
    """A value that is no string, as the string that stands for it, or else the fault that it is."""
    if name == "id":
        return str(value), NUMERIC_ID if isinstance(value, int | float) else MALFORMED_ID
    if name == "abstract" and columns.inverted:
        try:
            return abstract_of(value), None
        except ValueError as error:
            return None, str(error)
    if name in LISTS and isinstance(value, list):
        between, empty = LISTS[name]
        if not value:
            return empty, None
        value = [_said(one) for one in value if one not in (None, "")]
        return (between.join(value) if all(value) else None), None
    if name in ("title", "abstract", "text") and not isinstance(value, int | float):
        return None, f"{columns.names[name]} is no text"
    # A paper of which nothing is told is a paper all the same.
    return _said(value), None


def _said(value: Any) -> str | None:
    """A value as a table of text would have it; None for lists and records."""
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return value if isinstance(value, str) else None


def _date_text(value: Any) -> str | None:
    """The date of a paper as its dump writes it: a string, or the first of its versions."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("created")
    return value if isinstance(value, str) and value.strip() else None


def _shown_at(rows: list[tuple[_Line, dict[str, Any]]], place: int) -> str:
    return _shown(rows[place][0])


def _shown(line: _Line) -> str:
    return line.text.decode("utf-8", errors="replace").rstrip("\r\n")
