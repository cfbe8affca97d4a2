"""Which papers a training uses: several validation sets, near-duplicates, and the papers that an encoder draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from conftest import PAPERS, TINY, papers, write_jsonl

from arxivclf import TrainSettings
from arxivclf.corpus.rejects import RejectsFile
from arxivclf.corpus.tasks import Task
from arxivclf.model.folder import ModelInfo
from arxivclf.progress import Watcher
from arxivclf.training import hyperparameters, linear
from arxivclf.training.dataset import Dataset, collect


def gather(tmp_path: Path, rows: list[dict[str, Any]], **how: Any) -> Dataset:
    settings = TrainSettings(snapshots=(str(write_jsonl(tmp_path / "dump.jsonl", rows)),), **how)
    with RejectsFile(tmp_path / "rejects.jsonl") as rejects:
        return collect(settings, Task.load(settings.task), rejects, Watcher())


def mixed(count: int) -> list[dict[str, Any]]:
    """Papers of which every sixth is about language, too."""
    return [row | ({"categories": "cs.CL cs.LG"} if at % 6 == 0 else {}) for at, row in enumerate(papers(count), 1)]


def yes_or_no(tmp_path: Path, count: int) -> Path:
    rows = [{"id": f"W{at}", "text": f"An invented text {at}", "label": at % 3 == 0} for at in range(count)]
    return write_jsonl(tmp_path / "answers.jsonl", rows)


def listed(tmp_path: Path, count: int) -> Path:
    rows = [row | {"id": f"2501.{at:05}"} for at, row in enumerate(mixed(count), 1)]
    return write_jsonl(tmp_path / "listed.jsonl", rows)


def test_two_validation_sets_answer_together(tmp_path: Path) -> None:
    sets = (str(listed(tmp_path, 40)), str(yes_or_no(tmp_path, 30)))
    how = {"task": ("ai", "nlp"), "validation": sets, "validation_label": "ai"}
    dataset, split = gather(tmp_path, mixed(400), **how), gather(tmp_path, mixed(400), task=("ai", "nlp"))

    known = (~np.isnan(dataset.validation.truth)).sum(axis=0)
    assert known.tolist() == [70, 40]
    # Every label has a set, so that the hashed validation split trains.
    assert len(dataset.train) == len(split.train) + len(split.validation)
    assert len(dataset.test) == len(split.test)


def test_labels_that_no_set_answers_have_the_split(tmp_path: Path) -> None:
    how = {"task": ("ai", "nlp"), "validation": (str(yes_or_no(tmp_path, 30)),), "validation_label": "ai"}
    dataset, split = gather(tmp_path, mixed(400), **how), gather(tmp_path, mixed(400), task=("ai", "nlp"))

    known = (~np.isnan(dataset.validation.truth)).sum(axis=0)
    assert known.tolist() == [30, len(split.validation)]
    assert len(dataset.train) == len(split.train)


def test_draws_are_of_the_weight_and_always_the_same(tmp_path: Path) -> None:
    dataset = gather(tmp_path, papers(1_500))
    weights = np.where(np.arange(len(dataset.whole)) % 2, 4.0, 1.0).astype(np.float32)

    drawn = dataset.drawn_by(len(dataset.every) // 4, weights)
    again = dataset.drawn_by(len(dataset.every) // 4, weights)

    place = dict(zip(dataset.every.frame["id"], range(len(dataset.every)), strict=True))
    heavy = np.mean([place[paper] % 2 for paper in drawn.every.frame["id"]])
    assert len(drawn.every) == drawn.every.frame["id"].n_unique() == len(dataset.every) // 4
    assert drawn.every.frame.equals(again.every.frame)
    assert 0.68 < heavy < 0.85
    assert drawn.whole is dataset.whole


def test_uncertainty_is_of_the_papers_that_words_do_not_tell_apart() -> None:
    random = np.random.default_rng(0)
    certain = [f"{word} " * 8 for word in random.choice(["robot", "galaxy"], 400)]
    unclear = ["method result " * 8] * 400
    truth = np.array([text.startswith("robot") for text in certain] + list(random.random(400) < 0.5), np.float32)
    counted = linear.features(pl.Series(certain + unclear), Watcher())

    uncertain = linear.uncertainty(counted, truth[:, None], np.ones(800, np.float32), Watcher())

    assert uncertain.min() >= 0
    assert uncertain.max() <= 1
    assert uncertain[400:].mean() > 0.8 > 0.4 > uncertain[:400].mean()


def test_a_training_draws_and_removes_near_duplicates_and_says_so(
    cli: Callable[..., Result], tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hyperparameters, "PRESENTATIONS", 120)
    rows = papers(300)
    # Copies under other IDs, one word changed: whatever split a copy is in, many test papers have one in training.
    copies = [row | {"id": f"2203.{at:05}", "abstract": f"{row['abstract']} Again."} for at, row in enumerate(rows, 1)]
    write_jsonl(Path("dump.jsonl"), rows + copies)
    tokens = [option for option in TINY if option not in ("--epochs", "6")]
    result = cli("train", "dump.jsonl", "--base", tiny_base, "-o", "model", *tokens)

    assert result.exit_code == 0, result.output
    assert "were removed from the test split" in result.output
    assert "The encoder trains on 120 of" in result.output
    info = ModelInfo.read(Path("model"))
    test = pl.read_parquet("model/test.labels.parquet")
    assert info.papers["near_duplicates"] > 20
    assert len(test) == info.papers["test"]["papers"]


def test_no_near_duplicates_among_the_examples(cli: Callable[..., Result]) -> None:
    result = cli("train", PAPERS, "--base", "none", "-o", "model")

    assert result.exit_code == 0, result.output
    assert "removed from the test split" not in result.output
