"""Which papers a training uses, on which side, and with which truth."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import xxhash

from arxivclf.config import TrainSettings
from arxivclf.corpus import splits
from arxivclf.corpus.columns import Naming
from arxivclf.corpus.ids import arxiv_key, count_restored, month_of, possible_keys, years_of
from arxivclf.corpus.rejects import RejectsFile, in_words
from arxivclf.corpus.snapshot import Chunk, Snapshot
from arxivclf.corpus.sources import STANDARD_INPUT, Source, fetch, is_remote, resolve
from arxivclf.corpus.splits import TEST, TRAIN, VALIDATION
from arxivclf.corpus.tasks import Label, Task
from arxivclf.corpus.text import compose, hash_texts
from arxivclf.corpus.truths import Wording, truth
from arxivclf.errors import DataError, UsageError
from arxivclf.model.folder import NO_BASE
from arxivclf.progress import Watcher
from arxivclf.reporting.table import KEY, LabelsFile, keyed

WEAK, NEAR_DUPLICATES = "weak_negatives", "near_duplicates"

_COLUMN = "label:"
# Of papers whose label is a word that may say nothing, and of those that have a label.
_OTHER, _BY_LABEL = "other words", "by label"

_COLUMNS = ("id", "key", "created", "year", "categories", "title", "abstract", "text")

Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
Weights = np.ndarray[tuple[int], np.dtype[np.float32]]
Years = np.ndarray[tuple[int], np.dtype[np.int32]]
Truths = np.ndarray[tuple[int, int], np.dtype[np.float32]]


@dataclass(frozen=True)
class Papers:
    """One side of the dataset: cleaned texts, and in `frame` what else is known of each paper.

    `frame` has `id`, `key`, `created`, `categories`, `year`, `sample_order` and `text`, and a boolean column for each
    of `answers`, null only where a paper of the validation split or set has no ground truth for that label.
    """

    frame: pl.DataFrame
    answers: list[str]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def names(self) -> list[str]:
        """Those of the labels, as `answers` has them."""
        return [column.removeprefix(_COLUMN) for column in self.answers]

    def __getitem__(self, rows: slice) -> Papers:
        return Papers(self.frame[rows], self.answers)

    @property
    def texts(self) -> pl.Series:
        return self.frame.get_column("text")

    @property
    def keys(self) -> pl.Series:
        """Their ids in the one spelling, and those that damaged ones may mean."""
        return possible_keys(self.frame)

    @property
    def years(self) -> Years:
        """The year of each paper, int32 (papers,), 0 where unknown."""
        return years_of(self.frame)

    @property
    def truth(self) -> Truths:
        """The truth, float32 (papers, labels), 0 or 1, labels in the order of the task; nan where it is unknown."""
        return self.frame.select(self.answers).cast(pl.Float32).to_numpy()

    def positives(self) -> dict[str, int]:
        return {name: int(self.frame.get_column(name).sum()) for name in self.answers}


@dataclass(frozen=True)
class DataFile:
    """A file that a training read: what for, its name, its size, its hash, and the papers in it."""

    role: str
    name: str
    bytes: int
    sha256: str
    papers: int


@dataclass(frozen=True)
class Dataset:
    """The three sides, what was counted on the way, and the files that it all came from.

    Each pass of an encoder takes all of `every`, and where the training part is undersampled as many of the negatives
    `drawn` as `per_pass` says. `whole` is what the linear model learns from, which is quick enough for all: both of
    these, and for a label that is validated elsewhere the validation split; of such papers the other labels are null.
    """

    every: Papers
    drawn: Papers
    per_pass: int
    whole: Papers
    validation: Papers
    test: Papers
    counts: Mapping[str, int]
    files: Sequence[DataFile]

    @cached_property
    def train(self) -> Papers:
        """The training part, as the first pass takes it."""
        return self.of_pass(0)

    def of_pass(self, number: int) -> Papers:
        """The papers of a pass, counted from 0; each has other negatives, until all had their turn."""
        if not self.per_pass:
            return self.every
        rows = (number * self.per_pass + np.arange(self.per_pass)) % len(self.drawn)
        return Papers(pl.concat([self.every.frame, self.drawn.frame[rows]]), self.every.answers)

    def without_test_papers(self, removed: Flags) -> Dataset:
        """The dataset without these papers of the test split, bool (test papers,)."""
        test = Papers(self.test.frame.filter(~pl.Series(removed)), self.test.answers)
        return replace(self, test=test, counts={**self.counts, NEAR_DUPLICATES: int(removed.sum())})

    def drawn_by(self, papers: int, weights: Weights) -> Dataset:
        """The dataset with an encoder's papers drawn without replacement, with a chance that grows with the weight.

        `weights` are those of `whole`, float32 (papers,). The hash of a paper's ID decides, not a random state: the
        papers with the lowest Exp(1) / weight are drawn (Efraimidis and Spirakis 2006). Only for a dataset that is not
        undersampled.
        """
        rank = self.every.frame.get_column("sample_order").rank("ordinal").to_numpy()
        order = -np.log1p(-(rank - 0.5) / len(rank)) / weights[: len(rank)]
        rows = np.sort(np.argsort(order, kind="stable")[:papers])
        return replace(self, every=Papers(self.every.frame[rows], self.every.answers))

    @property
    def fingerprint(self) -> str:
        """The same for two datasets that give the same training: of the texts and truths that are learnt from."""
        digest = xxhash.xxh3_128()
        for side in (self.every, self.drawn, self.validation):
            digest.update(hash_texts(side.texts).to_numpy().tobytes())
            digest.update(side.truth.tobytes())
        return str(digest.hexdigest())


def check(settings: TrainSettings) -> None:
    """Raise DataError or UsageError at once if one of the files that a training reads cannot be read, or is missing."""
    if settings.validation_label is not None and not settings.validation:
        raise UsageError(f"validation-label {settings.validation_label}: there is no --validation set that it is of")
    others = Naming.of(settings, if_there=True)
    files = [(settings.snapshots, Naming.of(settings))]
    files += [((path,), others) for path in (*settings.validation, settings.weak_negatives) if path]
    files += [((settings.exclude,), _of_ids(settings))] if settings.exclude and not _is_csv(settings.exclude) else []
    for paths, naming in files:
        names = [name for name in resolve(paths) if name != STANDARD_INPUT and not is_remote(name)]
        Snapshot(tuple(Source(name, Path(name)) for name in names), naming).check()


def collect(settings: TrainSettings, task: Task, rejects: RejectsFile, watcher: Watcher) -> Dataset:
    """Read the dump, then choose: since, repeats, sample, validation, split, undersampling, weak negatives.

    Raises DataError where nothing is left, or where a label has papers of one class only.
    """
    return _Collection(settings, task, rejects, watcher).dataset()


class _Collection:
    """The papers of one training on their way into its dataset; what it counts, and the files that it reads."""

    def __init__(self, settings: TrainSettings, task: Task, rejects: RejectsFile, watcher: Watcher) -> None:
        self._settings, self._task, self._rejects, self._watcher = settings, task, rejects, watcher
        counted = "papers ids_restored before_since of_unknown_year without_truth told_by_label repeats"
        self._counts = dict.fromkeys(counted.split(), 0)
        self._files: list[DataFile] = []

    def dataset(self) -> Dataset:
        settings, task = self._settings, self._task
        chosen, in_dump = self._of_dump()
        left_out = self._left_out(chosen)
        chosen, validation = chosen.filter(~left_out), None
        if settings.validation:
            sets = [self._to_validate(path, left_out) for path in settings.validation]
            validation = _last_of_each(pl.concat(sets))
            shared = _one_of(validation)
            self._counts["shared_with_validation"] = int(chosen.select(shared.sum()).item())
            chosen = chosen.filter(~shared)
        by_side, teaching = self._sides(chosen, validation)
        every, drawn, per_pass = by_side[TRAIN], by_side[TRAIN].clear(), 0
        if settings.undersample is not None and settings.base != NO_BASE:
            every, drawn, per_pass = _undersampled(every, task, settings.undersample)
        if settings.weak_negatives is not None:
            # Of the whole dump: what was not taken of it may be positive, too.
            ours = pl.col("key").hash().is_in(in_dump.implode()) | pl.col("key").is_in(
                by_side[VALIDATION].get_column("key").implode()
            )
            weak = self._weak_negatives(settings.weak_negatives, ours | left_out, len(every) + per_pass)
            every = pl.concat([every, weak])

        whole = _cleaned(pl.concat([every, drawn, teaching]), task, settings.clean)
        validated, tested = (_cleaned(by_side[side], task, settings.clean) for side in (VALIDATION, TEST))
        self._counts["rejects"] = self._rejects.count
        dataset = Dataset(
            every=whole[: len(every)],
            drawn=whole[len(every) : len(every) + len(drawn)],
            per_pass=per_pass,
            whole=whole,
            validation=validated,
            test=tested,
            counts=self._counts,
            files=self._files,
        )
        for side, its_papers in ((TRAIN, dataset.train), (VALIDATION, validated), (TEST, tested)):
            _check_classes(side, its_papers)
        return dataset

    def _of_dump(self) -> tuple[pl.DataFrame, pl.Series]:
        """The papers that may be taken, each once, with their truth; and the hashes of the keys of all in the dump."""
        settings, counts = self._settings, self._counts
        kept, wording, others = pl.DataFrame(), Wording(self._task), 0
        known_keys: list[pl.Series] = []
        all_keys: list[pl.Series] = []
        for chunk in self._read("the dump", settings.snapshots, Naming.of(settings)):
            papers = chunk.papers
            counts["papers"] += len(papers)
            counts["ids_restored"] += count_restored(papers)
            all_keys.append(papers.get_column("key").hash())
            recent = papers.filter(pl.col("year").fill_null(settings.since) >= settings.since)
            counts["before_since"] += len(papers) - len(recent)
            counts["of_unknown_year"] += papers.get_column("year").null_count()
            wording.add(papers)
            flags = [wording.other().alias(_OTHER), pl.col("label").is_not_null().alias(_BY_LABEL)]
            known = _with_truth(recent.with_columns(flags), self._task)
            counts["without_truth"] += len(recent) - len(known)
            others += int(known.get_column(_OTHER).sum())
            counts["told_by_label"] += int(known.get_column(_BY_LABEL).sum())
            known_keys.append(known.get_column("key").hash())
            known = known.with_columns(splits.sample_order(known.get_column("key"), settings.seed))
            if settings.sample is not None:
                known = known.filter(pl.col("sample_order") < settings.sample / 100)
            kept = pl.concat([kept, known]) if len(kept) else known
            if settings.max_papers is not None and len(kept) > 2 * settings.max_papers:
                kept = _lowest(kept, settings.max_papers)
        if not wording.others_say_no and others:
            # Only the whole dump shows how it is worded.
            kept = kept.filter(~pl.col(_OTHER))
            counts["without_truth"] += others
            counts["told_by_label"] -= others
            self._watcher.say(f"In the dump, {wording.told()}")
        if not len(kept):
            raise DataError(_nothing_left(settings, counts, self._rejects, wording.told()))
        kept = kept.drop(_OTHER, _BY_LABEL)
        every_key = pl.concat(known_keys)
        counts["repeats"] = len(every_key) - every_key.n_unique()
        chosen = _last_of_each(kept) if settings.max_papers is None else _lowest(kept, settings.max_papers)
        return chosen, pl.concat(all_keys)

    def _left_out(self, chosen: pl.DataFrame) -> pl.Expr:
        """Which papers of any file take no part in this training."""
        if self._settings.exclude is None:
            return pl.lit(False)
        path, naming = self._settings.exclude, _of_ids(self._settings)
        if _is_csv(path):
            papers = _ids_in(path, naming)
            self._files.append(_described("what is left out", Source(path, Path(path)), len(papers)))
        elif (found := self._papers_of("what is left out", path, naming)) is not None:
            papers = found
        else:
            raise DataError(f"{path}: no paper in it to leave out")
        left_out = _one_of(papers)
        self._counts["excluded"] = int(chosen.select(left_out.sum()).item())
        return left_out

    def _to_validate(self, path: str, left_out: pl.Expr) -> pl.DataFrame:
        """The papers of a validation set, each once, whose ground truth is known for the labels that the set answers.

        A yes or no answers `validation_label`, if there is one, categories answer every label; others are null.
        """
        settings, task = self._settings, self._task
        papers = self._papers_of("the validation set", path, Naming.of(settings, if_there=True))
        if papers is None:
            raise DataError(f"{path}: no paper in it to validate on")
        yes_or_no = papers.get_column("label").null_count() < len(papers)
        if settings.validation_label is not None:
            asked = _label_named(task, settings.validation_label)
            task = Task((asked,)) if yes_or_no else task
        wording = Wording(task)
        wording.add(papers)
        if told := wording.told():
            self._watcher.say(f"In {path}, {told}")
        known = _last_of_each(_with_truth(wording.understood(papers), task)).filter(~left_out)
        if not len(known):
            outside = f" outside {settings.exclude}" if settings.exclude is not None else ""
            several = ""
            if len(task.names) > 1 and yes_or_no:
                several = "; a yes or no answers one label: validation_label, in the settings file, says which"
            raise DataError(f"{path}: no paper with a truth for {', '.join(task.names)}{outside}{several}")
        unanswered = [name for name in self._task.names if name not in task.names]
        blank = [pl.lit(None, pl.Boolean).alias(_column(name)) for name in unanswered]
        order = splits.sample_order(known.get_column("key"), settings.seed)
        columns = [*_COLUMNS, *map(_column, self._task.names), "sample_order"]
        return known.with_columns(*blank, order).select(columns)

    def _sides(
        self, chosen: pl.DataFrame, validation: pl.DataFrame | None
    ) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
        """The papers of each split; and more for the linear model, on labels that a validation set answers."""
        settings, names = self._settings, self._task.names
        sides = (
            splits.split_by_time(_age(chosen), chosen.get_column("key"))
            if settings.split == "time"
            else splits.split_by_hash(chosen.get_column("key"))
        )
        by_side = {side: chosen.filter(sides == side) for side in splits.SHARES}
        teaching = chosen.clear()
        if validation is None:
            return by_side, teaching
        answered = [name for name in names if validation.get_column(_column(name)).null_count() < len(validation)]
        if len(answered) == len(names):
            # The papers of the hashed validation split would serve nobody else: they train.
            by_side[TRAIN] = chosen.filter(sides != TEST)
            by_side[VALIDATION] = validation.select(chosen.columns)
            return by_side, teaching
        # The split validates the labels that no set answers, and can train the others.
        split = by_side[VALIDATION]
        blank = {name: pl.lit(None, pl.Boolean).alias(_column(name)) for name in names}
        teaching = split.with_columns(blank[name] for name in names if name not in answered)
        split = split.with_columns(blank[name] for name in answered)
        by_side[VALIDATION] = pl.concat([split, validation.select(split.columns)])
        return by_side, teaching

    def _weak_negatives(self, path: str, not_these: pl.Expr, training_papers: int) -> pl.DataFrame:
        """As many papers of a file, negative for every label, as the settings want beside those of the training."""
        settings = self._settings
        papers = self._papers_of("the weak negatives", path, Naming.of(settings, if_there=True))
        if papers is None:
            raise DataError(f"{path}: no paper in it")
        papers = papers.filter(~not_these)
        share = settings.weak_negative_share
        wanted = round(training_papers * share / (1 - share))
        order = splits.sample_order(papers.get_column("key"), settings.seed)
        no = (pl.lit(False).alias(_column(name)) for name in self._task.names)
        negatives = papers.select(_COLUMNS).with_columns(*no, order)
        weak = _lowest(negatives, wanted) if wanted else negatives.clear()
        self._counts[WEAK] = len(weak)
        if len(weak) < wanted:
            self._watcher.say(f"{path} has {len(weak):,} papers for weak negatives, fewer than the {wanted:,} wanted")
        return weak

    def _papers_of(self, role: str, path: str, naming: Naming) -> pl.DataFrame | None:
        """All papers of a file; None where it has none."""
        parts = [chunk.papers for chunk in self._read(role, (path,), naming)]
        return pl.concat(parts) if parts else None

    def _read(self, role: str, paths: Sequence[str], naming: Naming) -> Iterator[Chunk]:
        """The chunks of these files that have papers."""
        with self._watcher.stage(f"Reading {role}"), TemporaryDirectory() as folder:
            sources = tuple(fetch(resolve(paths), Path(folder)))
            found = [0] * len(sources)
            for chunk in Snapshot(sources, naming).chunks():
                self._rejects.write(chunk.rejects)
                found[chunk.file] += len(chunk.papers)
                self._watcher.advance(len(chunk.papers), chunk.share, rejects=self._rejects.count)
                if len(chunk.papers):
                    yield chunk
            self._files.extend(_described(role, source, papers) for source, papers in zip(sources, found, strict=True))


def _of_ids(settings: TrainSettings) -> Naming:
    """What is left out may be ids alone, and damaged ones without dates."""
    return Naming(settings.id_column or "id", if_there=True, texts=False)


def _is_csv(path: str) -> bool:
    return path.lower().endswith((".csv", ".tsv")) and not is_remote(path)


def _ids_in(path: str, naming: Naming) -> pl.DataFrame:
    """The papers (`id`, `created`, `key`) of a list of ids as spreadsheets write it."""
    table = LabelsFile.open(path)
    paper_id = naming.among(table.columns).id or "id"
    papers = keyed(table.read([paper_id, *({"created"} & {*table.columns})]).rename({paper_id: "id"}))
    return papers.select("id", pl.lit(None, pl.Date).alias("created"), pl.col(KEY).alias("key"))


def _one_of(papers: pl.DataFrame) -> pl.Expr:
    """Which papers of any file are, or may be by what damaged ids mean, among these, which must not be trained on.

    A paper too few in training does no harm.
    """
    keys = possible_keys(papers).implode()
    likely = arxiv_key(pl.col("id"), pl.col("created"), trust=True)
    return pl.col("key").is_in(keys) | likely.is_in(keys).fill_null(False)


def _label_named(task: Task, name: str) -> Label:
    for label in task.labels:
        if label.name == name:
            return label
    raise UsageError(f"validation-label {name}: there are {', '.join(task.names)}")


def _described(role: str, source: Source, papers: int) -> DataFile:
    with open(source.path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return DataFile(role, source.name, source.path.stat().st_size, digest, papers)


def _with_truth(papers: pl.DataFrame, task: Task) -> pl.DataFrame:
    """The papers whose truth is known for every label, with a boolean column for each."""
    answers = [series.rename(_column(series.name)) for series in truth(task, papers)]
    columns = [*_COLUMNS, *(name for name in (_OTHER, _BY_LABEL) if name in papers.columns)]
    return papers.select(columns).hstack(answers).drop_nulls([series.name for series in answers])


def _column(label_name: str) -> str:
    # A label may be called `text` or `title`, so its column is kept apart until the others are gone.
    return _COLUMN + label_name


def _last_of_each(papers: pl.DataFrame) -> pl.DataFrame:
    return papers.unique("key", keep="last", maintain_order=True)


def _lowest(papers: pl.DataFrame, count: int) -> pl.DataFrame:
    unique = _last_of_each(papers)
    if len(unique) <= count:
        return unique
    limit = unique.get_column("sample_order").sort()[count - 1]
    return unique.filter(pl.col("sample_order") <= limit)


def _undersampled(
    papers: pl.DataFrame, task: Task, negatives_per_positive: float
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """What every pass takes, the negatives in the order in which they are drawn, and how many a pass draws."""
    positive = pl.any_horizontal(_column(name) for name in task.names)
    positives, negatives = papers.filter(positive), papers.filter(~positive)
    wanted = max(1, round(negatives_per_positive * len(positives)))
    if wanted >= len(negatives):
        return papers, negatives.clear(), 0
    return positives, negatives.sort("sample_order"), wanted


def _age(papers: pl.DataFrame) -> pl.Series:
    """The date of each paper, or the first day of what is known: of the month that its id tells, of the year.

    DataError where nothing is known of any.
    """
    age = papers.select(pl.coalesce("created", month_of(pl.col("key")), pl.date(pl.col("year"), 1, 1))).to_series()
    if age.null_count() == len(age):
        raise DataError("--split time: no paper has a date or a year")
    return age


def _cleaned(papers: pl.DataFrame, task: Task, cleaning: str) -> Papers:
    answers = [_column(name) for name in task.names]
    frame = papers.select("id", "key", "created", "categories", "year", "sample_order", *answers).with_columns(
        compose(papers, cleaning).alias("text")
    )
    return Papers(frame, answers)


def _check_classes(side: str, papers: Papers) -> None:
    if not len(papers):
        raise DataError(f"no papers in the {side} part; the dump is too small, or the filters leave too few")
    if side == TEST:
        return
    for name, (column, positives) in zip(papers.names, papers.positives().items(), strict=True):
        if positives in (0, papers.frame.get_column(column).count()):
            which = "positive" if positives else "negative"
            raise DataError(
                f"all {len(papers):,} papers in the {side} part are {which} for {name!r}; training takes both classes"
            )


def _nothing_left(settings: TrainSettings, counts: Mapping[str, int], rejects: RejectsFile, told: str) -> str:
    kept = f", see {rejects.path}" if rejects.path is not None else ""
    reasons = [f"{rejects.count:,} rejected ({in_words(rejects.reasons)}{kept})"] if rejects.count else []
    reasons += [
        f"{counts[name]:,} {words}"
        for name, words in (
            ("before_since", f"before {settings.since}"),
            ("without_truth", "without categories or label"),
        )
        if counts[name]
    ]
    reasons += [told] if told else []
    if not reasons and counts["papers"]:
        reasons.append(f"none of {counts['papers']:,} is in the sample")
    return f"no papers to train on in {', '.join(settings.snapshots)}: {', '.join(reasons) or 'none there'}"
