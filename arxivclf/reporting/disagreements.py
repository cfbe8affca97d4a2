"""Papers to look at: where label and truth differ and the score is surest, in both directions."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

# What arXiv serves a page for; other corpora have other ids.
_ARXIV_ID = re.compile(r"(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})(v\d+)?")


def link(id_: str | None) -> str | None:
    """The page of a paper on arXiv; None for an id that is none of arXiv's."""
    return f"https://arxiv.org/abs/{id_}" if id_ is not None and _ARXIV_ID.fullmatch(id_) else None


@dataclass(frozen=True)
class Disagreement:
    """One paper: its id, score in [0, 1], categories and title where they are known, and where to read it."""

    id: str
    score: float
    categories: str | None
    title: str | None

    @property
    def link(self) -> str | None:
        return link(self.id)


@dataclass(frozen=True)
class Disagreements:
    """Papers that were labelled though arXiv says no, surest first, and those that were not though it says yes.

    Of the first arXiv may have left a category out; of the second the label may be wrong; or the other way round.
    """

    labelled: tuple[Disagreement, ...]
    missed: tuple[Disagreement, ...]


def surest(compared: pl.DataFrame, count: int) -> Disagreements:
    """At most `count` papers of each kind, from columns `id`, `given`, `truth`, `score`, and others where they are."""
    wrong = compared.filter(pl.col("given") != pl.col("truth"))

    def of(labelled: bool) -> tuple[Disagreement, ...]:
        side = wrong.filter(pl.col("given") == labelled)
        # The id settles ties, so that a report is the same twice.
        side = side.sort(["score", "id"], descending=[labelled, False]).head(count)
        absent = [pl.lit(None, pl.String).alias(name) for name in ("categories", "title") if name not in side.columns]
        rows = side.with_columns(absent).select(pl.col("id").fill_null(""), "score", "categories", "title").iter_rows()
        return tuple(Disagreement(*row) for row in rows)

    return Disagreements(of(True), of(False))
