"""Truth from elsewhere, and labels that nobody can judge."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from conftest import PAPERS, error_line, paper, write_jsonl

from arxivclf import report
from arxivclf.corpus.columns import Naming
from arxivclf.errors import DataError
from arxivclf.reporting.compare import compare
from arxivclf.reporting.made import Made
from arxivclf.reporting.metrics import Confusion


def labels(name: str = "ai") -> pl.DataFrame:
    """Labels of 40 papers without a truth, every fourth of them labelled."""
    given = np.arange(40) % 4 == 0
    return pl.DataFrame(
        {
            "id": [f"2101.{n:05d}" for n in range(1, 41)],
            "created": pl.Series(["2021-01-01", "2022-01-01"] * 20).str.to_date(),
            name: given,
            f"{name}_score": np.where(given, 0.9, 0.1).astype(np.float32),
            f"{name}_truth": pl.Series([None] * 40, dtype=pl.Boolean),
        }
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    labels().write_parquet(tmp_path / "x.labels.parquet")
    return tmp_path / "x.labels.parquet"


def dump(tmp_path: Path) -> Path:
    """30 of these papers, with versions in their ids, of which the first 20 are about AI, and 5 others."""
    rows = [
        paper(f"2101.{n:05d}v2", title=f"No. {n}", categories="cs.AI" if n <= 20 else "hep-th") for n in range(1, 36)
    ]
    rows = rows[:30] + [row | {"id": f"2102.{n:05d}"} for n, row in enumerate(rows[30:], 1)]
    return write_jsonl(tmp_path / "dump.jsonl", rows)


def test_a_dump_tells_the_truth_by_the_ids(file: Path, tmp_path: Path) -> None:
    found = report(file, truth=str(dump(tmp_path)), errors=3)
    (ai,) = found.labels
    assert found.match is not None
    assert (found.match.papers, found.match.labels_alone, found.match.truth_alone) == (30, 10, 5)
    assert ai.confusion == Confusion(5, 3, 15, 7)
    assert (ai.papers, ai.labelled, ai.unknown) == (40, 10, 10)
    assert ai.disagreements is not None
    assert [one.title for one in ai.disagreements.labelled] == ["No. 21", "No. 25", "No. 29"]


def test_other_labels_tell_it_too(file: Path, tmp_path: Path) -> None:
    truth = labels().with_columns(ai_truth=pl.col("ai"), id=pl.col("id") + "v1").head(8)
    truth.drop("ai", "ai_score").write_csv(tmp_path / "truth.csv")
    found = report(file, truth=str(tmp_path / "truth.csv"))
    assert found.labels[0].confusion == Confusion(2, 0, 0, 6)


def test_a_dump_with_columns_of_other_names(cli: Callable[..., Result], file: Path, tmp_path: Path) -> None:
    rows = [{"doi": f"2101.{n:05d}", "text": "t", "subject": "ai" if n <= 20 else "x"} for n in range(1, 31)]
    truth = write_jsonl(tmp_path / "other.jsonl", rows)
    how = ("--truth", truth, "--id-column", "doi", "--label-column", "subject", "--format", "json")
    shown = cli("report", file, *how)
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["match"]["papers"] == 30
    assert "those of the file of --truth" in error_line(cli("report", file, "--id-column", "doi"), 2)


@pytest.mark.parametrize("content", ['{\n  "id": "2101.00001",\n  "title": "t"\n}\n', '{"id": 7, "title": "t"}\n'])
def test_a_dump_without_a_paper(file: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "truth.json").write_text(content)
    with pytest.raises(DataError, match=r"truth\.json"):
        report(file, truth=str(tmp_path / "truth.json"))


def test_a_label_of_ones_own_is_told_by_a_column(tmp_path: Path) -> None:
    labels("maps").write_parquet(tmp_path / "maps.parquet")
    rows = [{"id": f"2101.{n:05d}", "text": "A map.", "label": n % 4 == 1} for n in range(1, 41)]
    found = report(tmp_path / "maps.parquet", truth=str(write_jsonl(tmp_path / "truth.jsonl", rows)))
    assert found.labels[0].confusion == Confusion(10, 0, 0, 30)
    rows = [{"id": row["id"], "title": "A", "abstract": "b", "categories": "cs.AI"} for row in rows]
    with pytest.raises(DataError, match=r"tells no truth for maps; .* a column maps_truth, or a column label$"):
        report(tmp_path / "maps.parquet", truth=str(write_jsonl(tmp_path / "other.jsonl", rows)))


def test_a_plain_label_is_of_one_label(tmp_path: Path) -> None:
    """Of several it is asked which; named, it is judged."""
    labels().hstack(labels("cv").select("cv", "cv_score", "cv_truth")).write_parquet(tmp_path / "two.parquet")
    rows = [{"id": f"2101.{n:05d}", "text": "A map.", "label": n % 4 == 1} for n in range(1, 41)]
    truth = str(write_jsonl(tmp_path / "truth.jsonl", rows))
    with pytest.raises(DataError, match="a column label, which is for one label: name it with --label"):
        report(tmp_path / "two.parquet", truth=truth)
    assert report(tmp_path / "two.parquet", truth=truth, label="cv").labels[0].confusion == Confusion(10, 0, 0, 30)


def test_labels_of_another_task(file: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    """Their categories tell the truth of a built-in label; without them nothing does."""
    other = labels("cv").with_columns(categories=pl.lit("cs.AI"))
    other.write_parquet(tmp_path / "cv.parquet")
    assert report(file, truth=str(tmp_path / "cv.parquet")).labels[0].confusion == Confusion(10, 0, 30, 0)
    other.drop("categories").write_parquet(tmp_path / "bare.parquet")
    assert "bare.parquet" in error_line(cli("report", file, "--truth", "bare.parquet"), 1)
    assert "no label 'cv'; there are ai" in error_line(cli("report", file, "--label", "cv"), 2)


def test_of_repeats_in_the_truth_the_last_counts(file: Path, tmp_path: Path) -> None:
    rows = [paper("2101.00001", categories="hep-th"), paper("2101.00001v3", categories="cs.AI")]
    found = report(file, truth=str(write_jsonl(tmp_path / "dump.jsonl", rows)))
    assert found.labels[0].confusion == Confusion(1, 0, 0, 0)


def test_truth_of_other_papers_is_refused(file: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    write_jsonl(tmp_path / "others.jsonl", [paper("1901.00001"), paper("1901.00002")])
    said = error_line(cli("report", file, "--truth", "others.jsonl"), 1)
    assert "none of its 2 ids is among those of 40 labels (here 1901.00001, there 2101.00001)" in said
    assert "no such file" in error_line(cli("report", file, "--truth", "absent.jsonl"), 2)


def test_the_screen_counts_both_ways(file: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    dump(tmp_path)
    shown = cli("report", file, "--truth", "dump.jsonl")
    assert shown.exit_code == 0, shown.output
    assert "Truth from dump.jsonl: 30 papers in both, 10 in the labels alone, 5 in the truth alone" in " ".join(
        shown.stdout.split()
    )


def test_without_a_truth_it_says_what_can_be_told_and_what_not(file: Path, cli: Callable[..., Result]) -> None:
    found = report(file, by=["year"])
    (one,) = found.unjudged
    assert found.labels == ()
    assert (one.whole.papers, one.whole.labelled, one.scores) == (40, 10, (0, 30, 0, 0, 0, 0, 0, 0, 0, 10))
    ((by, shares),) = one.slices
    assert (by, [(share.value, share.papers, share.labelled) for share in shares]) == (
        "year",
        [("2021", 20, 10), ("2022", 20, 0)],
    )
    shown = cli("report", file, "--by", "year")
    assert shown.exit_code == 0
    text = " ".join(shown.stdout.split())
    assert "40 papers, 10 labelled (25.0%, 14.2% - 40.2%)" in text
    assert "no confusion matrix, precision, recall, F1" in text
    assert "--truth FILE" in text
    told = json.loads(cli("report", file, "--by", "year", "--format", "json").stdout)
    assert told["unjudged"][0]["slices"]["year"][0]["share"]["value"] == 0.5
    assert "ai,year,2021,share,0.5," in cli("report", file, "--by", "year", "--format", "csv").stdout
    assert "| 2021 | 20 | 10 | 50.0% |" in cli("report", file, "--by", "year", "--format", "markdown").stdout
    assert "no confusion matrix" in cli("report", file, "--format", "html").stdout


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_any_table_with_a_score_and_a_truth(form: str, tmp_path: Path, cli: Callable[..., Result]) -> None:
    frame = pl.DataFrame({"score": [0.2, 0.7, 0.6, 0.1], "truth": [False, True, False, None]})
    path = tmp_path / f"x.{form}"
    {"parquet": frame.write_parquet, "csv": frame.write_csv, "jsonl": frame.write_ndjson}[form](path)
    (one,) = report(path).labels
    assert (one.name, one.confusion, one.assumed) == ("positive", Confusion(1, 1, 0, 1), True)
    assert report(path, threshold=0.65).labels[0].confusion == Confusion(1, 0, 0, 2)
    assert "labelled from a score of 0.5 on" in " ".join(cli("report", path).stdout.split())
    frame.rename({"score": "maps_score", "truth": "maps_truth"}).write_parquet(tmp_path / "y.parquet")
    assert report(tmp_path / "y.parquet").labels[0].name == "maps"


def damaged(paper_id: str) -> str:
    """An id after it was a number."""
    return str(float(paper_id))


@pytest.mark.parametrize("with_dates", ["labels", "truth", "neither"])
def test_a_damaged_id_without_a_date_is_told_by_the_other_file(tmp_path: Path, with_dates: str) -> None:
    """The same papers, whichever of the two lost its zeros, or its dates."""
    frame = labels().with_columns(pl.lit("2021-01-05").str.to_date().alias("created"), ai_truth=pl.col("ai"))
    lost = frame.with_columns(pl.col("id").map_elements(damaged, pl.String))
    assert lost["id"].str.len_chars().min() < 10
    for one, other in ((frame, lost), (lost, frame), (lost, lost)):
        dated = {"labels": one, "truth": other}.get(with_dates)
        one.select(c for c in one.columns if c != "created" or one is dated).write_parquet(tmp_path / "x.parquet")
        other.select("id", "ai_truth", *(["created"] if other is dated else [])).write_csv(tmp_path / "truth.csv")
        found = report(tmp_path / "x.parquet", truth=str(tmp_path / "truth.csv"))
        assert found.match is not None
        assert (found.match.papers, found.match.labels_alone, found.match.truth_alone) == (40, 0, 0)
        assert found.labels[0].confusion == Confusion(10, 0, 0, 30)


@pytest.mark.parametrize("form", ["csv", "semicolons", "parquet", "jsonl", "jsonl.gz"])
@pytest.mark.parametrize("column", ["ai_truth", "label", "categories", "gold"])
def test_a_table_of_ids_tells_it_in_every_form(file: Path, tmp_path: Path, form: str, column: str) -> None:
    right = (np.arange(40) % 2 == 0).tolist()
    told = ["cs.LG" if one else "hep-th" for one in right] if column == "categories" else right
    table = pl.DataFrame({"paper": labels()["id"], column: told})
    path = tmp_path / f"truth.{form}"
    if form == "parquet":
        table.write_parquet(path)
    elif form.startswith("jsonl"):
        lines = "".join(json.dumps(row) + "\n" for row in table.to_dicts()).encode()
        path.write_bytes(gzip.compress(lines) if form.endswith("gz") else lines)
    else:
        table.write_csv(path, separator=";" if form == "semicolons" else ",")

    naming = Naming("paper", label="gold" if column == "gold" else None)
    assert report(file, truth=str(path), naming=naming).labels[0].confusion == Confusion(10, 0, 10, 20)
    with pytest.raises(DataError, match=r"no column \"id\".*--id-column"):
        report(file, truth=str(path))


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("named", ["label", "categories"])
def test_a_table_of_ids_tells_it_as_a_dump_does(file: Path, tmp_path: Path, texts: bool, named: str) -> None:
    """Categories are categories also where they are named as the label, among others that are none of arXiv's."""
    rows = [
        {"id": one, "categories": "cs.AI I.2.6" if n % 2 == 0 else "hep-th", "label": n % 4 == 0}
        | ({"title": "A", "abstract": "B"} if texts else {})
        for n, one in enumerate(labels()["id"])
    ]
    path = tmp_path / "truth.parquet"
    pl.DataFrame(rows).write_parquet(path)
    expected = Confusion(10, 0, 0, 30) if named == "label" else Confusion(10, 0, 10, 20)
    assert report(file, truth=str(path), naming=Naming(label=named)).labels[0].confusion == expected
    assert report(file, truth=str(path)).labels[0].confusion == Confusion(10, 0, 10, 20)


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
def test_a_truth_that_was_written_down_goes_before_categories(file: Path, tmp_path: Path, form: str) -> None:
    """Also in a file that could be a dump."""
    rows = [
        {"id": one, "title": "A", "abstract": "B", "categories": "hep-th", "ai_truth": n % 4 == 0}
        for n, one in enumerate(labels()["id"])
    ]
    path, table = tmp_path / f"gold.{form}", pl.DataFrame(rows)
    {"parquet": table.write_parquet, "jsonl": table.write_ndjson, "csv": table.write_csv}[form](path)
    assert report(file, truth=str(path)).labels[0].confusion == Confusion(10, 0, 0, 30)


