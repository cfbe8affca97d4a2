"""Dates, categories, labels and texts, in whatever form a file has them; the two readers agree."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import paper, read_jsonl, snapshot, write_jsonl, write_parquet
from hypothesis import given
from hypothesis import strategies as st

from arxivclf import LabelSettings, TrainSettings, label, train
from arxivclf.corpus.columns import Naming
from arxivclf.corpus.ids import month_of, year_of
from arxivclf.corpus.openalex import abstract_of
from arxivclf.corpus.tasks import Task
from arxivclf.corpus.truths import truth

AI = Task.load(["ai"])


def read(path: Path) -> tuple[pl.DataFrame, list[str]]:
    chunks = [*snapshot(path).chunks()]
    there = [chunk.papers for chunk in chunks if len(chunk.papers)]
    return pl.concat(there) if there else pl.DataFrame(), [row.reason for chunk in chunks for row in chunk.rejects]


def write(folder: Path, form: str, rows: list[dict[str, Any]]) -> Path:
    return (write_jsonl if form == "jsonl" else write_parquet)(folder / f"dump.{form}", rows)


VERSIONS = [{"version": "v1", "created": "Tue, 5 Jan 2021 10:00:00 GMT"}]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    "dated",
    [
        {"versions": VERSIONS},
        {"versions": json.dumps(VERSIONS)},
        {"versions": repr(VERSIONS)},
        {"versions": ["v1", "v2"], "created": "2021-01-05"},
        {"versions": "v3", "created": "2021-01-05"},
        {"versions": 3, "created": "2021-01-05T10:00:00"},
        {"versions": "", "created": "n/a", "published": "2021-01-05"},
        {"versions": [{"version": "v1", "date": "2020-02-02"}], "publication_date": "2021-01-05"},
        {"created": "", "date": "2021-01-05"},
    ],
    ids=str,
)
def test_a_column_without_a_date_hides_none_that_has_one(tmp_path: Path, form: str, dated: dict[str, Any]) -> None:
    """The damaged id is a paper's because its date bears it out."""
    rows = [{"id": "2101.1", "title": "A", "abstract": "B", "categories": "cs.LG", **dated}]
    found, rejects = read(write(tmp_path, form, rows))
    assert rejects == []
    assert found.select("key", "created", "year").row(0) == ("2101.10000", date(2021, 1, 5), 2021)


@pytest.mark.parametrize(
    ("written", "positive"),
    [
        ("cs.LG|stat.ML", True),
        ("CS.LG", True),
        ("cs.XX cs.LG", True),
        ("cs.XX", False),
        ("math.AG", False),
        *((nothing, None) for nothing in ("nan", "None", "null", "[]", "-", "n/a", "n.a.", "", " ", "unknown thing")),
    ],
)
@pytest.mark.parametrize("column", ["categories", "label"])
def test_what_names_no_category_tells_nothing(column: str, written: str, positive: bool | None) -> None:
    """As categories; as a label it may still be the name of another label, and an empty list has none of them."""
    columns = {
        name: pl.Series([written if name == column else None], dtype=pl.String) for name in ("label", "categories")
    }
    (found,) = truth(AI, pl.DataFrame(columns).rename({"categories": "listed"}))
    named = column == "label" and written in ("n.a.", "unknown thing", "[]")
    assert found[0] is (False if named else positive)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_may_be_missing_costs_no_paper(tmp_path: Path, form: str) -> None:
    plain = {"title": "A", "abstract": "B"}
    rows = [
        {"id": "2101.00001", **plain, "categories": ["cs.LG", None], "year": [2021]},
        {"id": "2101.00002", **plain, "categories": ["hep-th"], "year": None},
        {"id": "2101.00003", **plain, "categories": None, "year": [2020, 2021]},
    ]
    found, rejects = read(write(tmp_path, form, rows))
    assert rejects == []
    assert found["categories"].to_list() == ["cs.LG", "hep-th", None]
    assert truth(AI, found)[0].to_list() == [True, False, None]
    assert found["year"].to_list() == [2021, 2021, 2021]


def test_the_readers_agree_on_numbers_as_text_and_records(tmp_path: Path) -> None:
    rows = [{"id": "2101.00001", "title": 1984, "abstract": "B", "label": {"a": 1}}]
    for form in ("jsonl", "parquet"):
        found, rejects = read(write(tmp_path, form, rows))
        assert rejects == []
        assert found.select("title", "label").row(0) == ("1984", None)
    broken, rejects = read(write_jsonl(tmp_path / "x.jsonl", [{"id": "2101.00001", "title": ["a"], "abstract": "B"}]))
    assert len(broken) == 0
    assert rejects == ["title is no text"]


