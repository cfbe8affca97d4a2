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
from typing import TYPE_CHECKING, Any

from arxivclf.corpus.taxonomy import CATEGORIES, nearest, spellings
from arxivclf.errors import DataError, UsageError

if TYPE_CHECKING:
    import polars as pl

# What stands between the categories of a paper: blanks, on arXiv; and what else a table may part them by.
_BETWEEN = r"""[\s,;|"'\[\]]"""
# What may be a category, of arXiv's future or of others.
_DOTTED = r"[a-z-]+\.[a-z-]{2,}"
# Around one of several names in a column of labels; names of other makers may have blanks in them.
_BEFORE, _AFTER = r"""[,;|\['"]\s*""", r"""\s*[,;|\]'"]"""
_LABEL_NAME = re.compile(r"[a-z][a-z0-9_]*")
_COLUMNS_OF_ALL_LABELS = {"id", "created", "categories", "decided_by", "text_hash"}
TRUE_WORDS = ["true", "t", "yes", "y", "1", "1.0", "positive"]
FALSE_WORDS = ["false", "f", "no", "n", "0", "0.0", "negative"]
NO_WORDS = ["nan", "none", "null", "na", "n/a", "unknown"]


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
    def load(cls, names: Iterable[str]) -> Task:
        """The task of built-in names (`ai`) and task files (`mine.toml`), their labels in the order given.

        Raises UsageError for a name that is neither, DataError for a file that is no task.
        """
        labels: list[Label] = []
        for name in names:
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


def truth(task: Task, papers: pl.DataFrame) -> list[pl.Series]:
    """Whether each paper is positive in each label of `task`: one boolean series a label, null where nobody says.

    A paper has its `label` or the categories in `listed`, never both. A label is a yes or no (a boolean, 0 and 1, or a
    word for it), which answers a task of one label; or categories; or the name of the one label that is true. Numbers
    other than 0 and 1 say nothing.
    """
    return papers.select(_said(label, task).alias(label.name) for label in task.labels).get_columns()


def _said(label: Label, task: Task) -> pl.Expr:
    import polars as pl

    said = pl.col("label").str.strip_chars()
    word = said.str.to_lowercase()
    yes, no = word.is_in(TRUE_WORDS), word.is_in(FALSE_WORDS)
    # Which of several labels a bare yes or no would answer, nobody can tell.
    answer = pl.when(yes | no).then(yes) if len(task.labels) == 1 else pl.when(yes | no).then(None)
    silent = ~word.str.contains(r"\w") | word.is_in(NO_WORDS) | word.str.contains(r"^[+-]?[0-9.]+(?:e[+-]?[0-9]+)?$")
    by_label = (
        answer.when(silent)
        .then(None)
        .when(~_are_categories(said))
        .then(word.str.contains(rf"(?:^|{_BEFORE}){re.escape(label.name.lower())}(?:{_AFTER}|$)"))
    )
    if not label.categories:
        return by_label
    listed = pl.coalesce(pl.col("listed"), pl.when(_are_categories(said)).then(said))
    of_label = _among(map(re.escape, label.spellings()))
    # Where nothing looks like a category, as in "nan", nobody says what the paper is about.
    told = listed.str.contains(of_label) | pl.when(listed.str.contains(_among([*_known(), _DOTTED]))).then(False)
    return pl.coalesce(by_label, told)


def _are_categories(said: pl.Expr) -> pl.Expr:
    """Whether all that a label says are categories, one of them at least of arXiv."""
    one = rf"(?:{'|'.join([*_known(), _DOTTED])})"
    return said.str.contains(_among(_known())) & said.str.contains(
        rf"(?i)^{_BETWEEN}*{one}(?:{_BETWEEN}+{one})*{_BETWEEN}*$"
    )


@cache
def _known() -> list[str]:
    return [re.escape(name) for name in sorted(CATEGORIES)]


def _among(names: Iterable[str]) -> str:
    """A pattern for any of these among categories; arXiv's differ in more than capitals."""
    return rf"(?i)(?:^|{_BETWEEN})(?:{'|'.join(names)})(?:{_BETWEEN}|$)"


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
    categories, description = body.get("categories"), body.get("description", name)
    if not isinstance(description, str):
        raise DataError(f"{where}: the description of [labels.{name}] must be text")
    if not isinstance(categories, list) or not categories or not all(isinstance(item, str) for item in categories):
        raise DataError(f'{where}: [labels.{name}] needs categories = ["cs.AI", ...]')
    for category in categories:
        try:
            spellings(category)
        except KeyError:
            near = ", ".join(nearest(category))
            hint = f"; nearest: {near}" if near else "; `arxivclf tasks --categories` lists them"
            raise DataError(f"{where}: unknown category {category!r} in [labels.{name}]{hint}") from None
    return Label(name, description, tuple(categories))