def test_a_label_is_true_as_its_own_task_has_it(cli: Callable[..., Result], tmp_path: Path) -> None:
    """And not as the built-in one of the same name, in a model folder as in labels."""
    Path("mine.toml").write_text('[labels.ai]\ncategories = ["hep-th"]\n[labels.quantum]\ncategories = ["quant-ph"]\n')
    made = cli("train", PAPERS, "--task", "mine.toml", "--base", "none", "--since", "1990", "-o", "m", "-q")
    assert made.exit_code == 0, made.output
    for output in ("x.parquet", "x.csv"):
        assert cli("label", PAPERS, "--model", "m", "-o", output, "-q").exit_code == 0
    for labelled in ("x.parquet", "x.csv", "m"):
        own, other = (
            json.loads(cli("report", labelled, "--format", "json", *truth).stdout)["labels"]
            for truth in ((), ("--truth", PAPERS))
        )
        assert [one["confusion"] for one in own] == [one["confusion"] for one in other]
        assert [one["label"] for one in other] == ["ai", "quantum"]


def test_what_was_kept_is_no_label(cli: Callable[..., Result]) -> None:
    rows = [
        paper(f"2101.{n:05d}", altmetric_score=n * 10, journal_truth="maybe", categories="cs.LG" if n % 2 else "hep-th")
        for n in range(1, 60)
    ]
    write_jsonl(Path("dump.jsonl"), rows)
    for output in ("x.parquet", "x.csv", "x.jsonl"):
        how = ("--keep", "altmetric_score", "--keep", "journal_truth", "-o", output, "-q")
        assert cli("label", "dump.jsonl", "--model", "bundled", *how).exit_code == 0
        shown = cli("report", output, "--label", "ai", "--by", "journal_truth", "--format", "json")
        assert shown.exit_code == 0, shown.output
        assert json.loads(shown.stdout)["labels"][0]["slices"]["journal_truth"][0]["value"] == "maybe"
        assert "no label 'altmetric'" in error_line(cli("report", output, "--label", "altmetric"), 2)
    table = pl.DataFrame({"ai_score": [0.9, 0.2], "ai_truth": ["yes", "no"], "confidence_score": ["high", "low"]})
    table.write_csv("theirs.csv")
    assert report("theirs.csv").labels[0].confusion == Confusion(1, 0, 0, 1)


