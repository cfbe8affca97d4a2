"""From papers to their labels, by one model or several: the code that every engine and the Python interface call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from arxivclf.corpus.columns import Naming
from arxivclf.corpus.ids import arxiv_key, years_of
from arxivclf.corpus.parquet import settle_frame
from arxivclf.corpus.repeats import Repeats
from arxivclf.corpus.seen import Seen
from arxivclf.corpus.snapshot import Snapshot
from arxivclf.corpus.sources import fetch, resolve
from arxivclf.corpus.tasks import Task
from arxivclf.corpus.text import compose, hash_texts
from arxivclf.corpus.truths import Wording, truth
from arxivclf.errors import DataError, UsageError
from arxivclf.labelling.reuse import Reuse
from arxivclf.model.classifier import Model
from arxivclf.model.gate import Gate
from arxivclf.model.labels import BY_ENCODER, BY_GATE, BY_REUSE, Flags, Layout, Scores
from arxivclf.model.training_range import ARCHIVES, YEARS


@dataclass(frozen=True)
class Prepared:
    """Papers with all that is known of them before an encoder comes in. `known` are those whose scores are reused.

    Of the others each model has its linear logits, float32 (papers, labels), the `undecided` ones, bool (papers,), and
    the token ids of these.
    """

    papers: pl.DataFrame
    hashes: pl.Series
    years: npt.NDArray[np.int32]
    known: Flags
    scores: Scores
    linear_logits: Sequence[Scores]
    undecided: Sequence[Flags]
    token_ids: Sequence[Sequence[list[int]]]


@dataclass(frozen=True)
class Classifier:
    """Models whose labels stand side by side. `reuse` gives scores of an earlier dump."""

    models: tuple[Model, ...]
    reuse: Reuse | None = None

    @classmethod
    def load(
        cls, *names: str | Path, device: str = "auto", task: str | Sequence[str] = (), gate: bool = True
    ) -> Classifier:
        """Load models by folder or hub name, such as `arxivclf train` made, or any sequence classifiers; `bundled` is
        the one that comes with the package.

        `task` names the labels of one that has no names of its own; without `gate` encoders see every paper. Raises
        ModelError, DeviceError, or UsageError where there is no model, or where two give one label.
        """
        if not names:
            raise UsageError("no model: name a folder, one on the hub, or bundled")
        asked = Task.load(task) if task else None
        models = tuple(Model.load(str(name), device, asked, gate) for name in names)
        labels = [(label, model.name) for model in models for label in model.task.names]
        for label, name in labels:
            if [other for other, _ in labels].count(label) > 1:
                raise UsageError(
                    f"{name}: gives the label {label!r}, and so does another model; label with one at a time"
                )
        return cls(models)

    @property
    def task(self) -> Task:
        """All labels as one task: a bare yes or no that answers one label answers none of several."""
        return Task(tuple(label for model in self.models for label in model.task.labels))

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds of all labels, in the order of their columns."""
        return {name: threshold for model in self.models for name, threshold in model.thresholds.items()}

    @property
    def prevalence(self) -> dict[str, float]:
        """By label the prevalence that its scores hold for, of those labels where a model has a record of it."""
        return {name: share for model in self.models for name, share in model.prevalence.items()}

    @property
    def gates(self) -> dict[str, Gate]:
        """The gate of each label, with its evidence; empty where no model has a gate."""
        return {name: gate for model in self.models for name, gate in zip(model.task.names, model.gates, strict=False)}

    @property
    def evaluation(self) -> dict[str, Mapping[str, int]]:
        """By label the counts of its confusion on the model's test split, of those labels where they are known."""
        return {name: counts for model in self.models for name, counts in model.evaluation.items()}

    def prepare(self, papers: pl.DataFrame) -> Prepared:
        """All that needs no encoder: clean, hash, look for known scores, ask the linear models, tokenise the rest."""
        cleanings = dict.fromkeys(model.cleaning for model in self.models)
        texts = {cleaning: compose(papers, cleaning) for cleaning in cleanings}
        hashes = hash_texts(texts[self.models[0].cleaning])
        years = years_of(papers)
        known = np.zeros(len(papers), dtype=bool)
        scores = np.full((len(papers), len(self.thresholds)), np.nan, dtype=np.float32)
        if self.reuse is not None:
            known, found = self.reuse.find(hashes, years)
            scores[known] = found[known]
        unknown = {cleaning: cleaned.filter(pl.Series(~known)) for cleaning, cleaned in texts.items()}
        logits = [model.linear_logits(unknown[model.cleaning], years[~known]) for model in self.models]
        undecided = [
            model.undecided(of_model, years[~known]) for model, of_model in zip(self.models, logits, strict=True)
        ]
        token_ids = self._tokenized(unknown, undecided)
        return Prepared(papers, hashes, years, known, scores, logits, undecided, token_ids)

    def _tokenized(self, texts: Mapping[str, pl.Series], undecided: Sequence[Flags]) -> list[Sequence[list[int]]]:
        """The token ids of each model's undecided papers; models that tokenise alike share the work."""
        needed: dict[str, Flags] = {}
        for model, its_own in zip(self.models, undecided, strict=True):
            needed[model.tokenizing] = needed.get(model.tokenizing, False) | its_own
        by_way = {model.tokenizing: model for model in self.models if model.encoder is not None}
        found = {
            way: model.tokenize(texts[model.cleaning].filter(pl.Series(needed[way])).to_list())
            for way, model in by_way.items()
        }
        return [
            list(compress(found.get(model.tokenizing, ()), its_own[needed[model.tokenizing]].tolist()))
            for model, its_own in zip(self.models, undecided, strict=True)
        ]

    def count_seen(self, papers: pl.DataFrame) -> dict[str, int]:
        """How many papers models have seen in training, as `Seen.count` has them: any of the models, if several."""
        if self._seen is None:
            return {}
        # What a damaged id may mean counts where no date tells.
        likely = arxiv_key(pl.col("id"), pl.col("created"), trust=True)
        keys = papers.select(pl.coalesce(pl.when(pl.col("created").is_null()).then(likely), "key")).to_series()
        return self._seen.count(keys)

    def count_outside(self, prepared: Prepared) -> dict[str, int]:
        """How many papers lie outside of the years and of the archives that any of the models was trained on."""
        counts = {}
        ranges = [model.training_range for model in self.models if model.training_range is not None]
        flags = [one.outside(prepared.years, prepared.papers.get_column("categories")) for one in ranges]
        for name in (YEARS, ARCHIVES) if flags else ():
            if count := int(np.logical_or.reduce([of_model[name] for of_model in flags]).sum()):
                counts[name] = count
        return counts

    @cached_property
    def _seen(self) -> Seen | None:
        told = [model.seen for model in self.models if model.seen is not None]
        return Seen.union(told) if told else None

    def scores(self, papers: pl.DataFrame) -> Scores:
        """The scores of papers, float32 (papers, labels), labels in the order of `task`."""
        return self._scored(self.prepare(papers), lambda papers: None)[0]

    def at_prevalence(self, targets: Mapping[str, float]) -> Classifier:
        """The models for papers of which other shares have their labels, as `Model.at_prevalence` has it."""
        return replace(self, models=tuple(model.at_prevalence(targets) for model in self.models))

    def _scored(self, prepared: Prepared, advance: Callable[[int], None]) -> tuple[Scores, Flags]:
        """The scores of prepared papers, and which of them an encoder has seen, bool (papers,)."""
        scores, first = prepared.scores.copy(), 0
        advance(int(prepared.known.sum()))
        steps = _Steps(len(self.models), advance)
        by_encoder = np.zeros(len(prepared.known), dtype=bool)
        asked = zip(self.models, prepared.linear_logits, prepared.undecided, prepared.token_ids, strict=True)
        for model, logits, undecided, token_ids in asked:
            last = first + len(model.task.names)
            years = prepared.years[~prepared.known]
            scores[~prepared.known, first:last] = model.scores(logits, undecided, token_ids, steps.advance, years)
            by_encoder[~prepared.known] |= undecided
            first = last
        return scores, by_encoder

    def finish(
        self, prepared: Prepared, layout: Layout, advance: Callable[[int], None] = lambda papers: None
    ) -> pl.DataFrame:
        """The labels of prepared papers, one row each, in their order, as `layout` has them.

        `advance` is called with counts of papers; those of several models count as a part of one.
        """
        scores, by_encoder = self._scored(prepared, advance)
        truths = truth(self.task, prepared.papers)
        by_whom = pl.when("known").then(pl.lit(BY_REUSE)).when("encoder").then(pl.lit(BY_ENCODER))
        flags = pl.DataFrame({"known": prepared.known, "encoder": by_encoder})
        decided = flags.select(by_whom.otherwise(pl.lit(BY_GATE))).to_series()
        return layout.table(prepared.papers, prepared.hashes, scores, truths, decided)

    def label(
        self,
        papers: Any,
        keep: str | Sequence[str] = (),
        id_column: str | None = None,
        text_column: str | None = None,
        label_column: str | None = None,
    ) -> pl.DataFrame:
        """The labels of a frame, or of a dump by path (str or PathLike), as `arxivclf label` writes them, in memory.

        A frame is one of polars, or any that hands over Arrow's (pandas, pyarrow), and has the columns of a dump: `id`,
        and `title` and `abstract` or else `text`; `id_column`, `text_column` and `label_column` are what it calls them.
        Of rows with one id the last is labelled. Raises DataError where a row is no paper, or where columns are
        missing, UsageError where there is no such dump or `keep` names a column of the labels, TypeError for anything
        that is no frame and no path.
        """
        keep = (keep,) if isinstance(keep, str) else keep
        naming = Naming(id_column, text_column, label_column)
        if isinstance(papers, pl.LazyFrame):
            papers = papers.collect()
        elif hasattr(papers, "__arrow_c_stream__") and not isinstance(papers, pl.DataFrame):
            papers = pl.DataFrame(papers)
        elif not isinstance(papers, pl.DataFrame | str | os.PathLike):
            raise TypeError(f"papers are a frame, or the path of a dump, not {type(papers).__name__}")
        with TemporaryDirectory() as folder:
            if isinstance(papers, pl.DataFrame):
                rows = settle_frame(papers, naming, keep, "the frame")
                kept = {name: papers.schema[name] for name in keep}
                chunks, rejects = [rows.papers], rows.rejects
            else:
                snapshot = Snapshot(tuple(fetch(resolve([str(papers)]), Path(folder))), naming, tuple(keep))
                kept = snapshot.kept_types()
                chunks, rejects = [], []
                # Nothing else of a chunk is kept, for it holds all of its lines.
                for read in snapshot.chunks():
                    rejects += read.rejects
                    if len(read.papers):
                        chunks.append(read.papers)
            if rejects:
                first = rejects[0]
                where = f"{first.source} {first.unit} {first.row}"
                raise DataError(f"{where}: {first.reason}; {len(rejects):,} such rows in all")
            repeats = Repeats.find((chunk.get_column("key") for chunk in chunks), Path(folder))
        layout, wording = Layout(self.thresholds, kept), Wording(self.task)
        for chunk in chunks:
            wording.add(chunk)
        tables, place = [layout.schema().to_frame()], 0
        for chunk in chunks:
            repeated = pl.Series(repeats.among(place, len(chunk)))
            place += len(chunk)
            tables.append(self.finish(self.prepare(wording.understood(chunk).filter(~repeated)), layout))
        return pl.concat(tables)


class _Steps:
    """Counts the papers of several models, each as a part of one paper, so that every paper counts once."""

    def __init__(self, models: int, advance: Callable[[int], None]) -> None:
        self._models, self._advance, self._done = models, advance, 0

    def advance(self, papers: int) -> None:
        before = self._done // self._models
        self._done += papers
        self._advance(self._done // self._models - before)
