"""Input as it comes: each case here was once read wrongly, or crashed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from conftest import error_line, paper, papers, snapshot, write_jsonl, write_parquet

from arxivclf import Task, TrainSettings, report
from arxivclf.corpus.columns import Naming
from arxivclf.corpus.rejects import RejectsFile
from arxivclf.corpus.sources import resolve
from arxivclf.corpus.truths import truth
from arxivclf.errors import DataError
from arxivclf.progress import Watcher
from arxivclf.training.dataset import Dataset, collect


def read(*paths: Path, **how: Any) -> tuple[pl.DataFrame, list[str]]:
    chunks = list(snapshot(*paths, **how).chunks())
    return pl.concat([chunk.papers for chunk in chunks]), [row.reason for chunk in chunks for row in chunk.rejects]


def test_the_label_column_may_hold_categories(tmp_path: Path) -> None:
    rows = [paper("2101.00001") | {"cats": "cs.LG hep-th"}, paper("2101.00002") | {"cats": "hep-th"}]
    path = write_jsonl(tmp_path / "dump.jsonl", rows)
    for column in ("cats", "categories"):
        found, _ = read(path, naming=Naming(label=column))
        (ai,) = truth(Task.load(["ai"]), found)
        assert ai.to_list() == ([True, False] if column == "cats" else [True, True])


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("nan", None),
        ("None", None),
        ("2", None),
        ("-1", None),
        ("Y", True),
        ("f", False),
        ("1.0", True),
        ("physics", False),
    ],
)
def test_words_that_say_nothing_are_no_truth(said: str, means: bool | None) -> None:
    frame = pl.DataFrame({"label": [said], "listed": [None]}, schema={"label": pl.String, "listed": pl.String})
    assert truth(Task.load(["ai"]), frame)[0].to_list() == [means]


@pytest.mark.parametrize(
    "versions",
    [
        [{"version": "v1", "created": "Sun, 1 Apr 2007 10:00:00 GMT"}],
        ["Sun, 1 Apr 2007 10:00:00 GMT"],
        json.dumps([{"version": "v1", "created": "Sun, 1 Apr 2007 10:00:00 GMT"}]),
        {"version": "v1", "created": "Sun, 1 Apr 2007 10:00:00 GMT"},
        "2007-04-01",
    ],
)
def test_dates_in_every_form_of_versions(tmp_path: Path, versions: Any) -> None:
    rows = [paper("704.001", versions=versions)]
    for path in (write_jsonl(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "a.parquet", rows)):
        found, rejects = read(path)
        assert not rejects
        assert str(found.get_column("created")[0]) == "2007-04-01"
        assert found.get_column("key")[0] == "0704.0010"


def test_a_date_is_taken_from_the_column_that_has_one(tmp_path: Path) -> None:
    rows = [paper("2101.00001", versions=[]) | {"created": "2021-01-05"}]
    for path in (write_jsonl(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "a.parquet", rows)):
        assert str(read(path)[0].get_column("created")[0]) == "2021-01-05"


def test_categories_that_come_late_count(tmp_path: Path) -> None:
    rows = [{"id": f"2101.{n:05d}", "title": "t", "abstract": "a"} for n in range(1, 1_200)]
    rows[-1]["categories"] = "cs.LG"
    found, _ = read(write_jsonl(tmp_path / "dump.jsonl", rows))
    assert found.get_column("listed").to_list()[-1] == "cs.LG"


def test_a_day_is_no_year(tmp_path: Path) -> None:
    rows = [{"id": f"W{n}", "title": "t", "abstract": "a", "year": year} for n, year in enumerate((20150401, 2015))]
    found, _ = read(write_jsonl(tmp_path / "x.jsonl", rows))
    assert found.get_column("year").to_list() == [None, 2015]


def test_numbers_of_ones_own_are_no_years(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [{"id": "9510123", "text": "t", "label": True}])
    assert read(path)[0].get_column("year").to_list() == [None]


def test_bytes_that_are_no_text_are_rejects(tmp_path: Path) -> None:
    ids = pa.array(["2101.00001", "2101.00002", "2101.00003"])
    good, bad = b"A title", b"caf\xe9"
    binary = pa.array([good, bad, good], pa.binary())
    lying = pa.Array.from_buffers(pa.string(), 3, binary.buffers())
    for number, titles in enumerate((binary, lying)):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"id": ids, "title": titles, "abstract": pa.nulls(3, pa.string())}), path)
        found, rejects = read(path)
        assert found.get_column("title").to_list() == ["A title", "A title"]
        assert rejects == ["not UTF-8"]


def test_lists_with_bytes_that_are_no_text(cli: Callable[..., Result], model: Path) -> None:
    """Such a row is a reject like any other; a list that nobody reads may hold what it will."""
    wrong = pa.ListArray.from_arrays([0, 1, 2, 3], pa.Array.from_buffers(
        pa.string(), 3, pa.array([b"cs.LG", b"\xff\xfe", b"hep-th"], pa.binary()).buffers()
    ))  # fmt: skip
    rows = {"id": ["2101.00001", "2101.00002", "2101.00003"], "title": ["A", "B", "C"], "abstract": ["a", "b", "c"]}
    pq.write_table(pa.table({**rows, "categories": wrong}), "dump.parquet")
    assert cli("label", "dump.parquet", "--model", model, "-o", "x.parquet", "--max-rejects", "1").exit_code == 0
    assert pl.read_parquet("x.parquet").get_column("id").to_list() == ["2101.00001", "2101.00003"]
    assert json.loads(Path("x.rejects.jsonl").read_text())["reason"] == "not UTF-8"
    pq.write_table(pa.table({**rows, "other": wrong}), "dump.parquet")
    assert cli("label", "dump.parquet", "--model", model, "-o", "y.parquet").exit_code == 0
    assert len(pl.read_parquet("y.parquet")) == 3


def test_types_that_parquet_has(tmp_path: Path) -> None:
    rows = pl.DataFrame(papers(3)).with_columns(pl.col("categories").cast(pl.Categorical), comments=pl.lit(None))
    rows.write_parquet(tmp_path / "a.parquet")
    found, rejects = read(tmp_path / "a.parquet")
    assert not rejects
    assert found.get_column("listed").to_list() == [row["categories"] for row in papers(3)]


def test_a_column_that_stands_twice(tmp_path: Path) -> None:
    column = pa.array(["x"])
    pq.write_table(
        pa.Table.from_arrays([column] * 4, names=["id", "title", "abstract", "title"]), tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match='two columns "title"'):
        read(tmp_path / "a.parquet")


def test_one_broken_index_is_one_reject(tmp_path: Path) -> None:
    works = [
        {"id": f"W{n}", "title": "t", "abstract_inverted_index": index}
        for n, index in enumerate(['{"a": [0]}', "{", "[1]"])
    ]
    for path in (write_jsonl(tmp_path / "a.jsonl", works), write_parquet(tmp_path / "a.parquet", works)):
        found, rejects = read(path)
        assert found.get_column("abstract").to_list() == ["a"]
        assert len(rejects) == 2


def test_one_file_under_two_names_is_read_once(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(4))
    assert cli("label", "dump.jsonl", "./dump.jsonl", "--model", model, "--keep-duplicates").exit_code == 0
    assert len(pl.read_parquet("dump.labels.parquet")) == 4


def test_a_trial_run_does_not_trip_over_rows_it_does_not_reach(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), [*papers(300), paper("wrong"), paper(7)])
    result = cli("label", "dump.jsonl", "--model", model, "--limit", 5)
    assert result.exit_code == 0, result.output
    assert not Path("dump.labels.rejects.jsonl").exists()


def test_files_of_the_user_are_not_taken_for_rejects(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(4))
    Path("notes.txt").write_text("my notes\n")
    assert "no rejects of ours" in error_line(cli("label", "dump.jsonl", "--model", model, "--rejects", "notes.txt"), 2)
    assert Path("notes.txt").read_text() == "my notes\n"
    both = cli("label", "dump.jsonl", "--model", model, "-o", "o.jsonl", "--rejects", "o.jsonl")
    assert "cannot go into one file" in error_line(both, 2)
    logged = cli("label", "dump.jsonl", "--model", model, "--log-json", "dump.jsonl")
    assert "is a file that is read" in error_line(logged, 2)
    piped = cli("label", "-", "--model", model, "-o", "-", "--rejects", "notes.txt", input="no paper\n")
    assert "no rejects of ours" in error_line(piped, 2)
    write_jsonl(Path("dump.jsonl"), [*papers(300), paper(7)])
    assert cli("label", "dump.jsonl", "--model", model).exit_code == 0
    for more in ([], ["--overwrite"]):
        again = cli("label", "dump.jsonl", "--model", model, "--rejects", "notes.txt", "--threshold", 0.5, *more)
        assert "no rejects of ours" in error_line(again, 2)
    done = cli("label", "dump.jsonl", "--model", model, "--rejects", "other.jsonl")
    assert "holds these labels already" in done.stderr
    assert "other.jsonl" not in done.stdout
    assert Path("notes.txt").read_text() == "my notes\n"


def test_rejects_of_an_earlier_run_do_not_stay_beside_a_later_one(
    cli: Callable[..., Result], model: Path, tiny_base: Path
) -> None:
    how = ["--base", tiny_base, "--epochs", 0.1, "--max-tokens", 16]
    for bad in ([paper(7)], []):
        write_jsonl(Path("dump.jsonl"), [*papers(300), *bad])
        assert cli("label", "dump.jsonl", "--model", model, "-o", "-").exit_code == 0
        assert cli("train", "dump.jsonl", *how).exit_code == 0
        for name in ("stdout.rejects.jsonl", "model.rejects.jsonl"):
            assert Path(name).exists() == bool(bad)


@pytest.mark.parametrize("dumps", [".", "*.jsonl", "sub/../*.jsonl", "**/*.jsonl"])
def test_events_do_not_go_among_the_dumps(cli: Callable[..., Result], model: Path, dumps: str) -> None:
    Path("sub").mkdir()
    before = write_jsonl(Path("dump.jsonl"), papers(4)).read_bytes()
    for log in ("dump.jsonl", "log.jsonl"):
        line = error_line(cli("label", dumps, "--model", model, "--log-json", log), 2)
        assert f"--log-json {log}: is a file that is read" in line
    assert Path("dump.jsonl").read_bytes() == before
    log = "sub/events" if "**" in dumps else "sub/events.jsonl"
    assert cli("label", dumps, "--model", model, "--log-json", log).exit_code == 0


def test_a_pattern_does_not_take_what_we_wrote_for_a_dump(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), [*papers(40), {"id": "wrong"}])
    how = ("label", "*.jsonl", "--model", model, "--max-rejects", 0.1)
    assert cli(*how, "-o", "a.labels.jsonl").exit_code == 0
    assert sorted(path.name for path in Path().glob("*.jsonl")) == [
        "a.labels.jsonl",
        "a.labels.rejects.jsonl",
        "dump.jsonl",
    ]
    assert "holds these labels already" in cli(*how, "-o", "a.labels.jsonl").stderr
    assert resolve(["*.labels.jsonl"]) == ["a.labels.jsonl"]


@pytest.mark.parametrize("output", [".", "..", "/"])
def test_an_output_that_is_no_file(cli: Callable[..., Result], model: Path, output: str) -> None:
    write_jsonl(Path("dump.jsonl"), papers(4))
    told = "the name of a labels file ends in .parquet"
    assert told in error_line(cli("label", "dump.jsonl", "--model", model, "-o", output), 2)
    assert told in error_line(cli("merge", output), 2)
    assert "is no place for a report" in error_line(cli("report", model, "-o", output), 2)


def test_a_report_does_not_take_the_place_of_what_it_is_of(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(40))
    assert cli("label", "dump.jsonl", "--model", model, "-o", "o.parquet").exit_code == 0
    before = Path("o.parquet").read_bytes()
    for more in (("o.parquet",), (model, "--compare", "o.parquet"), (model, "--truth", "o.parquet")):
        assert "is no place for a report" in error_line(cli("report", *more, "-o", "o.parquet"), 2)
    assert Path("o.parquet").read_bytes() == before
    shutil.copytree(model, "model")
    for more in ((), ("model",), ("o.parquet", "--compare", "model")):
        assert "is no place" in error_line(cli("report", *more, "-o", "model/test.labels.parquet"), 2)
    zero = cli("report", "o.parquet", "--compare", model, "--threshold", 0)
    assert "--threshold and --compare do not go together" in error_line(zero, 2)


@pytest.mark.parametrize(
    "told", ["cs.LG hep-th", "hep-th,cs.LG", "hep-th; cs.LG", '["hep-th", "cs.LG"]', ["hep-th", "cs.LG"]]
)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("column", ["categories", "label"])
def test_categories_however_they_are_parted(tmp_path: Path, told: Any, form: str, column: str) -> None:
    rows: list[dict[str, Any]] = [{"id": f"2101.0000{n}", "title": "t", "abstract": "a"} for n in (1, 2, 3)]
    nothing = "math.CO" if isinstance(told, str) else ["math.CO"]
    for row, value in zip(rows, (told, nothing, None), strict=True):
        row[column] = value
    write = write_jsonl if form == "jsonl" else write_parquet
    found, reasons = read(write(tmp_path / f"dump.{form}", rows))
    assert reasons == []
    assert truth(Task.load(["ai"]), found)[0].to_list() == [True, False, None]


@pytest.mark.parametrize("kind", [pl.List(pl.Categorical()), pl.Array(pl.String, 2)])
def test_categories_as_lists_of_every_kind(tmp_path: Path, kind: pl.DataType) -> None:
    rows = [{"id": f"2101.0000{n}", "title": "t", "abstract": "a", "categories": ["cs.LG", "hep-th"]} for n in (1, 2)]
    pl.DataFrame(rows).with_columns(pl.col("categories").cast(kind)).write_parquet(tmp_path / "dump.parquet")
    found, reasons = read(tmp_path / "dump.parquet")
    assert reasons == []
    assert found.get_column("categories").to_list() == ["cs.LG hep-th"] * 2


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_labels_however_many_a_paper_has(tmp_path: Path, form: str) -> None:
    said: list[Any] = [["ai", "cv"], ["deep space", "Robotics"], ["robotics and vision"], [], None]
    rows = [{"id": f"W{n}", "text": "t", "label": labels} for n, labels in enumerate(said)]
    write = write_jsonl if form == "jsonl" else write_parquet
    found, reasons = read(write(tmp_path / f"dump.{form}", rows))
    assert reasons == []
    ai, cv, robotics = (series.to_list() for series in truth(Task.load(["ai", "cv", "robotics"]), found))
    assert ai == [True, False, False, False, None]
    assert cv == [True, False, False, False, None]
    assert robotics == [False, True, False, False, None]


def test_nested_columns_of_a_table_are_reported(cli: Callable[..., Result], tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "id": ["a", "b", "c"],
            "score": [0.9, 0.2, 0.8],
            "truth": [True, True, False],
            "categories": [["cs.LG", "hep-th"], ["math.CO"], None],
            "title": [["On", "graphs"], ["x"], []],
            "venue": [{"name": "J"}, {"name": "K"}, None],
        }
    )
    frame.write_parquet("t.parquet")
    shown = cli("report", "t.parquet", "--errors", 3, "--by", "primary", "--by", "venue", "--format", "json")
    assert shown.exit_code == 0, shown.output
    label = json.loads(shown.stdout)["labels"][0]
    assert "math.CO" in json.dumps(label["slices"])


def test_labels_of_other_makers_have_names_of_their_own(tmp_path: Path) -> None:
    """Of capitals, and told one by one, between commas or as a list is written."""
    ids = [f"2101.{n:05d}" for n in range(1, 41)]
    given = [n % 4 == 0 for n in range(40)]
    labels = pl.DataFrame({"id": ids, "Robotics": given, "Robotics_score": [0.9 if one else 0.1 for one in given]})
    labels.write_parquet(tmp_path / "x.parquet")
    for said in ("Robotics", "robotics", "maps, Robotics", "['maps', 'Robotics']", "Robotics;maps", '["Robotics"]'):
        rows = [
            {"id": id_, "text": "A map.", "label": said if one else "maps"} for id_, one in zip(ids, given, strict=True)
        ]
        (one,) = report(tmp_path / "x.parquet", truth=str(write_jsonl(tmp_path / "t.jsonl", rows))).labels
        assert (one.confusion.true_positives, one.confusion.true_negatives) == (10, 30), said


def test_a_mark_of_utf8_before_labels_and_truth(tmp_path: Path) -> None:
    labels = pl.DataFrame({"id": ["2101.00001"], "ai": [True], "ai_score": [0.9]})
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + labels.write_ndjson().encode())
    truth = json.dumps(paper("2101.00001", categories="cs.AI"))
    (tmp_path / "t.jsonl").write_bytes(b"\xef\xbb\xbf" + truth.encode())
    (one,) = report(tmp_path / "x.jsonl", truth=str(tmp_path / "t.jsonl")).labels
    assert one.confusion.true_positives == 1


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Int64, pl.Binary, pl.Null])
def test_categories_that_are_no_text_are_parted_all_the_same(tmp_path: Path, kind: Any) -> None:
    values = {pl.Int64: [1, 2], pl.Null: [None, None], pl.Binary: [b"cs.AI", b"\xff"]}.get(kind, ["cs.AI", "hep-th"])
    frame = pl.DataFrame({"ai": [True, False], "ai_score": [0.9, 0.1], "ai_truth": [True, True]})
    frame.with_columns(categories=pl.Series(values, dtype=kind)).write_parquet(tmp_path / "x.parquet")
    (one,) = report(tmp_path / "x.parquet", by=["primary"]).labels
    assert sum(part.confusion.papers for part in one.slices[0].slices) == 2


def test_nothing_in_a_dump_commands_a_terminal_or_breaks_a_table(cli: Callable[..., Result]) -> None:
    wild = "a\n\n# b\x1b]0;owned\x07 \x1b[2J\x00 & $x$ | ~c~"
    frame = pl.DataFrame({"id": ["1"], "ai": [True], "ai_score": [0.9], "ai_truth": [False]})
    frame.with_columns(title=pl.lit(wild), categories=pl.lit(wild), venue=pl.lit(wild)).write_parquet("x.parquet")
    for form in ("table", "markdown", "html"):
        shown = cli("report", "x.parquet", "--errors", "1", "--by", "venue", "--format", form).stdout
        assert not set(shown) & {"\x1b", "\x07", "\x00"}
        assert not [line for line in shown.splitlines() if line.startswith("# b")]
    assert "\\& \\$x\\$" in cli("report", "x.parquet", "--errors", "1", "--format", "markdown").stdout


def test_titles_are_shown_as_they_stand(cli: Callable[..., Result]) -> None:
    titles = ["Prompts [/INST] and $L^p[a,b]$", "tris[bis(trimethylsilyl)amide] :smile:"]
    frame = pl.DataFrame({"id": ["a", "b"], "title": titles, "score": [0.9, 0.2], "truth": [False, True]})
    frame.write_parquet("t.parquet")
    for more in ((), ("--format", "markdown"), ("--format", "table", "-o", "t.txt")):
        shown = cli("report", "t.parquet", "--errors", 3, *more)
        assert shown.exit_code == 0, shown.output
        words = (Path("t.txt").read_text() if "-o" in more else shown.stdout).replace("\\", "")
        assert "[/INST]" in words
        assert "[bis(" in words
        assert ":smile:" in words


def test_a_value_that_is_too_deep_to_be_kept_is_a_reject(cli: Callable[..., Result], model: Path) -> None:
    deep = json.dumps(paper("2101.00002", k="here")).replace('"here"', "[" * 300 + "]" * 300)
    Path("dump.jsonl").write_text(f"{json.dumps(paper('2101.00001', k=[1]))}\n{deep}\n")
    done = cli("label", "dump.jsonl", "--model", model, "--keep", "k", "-o", "x.parquet", "--max-rejects", "1")
    assert done.exit_code == 0, done.stderr
    assert pl.read_parquet("x.parquet").get_column("k").to_list() == ["[1]"]
    assert json.loads(Path("x.rejects.jsonl").read_text())["reason"] == "k is too deep to be kept"


def test_kept_columns_of_every_kind(cli: Callable[..., Result], model: Path) -> None:
    rows = papers(3)
    write_jsonl(Path("a.jsonl"), rows)
    write_parquet(Path("b.parquet"), [row | {"id": f"2102.{n:05d}"} for n, row in enumerate(papers(3), 1)])
    result = cli("label", "a.jsonl", "b.parquet", "--model", model, "--keep", "versions,title,title", "-o", "o.csv")
    assert result.exit_code == 0, result.output
    kept = pl.read_csv("o.csv").get_column("versions").to_list()
    assert [json.loads(value) for value in kept] == [row["versions"] for row in rows] * 2
    vectors = pl.read_parquet("b.parquet").with_columns(vector=pl.lit(b"\xff\x00"))
    vectors.write_parquet("c.parquet")
    assert cli("label", "c.parquet", "--model", model, "--keep", "vector").exit_code == 0
    assert pl.read_parquet("c.labels.parquet").get_column("vector").to_list() == [b"\xff\x00"] * 3
    nested = cli("label", "b.parquet", "--model", model, "--keep", "versions", "-o", "n.csv")
    assert "can go into Parquet or JSON lines" in error_line(nested, 2)
    binary = cli("label", "c.parquet", "--model", model, "--keep", "vector", "-o", "n.jsonl")
    assert "can go into Parquet alone" in error_line(binary, 2)


@pytest.mark.parametrize("form", ["jsonl", "csv", "jsonl.gz", "jsonl.zst"])
def test_labels_whose_truth_comes_late_are_reported(cli: Callable[..., Result], model: Path, form: str) -> None:
    rows = [paper(f"2012.{n:05d}", categories="") for n in range(1, 1_200)] + papers(9)
    write_jsonl(Path("dump.jsonl"), rows)
    assert cli("label", "dump.jsonl", "--model", model, "-o", f"o.{form}").exit_code == 0
    (ai,) = report(f"o.{form}").labels
    assert (ai.papers, ai.unknown, ai.confusion.papers) == (1_208, 1_199, 9)


def gather(tmp_path: Path, rows: list[dict[str, Any]], **how: Any) -> Dataset:
    settings = TrainSettings((str(write_jsonl(tmp_path / "dump.jsonl", rows)),), **how)
    with RejectsFile(tmp_path / "rejects.jsonl") as rejects:
        return collect(settings, Task.load(settings.task), rejects, Watcher())


def test_weak_negatives_that_are_papers_of_the_dump_are_left_out(tmp_path: Path) -> None:
    own = write_jsonl(tmp_path / "weak.jsonl", papers(250))
    dataset = gather(tmp_path, papers(300)[50:], weak_negatives=str(own), weak_negative_share=0.5)
    assert dataset.counts["weak_negatives"] == 50
    assert dataset.train.frame.get_column("id").n_unique() == len(dataset.train)


def test_weak_negatives_without_a_paper(tmp_path: Path) -> None:
    empty = write_jsonl(tmp_path / "weak.jsonl", [{"id": "W1", "title": None, "abstract": None}])
    with pytest.raises(DataError, match="no paper in it"):
        gather(tmp_path, papers(300), weak_negatives=str(empty))


def test_a_split_by_time_goes_by_the_year_where_there_is_no_date(tmp_path: Path) -> None:
    rows = [
        paper(f"{year}01.{n:05d}", versions=None, categories=("cs.LG", "hep-th")[n % 2])
        for year in (15, 18, 21)
        for n in range(1, 101)
    ]
    dataset = gather(tmp_path, rows, split="time")
    years = {
        side: set(part.frame.get_column("id").str.slice(0, 2))
        for side, part in (("train", dataset.train), ("test", dataset.test))
    }
    assert years == {"train": {"15", "18", "21"}, "test": {"21"}}
    bare = [{"id": f"p{n}", "text": "t", "label": n % 2 == 0} for n in range(100)]
    with pytest.raises(DataError, match="no paper has a date or a year"):
        gather(tmp_path, bare, split="time")


def test_damaged_ids_of_a_validation_set_keep_their_papers_out_of_training(tmp_path: Path) -> None:
    dev = [{"id": str(float(row["id"])), "text": "t", "label": "cs.LG" in row["categories"]} for row in papers(60)]
    dataset = gather(tmp_path, papers(300), validation=str(write_jsonl(tmp_path / "dev.jsonl", dev)))
    assert dataset.counts["shared_with_validation"] == 60


def test_named_columns_count_for_a_validation_set_that_has_them(tmp_path: Path) -> None:
    own = [{"pid": f"p{n}", "body": "t", "y": n % 3 == 0} for n in range(400)]
    dev = write_jsonl(tmp_path / "dev.jsonl", [row | {"pid": f"q{row['pid']}"} for row in own[:40]])
    names = {"id_column": "pid", "text_column": "body", "label_column": "y"}
    dataset = gather(tmp_path, own, validation=str(dev), **names)
    assert len(dataset.validation) == 40


def test_descriptions_are_shown_as_they_stand(cli: Callable[..., Result]) -> None:
    Path("mine.toml").write_text('[labels.x]\ndescription = "see [/x] and [bold]more"\ncategories = ["cs.LG"]\n')
    assert "see [/x] and [bold]more" in " ".join(cli("tasks", "mine.toml").stdout.split())


def test_parquet_on_standard_input(cli: Callable[..., Result], model: Path) -> None:
    content = write_parquet(Path("dump.parquet"), papers(3)).read_bytes()
    assert cli("label", "-", "--model", model, "-o", "o.csv", input=content).exit_code == 0
    assert len(pl.read_csv("o.csv")) == 3
