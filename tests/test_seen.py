"""What a model saw in training: kept by hash, counted when it labels, told and left out when it is judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from conftest import DATA, PAPERS, TINY, error_line, paper, real_data, snapshot, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from arxivclf.cli import main
from arxivclf.corpus.seen import FITTED, LEARNT, SEEN_FILE, Seen
from arxivclf.errors import ModelError
from arxivclf.model.safety import refuse_without_weights

KEYS = st.lists(st.integers(0, 30).map(lambda number: f"2101.{number:05d}"), max_size=20)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without an encoder, of the example papers. Do not write into it."""
    folder = tmp_path_factory.mktemp("alone") / "model"
    train(PAPERS, "-o", folder)
    return folder


def train(*arguments: object) -> Result:
    done = CliRunner().invoke(main, ["train", "--base", "none", "--since", "1990", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done


def ids(rows: str | Path) -> set[str]:
    return {json.loads(line)["id"] for line in Path(rows).read_text(encoding="utf-8").splitlines()}


@given(KEYS, KEYS, KEYS, KEYS, KEYS)
def test_papers_are_told_apart_as_sets_would(tmp_path_factory, learnt, fitted, more, others, asked):
    seen = Seen.union([Seen.of(pl.Series(learnt, dtype=pl.String), pl.Series(fitted, dtype=pl.String))])
    seen = Seen.union([seen, Seen.of(pl.Series(more, dtype=pl.String), pl.Series(others, dtype=pl.String))])
    folder = tmp_path_factory.mktemp("model")
    seen.write(folder)
    read = Seen.read(folder)
    assert read is not None
    keys = pl.Series(asked, dtype=pl.String)

    taught, tuned = {*learnt, *more}, {*fitted, *others}
    assert read.among(keys).tolist() == [key in taught | tuned for key in asked]
    counts = {LEARNT: sum(key in taught for key in asked), FITTED: sum(key in tuned - taught for key in asked)}
    assert read.count(keys) == {name: count for name, count in counts.items() if count}


def test_a_model_keeps_all_that_it_saw_and_nothing_of_its_test_part(alone: Path) -> None:
    seen = Seen.read(alone)
    assert seen is not None
    counts = json.loads((alone / "arxivclf.json").read_text())["papers"]
    tested = pl.read_parquet(alone / "test.labels.parquet").get_column("id")

    assert (len(seen.learnt), len(seen.fitted)) == (counts["train"]["papers"], counts["validation"]["papers"])
    (chunk,) = (chunk for chunk in snapshot(PAPERS).chunks() if len(chunk.papers))
    among = seen.among(chunk.papers.get_column("key"))
    assert among.tolist() == (~chunk.papers.get_column("id").is_in(tested.implode())).to_list()


def test_the_flattered_figures_are_said_to_be_so_and_the_others_are_to_be_had(
    alone: Path, cli: Callable[..., Result]
) -> None:
    tested = pl.read_parquet(alone / "test.labels.parquet")
    taught = json.loads((alone / "arxivclf.json").read_text())["papers"]
    learnt, fitted = taught["train"]["papers"], taught["validation"]["papers"]
    new = [paper(f"2212.{number:05d}", categories="hep-th") for number in range(5)]
    dump = Path("dump.jsonl")
    dump.write_text(PAPERS.read_text() + "".join(json.dumps(row) + "\n" for row in new))
    for labels in ("all.parquet", "all.csv"):
        labelled = cli("label", dump, "--model", alone, "-o", labels)
        assert f"seen in training     {learnt:,} taught the model, {fitted:,} tuned it; report --unseen-by" in (
            labelled.output
        )

        told = " ".join(cli("report", labels).output.split())
        assert f"Of all papers labelled {learnt:,} taught the model, {fitted:,} tuned it: there it looks better" in told
        left_out = json.loads(cli("report", labels, "--unseen-by", alone, "--format", "json").output)

        assert left_out["seen"] is None
        assert left_out["left_out"] == {"models": [str(alone)], "papers": learnt + fitted}
        assert left_out["labels"][0]["papers"] == len(tested) + len(new)
        both = pl.read_parquet("all.parquet").filter(pl.col("id").is_in([*tested["id"], *(row["id"] for row in new)]))
        right = int((both["ai"] & both["ai_truth"]).sum())
        assert left_out["labels"][0]["confusion"]["true_positives"] == right


def test_an_id_is_the_same_paper_in_every_spelling(alone: Path, cli: Callable[..., Result]) -> None:
    rows = [json.loads(line) for line in PAPERS.read_text().splitlines()]
    spelt = [row | {"id": f"arXiv:{row['id']}v2"} for row in rows]
    plain, other = write_jsonl(Path("plain.jsonl"), rows), write_jsonl(Path("other.jsonl"), spelt)

    counts = []
    for dump in (plain, other):
        cli("label", dump, "--model", alone, "-o", f"{dump}.parquet", "-q")
        counts.append(json.loads(cli("report", f"{dump}.parquet", "--format", "json").output)["seen"])
        left = json.loads(cli("report", f"{dump}.parquet", "--unseen-by", alone, "--format", "json").output)
        assert left["left_out"]["papers"] == sum(counts[-1].values())
    assert counts[0] == counts[1]


def test_papers_that_no_model_saw_are_not_spoken_of(alone: Path, cli: Callable[..., Result]) -> None:
    dump = write_jsonl(Path("new.jsonl"), [paper(f"2212.{number:05d}") for number in range(9)])

    assert "seen in training" not in cli("label", dump, "--model", alone, "-o", "new.parquet").output
    assert "looks better" not in cli("report", "new.parquet").output
    left = json.loads(cli("report", "new.parquet", "--unseen-by", alone, "--format", "json").output)
    assert (left["left_out"]["papers"], left["labels"][0]["papers"]) == (0, 9)


def test_a_run_that_goes_on_counts_what_it_found_done(alone: Path, cli: Callable[..., Result]) -> None:
    how = ("--model", alone, "-o", "x.parquet", "--chunk-rows", 100)
    counts = json.loads((alone / "arxivclf.json").read_text())["papers"]
    whole = f"seen in training     {counts['train']['papers']:,} taught the model"

    assert whole not in cli("label", PAPERS, *how, "--shard", "0/2").output
    assert whole in cli("label", PAPERS, *how, "--shard", "1/2").output
    assert whole in cli("label", PAPERS, *how).output
    assert json.loads(cli("report", "x.parquet", "--format", "json").output)["seen"] == {
        LEARNT: counts["train"]["papers"],
        FITTED: counts["validation"]["papers"],
    }


def test_two_models_are_compared_on_what_neither_saw(alone: Path, cli: Callable[..., Result]) -> None:
    train(PAPERS, "-o", "other", "--seed", 5, "--sample", 60)
    for name, model in (("first.parquet", alone), ("second.parquet", "other")):
        cli("label", PAPERS, "--model", model, "-o", name, "-q")
    asked = ("report", "second.parquet", "--compare", "first.parquet", "--format", "json")

    every = json.loads(cli(*asked).output)
    unseen = json.loads(cli(*asked, "--unseen-by", alone, "--unseen-by", "other").output)
    first, second = Seen.read(alone), Seen.read(Path("other"))
    assert first is not None
    assert second is not None
    met = np.union1d(np.union1d(first.learnt, first.fitted), np.union1d(second.learnt, second.fitted))
    assert every["left_out"] is None
    assert unseen["left_out"] == {"models": [str(alone), "other"], "papers": len(met)}
    assert unseen["papers"] == every["papers"] - len(met)
    assert "met in training are left out" in " ".join(cli(*asked[:-2], "--unseen-by", alone).output.split())


def test_other_corpora_and_validation_sets_count_as_well(cli: Callable[..., Result], tmp_path: Path) -> None:
    weak = write_jsonl(tmp_path / "weak.jsonl", [paper(f"W{number}", categories=None) for number in range(200)])
    dev = [paper(f"2301.{n:05d}", categories="cs.LG" if n % 2 else "hep-th", title=f"Set {n}") for n in range(40)]
    train(PAPERS, "-o", "mine", "--weak-negatives", weak, "--validation", write_jsonl(tmp_path / "dev.jsonl", dev))
    seen = Seen.read(Path("mine"))
    assert seen is not None
    counts = json.loads(Path("mine/arxivclf.json").read_text())["papers"]

    assert seen.count(pl.Series(row["id"] for row in dev)) == {FITTED: 40}
    assert seen.count(pl.Series(sorted(ids(weak)))) == {LEARNT: counts["weak_negatives"]} != {LEARNT: 0}


def test_what_a_base_saw_its_model_has_seen_too(model: Path, cli: Callable[..., Result], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in PAPERS.read_text().splitlines()]
    half = write_jsonl(tmp_path / "half.jsonl", rows[: len(rows) // 2])

    done = cli("train", half, "--base", model, "-o", "next", "--split", "time", *TINY, "--epochs", 1)
    assert done.exit_code == 0, done.output
    before, after = Seen.read(model), Seen.read(Path("next"))
    assert before is not None
    assert after is not None
    assert set(before.learnt) <= set(after.learnt)
    tested = pl.read_parquet("next/test.labels.parquet").get_column("id")
    met = int(before.among(tested).sum())
    assert met
    assert f"{model} has seen {met} of {len(tested)} test papers in its own training" in " ".join(done.output.split())
    assert f"had met {met} papers of the test split before" in Path("next/README.md").read_text()
    assert f"Of all papers labelled {met} taught the model" in " ".join(cli("report", "next").output.split())
    assert "nothing else" in (model / "README.md").read_text()


def test_a_model_that_does_not_tell_and_one_that_is_broken(alone: Path, cli: Callable[..., Result]) -> None:
    cli("label", PAPERS, "--model", alone, "-o", "x.parquet", "-q")
    for name in ("arxivclf.json", "linear.safetensors"):
        Path("old").mkdir(exist_ok=True)
        Path("old", name).write_bytes((alone / name).read_bytes())

    assert "old: does not tell which papers it has seen" in error_line(
        cli("report", "x.parquet", "--unseen-by", "old"), 1
    )
    done = cli("label", PAPERS, "--model", "old", "-o", "y.parquet")
    assert done.exit_code == 0
    assert "seen in training" not in done.output
    Path("old", SEEN_FILE).write_bytes(b"no tensors")
    assert SEEN_FILE in error_line(cli("report", "x.parquet", "--unseen-by", "old"), 1)
    assert SEEN_FILE in error_line(cli("label", PAPERS, "--model", "old", "-o", "z.parquet"), 1)
    assert "no such model" in error_line(cli("report", "x.parquet", "--unseen-by", "no/such/model"), 1)
    with pytest.raises(ModelError, match="no weights"):
        refuse_without_weights("shop/window", ["config.json", SEEN_FILE])


def test_where_all_papers_were_seen_nothing_is_judged(alone: Path, cli: Callable[..., Result]) -> None:
    tested = set(pl.read_parquet(alone / "test.labels.parquet").get_column("id"))
    rows = [row for row in map(json.loads, PAPERS.read_text().splitlines()) if row["id"] not in tested]
    cli("label", write_jsonl(Path("seen.jsonl"), rows), "--model", alone, "-o", "x.parquet", "-q")

    said = error_line(cli("report", "x.parquet", "--unseen-by", alone), 1)
    assert f"all of its {len(rows)} papers were seen by {alone} in training" in said
    assert "do not go together" in error_line(
        cli("report", "x.parquet", "--drift", "x.parquet", "--unseen-by", alone), 2
    )


@real_data
def test_the_bundled_model_tells_its_papers(cli: Callable[..., Result]) -> None:
    dev = pl.read_parquet(DATA / "cset-ai-dev.parquet")
    done = cli("label", DATA / "cset-ai-dev.parquet", "--model", "bundled", "-o", "x.parquet")
    assert f"{len(dev):,} tuned the model" in done.output
