"""Categories, and the tasks made of them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from conftest import DATA, real_data

from arxivclf import Task
from arxivclf.corpus.tasks import built_in
from arxivclf.corpus.taxonomy import CATEGORIES, SAME_AS, nearest, spellings
from arxivclf.corpus.truths import truth
from arxivclf.errors import DataError, UsageError


def answers(task: Task, categories: list[str | None], label: list[str | None] | None = None) -> dict[str, list[object]]:
    frame = pl.DataFrame(
        {"listed": categories, "label": label or [None] * len(categories)},
        schema={"listed": pl.String, "label": pl.String},
    )
    return {series.name: series.to_list() for series in truth(task, frame)}


def test_the_five_tasks_are_those_of_the_original_project() -> None:
    found = {label.name: set(label.categories) for label in built_in().labels}
    assert found == {
        "ai": {"cs.AI", "cs.CL", "cs.CV", "cs.LG", "cs.MA", "cs.RO", "stat.ML"},
        "cv": {"cs.CV"},
        "nlp": {"cs.CL"},
        "robotics": {"cs.RO"},
        "cyber": {"cs.CR"},
    }


def test_every_other_name_leads_to_a_category_that_is_its_own() -> None:
    assert len(SAME_AS) == 24
    for other, same in SAME_AS.items():
        assert same in CATEGORIES
        assert same not in SAME_AS
        assert spellings(other) == spellings(same) >= {other, same}


def test_an_archive_with_a_star_is_all_its_categories() -> None:
    assert {"astro-ph", "astro-ph.GA"} <= spellings("astro-ph.*") == spellings("astro-ph")
    assert {"cs.LG", "math.IT", "eess.SY", "cmp-lg"} <= spellings("cs.*")
    assert not any(name.startswith("hep") for name in spellings("cs.*"))


@pytest.mark.parametrize(("wrong", "right"), [("cs.AL", "cs.AI"), ("CS.LG", "cs.LG"), ("stat.ml", "stat.ML")])
def test_nearest_finds_what_was_meant(wrong: str, right: str) -> None:
    assert right in nearest(wrong)


@pytest.mark.parametrize(
    ("categories", "ai", "nlp"),
    [
        ("cs.LG", True, False),
        ("math.PR cs.LG", True, False),
        ("cmp-lg", True, True),
        ("cmp-lg cs.CL", True, True),
        ("hep-th", False, False),
        ("cs.LGX", False, False),
        ("xcs.LG", False, False),
        ("csXLG", None, None),
        ("  cs.CL  ", True, True),
        ("", None, None),
        (None, None, None),
    ],
)
def test_truth_comes_from_any_category_in_any_spelling(categories: str | None, ai: object, nlp: object) -> None:
    assert answers(Task.load(["ai", "nlp"]), [categories]) == {"ai": [ai], "nlp": [nlp]}


def test_a_label_column_answers_a_task_of_one_label() -> None:
    words = ["true", "False", "1", "0", "ai", "AI ", "biology", None, ""]
    expected = [True, False, True, False, True, True, False, None, None]
    assert answers(Task.load(["ai"]), [None] * len(words), words) == {"ai": expected}


def test_a_bare_yes_answers_none_of_several_labels() -> None:
    assert answers(Task.load(["cv", "nlp"]), [None] * 3, ["true", "cv", None]) == {
        "cv": [None, True, None],
        "nlp": [None, False, None],
    }


def test_a_label_wins_over_the_categories() -> None:
    assert answers(Task.load(["ai"]), ["hep-th", "cs.LG"], ["true", None]) == {"ai": [True, True]}


def test_labels_keep_the_order_they_were_asked_for(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[labels.quantum]\ncategories = ["quant-ph"]\n[labels.space]\ncategories = ["astro-ph.*"]\n')
    task = Task.load(["nlp", str(mine), "ai"])
    assert task.names == ["nlp", "quantum", "space", "ai"]
    assert Task.from_dict(task.as_dict(), "again") == task


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[labels.x]\ncategories = ['cs.AJ']", "unknown category 'cs.AJ' in [labels.x]; nearest: cs."),
        ("[labels.x]\ncategories = 'cs.AI'", "are a list"),
        ("[labels.x]\ncategories = ['math']", "nearest: math.*"),
        ("[labels.x]\ncategory = ['cs.AI']", "takes categories and description"),
        ("[labels.X]\ncategories = ['cs.AI']", "cannot head a column"),
        ("[labels.id]\ncategories = ['cs.AI']", "cannot head a column"),
        ("[labels.my_score]\ncategories = ['cs.AI']", "cannot head a column"),
        ("name = 'x'", "[labels.NAME]"),
        ("[labels.x", "cannot be read as a task file"),
    ],
)
def test_a_task_file_with_a_fault_says_which(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(DataError, match=r"mine\.toml") as caught:
        Task.load([str(path)])
    assert says in str(caught.value)


def test_unknown_and_repeated_tasks_are_bad_usage() -> None:
    with pytest.raises(UsageError, match="did you mean 'robotics'"):
        Task.load(["robotic"])
    with pytest.raises(UsageError, match="twice"):
        Task.load(["ai", "ai"])
    with pytest.raises(UsageError, match="no such task file"):
        Task.load(["absent.toml"])


@real_data
def test_every_category_of_the_real_dumps_is_known() -> None:
    for name in ("arxiv-snapshot-2019", "arxiv-train"):
        column = pl.read_parquet(DATA / f"{name}.parquet", columns=["categories"]).get_column("categories")
        assert set(column.str.split(" ").explode().unique()) <= CATEGORIES
