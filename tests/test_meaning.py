"""Labels mean what they say: no two tasks, models, dumps or runs are ever taken for one another."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import Result
from conftest import HANGS_S, PAPERS, error_line, paper, papers, write_jsonl

from arxivclf import LabelSettings, TrainSettings, label, train
from arxivclf.progress import Watcher


@pytest.fixture(scope="module")
def plain(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of two labels that was not made here."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("plain")
    torch.manual_seed(3)
    config = BertConfig.from_pretrained(tiny_base, num_labels=2, problem_type="multi_label_classification")
    made = BertForSequenceClassification(config)
    with torch.no_grad():
        made.classifier.weight.mul_(30)
    made.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return folder


class CutOffError(Exception):
    """Instead of a kill."""


class Cutter(Watcher):
    """Cuts a run off once so many papers are labelled."""

    def __init__(self, papers: int) -> None:
        self.left, self.stage_name = papers, ""

    def begin(self, stage: str, total: float | None, done: float = 0) -> None:
        self.stage_name = stage

    def advance(self, papers: float, *_: Any, **__: Any) -> None:
        self.left -= int(papers) if self.stage_name == "Labelling" else 0
        if self.left < 0:
            raise CutOffError


def test_names_that_change_places_are_other_labels(plain: Path, cli: Callable[..., Result]) -> None:
    there = ("label", PAPERS, "--model", plain, "-o", "out.parquet")
    swapped = (*there, "--task", "cv", "--task", "ai")
    assert cli(*there, "--task", "ai", "--task", "cv").exit_code == 0
    first = pl.read_parquet("out.parquet")

    assert "differs in the models" in error_line(cli(*swapped), 2)
    reused = cli(*swapped[:-6], "-o", "other.parquet", *swapped[-4:], "--reuse", "out.parquet")
    assert "labels in another order" in error_line(reused, 2)
    assert cli(*swapped, "--overwrite").exit_code == 0
    second = pl.read_parquet("out.parquet")
    assert first["ai_score"].equals(second["cv_score"])
    assert not first["ai_score"].equals(second["ai_score"])


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
def test_a_killed_run_is_not_gone_on_with_under_other_names(
    form: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result]
) -> None:
    def job(*task: str, **more: Any) -> LabelSettings:
        return LabelSettings((str(PAPERS),), (str(plain),), output=f"out.{form}", chunk_rows=100, task=task, **more)

    with pytest.raises(CutOffError):
        label(job("ai", "cv"), Cutter(250))
    again = cli(
        "label", PAPERS, "--model", plain, "-o", f"out.{form}", "--chunk-rows", 100, "--task", "cv", "--task", "ai"
    )
    assert "an unfinished run of it differs in the models" in error_line(again, 2)
    label(job("cv", "ai", overwrite=True))
    label(job("ai", "cv", overwrite=True))
    assert label(job("ai", "cv")).papers_now == 0


def test_a_task_that_was_edited_is_another(plain: Path, cli: Callable[..., Result], tmp_path: Path) -> None:
    task = tmp_path / "mine.toml"
    text = '[labels.one]\ncategories = ["{}"]\n[labels.two]\ncategories = ["hep-th"]\n'
    task.write_text(text.format("cs.AI"))
    there = ("label", PAPERS, "--model", plain, "--task", task, "-o", "out.parquet")
    assert cli(*there).exit_code == 0
    narrow = pl.read_parquet("out.parquet")["one_truth"].sum()
    task.write_text(text.format("cs.LG"))

    assert "differs in what makes one true (cs.AI then, cs.LG now)" in error_line(cli(*there), 2)
    # The scores are the same, and may be taken over; what is true is told anew.
    assert cli(*there[:-1], "new.parquet", "--reuse", "out.parquet").exit_code == 0
    wide = pl.read_parquet("new.parquet")
    assert wide["decided_by"].unique().to_list() == ["reused"]
    assert wide["one_truth"].sum() > narrow


def test_a_bare_yes_answers_none_of_several_models(cli: Callable[..., Result], tmp_path: Path) -> None:
    for task in ("ai", "robotics"):
        train(TrainSettings((str(PAPERS),), task=(task,), base="none", since=1990, output=str(tmp_path / task)))
    rows = [paper(f"2101.{n:05d}", categories=None, label=n % 2 == 0) for n in range(1, 21)]
    dump = write_jsonl(tmp_path / "bare.jsonl", rows)

    assert cli("label", dump, "--model", "ai", "-o", "one.parquet").exit_code == 0
    assert cli("label", dump, "--model", "ai", "--model", "robotics", "-o", "two.parquet").exit_code == 0
    assert pl.read_parquet("one.parquet")["ai_truth"].sum() == 10
    both = pl.read_parquet("two.parquet")
    assert both["ai_truth"].null_count() == both["robotics_truth"].null_count() == 20


@pytest.mark.parametrize("output", ["-", "out.parquet"])
def test_a_dump_that_grows_while_it_is_read_is_no_success(output: str, tmp_path: Path) -> None:
    """Nor where labels have gone to standard output already."""
    dump = write_jsonl(tmp_path / "dump.jsonl", papers(30))
    script = f"""
