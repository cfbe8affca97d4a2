"""Labelling: one row for each paper, in order, in every form."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from click.testing import Result
from conftest import PAPERS, error_line, paper, papers, read_jsonl, write_jsonl, write_parquet

from arxivclf import Classifier, LabelSettings, TrainSettings, label
from arxivclf.corpus.text import hash_texts
from arxivclf.errors import UsageError


def labels(model: Path, dump: Path, output: Path, **how: Any) -> pl.DataFrame:
    label(LabelSettings((str(dump),), model=(str(model),), output=str(output), **how))
    return pl.read_parquet(output)


def test_the_columns_are_those_of_the_contract(model: Path, tmp_path: Path) -> None:
    dump = write_jsonl(tmp_path / "dump.jsonl", [*papers(5), paper("2105.00001", categories=None, versions=None)])
    frame = labels(model, dump, tmp_path / "out.parquet")
    assert frame.schema == pl.Schema(
        {
            "id": pl.String,
            "created": pl.Date,
            "categories": pl.String,
            "ai": pl.Boolean,
            "ai_score": pl.Float32,
            "ai_truth": pl.Boolean,
            "decided_by": pl.String,
            "text_hash": pl.UInt64,
        }
    )
    assert frame.get_column("id").to_list() == [row["id"] for row in papers(5)] + ["2105.00001"]
    assert frame.get_column("ai_truth").to_list() == [False, False, True, False, False, None]
    assert frame.get_column("created").to_list()[-1] is None
    assert frame.get_column("categories").to_list()[-1] is None
    assert set(frame.get_column("decided_by")) == {"encoder"}
    assert frame.get_column("ai_score").is_between(0, 1).all()
    text = "Paper number 1. We test a model of testing. It works."
    assert frame.get_column("text_hash")[0] == hash_texts(pl.Series([text]))[0]


@pytest.mark.parametrize("form", [".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv"])
def test_every_form_holds_the_same_labels(model: Path, tmp_path: Path, form: str) -> None:
    dump = write_jsonl(tmp_path / "dump.jsonl", papers(20))
    expected = labels(model, dump, tmp_path / "expected.parquet")
    path = tmp_path / f"out{form}"
    label(LabelSettings((str(dump),), model=(str(model),), output=str(path), chunk_rows=20))
    if form == ".parquet":
        found = pl.read_parquet(path)
    elif form == ".csv":
        found = pl.read_csv(path, schema_overrides=expected.schema)
    else:
        unpack: dict[str, Callable[[bytes], bytes]] = {
            ".jsonl": bytes,
            ".jsonl.gz": gzip.decompress,
            ".jsonl.zst": lambda packed: zstandard.ZstdDecompressor().decompressobj().decompress(packed),
        }
        found = pl.read_ndjson(unpack[form](path.read_bytes()), schema=expected.schema)
    assert found.drop("ai_score").equals(expected.drop("ai_score"))
    assert found.get_column("ai_score").to_numpy() == pytest.approx(
        expected.get_column("ai_score").to_numpy(), abs=1e-6
    )


def test_a_score_depends_on_the_text_alone(model: Path, tmp_path: Path) -> None:
    # All the tokens that the base takes, so that the papers of the example dump differ in length.
    wide = tmp_path / "wide"
    shutil.copytree(model, wide)
    info = json.loads((wide / "arxivclf.json").read_text())
    (wide / "arxivclf.json").write_text(json.dumps(info | {"max_tokens": 128}))
    whole = labels(wide, PAPERS, tmp_path / "whole.parquet")
    assert len({len(ids) for ids in Classifier.load(wide).models[0].tokenize(texts())}) > 10
    for chunk_rows in (1, 37):
        parts = labels(wide, PAPERS, tmp_path / f"{chunk_rows}.parquet", chunk_rows=chunk_rows)
        assert whole.equals(parts)


def texts() -> list[str]:
    return [row["abstract"] for row in read_jsonl(PAPERS)]


def test_rows_are_papers_or_rejects_and_the_summary_counts_them(cli: Callable[..., Result], model: Path) -> None:
    rows = papers(400)
    rows[10]["id"], rows[20]["id"] = 704.0001, "wrong"
    write_jsonl(Path("dump.jsonl"), rows)
    result = cli("label", "dump.jsonl", "--model", model)
    assert result.exit_code == 0, result.output
    frame = pl.read_parquet("dump.labels.parquet")
    assert len(frame) == 398
    rejects = read_jsonl(Path("dump.labels.rejects.jsonl"))
    assert [(row["source"], row["line"], row["id"], row["reason"]) for row in rejects] == [
        ("dump.jsonl", 11, "704.0001", "numeric id"),
        ("dump.jsonl", 21, "wrong", "malformed id"),
    ]
    assert json.loads(rejects[1]["raw"]) == rows[20]
    shown = "\n".join(" ".join(line.split()) for line in result.stdout.splitlines())
    share = frame.get_column("ai").mean()
    assert f"labelled ai {frame.get_column('ai').sum()} ({share:.1%})" in shown
    for expected in ("papers 398", "rejected, numeric id 1", "rejected, malformed id 1", "papers/s"):
        assert expected in shown


def test_a_dump_of_too_many_rejects_fails_before_any_work(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), [*papers(9), paper("wrong")])
    line = error_line(cli("label", "dump.jsonl", "--model", model, "--rejects", "bad.jsonl"), 1)
    assert "1 of 10 rows of dump.jsonl would be rejected (1 malformed id)" in line
    assert "see bad.jsonl" in line
    assert len(read_jsonl(Path("bad.jsonl"))) == 1
    assert sorted(path.name for path in Path().iterdir()) == ["bad.jsonl", "dump.jsonl"]
    allowed = cli("label", "dump.jsonl", "--model", model, "--max-rejects", 0.1)
    assert allowed.exit_code == 0, allowed.output
    assert len(pl.read_parquet("dump.labels.parquet")) == 9


def test_rejects_of_an_earlier_run_do_not_stay_beside_new_labels(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), [*papers(300), paper("wrong")])
    assert cli("label", "dump.jsonl", "--model", model).exit_code == 0
    assert Path("dump.labels.rejects.jsonl").exists()
    write_jsonl(Path("dump.jsonl"), papers(300))
    assert cli("label", "dump.jsonl", "--model", model, "--overwrite").exit_code == 0
    assert not Path("dump.labels.rejects.jsonl").exists()


def test_nothing_but_rejects_makes_no_labels(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), [paper("wrong"), paper(17)])
    line = error_line(cli("label", "dump.jsonl", "--model", model), 1)
    assert "no paper in dump.jsonl: 1 malformed id, 1 numeric id" in line
    assert not Path("dump.labels.parquet").exists()
    assert len(read_jsonl(Path("dump.labels.rejects.jsonl"))) == 2
    assert sorted(path.name for path in Path().iterdir()) == ["dump.jsonl", "dump.labels.rejects.jsonl"]


def test_damaged_ids_stand_as_they_are_and_are_told(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), [row | {"id": str(float(row["id"]))} for row in papers(10)])
    result = cli("label", "dump.jsonl", "--model", model)
    assert result.exit_code == 0, result.output
    assert pl.read_parquet("dump.labels.parquet").get_column("id")[9] == "2101.0001"
    assert "zeros lost" in result.stdout


def test_kept_columns_come_last_with_their_types(cli: Callable[..., Result], model: Path) -> None:
    write_parquet(Path("dump.parquet"), [row | {"pages": 12} for row in papers(6)])
    result = cli("label", "dump.parquet", "--model", model, "--keep", "title,pages", "--keep", "authors")
    assert result.exit_code == 0, result.output
    frame = pl.read_parquet("dump.labels.parquet")
    assert frame.columns[-3:] == ["title", "pages", "authors"]
    assert frame.get_column("pages").to_list() == [12] * 6
    assert "already" in error_line(cli("label", "dump.parquet", "--model", model, "--keep", "id", "--overwrite"), 2)
    assert 'no column "nope"' in error_line(
        cli("label", "dump.parquet", "--model", model, "--keep", "nope", "-o", "b.csv"), 1
    )


def test_limit_and_threshold(model: Path, tmp_path: Path) -> None:
    frame = labels(model, PAPERS, tmp_path / "out.parquet", limit=17, chunk_rows=5, threshold=0.0)
    assert len(frame) == 17
    assert frame.get_column("ai").all()


def test_standard_input_to_standard_output(cli: Callable[..., Result], model: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in papers(5))
    result = cli("label", "-", "-o", "-", "--model", model, "-q", input=lines)
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [row["id"] for row in papers(5)]
    assert "papers" in result.stderr


def test_the_input_and_existing_labels_are_never_written_over(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(5))
    assert "is the dump itself" in error_line(cli("label", "dump.jsonl", "--model", model, "-o", "./dump.jsonl"), 2)
    assert cli("label", "dump.jsonl", "--model", model).exit_code == 0
    before = Path("dump.labels.parquet").read_bytes()
    assert "--overwrite" in error_line(cli("label", "dump.jsonl", "--model", model, "--threshold", 0), 2)
    assert Path("dump.labels.parquet").read_bytes() == before
    assert cli("label", "dump.jsonl", "--model", model, "--threshold", 0, "--overwrite").exit_code == 0
    assert Path("dump.labels.parquet").read_bytes() != before


def test_a_name_of_no_known_form_is_refused_before_any_work(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(5))
    assert ".csv" in error_line(cli("label", "dump.jsonl", "--model", model, "-o", "out.xlsx"), 2)


def test_events_are_json_lines(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(5))
    assert cli("label", "dump.jsonl", "--model", model, "--log-json", "events.jsonl").exit_code == 0
    events = read_jsonl(Path("events.jsonl"))
    assert [event["event"] for event in events if event["event"] != "progress"][-2:] == ["end", "done"]
    assert events[-1]["papers"] == 5
    error_line(cli("label", "dump.jsonl", "--model", model, "--threshold", 1, "--log-json", "events.jsonl"), 2)
    assert "already" in read_jsonl(Path("events.jsonl"))[-1]["message"]


def test_a_dump_with_columns_of_other_names(cli: Callable[..., Result], model: Path) -> None:
    rows = [{"doi": f"10.1/{n}", "body": f"On robot {n}.", "subject": "ai" if n % 2 else "x"} for n in range(6)]
    write_jsonl(Path("dump.jsonl"), rows)
    how = ("--model", model, "--id-column", "doi", "--text-column", "body", "--label-column", "subject")
    shown = cli("label", "dump.jsonl", *how)
    assert shown.exit_code == 0, shown.output
    frame = pl.read_parquet("dump.labels.parquet")
    assert frame.get_column("id").to_list() == [row["doi"] for row in rows]
    assert frame.get_column("ai_truth").to_list() == [False, True] * 3
    plain = write_jsonl(Path("plain.jsonl"), [{"id": row["doi"], "text": row["body"]} for row in rows])
    assert cli("label", plain, "--model", model).exit_code == 0
    assert pl.read_parquet("plain.labels.parquet").get_column("text_hash").equals(frame.get_column("text_hash"))


def test_quiet_is_silent(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(9))
    shown = cli("label", "dump.jsonl", "--model", model, "-q")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "labelled ai" in shown.stdout
    trained = cli("train", PAPERS, "--base", "none", "--since", "1990", "-q", "-o", "words")
    assert (trained.exit_code, trained.stderr) == (0, "")


def test_paths_and_choices_of_settings(tmp_path: Path) -> None:
    """In Python, too: one name for several, a path for its text; a wrong choice says which there are."""
    one = LabelSettings(PAPERS, model="bundled", keep="title", output=tmp_path / "x.parquet")  # type: ignore[arg-type]
    assert (one.snapshots, one.model, one.keep, one.output) == (
        (str(PAPERS),),
        ("bundled",),
        ("title",),
        str(tmp_path / "x.parquet"),
    )
    assert TrainSettings([PAPERS]).snapshots == (str(PAPERS),)  # type: ignore[arg-type]
    for wrong in ({"loss": "foo"}, {"split": "foo"}, {"calibration": "foo"}, {"track": ("foo",)}, {"device": "gpu"}):
        with pytest.raises(UsageError, match=r"must be one of .*, not (foo|gpu)"):
            TrainSettings((str(PAPERS),), **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="engine must be one of local, ray, not spark"):
        LabelSettings((str(PAPERS),), engine="spark")  # type: ignore[arg-type]


def test_frames_of_others_are_labelled(tmp_path: Path) -> None:
    classifier = Classifier.load("bundled")
    frame = pl.DataFrame({"id": ["2101.00001"], "title": ["A"], "abstract": ["Neural networks learn"]})
    expected = classifier.label(frame, keep="title")
    assert classifier.label(frame.lazy(), keep=["title"]).equals(expected)
    assert classifier.label(frame.to_arrow(), keep=["title"]).equals(expected)
    for strange in (["x.parquet"], None, 5):
        with pytest.raises(TypeError, match="papers are a frame, or the path of a dump"):
            classifier.label(strange)


def test_the_log_ends_with_all_that_the_screen_says(cli: Callable[..., Result]) -> None:
    done = cli("label", PAPERS, "--model", "bundled", "-o", "x.parquet", "--log-json", "log.jsonl")
    assert done.exit_code == 0
    last = read_jsonl(Path("log.jsonl"))[-1]
    assert last["event"] == "done"
    assert last["decided"] == {"gate": 422}
    assert {"rejects", "seconds", "papers_now", "seen", "bound", "ids_restored", "rejects_file"} <= set(last)
    for log in ("x.parquet", "-"):
        how = ("label", PAPERS, "--model", "bundled", "-o", "x.parquet", "--log-json", log)
        assert "is no file of its own" in error_line(cli(*how), 2)
    assert "is no file of its own" in error_line(cli("train", PAPERS, "--log-json", "model"), 2)
    assert not Path("-").exists()
