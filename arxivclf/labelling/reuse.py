"""Reuse: the scores of an earlier dump's labels, for the papers that the models would see again unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import xxhash

from arxivclf.corpus.sources import is_remote
from arxivclf.errors import DataError, UsageError
from arxivclf.labelling.sink import form_of, read_job
from arxivclf.model.labels import Flags, Scores


class Reuse:
    """Scores by id and text, in memory: 16 bytes for each paper of the earlier dump and 4 for each of its labels."""

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
        if job["job"]["models"] != models:
            raise UsageError(
                f"{path}: its scores are from another model (or another precision or task of it); label without --reuse"
            )
        wanted = ["id", "text_hash", *(f"{name}_score" for name in label_names)]
        for name in label_names:
            if name not in job["job"]["labels"]:
                there = ", ".join(job["job"]["labels"])
                raise UsageError(f"{path}: has no label {name!r} (but {there}); --task names the labels as they were")
        try:
            known = _read(Path(path), wanted)
        except (pl.exceptions.PolarsError, OSError, KeyError) as error:
            raise DataError(f"{path}: no labels to reuse: {' '.join(str(error).split())[:200]}") from None
        return cls(known, label_names, fingerprint)

    def find(self, ids: pl.Series, hashes: pl.Series) -> tuple[Flags, Scores]:
        """For papers by id and hash of their text: which are known, bool (papers,), and their scores, nan elsewhere."""
        asked = pl.DataFrame({"paper": _hash_ids(ids), "text_hash": hashes})
        found = asked.join(self._known, on=["paper", "text_hash"], how="left", maintain_order="left")
        scores = found.select(f"{name}_score" for name in self._names).to_numpy().astype(np.float32)
        return ~np.isnan(scores).any(axis=1), scores


def _read(path: Path, wanted: list[str]) -> pl.DataFrame:
    parts = []
    for batch in pq.ParquetFile(path).iter_batches(65_536, columns=wanted):
        table = pl.DataFrame(pl.from_arrow(batch))
        parts.append(table.drop("id").with_columns(_hash_ids(table.get_column("id")).alias("paper")))
    return pl.concat(parts).unique(["paper", "text_hash"], keep="last")


def _hash_ids(ids: pl.Series) -> pl.Series:
    hashes = np.fromiter(map(xxhash.xxh3_64_intdigest, ids.cast(pl.Binary)), dtype=np.uint64, count=len(ids))
    return pl.Series(hashes)