import arxivclf.labelling.run as run
from arxivclf.cli import main
real = run.take_census
def census(*how):
    found = real(*how)
    with open({str(dump)!r}, "a") as file:
        file.write({json.dumps(paper("2102.00001"))!r} + "\\n")
    return found
run.take_census = census
main(["label", {str(dump)!r}, "--model", "bundled", "-o", {output!r}])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "changed while it was read" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_shards_of_a_wrong_file_all_say_what_is_wrong(tmp_path: Path) -> None:
    dump = tmp_path / "dump.jsonl"
    write_jsonl(dump, papers(2_000))
    dump.write_text(dump.read_text() + "no paper\n" * 20_000)
    command = [sys.executable, "-m", "arxivclf", "label", "dump.jsonl", "--model", "bundled", "-o", "o.parquet"]
    runs = [
        subprocess.Popen([*command, "--shard", f"{at}/3"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for at in range(3)
    ]
    for run in runs:
        said = run.communicate(timeout=HANGS_S)[1].splitlines()[-1]
        assert run.returncode == 1
        assert "20,000 of 22,000 rows of dump.jsonl would be rejected (20,000 not JSON)" in said
    assert len((tmp_path / "o.rejects.jsonl").read_text().splitlines()) == 20_000


def test_labels_that_were_moved_there_are_not_taken_for_ours(cli: Callable[..., Result], tmp_path: Path) -> None:
    for task in ("ai", "robotics"):
        train(TrainSettings((str(PAPERS),), task=(task,), base="none", since=1990, output=str(tmp_path / task)))
    for name in ("x.csv", "x.parquet"):
        assert cli("label", PAPERS, "--model", "robotics", "-o", f"other.{name}").exit_code == 0
        with pytest.raises(CutOffError):
            label(LabelSettings((str(PAPERS),), ("ai",), output=name, chunk_rows=100), Cutter(250))
        shutil.copy(f"other.{name}", name)
        if name.endswith("csv"):
            shutil.copy(f"other.{name}.job.json", f"{name}.job.json")
        ours = cli("label", PAPERS, "--model", "ai", "-o", name, "--chunk-rows", 100)
        assert "there already and differs in the models" in error_line(ours, 2)
        assert Path(name).read_bytes() == Path(f"other.{name}").read_bytes()

    assert cli("label", PAPERS, "--model", "ai", "-o", "mine.csv").exit_code == 0
    Path("other.x.csv").replace("mine.csv")
    assert "mine.csv: there already; --overwrite" in error_line(
        cli("label", PAPERS, "--model", "ai", "-o", "mine.csv"), 2
    )


def test_the_same_training_is_the_same_model(tmp_path: Path, cli: Callable[..., Result]) -> None:
    """To the byte, so that labels of the one are taken over by the other."""
    for name in ("one", "two"):
        train(TrainSettings((str(PAPERS),), base="none", since=1990, output=str(tmp_path / name)))
    for weights in ("linear.safetensors", "seen.safetensors"):
        assert (tmp_path / "one" / weights).read_bytes() == (tmp_path / "two" / weights).read_bytes()
    assert cli("label", PAPERS, "--model", "one", "-o", "x.parquet").exit_code == 0
    assert cli("label", PAPERS, "--model", "two", "-o", "y.parquet", "--reuse", "x.parquet").exit_code == 0
    assert pl.read_parquet("y.parquet")["decided_by"].unique().to_list() == ["reused"]