def test_columns_that_come_late_in_a_file_count(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": f"W{n}", "title": "A", "abstract": "B"} for n in range(1_200)]
    for row in rows[1_100:]:
        row |= {"label": "ai", "year": 2019}
    rows[1_150] |= {"categories": "hep-th"}
    found, rejects = read(write_jsonl(tmp_path / "late.jsonl", rows))
    assert rejects == []
    answers = truth(AI, found)[0]
    # Categories go before a label.
    assert (answers.sum(), answers[1_150], answers.null_count()) == (99, False, 1_100)
    assert found["year"][1_100:].unique().to_list() == [2019]


def test_files_that_were_joined_and_what_python_writes_are_read(tmp_path: Path) -> None:
    line = json.dumps(paper("2101.00001"))
    text = (
        f"\ufeff{line}\n\ufeff{line.replace('00001', '00002')}\n"
        + json.dumps(paper("2101.00003", doi=float("nan")))
        + "\n"
    )
    (tmp_path / "dump.jsonl").write_text(text + '{"id": NaN\n', encoding="utf-8")
    found, rejects = read(tmp_path / "dump.jsonl")
    assert found["id"].to_list() == ["2101.00001", "2101.00002", "2101.00003"]
    assert rejects == ["not JSON"]


@pytest.mark.parametrize(
    "index",
    [
        {"hello": [1], "world": [0, 2]},
        [("hello", [1]), ("world", [0, 2])],
        [{"key": "hello", "value": [1]}, {"key": "world", "value": [0, 2]}],
        [{"word": "hello", "positions": ["1"]}, {"word": "world", "positions": ["0", "2"]}],
        {"hello": ["1"], "world": ["0", "2"], "again": ["10"]},
    ],
    ids=str,
)
def test_an_inverted_index_in_every_form(index: Any) -> None:
    last = " again" if "again" in index else ""
    assert abstract_of(index) == f"world hello world{last}"
    assert abstract_of(json.dumps(index)) == f"world hello world{last}"


@pytest.mark.parametrize(
    "index", [[{"positions": [0], "word": "a"}], {"a": ["x"]}, {"a": [float("inf")]}, [1, 2], [{"a": 1}], 5]
)
def test_what_is_no_inverted_index_says_so(index: Any) -> None:
    with pytest.raises(ValueError, match="no index of words"):
        abstract_of(index)


BROKEN = b"caf\xe9"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"fine", BROKEN], pa.binary_view()),
        pa.array([b"fine", BROKEN], pa.binary()).dictionary_encode(),
        pa.array([b"fine", BROKEN], pa.binary()),
    ],
    ids=lambda column: str(column.type),
)
def test_bytes_that_are_no_text_are_a_reject(tmp_path: Path, column: pa.Array) -> None:
    table = pa.table({"id": ["2101.00001", "2101.00002"], "title": column, "abstract": ["B", "B"]})
    pq.write_table(table, tmp_path / "dump.parquet")
    found, rejects = read(tmp_path / "dump.parquet")
    assert found["title"].to_list() == ["fine"]
    assert rejects == ["not UTF-8"]


@pytest.mark.parametrize("kind", [pa.list_(pa.binary()), pa.large_list(pa.binary()), pa.list_(pa.binary(), 1)], ids=str)
def test_lists_of_bytes_are_texts_too(tmp_path: Path, kind: pa.DataType) -> None:
    lists = pa.array([[b"cs.LG"], [BROKEN]], kind)
    table = pa.table(
        {"id": ["2101.00001", "2101.00002"], "title": ["A", "A"], "abstract": ["B", "B"], "categories": lists}
    )
    pq.write_table(table, tmp_path / "dump.parquet")
    found, rejects = read(tmp_path / "dump.parquet")
    assert found["categories"].to_list() == ["cs.LG"]
    assert rejects == ["not UTF-8"]


