"""Texts of the test split that are nearly those of training papers."""

import numpy as np
import polars as pl

from arxivclf.model.words import Counted, count
from arxivclf.training.near_duplicates import near_duplicates

WORDS = [
    f"{first}{second}" for first in "bcdfghjklm" for second in ("an", "ero", "ilt", "ops", "urm", "ech", "ist", "olk")
]


def counted(texts: list[str]) -> Counted:
    return Counted.join(list(count(pl.Series(texts))))


def texts(papers: int, seed: int) -> list[list[str]]:
    random = np.random.default_rng(seed)
    return [list(random.choice(WORDS, 120)) for _ in range(papers)]


def joined(words: list[str]) -> str:
    return " ".join(words[:8]) + ". " + " ".join(words[8:])


def test_texts_with_a_few_changed_words_are_found_and_others_are_not():
    training, other = texts(300, 1), texts(300, 2)
    changed = [[*words[:60], "changed", *words[61:]] for words in training]

    duplicates = near_duplicates(
        counted([joined(words) for words in [*changed, *other]]), counted(list(map(joined, training)))
    )

    assert duplicates[:300].mean() > 0.97
    assert not duplicates[300:].any()


def test_half_the_words_is_not_nearly_the_same():
    training = texts(100, 3)
    halves = [[*words[:60], *own[60:]] for words, own in zip(training, texts(100, 4), strict=True)]

    assert not near_duplicates(counted(list(map(joined, halves))), counted(list(map(joined, training)))).any()


def test_texts_without_words_and_no_texts():
    training = counted([joined(words) for words in texts(5, 5)])

    assert near_duplicates(counted(["", "... "]), training).tolist() == [False, False]
    assert len(near_duplicates(training, counted([""]))) == 5
