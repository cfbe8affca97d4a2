"""What papers say of themselves: which labels of a task are true of each, by its categories or a column of labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache

import polars as pl

from arxivclf.corpus.tasks import Label, Task
from arxivclf.corpus.taxonomy import CATEGORIES

# What stands between the categories of a paper: blanks, on arXiv; and what else a table may part them by.
_BETWEEN = r"""[\s,;|"'\[\]]"""
# What may be a category, of arXiv's future or of others.
_DOTTED = r"[a-z-]+\.[a-z-]{2,}"
# Around one of several names in a column of labels; names of other makers may have blanks in them.
_BEFORE, _AFTER = r"""[,;|\['"]\s*""", r"""\s*[,;|\]'"]"""

# Among them those that spreadsheets of other countries write.
_TRUE_WORDS = ["true", "t", "yes", "y", "positive", "ja", "wahr", "oui", "vrai", "verdadero", "vero"]
_FALSE_WORDS = ["false", "f", "no", "n", "negative", "nein", "falsch", "non", "faux", "falso"]
_TRUE_NUMBER, _FALSE_NUMBER = r"^\+?0*1(?:[.,]0*)?$", r"^[+-]?0+(?:[.,]0*)?$"
_NO_WORDS = ["", "nan", "none", "null", "na", "n/a", "unknown", "unclear", "unsure", "undecided", "maybe"]
# Free text in the place of labels must not fill the memory.
_KNOWN_WORDS, _SHOWN_WORDS = 1_000, 3


def yes_no_or_nothing(said: pl.Expr) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """Which of these strings are a yes, which a no, and which say that nobody knows."""
    word = said.str.strip_chars().str.to_lowercase()
    yes = word.is_in(_TRUE_WORDS) | word.str.contains(_TRUE_NUMBER)
    no = word.is_in(_FALSE_WORDS) | word.str.contains(_FALSE_NUMBER)
    return yes, no, word.is_in(_NO_WORDS)


def truth(task: Task, papers: pl.DataFrame) -> list[pl.Series]:
    """Whether each paper is positive in each label of `task`: one boolean series a label, null where nobody says.

    A paper has its `label` or the categories in `listed`, never both. A label is a yes or no (a boolean, 0 and 1, or a
    word for it), which answers a task of one label; or categories; or the names of the labels that are true, of which
    a paper with other names has none (see `Wording`). Numbers other than 0 and 1 say nothing.
    """
    return papers.select(_said(label, task).alias(label.name) for label in task.labels).get_columns()


class Wording:
    """How the label column of a whole dump is worded: by yes and no, by the names of labels, or by neither.

    Where labels are named and there is no yes or no, a paper that has other words is a no. Where there are, or where
    no label is named at all, other words ("unclear") say nothing: nobody can tell what they mean.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._yes_or_no = self._named = self._other_papers = 0
        self._others: Counter[str] = Counter()

    def add(self, papers: pl.DataFrame) -> None:
        """Hear what more papers of the dump (with `label`) say."""
        if papers.get_column("label").null_count() == len(papers):
            return
        bare, named = self._bare_and_named()
        counted = papers.select(bare=bare.sum(), named=named.sum())
        self._yes_or_no += counted.item(0, "bare")
        self._named += counted.item(0, "named")
        others = papers.filter(self.other()).get_column("label").str.strip_chars()
        self._other_papers += len(others)
        if len(self._others) < _KNOWN_WORDS:
            self._others.update(others.to_list())

    def other(self) -> pl.Expr:
        """Which papers have a label of other words: no yes or no, no category, and no name of a label."""
        said = pl.col("label").str.strip_chars()
        bare, named = self._bare_and_named()
        return (~(bare | _silent(said.str.to_lowercase()) | _are_categories(said) | named)).fill_null(False)

    def _bare_and_named(self) -> tuple[pl.Expr, pl.Expr]:
        """Which papers have a yes or no, and which the name of a label."""
        word = pl.col("label").str.strip_chars().str.to_lowercase()
        yes, no, _ = yes_no_or_nothing(word)
        return yes | no, pl.any_horizontal(_names(label, word) for label in self._task.labels)

    @property
    def others_say_no(self) -> bool:
        """Whether a paper with other words is a no."""
        return self._named > 0 and self._yes_or_no == 0

    def understood(self, papers: pl.DataFrame) -> pl.DataFrame:
        """The papers, those without a label whose label says nothing."""
        if self.others_say_no or not self._other_papers:
            return papers
        return papers.with_columns(label=pl.when(~self.other()).then(pl.col("label")))

    def told(self) -> str:
        """How many labels say nothing, and which, in words; empty where all are understood."""
        if self.others_say_no or not self._other_papers:
            return ""
        often = [repr(word) for word, _ in self._others.most_common(_SHOWN_WORDS)]
        more = ", ..." if len(self._others) > len(often) else ""
        return (
            f"of {self._other_papers:,} papers the label says nothing, being neither yes nor no nor the name of a"
            f" label: {', '.join(often)}{more}"
        )


def _said(label: Label, task: Task) -> pl.Expr:
    said = pl.col("label").str.strip_chars()
    word = said.str.to_lowercase()
    yes, no, _ = yes_no_or_nothing(said)
    # Which of several labels a bare yes or no would answer, nobody can tell.
    answer = pl.when(yes | no).then(yes) if len(task.labels) == 1 else pl.when(yes | no).then(None)
    by_label = answer.when(_silent(word)).then(None).when(~_are_categories(said)).then(_names(label, word))
    if not label.categories:
        return by_label
    listed = pl.coalesce(pl.col("listed"), pl.when(_are_categories(said)).then(said))
    of_label = _among(map(re.escape, label.spellings()))
    # Where nothing looks like a category, as in "nan", nobody says what the paper is about.
    told = listed.str.contains(of_label) | pl.when(listed.str.contains(_among([*_known(), _DOTTED]))).then(False)
    return pl.coalesce(by_label, told)


def _names(label: Label, word: pl.Expr) -> pl.Expr:
    """Whether the names of labels, in small letters, are or hold that of this one."""
    return word.str.contains(rf"(?:^|{_BEFORE}){re.escape(label.name.lower())}(?:{_AFTER}|$)")


def _silent(word: pl.Expr) -> pl.Expr:
    """Whether a label, in small letters, tells nothing. An empty list tells that no label is true."""
    without_words = ~word.str.contains(r"\w") & (word != "[]")
    return without_words | word.is_in(_NO_WORDS) | word.str.contains(r"^[+-]?[0-9.]+(?:e[+-]?[0-9]+)?$")


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
