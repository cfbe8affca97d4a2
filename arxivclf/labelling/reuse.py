"""Reuse: the scores of an earlier dump's labels, for the papers that the models would see again unchanged.

A score follows from the text of a paper and its year.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq

from arxivclf.corpus.ids import arxiv_key, years_of
from arxivclf.corpus.sources import is_remote
from arxivclf.errors import DataError, UsageError, one_line
from arxivclf.labelling.sink import form_of, read_job
from arxivclf.model.labels import Flags, Scores

# Of the parts of a model's fingerprint, what tells most first.
_UNLIKE = {
    "files": "from another model",
    "text": "of texts that were cleaned or cut in another way",
    "labels": "of labels in another order",
    "fitted": "from the same model with another --prevalence, or with its gate where now is none, or the other way"
    " round (--no-gate, --threshold)",
    "computed": "from the same model, computed in another precision or by other extras",
}


class Reuse:
    """Scores by text and year, in memory: 12 bytes for each paper of the earlier dump and 4 for each of its labels."""

    def __init__(self, known: pl.DataFrame, label_names: list[str], fingerprint: str) -> None:
        self._known, self._names, self.fingerprint = known, label_names, fingerprint

    @classmethod
    def open(cls, path: str, label_names: list[str], models: list[Mapping[str, str]]) -> Reuse:
        """Read labels that `arxivclf label` wrote. `models` are the fingerprints that they must come from.

        Raises UsageError where they come from other models, DataError where they are no labels.
        """
        if is_remote(path):
            raise UsageError(f"{path}: labels to reuse are read from this disk; copy them here first")
        if form_of(path) not in (".parquet", None):
            raise UsageError(f"{path}: only labels in Parquet can be reused")
        job, fingerprint = read_job(Path(path))
        if job is None:
            raise DataError(
                f"{path}: does not say which model its scores are from; only labels of `arxivclf label` can be reused"
            )
        wanted = ["id", "created", "text_hash", *(f"{name}_score" for name in label_names)]
        for name in label_names:
            if name not in job["job"]["labels"]:
                there = ", ".join(job["job"]["labels"])
                raise UsageError(f"{path}: has no label {name!r} (but {there}); --task names the labels as they were")
        if job["job"]["models"] != models:
            raise UsageError(
                f"{path}: its scores are {_of_others(job['job']['models'], models)}; label without --reuse"
            )
        try:
            known = _read(Path(path), wanted)
        except (pl.exceptions.PolarsError, OSError, KeyError) as error:
            raise DataError(f"{path}: no labels to reuse: {one_line(error)}") from None
        return cls(known, label_names, fingerprint)

    def find(self, hashes: pl.Series, years: npt.NDArray[np.int32]) -> tuple[Flags, Scores]:
        """For papers by the hash of their text and their year, 0 if unknown: which are known, bool (papers,), and their
        scores, nan elsewhere.
        """
        wanted = pl.DataFrame({"text_hash": hashes, "year": years})
        found = wanted.join(self._known, on=["text_hash", "year"], how="left", maintain_order="left")
        scores = found.select(f"{name}_score" for name in self._names).to_numpy().astype(np.float32)
        return ~np.isnan(scores).any(axis=1), scores


def _of_others(theirs: Sequence[Mapping[str, str]], ours: Sequence[Mapping[str, str]]) -> str:
    """How scores came about otherwise, from the fingerprints of the models."""
    if len(theirs) == len(ours):
        pairs = [(one, other, name) for one, other in zip(theirs, ours, strict=True) for name in {*one, *other}]
        unlike = {name for one, other, name in pairs if one.get(name) != other.get(name)}
        for part, words in _UNLIKE.items():
            if part in unlike:
                return words
    return "from other models"


def _read(path: Path, wanted: list[str]) -> pl.DataFrame:
    parts = []
    for batch in pq.ParquetFile(path).iter_batches(65_536, columns=wanted):
        labels = pl.DataFrame(pl.from_arrow(batch))
        papers = labels.select("created", key=arxiv_key(pl.col("id"), pl.col("created")), year=pl.lit(None, pl.Int64))
        parts.append(labels.drop("id", "created").with_columns(pl.Series("year", years_of(papers))))
    return pl.concat(parts).unique(["text_hash", "year"], keep="last")