def test_bytes_that_are_kept_beside_text_do_not_end_the_run(tmp_path: Path) -> None:
    base = {"title": ["A"], "abstract": ["B"]}
    pq.write_table(pa.table({"id": ["2101.00001"], **base, "note": pa.array([BROKEN])}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": ["2101.00002"], **base, "note": ["text"]}), tmp_path / "b.parquet")
    output = str(tmp_path / "x.jsonl")
    label(LabelSettings((str(tmp_path / "*.parquet"),), ("bundled",), output=output, keep=("note",)))
    assert [row["note"] for row in read_jsonl(Path(output))] == ["caf\ufffd", "text"]


@given(st.integers(1991, 2029), st.integers(1, 12), st.integers(1, 999))
def test_an_id_tells_its_month(year: int, month: int, number: int) -> None:
    digits = f"{year % 100:02}{month:02}"
    if year < 2007 or (year, month) < (2007, 4):
        key = f"hep-th/{digits}{number:03}"
    else:
        key = f"{digits}.{number:04}" if year < 2015 else f"{digits}.{number:05}"
    frame = pl.select(key=pl.lit(key)).select(year=year_of(pl.col("key")), month=month_of(pl.col("key")))
    assert frame.row(0) == (year, date(year, month, 1))


def test_other_ids_tell_no_month() -> None:
    keys = pl.DataFrame({"key": ["2001001", "W2101", "math/0013001", "a/b"]})
    assert keys.select(month_of(pl.col("key"))).to_series().null_count() == 4


def test_the_newest_papers_are_the_test_part_by_their_ids_too(tmp_path: Path) -> None:
    rows = [
        {"id": f"18{month:02}.{n:05d}", "title": f"Paper {n}", "abstract": "Of it", "categories": kind}
        for month in range(1, 13)
        for n, kind in enumerate(["cs.LG", "hep-th"] * 10, 1)
    ]
    dump = write_jsonl(tmp_path / "dump.jsonl", rows)
    train(TrainSettings((str(dump),), base="none", split="time", output=str(tmp_path / "m")))
    tested = pl.read_parquet(tmp_path / "m" / "test.labels.parquet")["id"].str.slice(2, 2).unique().sort()
    assert tested.to_list() == ["11", "12"]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"title": "A", "abstract": "B", "text": "C"}, ("A", "B", None)),
        ({"title": "A", "text": "C"}, (None, None, "C")),
        ({"display_name": "A", "abstract_inverted_index": {"B": [0]}}, ("A", "B", None)),
        ({"title": "A", "display_name": "D", "abstract_inverted_index": {"B": [0]}}, ("A", "B", None)),
    ],
    ids=str,
)
def test_which_texts_are_taken(tmp_path: Path, form: str, row: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found, rejects = read(write(tmp_path, form, [{"id": "2101.00001", **row}]))
    assert rejects == []
    assert found.select("title", "abstract", "text").row(0) == expected


def test_an_inverted_index_that_is_a_map_of_parquet(tmp_path: Path) -> None:
    index = pa.array([[("hello", [1]), ("world", [0, 2])], None], pa.map_(pa.string(), pa.list_(pa.int64())))
    table = pa.table({"id": ["W1", "W2"], "title": ["A", "B"], "abstract_inverted_index": index})
    pq.write_table(table, tmp_path / "works.parquet")
    found, rejects = read(tmp_path / "works.parquet")
    assert rejects == []
    assert found["abstract"].to_list() == ["world hello world", None]


@pytest.mark.parametrize("answers", [[1.0, 0.0], [1, 0], [True, False], ["1.0", "0.0"], ["Yes", "no"]], ids=str)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_yes_or_no_however_it_is_written(tmp_path: Path, form: str, answers: list[Any]) -> None:
    rows = [{"id": f"2101.0000{n}", "title": "A", "abstract": "B", "label": one} for n, one in enumerate(answers)]
    found, rejects = read(write(tmp_path, form, rows))
    assert rejects == []
    assert truth(AI, found)[0].to_list() == [True, False]


@pytest.mark.parametrize(
    "line",
    ['{"id":"2101.00009","title":"t\\ud800","abstract":"b","v":NaN}', '{"id":"2101.00009\\ud800","title":"NaN: NaN"}'],
)
def test_what_no_text_can_hold_is_a_reject(tmp_path: Path, line: str) -> None:
    """Half a pair of surrogates, which Python's JSON would let through."""
    dump = write_jsonl(tmp_path / "dump.jsonl", [paper("2101.00001")])
    dump.write_text(dump.read_text() + line + "\n")
    found, rejects = read(dump)
    assert found["id"].to_list() == ["2101.00001"]
    assert rejects == ["not JSON"]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_categories_go_before_a_label_paper_by_paper(tmp_path: Path, form: str) -> None:
    plain = {"title": "A", "abstract": "B"}
    rows = [
        {"id": "2101.00001", **plain, "categories": "hep-th", "label": "1"},
        {"id": "2101.00002", **plain, "categories": None, "label": "1"},
        {"id": "2101.00003", **plain, "categories": " ", "label": "0"},
        {"id": "2101.00004", **plain, "categories": "cs.LG", "label": None},
        {"id": "2101.00005", **plain, "categories": None, "label": None},
    ]
    path = write(tmp_path, form, rows)
    found, rejects = read(path)
    assert rejects == []
    assert truth(AI, found)[0].to_list() == [False, True, False, True, None]
    named = pl.concat([chunk.papers for chunk in snapshot(path, naming=Naming(label="label")).chunks()])
    assert truth(AI, named)[0].to_list() == [True, True, False, None, None]


def test_an_empty_item_of_a_list_is_none(tmp_path: Path) -> None:
    rows = [{"id": "2101.00001", "title": "A", "abstract": "B", "categories": ["cs.AI", ""]}]
    assert truth(AI, read(write_jsonl(tmp_path / "x.jsonl", rows))[0])[0].to_list() == [True]
