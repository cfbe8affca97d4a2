"""How a column of labels is worded, and what its words then mean: in a dump, in a training, and as truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import Result
from conftest import error_line, paper, write_jsonl

from arxivclf import Classifier
from arxivclf.corpus.tasks import Label, Task
from arxivclf.corpus.truths import Wording, truth

AI = Task.load(["ai"])
TWO = Task((Label("hep", "hep", ()), Label("astro", "astro", ())))


def heard(task: Task, labels: list[str | None], chunk: int = 3) -> tuple[list[list[bool | None]], str]:
    """What each label's truth is, heard chunk by chunk as from a dump, and what is told."""
    frame = pl.DataFrame(
        {"label": labels, "listed": [None] * len(labels)}, schema=dict.fromkeys(("label", "listed"), pl.String)
    )
    wording = Wording(task)
    for part in frame.iter_slices(chunk):
        wording.add(part)
    return [series.to_list() for series in truth(task, wording.understood(frame))], wording.told()


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (["yes", "no", "n/a"], [True, False, None]),
        (["ja", "nein", "Ja"], [True, False, True]),
        (["WAHR", "FALSCH"], [True, False]),
        (["VRAI", "FAUX"], [True, False]),
        (["1.00", "0.00", "1,0"], [True, False, True]),
        (["01", "00", "2"], [True, False, None]),
        (["1", "2", ""], [True, None, None]),
        (["ai", "hep", None], [True, False, None]),
        (["ai, hep", "['astro', 'ai']", "[]"], [True, True, False]),
        (["ai", "cs.LG", "hep-th"], [True, True, False]),
        # What stands beside yes and no, or never beside a label, says nothing.
        (["yes", "no", "not sure yet"], [True, False, None]),
        (["relevant", "irrelevant", "relevant"], [None, None, None]),
        (["cs.AI I.2.6", "hep-th 81T"], [None, None]),
        (["yes", "ai", "hep"], [True, True, None]),
        (["true", "[]"], [True, None]),
    ],
    ids=str,
)
@pytest.mark.parametrize("chunk", [1, 100])
def test_what_words_mean(said: list[str | None], means: list[bool | None], chunk: int) -> None:
    assert heard(AI, said, chunk)[0] == [means]


def test_of_several_labels() -> None:
    assert heard(TWO, ["hep", "astro, hep", "[]", "bio", "", None]) == (
        [[True, True, False, False, None, None], [False, True, False, False, None, None]],
        "",
    )
    found, told = heard(TWO, ["bio", "chem", "bio", "geo", "law"])
    assert found == [[None] * 5] * 2
    assert told.startswith("of 5 papers the label says nothing")
    assert told.endswith(": 'bio', 'chem', 'geo', ...")


def dump(labels: list[Any], path: str = "dump.jsonl") -> Path:
    rows = [paper(f"2101.{n:05d}", title=f"No. {n}", categories=None, label=one) for n, one in enumerate(labels, 1)]
    return write_jsonl(Path(path), rows)


@pytest.fixture
def alone(cli: Callable[..., Result]) -> str:
    dump(["yes", "no"] * 300, "taught.jsonl")
    assert cli("train", "taught.jsonl", "--base", "none", "-o", "alone").exit_code == 0
    return "alone"


def test_labels_by_a_model_of_one_label(cli: Callable[..., Result], alone: str) -> None:
    path = dump(["yes", "no", "open"] * 20)
    for chunk in (1, 1_000):
        shown = cli("label", path, "--model", alone, "--chunk-rows", chunk, "-o", f"{chunk}.parquet")
        assert "In the dump, of 20 papers the label says nothing" in shown.stderr
        assert pl.read_parquet(f"{chunk}.parquet")["ai_truth"].to_list() == [True, False, None] * 20
    assert Classifier.load(alone).label(path)["ai_truth"].to_list() == [True, False, None] * 20
    dump(["ai", "hep", "open"] * 20, "names.jsonl")
    assert "says nothing" not in cli("label", "names.jsonl", "--model", alone, "-o", "n.parquet").stderr
    assert pl.read_parquet("n.parquet")["ai_truth"].to_list() == [True, False, False] * 20