def test_titles_come_from_the_truth(cli: Callable[..., Result], tmp_path: Path) -> None:
    labels().with_columns(title=pl.lit("kept"), ai_truth=~pl.col("ai")).write_parquet("x.parquet")
    found = report("x.parquet", truth=str(dump(tmp_path)), errors=2).labels[0].disagreements
    assert found is not None
    assert {paper.title for paper in (*found.labelled, *found.missed)} <= {f"No. {n}" for n in range(1, 41)}


def test_a_broken_line_makes_no_table_of_a_dump(file: Path, tmp_path: Path) -> None:
    path = dump(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "not json", '{"id": "x", "v": NaN}', *lines[3:]]) + "\n")
    found = report(file, truth=str(path))
    assert found.match is not None
    assert found.match.papers == 30


def test_a_csv_may_have_texts(file: Path, tmp_path: Path) -> None:
    rows = [{"id": one, "title": "A", "abstract": "B", "categories": "cs.LG"} for one in labels()["id"]]
    pl.DataFrame(rows).write_csv(tmp_path / "gold.csv")
    assert report(file, truth=str(tmp_path / "gold.csv")).labels[0].confusion == Confusion(10, 0, 30, 0)


def test_an_id_that_stands_in_both_files_is_that_one(tmp_path: Path) -> None:
    """Whatever else it might mean."""
    ids, truths = ["1501.1", "1501.10000", "1501.2"], [True, False, True]
    frame = pl.DataFrame({"id": ids, "ai": [True] * 3, "ai_score": [0.9] * 3, "ai_truth": truths})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_parquet(tmp_path / "b.parquet")
    assert report(tmp_path / "a.parquet", truth=str(tmp_path / "b.parquet")).labels[0].confusion == Confusion(
        2, 1, 0, 0
    )
    assert compare(tmp_path / "a.parquet", tmp_path / "b.parquet").papers == 3


def test_a_record_of_other_labels_is_not_believed(cli: Callable[..., Result]) -> None:
    assert cli("label", PAPERS, "--model", "bundled", "-o", "x.csv", "-q").exit_code == 0
    assert Made.of(Path("x.csv")).thresholds["ai"] == Made.of(Path("x.csv")).thresholds["ai"] != 0.5
    Path("x.csv").write_text("".join(Path("x.csv").read_text().splitlines(keepends=True)[:100]))
    assert Made.of(Path("x.csv")) == Made()


def test_a_model_folder_may_tell_the_truth(file: Path, cli: Callable[..., Result]) -> None:
    """By its test part."""
    assert cli("train", PAPERS, "--base", "none", "--since", "1990", "-o", "m", "-q").exit_code == 0
    assert cli("label", PAPERS, "--model", "bundled", "-o", "x.parquet", "-q").exit_code == 0
    found = json.loads(cli("report", "x.parquet", "--label", "ai", "--truth", "m", "--format", "json").stdout)
    assert found["match"]["papers"] == len(pl.read_parquet("m/test.labels.parquet"))
