"""Tasks: which labels a classifier gives, and which categories make a paper positive in each.

A task is data. The built-in ones stand in tasks.toml beside this module, a user's own in a file of the same form.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from arxivclf.corpus.taxonomy import nearest, spellings
from arxivclf.errors import DataError, UsageError

_LABEL_NAME = re.compile(r"[a-z][a-z0-9_]*")
_COLUMNS_OF_ALL_LABELS = {"id", "created", "categories", "decided_by", "text_hash"}


@dataclass(frozen=True)
class Label:
    """One yes-or-no question about a paper.

    `name` heads the columns of the labels; `categories` are those that make a paper positive, any one of them, primary
    or cross-listed, under any of their spellings. Without categories only a column of labels tells the truth.
    """

    name: str
    description: str
    categories: tuple[str, ...]

    def spellings(self) -> list[str]:
        """All names under which a positive category may stand in a dump, sorted."""
        return sorted(frozenset().union(*map(spellings, self.categories)))


@dataclass(frozen=True)
class Task:
    """The labels of a classifier, in the order of its outputs."""

    labels: tuple[Label, ...]

    @property
    def names(self) -> list[str]:
        return [label.name for label in self.labels]

    def as_dict(self) -> dict[str, Any]:
        """The task as tasks.toml and the model folder write it; `Task.from_dict` reads it back."""
        return {
            "labels": {
                label.name: {"description": label.description, "categories": list(label.categories)}
                for label in self.labels
            }
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], where: str) -> Task:
        """Read a task from the tables of a task file; `where` names the file in messages."""
        labels = table.get("labels") if isinstance(table, Mapping) else None
        if not isinstance(labels, Mapping) or not labels or set(table) != {"labels"}:
            raise DataError(f'{where}: a task file holds tables [labels.NAME], each with categories = ["cs.AI", ...]')
        return cls(tuple(_label(name, body, where) for name, body in labels.items()))

    @classmethod
    def load(cls, names: str | Iterable[str]) -> Task:
        """The task of built-in names (`ai`) and task files (`mine.toml`), their labels in the order given.

        Raises UsageError for a name that is neither, DataError for a file that is no task.
        """
        labels: list[Label] = []
        for name in (names,) if isinstance(names, str) else names:
            labels += _read_file(Path(name)).labels if name.endswith(".toml") else [_built_in(name)]
        repeated = sorted({label.name for label in labels if [other.name for other in labels].count(label.name) > 1})
        if repeated:
            raise UsageError(f"the label {repeated[0]!r} is there twice: give each label one task")
        if not labels:
            raise UsageError("no task: name at least one")
        return cls(tuple(labels))


@cache
def built_in() -> Task:
    """All built-in labels as one task."""
    path = Path(__file__).with_name("tasks.toml")
    return Task.from_dict(tomllib.loads(path.read_text(encoding="utf-8-sig")), path.name)


def _built_in(name: str) -> Label:
    for label in built_in().labels:
        if label.name == name:
            return label
    close = difflib.get_close_matches(name, built_in().names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(built_in().names)}."
    raise UsageError(f"no task {name!r}; {hint} A task of your own is a file that ends in .toml.")


def _read_file(path: Path) -> Task:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such task file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a task file: {error}") from None
    return Task.from_dict(table, str(path))


def taken(name: str) -> bool:
    """Whether a table of labels has, or may have, a column of this name that is no label."""
    return name.endswith(("_score", "_truth")) or name in _COLUMNS_OF_ALL_LABELS


def _label(name: str, body: Any, where: str) -> Label:
    if not _LABEL_NAME.fullmatch(name) or taken(name):
        raise DataError(
            f"{where}: {name!r} cannot head a column of labels; use lower-case letters, digits and _, no ending _score"
            f" or _truth, and none of {', '.join(sorted(_COLUMNS_OF_ALL_LABELS))}"
        )
    if not isinstance(body, Mapping) or set(body) - {"description", "categories"}:
        raise DataError(f"{where}: [labels.{name}] takes categories and description, and nothing else")
    categories, description = body.get("categories", []), body.get("description", name)
    if not isinstance(description, str):
        raise DataError(f"{where}: the description of [labels.{name}] must be text")
    if not isinstance(categories, list) or not all(isinstance(item, str) for item in categories):
        raise DataError(
            f'{where}: categories of [labels.{name}] are a list, ["cs.AI", ...], or none where a label column tells'
        )
    for category in categories:
        try:
            spellings(category)
        except KeyError:
            near = ", ".join(nearest(category))
            hint = f"; nearest: {near}" if near else "; `arxivclf tasks --categories` lists them"
            raise DataError(f"{where}: unknown category {category!r} in [labels.{name}]{hint}") from None
    return Label(name, description, tuple(categories))
