"""Which years and archives a model was trained on, so that labelling can say when a dump lies outside of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from arxivclf.corpus.taxonomy import primary_archive
from arxivclf.errors import ModelError
from arxivclf.model.labels import Flags

YEARS, ARCHIVES = "years", "archives"
"""What papers are outside of: the names of the counts in a run record."""

SUBSTANTIAL = 0.10
"""The share of the labelled papers above which a summary warns."""

# A few stray papers do not make a year, or an archive, part of what a model was trained on.
_EARLIER, _LATER, _RARE = 0.01, 0.001, 0.001

_WARNINGS = {
    YEARS: "are from years that the model was not trained on",
    ARCHIVES: "have a primary category from an archive that the model was hardly trained on",
}


@dataclass(frozen=True)
class TrainingRange:
    """The first and last year of the training papers, and the archives of their primary categories.

    Fewer than 1 % of the training papers are earlier than `first_year`, fewer than 0.1 % later than `last_year`, and
    each of `archives` has at least 0.1 % of them. Years and archives are None where no training paper has any.
    """

    first_year: int | None
    last_year: int | None
    archives: frozenset[str] | None

    @classmethod
    def of(cls, papers: Mapping[str, Any]) -> TrainingRange | None:
        """From the counts of a model's training papers (`papers` in arxivclf.json); None where these are not recorded.

        Raises ModelError where they are not counts.
        """
        by_year, by_archive = papers.get(YEARS), papers.get(ARCHIVES)
        if not isinstance(by_year, Mapping) or not isinstance(by_archive, Mapping):
            return None
        try:
            years = np.array(sorted(map(int, by_year)), dtype=int)
            counts = np.array([int(by_year[str(year)]) for year in years], dtype=float)
            total = sum(map(int, by_archive.values()))
        except (TypeError, ValueError, KeyError) as error:
            raise ModelError(f"the years and archives of the training papers are not counts: {error}") from None
        first = last = None
        if counts.sum() > 0:
            up_to, from_on = counts.cumsum() / counts.sum(), counts[::-1].cumsum()[::-1] / counts.sum()
            first, last = int(years[up_to >= _EARLIER][0]), int(years[from_on >= _LATER][-1])
        archives = frozenset(name for name, count in by_archive.items() if int(count) >= _RARE * total)
        return cls(first, last, archives if total else None)

    def outside(self, years: np.ndarray[tuple[int], np.dtype[np.int32]], categories: pl.Series) -> Mapping[str, Flags]:
        """Which papers are outside of the YEARS and outside of the ARCHIVES, bool (papers,) each.

        `years` (papers,) are 0 where unknown, `categories` as in the dump; unknown ones are never outside. The year
        after the last one counts as inside: a model must not be out of range for the dump of the next month.
        """
        flags = {name: np.zeros(len(years), dtype=bool) for name in (YEARS, ARCHIVES)}
        if self.first_year is not None and self.last_year is not None:
            flags[YEARS] = (years > 0) & ((years < self.first_year) | (years > self.last_year + 1))
        if self.archives is not None:
            known = primary_archive(pl.col("categories")).is_in(list(self.archives))
            papers = categories.rename("categories").to_frame()
            flags[ARCHIVES] = papers.select((~known).fill_null(False)).to_series().to_numpy()
        return flags


def warnings(outside: Mapping[str, int], papers: int) -> tuple[str, ...]:
    """A sentence for each count of papers outside of the training range that is a substantial share of `papers`."""
    return tuple(
        f"{outside[name]:,} of {papers:,} papers ({outside[name] / papers:.1%}) {what}: check their labels with"
        " `arxivclf report`, or train a model on such papers"
        for name, what in _WARNINGS.items()
        if outside.get(name, 0) > SUBSTANTIAL * papers
    )