def test_what_is_learnt_from(cli: Callable[..., Result]) -> None:
    dump(["yes", "no", "open"] * 200)
    shown = cli("train", "dump.jsonl", "--base", "none", "-o", "m")
    assert shown.exit_code == 0, shown.output
    assert (
        "In the dump, of 200 papers the label says nothing, being neither yes nor no nor the name of a label: 'open'"
        in shown.stderr
    )
    counted = json.loads(Path("m/arxivclf.json").read_text())["papers"]
    assert counted["without_truth"] == 200
    assert sum(counted[side]["papers"] for side in ("train", "validation", "test")) == 400

    dump(["relevant", "irrelevant"] * 50)
    line = error_line(cli("train", "dump.jsonl", "--base", "none", "-o", "n"), 1)
    assert "no papers to train on" in line
    assert "the label says nothing" in line
    assert "'relevant', 'irrelevant'" in line


def test_as_truth(cli: Callable[..., Result], alone: str) -> None:
    """What the file says of them is told: of none, twice, in other words."""
    dump(["yes", "no"] * 20)
    assert cli("label", "dump.jsonl", "--model", alone, "-o", "x.parquet").exit_code == 0
    ids = [f"2101.{n:05d}" for n in range(1, 41)]

    def told(said: list[tuple[str, Any]], form: str = "csv") -> dict[str, Any]:
        table = pl.DataFrame(said, schema=["id", "label"], orient="row")
        table.write_csv("t.csv") if form == "csv" else table.write_parquet("t.parquet")
        shown = cli("report", "x.parquet", "--truth", f"t.{form}", "--format", "json")
        assert shown.exit_code == 0, shown.output
        found: dict[str, Any] = json.loads(shown.stdout)
        return found

    found = told([(one, "yes" if n < 10 else "unsure" if n < 20 else "see below") for n, one in enumerate(ids)])
    assert (found["match"]["papers"], found["match"]["silent"]) == (40, 30)
    assert "of 20 papers the label says nothing" in found["match"]["not_understood"]
    assert sum(found["labels"][0]["confusion"].values()) == 10

    # A blank row takes nothing away; of answers that differ the last counts, and both are told.
    found = told([*((one, "yes") for one in ids), *((one, "no") for one in ids[:5]), *((one, None) for one in ids[:9])])
    match = found["match"]
    assert (match["silent"], match["repeated"], match["contradictory"]) == (0, 5, 5)
    confusion = found["labels"][0]["confusion"]
    assert confusion["true_positives"] + confusion["false_negatives"] == 35

    several = told([(one, ["ai", "hep"] if n % 2 else []) for n, one in enumerate(ids)], "parquet")
    confusion = several["labels"][0]["confusion"]
    assert confusion["true_positives"] + confusion["false_negatives"] == 20
    assert sum(confusion.values()) == 40

    dump(["ja bitte", "nein danke"] * 20, "words.jsonl")
    for truth_file in ("words.jsonl", "w.csv"):
        pl.DataFrame({"id": ids, "label": ["ja bitte", "nein danke"] * 20}).write_csv("w.csv")
        line = error_line(cli("report", "x.parquet", "--truth", truth_file), 1)
        assert "tells no truth for ai; of 40 papers the label says nothing" in line


def test_a_column_that_is_named_goes_before_a_truth_that_was_written(cli: Callable[..., Result], alone: str) -> None:
    dump(["yes", "no"] * 20)
    assert cli("label", "dump.jsonl", "--model", alone, "-o", "x.parquet").exit_code == 0
    labels = pl.read_parquet("x.parquet")
    labels.with_columns(hand=~pl.col("ai_truth")).write_csv("hand.csv")
    own, hand = (
        json.loads(cli("report", "x.parquet", "--truth", "hand.csv", "--format", "json", *how).stdout)["labels"][0][
            "confusion"
        ]
        for how in ((), ("--label-column", "hand"))
    )
    assert own["true_positives"] == hand["false_positives"]
    assert own["true_negatives"] == hand["false_negatives"]
