"""Tables of text: CSV as spreadsheets of any country write it, JSON lines, or one JSON array."""

from __future__ import annotations

import codecs
import re

import orjson
import polars as pl

from arxivclf.errors import DataError

_ZIP = b"PK\x03\x04"
_SEPARATORS = ",;\t|"


def read_text(content: bytes, path: str) -> pl.DataFrame:
    """The table that the bytes of a file hold. Of CSV every column is text.

    Raises DataError where there is none, PolarsError where it is not whole.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = content.decode("utf-16", "replace").encode()
    content = content.removeprefix(codecs.BOM_UTF8)
    start = content[:4_096].lstrip()
    if not start:
        raise DataError(f"{path}: an empty file")
    if start.startswith(_ZIP):
        raise DataError(f"{path}: a spreadsheet or an archive; save the table in it as CSV")
    try:
        if start.startswith(b"{"):
            return pl.read_ndjson(content, infer_schema_length=None)
        if start.startswith(b"["):
            return pl.DataFrame(orjson.loads(content), infer_schema_length=None)
        return _csv(content)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}: not a whole JSON array: {error}") from None
    except pl.exceptions.ComputeError as error:
        if "utf-8" not in str(error):
            raise
        raise DataError(f"{path}: is not UTF-8; save it in that encoding") from None


def numbers(table: pl.DataFrame, columns: list[str], path: str) -> pl.DataFrame:
    """The table with these columns as float64, for a text with a comma is a number, too, and a blank one is null.

    Raises DataError where one holds something else.
    """
    for name in columns:
        column = table.get_column(name)
        if column.dtype != pl.String:
            continue
        said = column.str.strip_chars().replace("", None)
        found = said.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
        strange = said.filter(said.is_not_null() & found.is_null())
        if len(strange):
            raise DataError(f"{path}: the column {name!r} holds no scores, but such as {strange[0]!r}")
        table = table.with_columns(found)
    return table


def _csv(content: bytes) -> pl.DataFrame:
    heading, _, rest = content.partition(b"\n")
    named = re.fullmatch(rb"(?i)sep=(.)\r?", heading)
    if named is not None:
        # A line that spreadsheets write for themselves.
        content, separator = rest, named[1].decode("latin-1")
    else:
        # What stands within quotes is no separator.
        plain = re.sub(r'"[^"]*"', "", heading.decode("utf-8", "replace"))
        separator = max(_SEPARATORS, key=plain.count)
    return pl.read_csv(content, infer_schema_length=0, separator=separator)
