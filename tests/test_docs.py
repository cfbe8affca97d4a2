"""What README, CHANGELOG and examples say is true."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from dataclasses import fields

import click
import pytest
from conftest import EXAMPLES, PAPERS, ROOT

import arxivclf
from arxivclf import Task
from arxivclf.cli import main
from arxivclf.config import TrainSettings
from arxivclf.corpus.tasks import built_in

README = (ROOT / "README.md").read_text(encoding="utf-8")
KAGGLE_KEYS = [
    "id",
    "submitter",
    "authors",
    "title",
    "comments",
    "journal-ref",
    "doi",
    "report-no",
    "categories",
    "license",
    "abstract",
    "versions",
    "update_date",
    "authors_parsed",
]


def section(name: str) -> str:
    return re.split(r"^## ", README, flags=re.M)[
        [s.split("\n")[0] for s in re.split(r"^## ", README, flags=re.M)].index(name)
    ]


def fences(text: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", text, flags=re.M | re.S)


@pytest.mark.parametrize("name", ["Quick start", "Tests"])
def test_the_section_holds_exactly_one_command_line(name: str) -> None:
    (block,) = fences(section(name))
    assert len(block.strip().splitlines()) == 1
    assert "python3 -m venv" in block


COMMAND_LINES = sorted(
    set(
        re.findall(
            r"arxivclf ((?:train|label|merge|report|tasks|push)[^\n`&]*)",
            "\n".join(fences(README)) + "\n" + "\n".join(re.findall(r"`(arxivclf [^`]*)`", README)),
        )
    )
)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_in_the_readme_is_understood(line: str) -> None:
    name, *arguments = shlex.split(line)
    context = main.make_context("arxivclf", [name])
    command = main.get_command(context, name)
    assert command is not None
    command.make_context(name, arguments, parent=context)


def test_every_option_in_the_readme_is_there() -> None:
    there = {
        option
        for name in main.list_commands(click.Context(main))
        for parameter in main.get_command(click.Context(main), name).params  # type: ignore[union-attr]
        for option in parameter.opts + parameter.secondary_opts
    }
    # What stands between torchrun and its -m is torchrun's own, and an array SLURM's.
    ours = re.sub(r"torchrun .*? -m", "", README)
    assert set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", ours)) - {"--array"} <= there


def test_every_setting_without_an_option_is_in_the_readme() -> None:
    train = main.get_command(click.Context(main), "train")
    assert train is not None
    own = {field.name for field in fields(TrainSettings)} - {parameter.name for parameter in train.params}
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section("Train").partition("### Settings files")[2], flags=re.M)
    assert set(re.findall(r"\w+", " ".join(rows))) == own


def test_the_tables_of_tasks_agree() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ((?:\w+\.\w+ ?)+) \|$", section("Tasks"), flags=re.M))
    assert {name: row.split() for name, row in rows.items()} == {
        label.name: list(label.categories) for label in built_in().labels
    }


def test_the_python_names_in_the_readme_are_public() -> None:
    (names,) = re.findall(r"from arxivclf import ([\w, ]+)", README)
    assert set(names.split(", ")) <= set(arxivclf.__all__)


def test_the_changelog_has_the_form_it_claims() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    assert re.findall(r"^## (.*)$", text, flags=re.M)[0] == "[Unreleased]"
    assert set(re.findall(r"^### (.*)$", text, flags=re.M)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }


def test_the_example_dump_is_like_a_real_one() -> None:
    rows = [json.loads(line) for line in PAPERS.read_text().splitlines()]
    assert f"{len(rows)} invented papers" in " ".join(README.split())
    assert all(list(row) == KAGGLE_KEYS for row in rows)
    listed = [set(row["categories"].split()) for row in rows]
    for label in built_in().labels:
        assert sum(bool(set(label.spellings()) & categories) for categories in listed) >= 30, label.name
    assert any("cmp-lg" in categories for categories in listed)
    assert any({"cs.IT", "math.IT"} <= categories for categories in listed)
    assert any("/" in row["id"] for row in rows)
    assert any("\n  " in row["title"] for row in rows)
    assert sum("$" in row["abstract"] for row in rows) > len(rows) / 4
    assert all(row["abstract"].startswith("  ") and row["abstract"].endswith("\n") for row in rows)
    assert len({row["title"] for row in rows}) == len(rows)


def test_the_example_task_is_a_task() -> None:
    assert Task.load([str(EXAMPLES / "own-task.toml")]).names == ["quantum", "space"]


def test_the_version_is_written_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", arxivclf.__version__)
    assert {"minilm", "tpu", "test"} <= set(project["optional-dependencies"])
    assert all("<" in wanted or "==" in wanted for wanted in project["dependencies"])
