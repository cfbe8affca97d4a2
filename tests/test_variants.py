"""All variants of the original project: each trains, and its training part is made of what it should be, by count.

The original had five classifiers (AI, CV, NLP, robotics, cyber), 1 % and 10 % subsamples, 4:1 and 2:1 undersampling,
and weak negatives as a tenth of the training part; and a classifier of all labels at once that was never made to work.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from conftest import EXAMPLES, paper, write_jsonl, write_parquet

from arxivclf.corpus.splits import TEST, TRAIN, VALIDATION, sample_order, split_by_hash
from arxivclf.reporting.metrics import average_precision

COUNT = 4_000
TASKS: Mapping[str, set[str]] = {
    "ai": {"cs.AI", "cs.CL", "cs.CV", "cs.LG", "cs.MA", "cs.RO", "stat.ML"},
    "cv": {"cs.CV"},
    "nlp": {"cs.CL"},
    "robotics": {"cs.RO"},
    "cyber": {"cs.CR"},
}
WORDS = {
    "cs.CV": "image image image",
    "cs.CL": "language language language",
    "cs.RO": "robot robot robot",
    "cs.CR": "attack attack attack",
    "cs.LG": "learning learning learning",
}


def rows() -> list[dict[str, Any]]:
    """4,000 papers of 2021: one in ten of each category of interest, some in two, half in none."""
    made = []
    for number in range(1, COUNT + 1):
        mine = [name for at, name in enumerate(WORDS) if (number + at) % 10 == 0 or number % 97 == at]
        words = " ".join(WORDS[name] for name in mine) or "galaxy"
        made.append(
            paper(
                f"2101.{number:05d}",
                title=f"On {words}",
                abstract=f"{words}, {number}",
                categories=" ".join(["hep-th", *mine]) if number % 2 else " ".join([*mine, "math.AG"]),
            )
        )
    return made


def composed(task: set[str], share: float = 1.0, undersample: float | None = None) -> tuple[int, int]:
    """The positives and the negatives that a training part should have, counted without the code under test."""
    keys = pl.Series([row["id"] for row in rows()])
    sides, order = split_by_hash(keys).to_list(), sample_order(keys, 0).to_list()
    chosen = [
        bool(task & set(row["categories"].split()))
        for row, side, place in zip(rows(), sides, order, strict=True)
        if side == TRAIN and place < share
    ]
    positive = sum(chosen)
    negative = len(chosen) - positive
    return positive, negative if undersample is None else min(negative, round(undersample * positive))


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("variants") / "dump.parquet", rows())


def works(count: int) -> list[dict[str, Any]]:
    """Works of OpenAlex about medicine."""
    inverted = {"patients": [0], "were": [1], "treated": [2]}
    return [
        {"id": f"https://openalex.org/W{n}", "title": f"Trial {n}", "abstract_inverted_index": inverted}
        for n in range(1, count + 1)
    ]


def as_openalex(folder: Path) -> Path:
    with gzip.open(folder / "works.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in works(900))
    return folder / "works.jsonl.gz"


def as_parquet(folder: Path) -> Path:
    table = [{"id": f"W{n}", "title": f"Trial {n}", "abstract": "Patients were treated."} for n in range(900)]
    return write_parquet(folder / "works.parquet", table)


def as_text(folder: Path) -> Path:
    return write_jsonl(folder / "works.jsonl", [{"id": str(n), "text": f"Trial {n}"} for n in range(900)])


FAST = ("--epochs", "0.2", "--max-tokens", "16", "--learning-rate", "3e-3", "--batch-size", "64", "-q")


def train(cli: Callable[..., Result], base: Path, dump: Path, *options: object) -> dict[str, Any]:
    result = cli("train", dump, "--base", base, *FAST, *options)
    assert result.exit_code == 0, result.output
    info: dict[str, Any] = json.loads(Path("model/arxivclf.json").read_text())
    return info


VARIANTS: Sequence[tuple[str, list[str], set[str], dict[str, Any]]] = [
    ("ai", ["--task", "ai"], TASKS["ai"], {}),
    ("cv", ["--task", "cv"], TASKS["cv"], {}),
    ("nlp", ["--task", "nlp"], TASKS["nlp"], {}),
    ("robotics", ["--task", "robotics"], TASKS["robotics"], {}),
    ("cyber", ["--task", "cyber"], TASKS["cyber"], {}),
    ("ai, 10 % sample", ["--task", "ai", "--sample", "10"], TASKS["ai"], {"share": 0.1}),
    ("ai, 50 % sample", ["--task", "ai", "--sample", "50"], TASKS["ai"], {"share": 0.5}),
    ("cyber, 4:1", ["--task", "cyber", "--undersample", "4"], TASKS["cyber"], {"undersample": 4}),
    ("cyber, 2:1", ["--task", "cyber", "--undersample", "2"], TASKS["cyber"], {"undersample": 2}),
    (
        "robotics, half of it, 2:1",
        ["--task", "robotics", "--sample", "50", "--undersample", "2"],
        TASKS["robotics"],
        {"share": 0.5, "undersample": 2},
    ),
]


@pytest.mark.parametrize(("options", "task", "how"), [one[1:] for one in VARIANTS], ids=[one[0] for one in VARIANTS])
def test_variant(
    cli: Callable[..., Result], tiny_base: Path, dump: Path, options: list[str], task: set[str], how: dict[str, Any]
) -> None:
    positive, negative = composed(task, **how)
    info = train(cli, tiny_base, dump, *options)
    assert min(positive, negative) > 10
    (name,) = info["thresholds"]
    assert info["papers"]["train"] == {"papers": positive + negative, "positive": {name: positive}}
    assert "weak_negatives" not in info["papers"]


def test_one_percent_of_a_dump_large_enough_for_it(cli: Callable[..., Result], tiny_base: Path, tmp_path: Path) -> None:
    many = [
        paper(f"2102.{n:05d}", title=f"Paper {n}", abstract="", categories="cs.LG" if n % 3 else "hep-th")
        for n in range(1, 40_001)
    ]
    dump = write_parquet(tmp_path / "many.parquet", many)
    info = train(cli, tiny_base, dump, "--sample", 1)
    keys = pl.Series([row["id"] for row in many])
    chosen = sample_order(keys, 0).to_numpy() < 0.01
    sides = np.array(split_by_hash(keys).to_list())
    assert 300 < chosen.sum() < 500
    for side, name in ((TRAIN, "train"), (VALIDATION, "validation"), (TEST, "test")):
        assert info["papers"][name]["papers"] == int((chosen & (sides == side)).sum())


@pytest.mark.parametrize("form", [as_openalex, as_parquet, as_text])
@pytest.mark.parametrize("task", ["ai", "cyber"])
def test_weak_negatives_in_any_form(
    cli: Callable[..., Result], tiny_base: Path, dump: Path, tmp_path: Path, form: Callable[[Path], Path], task: str
) -> None:
    positive, negative = composed(TASKS[task])
    weak = round((positive + negative) / 9)
    info = train(cli, tiny_base, dump, "--task", task, "--weak-negatives", form(tmp_path))
    assert info["papers"]["weak_negatives"] == weak
    assert info["papers"]["train"] == {"papers": positive + negative + weak, "positive": {task: positive}}
    whole = {part: info["papers"][part]["papers"] for part in ("validation", "test")}
    # One invented paper of the test split is nearly one of the training papers.
    whole["test"] += info["papers"]["near_duplicates"]
    assert info["papers"]["near_duplicates"] <= 5
    sides = split_by_hash(pl.Series([row["id"] for row in rows()]))
    assert whole == {"validation": (sides == VALIDATION).sum(), "test": (sides == TEST).sum()}
    card = Path("model/README.md").read_text()
    assert f"Weak negatives: {weak:,} papers of `{form(tmp_path).name}`, in the training part alone" in card


def test_weak_negatives_of_another_share_after_undersampling(
    cli: Callable[..., Result], tiny_base: Path, dump: Path, tmp_path: Path
) -> None:
    positive, negative = composed(TASKS["cyber"], undersample=2)
    info = train(
        cli, tiny_base, dump, "--task", "cyber", "--undersample", 2, "--weak-negatives", as_text(tmp_path),
        "--weak-negative-share", 0.25,
    )  # fmt: skip
    weak = round((positive + negative) / 3)
    assert info["papers"]["weak_negatives"] == weak
    assert info["papers"]["train"]["papers"] == positive + negative + weak


def test_all_five_labels_at_once_are_trained_given_and_reported(
    cli: Callable[..., Result], tiny_base: Path, dump: Path
) -> None:
    tasks = [option for name in TASKS for option in ("--task", name)]
    Path("arxivclf.toml").write_text(
        "[train]\npatience = 0\nepochs = 20\nlearning_rate = 2e-3\nbatch_size = 16\nprecision = 'float32'\n"
    )
    result = cli("train", dump, "--base", tiny_base, *tasks, "--max-tokens", 64, "-q")
    assert result.exit_code == 0, result.output
    info = json.loads(Path("model/arxivclf.json").read_text())
    for name, categories in TASKS.items():
        positive, negative = composed(categories)
        assert info["papers"]["train"]["positive"][name] == positive
        assert info["papers"]["train"]["papers"] == positive + negative
    labelled = cli("label", dump, "-o", "out.parquet", "-q")
    assert labelled.exit_code == 0, labelled.output
    frame = pl.read_parquet("out.parquet")
    for name, categories in TASKS.items():
        truth = frame.get_column("categories").str.split(" ").list.eval(pl.element().is_in(list(categories))).list.any()
        assert frame.get_column(f"{name}_truth").to_list() == truth.to_list()
        # Each output ranks the papers of its own label best; an output at the wrong place, or none, would not.
        ranked = {
            output: average_precision(np.array(truth), frame.get_column(f"{output}_score").to_numpy())
            for output in TASKS
            if output == name or not categories & TASKS[output]
        }
        assert max(ranked, key=lambda output: ranked[output]) == name, ranked
        assert ranked[name] > 0.8, ranked
    shown = cli("report", "out.parquet")
    assert shown.exit_code == 0, shown.output
    assert [name for name in TASKS if f"labelled {name}" in shown.stdout] == list(TASKS)


def test_the_recipe_of_the_original_runs_as_it_stands(
    cli: Callable[..., Result], tiny_base: Path, dump: Path, tmp_path: Path
) -> None:
    """The published settings, word for word, but for the names of the files and the size of the base."""
    weak = as_openalex(tmp_path)
    recipe = (EXAMPLES / "cset-ai-2023.toml").read_text()
    for old, new in (
        ("arxiv-metadata-oai-snapshot.json", str(dump)),
        ("openalex-works.jsonl.gz", str(weak)),
        ("allenai/specter", str(tiny_base)),
    ):
        assert recipe.count(f'"{old}"') == 1
        recipe = recipe.replace(f'"{old}"', f'"{new}"')
    Path("arxivclf.toml").write_text(recipe)
    result = cli("train", "-q")
    assert result.exit_code == 0, result.output
    info = json.loads(Path("model/arxivclf.json").read_text())
    positive, negative = composed(TASKS["ai"])
    assert info["papers"]["train"]["papers"] == positive + negative + round((positive + negative) / 9)
    assert info["chosen"] | {"device": ""} == {
        "epochs": 3.0,
        "learning_rate": 7.5e-6,
        "warmup": 0.0,
        "device": "",
        "precision": "bfloat16",
        "kept_pass": 3.0,
    }
    table = pl.read_csv("model/training.csv")
    assert table.get_column("epoch").to_list() == [1.0, 2.0, 3.0]
    # The rate falls in a straight line from the first step to zero after the last.
    assert table.get_column("learning_rate").to_list() == pytest.approx([5e-6, 2.5e-6, 0.0], rel=1e-6)
