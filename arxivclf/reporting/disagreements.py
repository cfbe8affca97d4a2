"""Papers to look at: where label and truth differ and the score is surest, in both directions."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from arxivclf.corpus.ids import WRITTEN
from arxivclf.reporting.table import KEY


def link(id_: str | None, key: str | None) -> str | None:
    """The page of a paper on arXiv, by its id as it stands or else by its KEY; None where neither is one of arXiv's.

    Other corpora have other ids, and some of arXiv's have lost digits.
    """
    return next((f"https://arxiv.org/abs/{one}" for one in (id_, key) if one and re.fullmatch(WRITTEN, one)), None)


@dataclass(frozen=True)
class Disagreement:
    """One paper: its id, score in [0, 1], categories and title where they are known, and where to read it."""

    id: str
    score: float
    categories: str | None
    title: str | None
    link: str | None


@dataclass(frozen=True)
class Disagreements:
    """Papers that were labelled though arXiv says no, surest first, and those that were not though it says yes.

    Of the first arXiv may have left a category out; of the second the label may be wrong; or the other way round.
    """

    labelled: tuple[Disagreement, ...]
    missed: tuple[Disagreement, ...]


def surest(compared: pl.DataFrame, count: int) -> Disagreements:
    """At most `count` papers of each kind, from columns `id`, KEY, `given`, `truth`, `score`, and others if there."""
    wrong = compared.filter(pl.col("given") != pl.col("truth"))

    def of(labelled: bool) -> tuple[Disagreement, ...]:
        side = wrong.filter(pl.col("given") == labelled)
        # The id settles ties, so that a report is the same twice.
        side = side.sort(["score", "id"], descending=[labelled, False]).head(count)
        absent = [pl.lit(None, pl.String).alias(name) for name in ("categories", "title") if name not in side.columns]
        rows = side.with_columns(absent).select(pl.col("id").fill_null(""), "score", "categories", "title", KEY)
        return tuple(
            Disagreement(id_, score, categories, title, link(id_, key))
            for id_, score, categories, title, key in rows.iter_rows()
        )

    return Disagreements(of(True), of(False))
