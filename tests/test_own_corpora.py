"""Corpora, labels and tables of one's own: other names, dates and encodings, and ids that lost their dates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from conftest import PAPERS, error_line, paper, snapshot, write_jsonl

from arxivclf import ArxivclfError, Classifier, Task, TrainSettings, report
from arxivclf.corpus.columns import Naming
from arxivclf.corpus.rejects import RejectsFile
from arxivclf.errors import DataError, UsageError
from arxivclf.progress import Watcher
from arxivclf.reporting.metrics import Confusion
from arxivclf.training.dataset import Dataset, collect


def read(path: Path, **how: Any) -> pl.DataFrame:
    return pl.concat([chunk.papers for chunk in snapshot(path, **how).chunks()])


def gathered(path: Path, **how: Any) -> Dataset:
    settings = TrainSettings((str(path),), base="none", **how)
    with RejectsFile(None) as rejects:
        return collect(settings, Task.load(settings.task), rejects, Watcher())


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_columns_in_other_capitals(tmp_path: Path, form: str) -> None:
    rows = [
        {"ID": f"W{n}", "Title": "A title", "ABSTRACT": "An abstract", "Year": "1998", "Label": "yes"} for n in (1, 2)
    ]
    path = tmp_path / f"dump.{form}"
    table = pl.DataFrame(rows)
    table.write_parquet(path) if form == "parquet" else table.write_ndjson(path)
    found = read(path)
    assert found.select("id", "title", "abstract", "label", "year").rows() == [
        (f"W{n}", "A title", "An abstract", "yes", 1998) for n in (1, 2)
    ]
    # One that is spelt as usual goes first, and categories of that spelling may be anybody's.
    both = table.with_columns(title=pl.lit("the one"), Categories=pl.lit("Oncology"))
    both.write_parquet(path) if form == "parquet" else both.write_ndjson(path)
    found = read(path)
    assert found["title"].to_list() == ["the one"] * 2
    assert found["categories"].null_count() == 2
    with pytest.raises(DataError, match='no column "Id"'):
        read(path, naming=Naming(id="Id"))


@pytest.mark.parametrize(
    ("written", "day", "year"),
    [
        ("2015-02-01", "2015-02-01", 2015),
        ("2015/02/01", "2015-02-01", 2015),
        ("01.02.2015", "2015-02-01", 2015),
        ("20150201", "2015-02-01", 2015),
        ("2015-02-01T10:00:00Z", "2015-02-01", 2015),
        ("March 1998", None, 1998),
        ("1998", None, 1998),
        ("31.02.1998", None, 1998),
        ("1422748800", None, None),
        ("soon", None, None),
    ],
)
def test_dates_as_others_write_them(tmp_path: Path, written: str, day: str | None, year: int | None) -> None:
    found = read(write_jsonl(tmp_path / "dump.jsonl", [{"id": "W1", "text": "t", "date": written}]))
    assert found.select(pl.col("created").cast(pl.String), "year").row(0) == (day, year)


def test_papers_without_a_year_are_told(cli: Callable[..., Result]) -> None:
    rows = [paper(f"W{n}", versions=None, categories=None, label=n % 2, date="soon") for n in range(400)]
    write_jsonl(Path("dump.jsonl"), rows)
    shown = cli("train", "dump.jsonl", "--base", "none", "--id-column", "id")
    assert shown.exit_code == 0, shown.output
    assert "400 taken although nothing tells their year" in shown.stderr
    card = " ".join(Path("model/README.md").read_text().split())
    assert "Of 400 papers nothing told the year; they count as new enough." in card
    assert "The truth of 400 papers is what a label column says, not categories." in card


def test_own_ids_that_look_like_numbers_stay_apart(cli: Callable[..., Result]) -> None:
    rows = [
        {"id": one, "text": f"On {one}", "date": "2015-02-01"} for one in ("1502.1", "1502.10", "1502.2", "1502.20")
    ]
    write_jsonl(Path("dump.jsonl"), rows)
    assert cli("label", "dump.jsonl", "--model", "bundled", "-o", "o.parquet").exit_code == 0
    assert pl.read_parquet("o.parquet")["id"].to_list() == [row["id"] for row in rows]


@pytest.fixture
def undated(tmp_path: Path) -> list[dict[str, Any]]:
    """Papers whose ids went through a number, with their dates."""
    rows = [json.loads(line) for line in PAPERS.read_text().splitlines()]
    return [
        {"id": f"1502.{n:05d}".rstrip("0"), "title": row["title"], "abstract": row["abstract"], "label": n % 3 == 0}
        for n, row in enumerate(rows[:400], 100)
    ]


def test_papers_that_were_seen_without_their_dates_are_known_with_them(
    cli: Callable[..., Result], undated: list[dict[str, Any]]
) -> None:
    """Both ways: by labels, as a validation set, and as what is left out."""
    write_jsonl(Path("bare.jsonl"), undated)
    dated = [row | {"created": "2015-02-03"} for row in undated]
    write_jsonl(Path("dated.jsonl"), dated)
    assert cli("train", "bare.jsonl", "--base", "none", "--since", "1990").exit_code == 0
    tested = pl.read_parquet("model/test.labels.parquet").height
    shown = cli("label", "dated.jsonl", "--model", "model", "-o", "o.parquet")
    assert shown.exit_code == 0, shown.output
    left = json.loads(cli("report", "o.parquet", "--unseen-by", "model", "--format", "json").stdout)
    assert sum(left["labels"][0]["confusion"].values()) == tested
    assert left["left_out"]["papers"] == 400 - tested
    assert report("o.parquet").seen["learnt"] + report("o.parquet").seen["fitted"] == 400 - tested

    write_jsonl(Path("some.jsonl"), dated[:150])
    assert gathered(Path("bare.jsonl"), exclude="some.jsonl").counts["excluded"] == 150
    assert gathered(Path("bare.jsonl"), validation="some.jsonl").counts["shared_with_validation"] == 150
    write_jsonl(Path("some.jsonl"), undated[:150])
    assert gathered(Path("dated.jsonl"), exclude="some.jsonl").counts["excluded"] == 150


def test_what_is_left_out_may_be_csv(cli: Callable[..., Result], undated: list[dict[str, Any]]) -> None:
    write_jsonl(Path("dump.jsonl"), [row | {"created": "2015-02-03"} for row in undated])
    pl.DataFrame({"id": [row["id"] for row in undated[:40]]}).write_csv("out.csv")
    shown = cli("train", "dump.jsonl", "--base", "none", "--exclude", "out.csv")
    assert "40 left out because they are in --exclude" in shown.stderr
    assert "`out.csv`" in Path("model/README.md").read_text()
    pl.DataFrame({"id": ["nothing"]}).write_csv("none.csv")
    assert (
        "0 left out because they are in --exclude"
        in cli("train", "dump.jsonl", "--base", "none", "--exclude", "none.csv").stderr
    )
    pl.DataFrame({"doi": ["nothing"]}).write_csv("none.csv")
    assert "no column 'id'" in error_line(cli("train", "dump.jsonl", "--base", "none", "--exclude", "none.csv"), 1)


def test_weak_negatives_that_are_too_few_are_told(cli: Callable[..., Result]) -> None:
    write_jsonl(Path("weak.jsonl"), [{"id": f"W{n}", "text": f"On cells {n}"} for n in range(30)])
    how = ("train", PAPERS, "--base", "none", "--since", "1990", "--weak-negatives")
    assert "weak.jsonl has 30 papers for weak negatives, fewer than the" in cli(*how, "weak.jsonl").stderr
    assert "0 of the training papers are weak negatives" in cli(*how, PAPERS).stderr


def test_a_label_of_ones_own_has_no_categories(cli: Callable[..., Result]) -> None:
    Path("mine.toml").write_text('[labels.oncology]\ndescription = "Of cancer"\n')
    assert "(a label column)" in cli("tasks", "mine.toml").stdout
    words = ("tumour growth", "steel bridge")
    rows = [
        {"id": f"W{n}", "text": f"On a {words[n % 2]} {n}", "label": ("oncology", "other")[n % 2]} for n in range(600)
    ]
    write_jsonl(Path("dump.jsonl"), rows)
    made = cli("train", "dump.jsonl", "--task", "mine.toml", "--base", "none")
    assert made.exit_code == 0, made.output
    assert cli("label", "dump.jsonl", "-o", "o.parquet").exit_code == 0
    assert report("o.parquet").labels[0].confusion == Confusion(300, 0, 0, 300)
    assert Classifier.load("model").models[0].task == Task.load("mine.toml")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    random = np.random.default_rng(3)
    score = random.random(2_000).astype(np.float32)
    table = {
        "id": [f"2101.{n:05d}" for n in range(1, 2_001)],
        "ai": score >= 0.5,
        "ai_score": score,
        "ai_truth": random.random(2_000) < score,
    }
    path = tmp_path / "x.labels.parquet"
    pl.DataFrame(table).write_parquet(path)
    return path


def as_bytes(text: str, form: str) -> bytes:
    return {
        "utf-16": text.encode("utf-16"),
        "utf-8-sig": text.encode("utf-8-sig"),
        "semicolons": text.replace(",", ";").encode(),
        "bars": text.replace(",", "|").encode(),
        "tabs": text.replace(",", "\t").encode(),
        "sep=": ("sep=;\r\n" + text.replace(",", ";").replace("\n", "\r\n")).encode(),
        "quoted heading": text.replace("id,label", '"id",label,"note, or, none"', 1)
        .replace("\n", ",\n")
        .replace('none",', 'none"', 1)
        .encode(),
        "json": json.dumps(
            [dict(zip(("id", "label"), line.split(","), strict=True)) for line in text.split("\n")[1:-1]]
        ).encode(),
    }[form]


@pytest.mark.parametrize(
    "form", ["utf-16", "utf-8-sig", "semicolons", "bars", "tabs", "sep=", "quoted heading", "json"]
)
def test_tables_as_spreadsheets_write_them(labels: Path, tmp_path: Path, form: str) -> None:
    text = "id,label\n" + "".join(f"2101.{n:05d},{'yes' if n % 2 else 'no'}\n" for n in range(1, 201))
    (tmp_path / "t.csv").write_bytes(as_bytes(text, form))
    confusion = report(labels, truth=str(tmp_path / "t.csv")).labels[0].confusion
    assert confusion.papers == 200
    assert confusion.support == 100


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04" + bytes(100), "a spreadsheet or an archive; save the table in it as CSV"),
        ("id,label\n1,M\u00fcller\n".encode("latin-1"), "is not UTF-8"),
        (b'[{"id": 1}', "not a whole JSON array"),
        (b" \n ", "an empty file"),
        (b"id,ai_score\n1,none of it\n", "the column 'ai_score' holds no scores, but such as 'none of it'"),
    ],
    ids=["zip", "latin-1", "json", "empty", "words"],
)
def test_tables_that_are_none(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError) as refused:
        report(tmp_path / "t.csv")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_scores_with_a_comma_are_numbers(labels: Path, tmp_path: Path) -> None:
    table = pl.read_parquet(labels)
    german = table.with_columns(pl.col("ai_score").cast(pl.String).str.replace(".", ",", literal=True))
    german.write_csv(tmp_path / "de.csv", separator=";")
    assert report(tmp_path / "de.csv").labels[0].confusion == report(labels).labels[0].confusion


@pytest.mark.parametrize("figure", ["recall", "precision"])
def test_a_threshold_that_is_shown_gives_what_it_promises(labels: Path, figure: str) -> None:
    kept = 0
    for wish in (0.5, 0.61, 0.7, 0.777, 0.9):
        found = report(labels, **{f"for_{figure}": wish}).labels[0].thresholds
        assert found is not None
        cut = next((cut for cut in found.cuts if f"{figure} {wish:g}" in cut.why), None)
        if cut is None:
            # So few papers do not prove every precision.
            continue
        kept += 1
        again = report(labels, threshold=float(cut.shown)).labels[0].confusion
        assert again == cut.confusion
        assert getattr(again, figure) >= wish
    assert kept >= 2


def test_a_drift_between_labels_that_were_made_otherwise_says_so(cli: Callable[..., Result]) -> None:
    rows = [json.loads(line) for line in PAPERS.read_text().splitlines()]
    write_jsonl(Path("a.jsonl"), rows[:200])
    write_jsonl(Path("b.jsonl"), rows[200:])
    assert cli("train", PAPERS, "--base", "none", "--since", "1990").exit_code == 0
    for name, dump, how in (
        ("a", "a.jsonl", ("bundled",)),
        ("b", "b.jsonl", ("bundled",)),
        ("own", "a.jsonl", ("model",)),
        ("high", "a.jsonl", ("bundled", "--threshold", "0.9")),
    ):
        assert cli("label", dump, "-o", f"{name}.parquet", "--max-rejects", "1", "--model", *how).exit_code == 0
    for earlier, says in (
        ("a", ""),
        ("own", "by different models"),
        ("high", "by different thresholds (ai from 0.9, then"),
    ):
        how = ("report", "b.parquet", "--drift", f"{earlier}.parquet", "--label", "ai")
        told = json.loads(cli(*how, "--format", "json").stdout)["unlike"]
        assert told.startswith(says)
        assert bool(told) == bool(says)
        assert ("They were labelled " in " ".join(cli(*how).stdout.split())) == bool(says)


def test_what_became_of_the_scores_is_said_as_it_is(cli: Callable[..., Result]) -> None:
    random = np.random.default_rng(0)
    rows = [
        paper(
            f"2101.{n:05d}", title=("robot", "quark")[int(random.random() < 0.5)], categories=("cs.AI", "hep-th")[n % 2]
        )
        for n in range(1, 3_000)
    ]
    write_jsonl(Path("even.jsonl"), rows)
    assert "ai: scores calibrated (" in cli("train", PAPERS, "--base", "none", "--since", "1990").stdout
    few = [row | {"categories": "cs.AI" if n % 40 == 0 else "hep-th"} for n, row in enumerate(rows[:900])]
    write_jsonl(Path("few.jsonl"), few)
    shown = cli("train", "few.jsonl", "--base", "none")
    assert "validation papers of the rarer class are too few" in shown.stdout
    assert "validation papers of the rarer class are too few" in " ".join(Path("model/README.md").read_text().split())
    Path("arxivclf.toml").write_text('[train]\ncalibration = "none"\n')
    assert (
        "ai: scores not calibrated, as was asked for;"
        in cli("train", PAPERS, "--base", "none", "--since", "1990").stdout
    )


def test_names_alone_and_wrong_ones_in_python(labels: Path) -> None:
    assert Task.load("ai") == Task.load(["ai"])
    assert len(report(labels, by="id", for_recall=0.9, for_precision=(0.6,)).labels[0].slices) == 1
    with pytest.raises(UsageError, match="no model: name a folder"):
        Classifier.load()
    with pytest.raises(ArxivclfError, match="no task 'x'"):
        Task.load("x")


def test_a_device_that_there_is_none_of(model: Path) -> None:
    with pytest.raises(UsageError, match="device must be one of auto, cpu, cuda, tpu, not gpu"):
        Classifier.load(model, device="gpu")


def test_a_frame_with_names_of_its_own() -> None:
    frame = pl.DataFrame({"EID": ["a", "b"], "Words": ["On robots", "On quarks"], "Kind": ["yes", "no"]})
    found = Classifier.load("bundled").label(frame, id_column="EID", text_column="Words", label_column="Kind")
    assert found["id"].to_list() == ["a", "b"]
