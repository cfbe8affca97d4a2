"""Reading dumps: every form, every fault, nothing lost."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from conftest import DATA, PAPERS, paper, papers, real_data, snapshot, write_jsonl, write_parquet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arxivclf.corpus.columns import PAPER, Naming
from arxivclf.corpus.rejects import RAW_CHARACTERS, Reject
from arxivclf.corpus.snapshot import Snapshot, stem
from arxivclf.corpus.sources import fetch, resolve
from arxivclf.errors import DataError, UsageError


def read(*paths: Path | str, chunk_rows: int = 3, **how: Any) -> tuple[pl.DataFrame, list[Reject]]:
    chunks = list(snapshot(*paths, **how).chunks(chunk_rows))
    frames = [chunk.papers for chunk in chunks if len(chunk.papers)]
    return (pl.concat(frames) if frames else pl.DataFrame()), [r for chunk in chunks for r in chunk.rejects]


def test_a_kaggle_row_becomes_a_paper(tmp_path: Path) -> None:
    found, rejects = read(write_jsonl(tmp_path / "dump.jsonl", [paper("math.GT/0309136v2")]))
    assert not rejects
    assert set(found.columns) == set(PAPER)
    row = found.row(0, named=True)
    assert row["id"] == "math.GT/0309136v2"
    assert row["key"] == "math/0309136"
    assert row["title"] == "Learning to test\n  with few examples"
    assert str(row["created"]) == "2021-01-01"
    assert row["year"] == 2021
    assert row["row"] == 1


def test_json_lines_and_parquet_give_the_same_papers(tmp_path: Path) -> None:
    rows = [{**row, "comments": "none"} for row in papers(10)]
    lines, _ = read(write_jsonl(tmp_path / "a.jsonl", rows))
    table, _ = read(write_parquet(tmp_path / "a.parquet", rows))
    assert lines.equals(table)


@pytest.mark.parametrize(
    "form", ["plain", "gz", "zst", "zst in two frames", "marked", "crlf", "no last break", "blank lines"]
)
def test_the_form_is_told_by_content_not_by_name(tmp_path: Path, form: str) -> None:
    plain = "".join(json.dumps(row) + "\n" for row in papers(7)).encode()
    packed = {
        "plain": plain,
        "gz": gzip.compress(plain),
        "zst": zstandard.compress(plain),
        "zst in two frames": zstandard.compress(plain[:1_000]) + zstandard.compress(plain[1_000:]),
        "marked": b"\xef\xbb\xbf" + plain,
        "crlf": plain.replace(b"\n", b"\r\n"),
        "no last break": plain.rstrip(b"\n"),
        "blank lines": b"\n" + plain.replace(b"\n", b"\n\n"),
    }
    path = tmp_path / "dump.data"
    path.write_bytes(packed[form])
    found, rejects = read(path)
    assert found.get_column("id").to_list() == [row["id"] for row in papers(7)]
    assert not rejects


FAULTS: list[tuple[dict[str, Any] | bytes, str]] = [
    (paper(None), "no id"),
    (paper(""), "no id"),
    (paper("  "), "no id"),
    (paper(704.0001), "numeric id"),
    (paper(1501), "numeric id"),
    (paper("812.3874"), "malformed id"),
    (paper("1502.075"), "malformed id"),
    (paper("not-an-id"), "malformed id"),
    (paper(["0704.0001"]), "malformed id"),
    (paper(title=None, abstract=None), "neither title nor abstract"),
    (paper(title=" ", abstract="\n"), "neither title nor abstract"),
    (paper(title=["A title"]), "title is no text"),
    (b'{"id": "0704.0001", "title": "cut in ha', "not JSON"),
    (b'["a", "list"]', "not a JSON object"),
    (b'{"id": "0704.0001", "title": "bro\xffken"}', "not UTF-8"),
]


@pytest.mark.parametrize(("row", "reason"), FAULTS, ids=[f"{reason} {n}" for n, (_, reason) in enumerate(FAULTS)])
def test_a_faulty_line_is_rejected_with_its_place_and_the_rest_goes_on(tmp_path: Path, row: Any, reason: str) -> None:
    good = [json.dumps(one).encode() for one in papers(4)]
    bad = row if isinstance(row, bytes) else json.dumps(row).encode()
    path = tmp_path / "dump.jsonl"
    path.write_bytes(b"\n".join([*good[:2], bad, *good[2:]]) + b"\n")
    found, rejects = read(path)
    assert len(found) == 4
    (reject,) = rejects
    assert (reject.source, reject.unit, reject.row, reject.reason) == (str(path), "line", 3, reason)
    assert reject.raw == bad.decode(errors="replace")


def test_faulty_rows_of_parquet_are_rejected_too(tmp_path: Path) -> None:
    rows = papers(5)
    rows[1]["id"], rows[2]["id"], rows[4] = None, "812.3874", rows[4] | {"title": None, "abstract": ""}
    found, rejects = read(write_parquet(tmp_path / "dump.parquet", rows))
    assert found.get_column("row").to_list() == [1, 4]
    assert [(r.unit, r.row, r.reason) for r in rejects] == [
        ("row", 2, "no id"),
        ("row", 3, "malformed id"),
        ("row", 5, "neither title nor abstract"),
    ]
    assert json.loads(rejects[1].raw)["id"] == "812.3874"


def test_a_column_of_numbers_is_no_column_of_ids(tmp_path: Path) -> None:
    path = tmp_path / "dump.parquet"
    pl.DataFrame(papers(3)).with_columns(id=pl.Series([704.001, 704.002, None])).write_parquet(path)
    found, rejects = read(path)
    assert not len(found)
    assert [r.reason for r in rejects] == ["numeric id", "numeric id", "no id"]


def test_title_or_abstract_alone_is_enough(tmp_path: Path) -> None:
    rows = [paper("2101.00001", title=None), paper("2101.00002", abstract=None), paper("2101.00003")]
    found, rejects = read(write_jsonl(tmp_path / "dump.jsonl", rows))
    assert len(found) == 3
    assert not rejects


def test_a_long_raw_line_is_cut(tmp_path: Path) -> None:
    _, (reject,) = read(write_jsonl(tmp_path / "dump.jsonl", [paper("x" * 5_000)]), chunk_rows=10)
    assert len(reject.raw) == RAW_CHARACTERS


def test_openalex_works(tmp_path: Path) -> None:
    works = [
        {
            "id": "https://openalex.org/W1",
            "title": None,
            "abstract_inverted_index": {"hello": [0, 2], "world": [1]},
            "publication_date": "2020-05-06",
        },
        {"id": "https://openalex.org/W2", "title": "A work", "abstract_inverted_index": None, "publication_year": 2019},
        {"id": "https://openalex.org/W3", "title": None, "abstract_inverted_index": None},
    ]
    found, rejects = read(write_jsonl(tmp_path / "works.jsonl", works))
    assert found.get_column("abstract").to_list() == ["hello world hello", None]
    assert found.get_column("key").to_list() == ["https://openalex.org/W1", "https://openalex.org/W2"]
    assert found.get_column("year").to_list() == [2020, 2019]
    assert [r.reason for r in rejects] == ["neither title nor abstract"]


def test_a_table_of_texts_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "dev.parquet"
    pl.DataFrame({"id": ["a", "b"], "text": ["one", "two"], "label": [True, None], "year": [2001, None]}).write_parquet(
        path
    )
    found, _ = read(path)
    assert found.select("key", "text", "label", "year").rows() == [("a", "one", "true", 2001), ("b", "two", None, None)]


def test_columns_of_other_names(tmp_path: Path) -> None:
    rows = [{"paper": "p-1", "body": "a text", "topic": "ai", "categories": "cs.LG"}]
    found, _ = read(write_jsonl(tmp_path / "x.jsonl", rows), naming=Naming("paper", "body", "topic"))
    row = found.row(0, named=True)
    assert (row["id"], row["text"], row["label"], row["categories"], row["listed"]) == (
        "p-1",
        "a text",
        "ai",
        "cs.LG",
        None,
    )


@pytest.mark.parametrize(
    ("naming", "says"),
    [
        (Naming(), 'no column "abstract"; there are id, title, categories. --text-column'),
        (Naming(id="paper"), 'no column "paper"; there are id, title, categories. --id-column'),
        (Naming(text="title", label="topic"), 'no column "topic"; there are id, title, categories. --label-column'),
    ],
)
def test_a_missing_column_names_those_there_are(tmp_path: Path, naming: Naming, says: str) -> None:
    rows = [{"id": "2101.00001", "title": "t", "categories": "cs.LG"}]
    for path in (write_jsonl(tmp_path / "x.jsonl", rows), write_parquet(tmp_path / "x.parquet", rows)):
        with pytest.raises(DataError) as caught:
            read(path, naming=naming)
        assert says in str(caught.value)


def test_kept_columns_have_their_type_where_all_files_agree(tmp_path: Path) -> None:
    table = write_parquet(tmp_path / "a.parquet", [row | {"pages": 3} for row in papers(2)])
    lines = write_jsonl(tmp_path / "b.jsonl", [row | {"pages": 3} for row in papers(2)])
    assert snapshot(table, keep=("pages", "title")).kept_types() == {"pages": pl.Int64(), "title": pl.String()}
    assert snapshot(table, lines, keep=("pages",)).kept_types() == {"pages": pl.String()}
    found, _ = read(lines, keep=("pages",))
    assert found.get_column("keep:pages").to_list() == ["3", "3"]


def test_folders_and_globs_are_read_by_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl.gz", "notes.txt", "a.labels.jsonl", "a.rejects.jsonl", ".hidden.jsonl"):
        (tmp_path / name).write_bytes(b"{}")
    names = ["a.jsonl.gz", "b.jsonl"]
    assert [Path(path).name for path in resolve([str(tmp_path)])] == names
    assert [Path(path).name for path in resolve([str(tmp_path / "[ab].jsonl*")])] == names
    assert len(resolve([str(tmp_path), str(tmp_path / "b.jsonl")])) == 2


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"", "x.jsonl", "an empty file"),
        (b"\n\n", "x.jsonl", "an empty file"),
        (gzip.compress(b""), "x.gz", "an empty file"),
        (b"", "x.parquet", "an empty file"),
        (b"id,title\n1,2\n", "x.csv", "neither Parquet nor JSON lines; a table of text becomes Parquet"),
        (b'[{"id": "0704.0001"}]', "x.json", "one JSON array"),
        (gzip.compress(b'{"id": "0704.0001"}' * 100)[:40], "x.jsonl.gz", "cannot be"),
        (zstandard.compress(random.Random(0).randbytes(9_000))[:4_000], "x.zst", "neither Parquet nor JSON lines"),
        (b"PAR1 and then something else", "x.parquet", "no whole Parquet file"),
    ],
)
def test_what_is_no_dump_says_so(tmp_path: Path, content: bytes, name: str, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name) as caught:
        read(path)
    assert says in str(caught.value)


def test_half_a_parquet_file_is_noticed_before_any_work(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "dump.parquet", papers(500)).read_bytes()
    (tmp_path / "dump.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no whole Parquet file"):
        snapshot(tmp_path / "dump.parquet").check()


def test_absent_files_and_bare_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "absent.jsonl")
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "*.jsonl")
    with pytest.raises(DataError, match="no dump in this folder"):
        read(tmp_path)


def test_standard_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in papers(5)).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    (source,) = fetch(resolve(["-"]), tmp_path)
    assert source.name == "standard input"
    (chunk,) = Snapshot((source,)).chunks()
    assert len(chunk.papers) == 5


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/dump.jsonl.gz", "dump"),
        ("dump.parquet", "dump"),
        ("-", "stdin"),
        ("a.b.json", "a.b"),
        ("arxiv-*.json", "arxiv-_"),
    ],
)
def test_stem(path: str, expected: str) -> None:
    assert stem(path) == expected


ROWS = st.lists(
    st.one_of(
        st.integers(1, 99_999).map(lambda number: json.dumps(paper(f"2101.{number:05d}")).encode()),
        st.sampled_from([row if isinstance(row, bytes) else json.dumps(row).encode() for row, _ in FAULTS]),
        st.binary(min_size=1, max_size=20).filter(
            lambda raw: not raw.isspace() and b"\n" not in raw and b"\r" not in raw
        ),
    ),
    min_size=1,
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows=ROWS, chunk_rows=st.integers(1, 13))
def test_every_row_is_a_paper_or_a_reject_whatever_the_chunks(
    tmp_path: Path, rows: list[bytes], chunk_rows: int
) -> None:
    path = tmp_path / "dump.jsonl"
    path.write_bytes(json.dumps(paper("2012.12345")).encode() + b"\n" + b"\n".join(rows) + b"\n")
    found, rejects = read(path, chunk_rows=chunk_rows)
    whole, all_rejects = read(path, chunk_rows=100)
    assert found.equals(whole)
    assert rejects == all_rejects
    places = found.get_column("row").to_list() + [reject.row for reject in rejects]
    assert sorted(places) == list(range(1, len(rows) + 2))
    assert found.get_column("row").is_sorted()


def test_the_share_done_grows_to_one(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", papers(50))
    second = write_parquet(tmp_path / "b.parquet", papers(50))
    shares = [chunk.share for chunk in snapshot(first, second).chunks(10)]
    assert shares == sorted(shares)  # type: ignore[type-var]
    assert shares[-1] == 1.0


def test_the_example_dump_has_no_reject() -> None:
    found, rejects = read(PAPERS, chunk_rows=100)
    assert not rejects
    assert found.get_column("key").n_unique() == len(found) == len(PAPERS.read_text().splitlines())
    assert found.get_column("created").null_count() == 0


@real_data
def test_kaggles_own_head_is_read_whole() -> None:
    found, rejects = read(DATA / "kaggle-snapshot-head.json")
    assert len(found) == 200
    assert not rejects
    assert found.get_column("created").null_count() == 0


@real_data
def test_damaged_ids_of_a_real_dump_are_told_from_their_dates() -> None:
    found, rejects = read(DATA / "arxiv-snapshot-2020.parquet", chunk_rows=8_192)
    assert len(found) + len(rejects) == 47_285
    assert [reject.id for reject in rejects] == ["1709.1037199999998"]
    assert found.get_column("key").n_unique() == len(found)
