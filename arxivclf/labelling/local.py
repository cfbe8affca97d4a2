"""The local engine: read a dump chunk by chunk, label each, keep it as a part, and make the output of the parts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from arxivclf.config import LabelSettings
from arxivclf.corpus.columns import Naming
from arxivclf.corpus.ids import count_restored
from arxivclf.corpus.rejects import Reject, RejectsFile, holds_rejects
from arxivclf.corpus.repeats import Repeats
from arxivclf.corpus.snapshot import Snapshot, stem
from arxivclf.corpus.sources import fetch, is_remote, remote_output, resolve
from arxivclf.errors import DataError, UsageError
from arxivclf.files import whole_file
from arxivclf.labelling import job as jobs
from arxivclf.labelling.ahead import ahead
from arxivclf.labelling.classifier import Classifier, Prepared
from arxivclf.labelling.job import LabelSummary
from arxivclf.labelling.parts import Job, Part, Parts
from arxivclf.labelling.reuse import Reuse
from arxivclf.labelling.sink import STANDARD_OUTPUT, check_form, open_sink
from arxivclf.model.folder import ModelInfo
from arxivclf.model.hub import BUNDLED, find_folder
from arxivclf.model.labels import Layout
from arxivclf.progress import Watcher
from arxivclf.stopping import stopping

OWN_MODEL = "model"
REPEATED = "the id comes again later"

Place = tuple[int, int, int, int]
"""Of a chunk: its number, its file, its first and its last row."""


def label(settings: LabelSettings, watcher: Watcher | None = None) -> LabelSummary:
    """Label a dump: one row for each paper, in the order of the dump, and one reject for each row that is no paper.

    The dump is read twice: first to count, to find repeated ids and to fail early where it is plainly the wrong file,
    then to label. Killed at any moment, the same call goes on where it was and ends with the same bytes.

    Raises UsageError, DataError, ModelError or DeviceError, and KeyboardInterrupt after Ctrl-C or SIGTERM; parts that
    were done are kept for the next call.
    """
    watcher = watcher or Watcher()
    started = time.monotonic()
    if not settings.snapshots:
        raise UsageError("no dump to label: name at least one snapshot")
    names = resolve(settings.snapshots)
    output = settings.output or f"{stem(settings.snapshots[0])}.labels.parquet"
    rejects = settings.rejects or jobs.beside(output)
    jobs.refuse_input_as_output(names, output, rejects)
    with ExitStack() as stack:
        parts: Parts | None = None
        if output == STANDARD_OUTPUT:
            folder = Path(stack.enter_context(TemporaryDirectory()))
        else:
            parts = stack.enter_context(Parts(Path(Path(output).name) if is_remote(output) else Path(output)))
            folder = parts.folder
        sources = fetch(names, folder)
        before = jobs.states(sources)
        naming = Naming(settings.id_column, settings.text_column, settings.label_column)
        snapshot = Snapshot(tuple(sources), naming, settings.keep)
        snapshot.check()
        classifier = _load(settings)
        thresholds = classifier.thresholds
        if settings.threshold is not None:
            thresholds = dict.fromkeys(thresholds, settings.threshold)
        layout = Layout(thresholds, snapshot.kept_types())
        check_form(output, layout.schema())
        job = jobs.describe(settings, sources, classifier, layout)
        if parts is not None:
            done = jobs.already_done(output, job)
            if done is not None:
                watcher.say(f"{output} holds these labels already")
                parts.clear()
                return LabelSummary.of(done, output, rejects, 0, time.monotonic() - started, classifier.bound)
            jobs.refuse_other(parts, output, rejects, job, settings.overwrite)
            parts.begin(job)
        watcher.say(_labelling_with(settings, classifier))
        wanted = stack.enter_context(stopping())
        counted = _count(snapshot, settings, folder, watcher, wanted)
        _refuse_wrong_file(snapshot, counted, settings, rejects)
        run = _Run(settings, snapshot, classifier, layout, counted, watcher, parts.done if parts else {}, wanted)
        if parts is None:
            made = _stream(run, output, rejects, layout)
        else:
            for part, table, rejected in run.parts():
                parts.add(part, table, rejected)
            if jobs.states(sources) != before:
                parts.clear()
                raise DataError(f"{', '.join(names)}: changed while it was read; label it again when it is whole")
            made = _merge(parts, output, rejects, layout, job, wanted)
        for model in classifier.models[:1]:
            if model.encoder is not None and (told := model.encoder.device.told()):
                watcher.say(told)
        return LabelSummary.of(made, output, rejects, run.papers_now, time.monotonic() - started, classifier.bound)


def _load(settings: LabelSettings) -> Classifier:
    classifier = Classifier.load(
        *(settings.model or (default_model(),)),
        device=settings.device,
        task=settings.task,
        # What the gate may cost was proven for the thresholds of the model, and for no other.
        gate=settings.gate and settings.threshold is None,
    )
    if settings.reuse is None:
        return classifier
    if len({model.cleaning for model in classifier.models}) > 1:
        # The hash is that of the first model's text; another one's may have changed where it did not.
        raise UsageError("--reuse: the models clean their texts in different ways; label with one at a time")
    models = [model.fingerprint for model in classifier.models]
    return replace(classifier, reuse=Reuse.open(settings.reuse, list(classifier.thresholds), models))


def default_model() -> str:
    """The model of who names none: ./model, and the bundled one where that is absent."""
    return OWN_MODEL if Path(OWN_MODEL).exists() else BUNDLED


def _labelling_with(settings: LabelSettings, classifier: Classifier) -> str:
    names = ", ".join(model.name for model in classifier.models)
    told = f"Labelling with {names} on {classifier.models[0].reason}"
    if not settings.model and names == BUNDLED:
        told = f"No ./model here, so labelling with the bundled model: {_of_bundled(classifier)}"
    if settings.gate and settings.threshold is not None and any(model.encoder for model in classifier.models):
        told += "; without a gate, which --threshold rules out"
    return told


def _of_bundled(classifier: Classifier) -> str:
    info = ModelInfo.read(find_folder(BUNDLED))
    first, last = info.papers["years"]
    label = info.task.names[0]
    f1 = info.metrics["validation"][label]["f1"]
    return (
        f"{', '.join(info.task.names)}, without an encoder, trained on arXiv's papers of {first}-{last},"
        f" F1 {f1:.3f} for {label} on its validation set"
    )


def _merge(parts: Parts, output: str, rejects: str, layout: Layout, job: Job, wanted: threading.Event) -> list[Part]:
    """Make the output of the parts. The output comes last, by one rename: what is there is whole."""
    made = [parts.done[number] for number in sorted(parts.done)]
    if any(part.reasons for part in made):
        with remote_output(rejects) if is_remote(rejects) else whole_file(Path(rejects)) as file:
            for lines in parts.reject_lines():
                file.write(lines)
    elif not is_remote(rejects) and holds_rejects(Path(rejects)):
        # Of an earlier run: beside these labels they would tell of rows that are none of theirs.
        Path(rejects).unlink(missing_ok=True)
    footer = jobs.footer(job, made)
    jobs.record(output, None)
    with open_sink(output, layout.schema(), footer) as sink:
        for table in parts.tables():
            _stop_if(wanted)
            sink.write(table)
    jobs.record(output, footer)
    parts.clear()
    return made


def _stream(run: _Run, output: str, rejects: str, layout: Layout) -> list[Part]:
    """Write labels as they come, to standard output, which nothing can be merged into later."""
    made = []
    with RejectsFile(Path(rejects)) as file, open_sink(output, layout.schema(), {}) as sink:
        for part, table, rejected in run.parts():
            sink.write(table)
            file.write(rejected)
            made.append(part)
    return made


@dataclass(frozen=True)
class _Counted:
    """What the first pass over a dump found: its papers, those to label, its rejects by reason, its repeated ids."""

    papers: int
    to_label: int
    reasons: Mapping[str, int]
    repeats: Repeats | None


class _Run:
    """One run over a dump: reading, cleaning and tokenising, scoring, and writing each go on while the others do."""

    def __init__(
        self,
        settings: LabelSettings,
        snapshot: Snapshot,
        classifier: Classifier,
        layout: Layout,
        counted: _Counted,
        watcher: Watcher,
        done: Mapping[int, Part],
        wanted: threading.Event,
    ) -> None:
        self._settings, self._snapshot, self._classifier = settings, snapshot, classifier
        self._layout, self._counted, self._watcher = layout, counted, watcher
        self._done = frozenset(done)
        self._done_papers = sum(part.papers for part in done.values())
        self._wanted, self._stopped = wanted, threading.Event()
        self._rejected = 0
        self.papers_now = 0

    def parts(self) -> Iterator[tuple[Part, pl.DataFrame, list[Reject]]]:
        """The parts that are not done, in order, each labelled."""
        with self._watcher.stage("Labelling", self._counted.to_label, self._done_papers), ExitStack() as stack:
            prepared = stack.enter_context(closing(ahead(self._prepare())))
            scored = stack.enter_context(closing(ahead(self._score(prepared))))
            stack.callback(self._stopped.set)
            yield from scored

    def _prepare(self) -> Iterator[tuple[Place, Prepared | None, list[Reject]]]:
        chosen = _chosen(self._snapshot, self._counted.repeats, self._settings)
        with closing(ahead(chosen, depth=2)) as read:
            for place, papers, rejects in read:
                if place[0] not in self._done:
                    yield place, self._classifier.prepare(papers) if len(papers) else None, rejects

    def _score(
        self, prepared: Iterator[tuple[Place, Prepared | None, list[Reject]]]
    ) -> Iterator[tuple[Part, pl.DataFrame, list[Reject]]]:
        for place, chunk, rejects in prepared:
            self._rejected += len(rejects)
            if chunk is None:
                table, restored = self._layout.schema().to_frame(), 0
            else:
                table = self._classifier.finish(chunk, self._layout, self._advance)
                restored = count_restored(chunk.papers)
            labelled = {name: int(table.get_column(name).sum()) for name in self._layout.thresholds}
            decided = dict(sorted(table.get_column("decided_by").value_counts().iter_rows()))
            part = Part(*place, "", "", len(table), labelled, decided, _reasons(rejects), restored)
            yield part, table, rejects

    def _advance(self, papers: int) -> None:
        if self._stopped.is_set():
            raise _StoppedError
        _stop_if(self._wanted)
        self.papers_now += papers
        self._watcher.advance(papers, rejects=self._rejected)


class _StoppedError(Exception):
    """Whoever asked for the labels has left; the thread that makes them may go, too."""


def _chosen(
    snapshot: Snapshot, repeats: Repeats | None, settings: LabelSettings
) -> Iterator[tuple[Place, pl.DataFrame, list[Reject]]]:
    """Each chunk by its place, without repeats and what is over the limit."""
    place = taken = 0
    for number, chunk in enumerate(snapshot.chunks(settings.chunk_rows)):
        papers, rejects = chunk.papers, chunk.rejects
        if repeats is not None and len(papers):
            repeated = pl.Series(repeats.among(place, len(papers)))
            place += len(papers)
            if repeated.any():
                rejects = rejects + chunk.reject(papers.filter(repeated).get_column("row").to_list(), REPEATED)
                rejects = sorted(rejects, key=lambda reject: reject.row)
                papers = papers.filter(~repeated)
        if settings.limit is not None:
            papers = papers.head(settings.limit - taken)
            if len(papers) and taken + len(papers) == settings.limit:
                last = papers.get_column("row").to_list()[-1]
                rejects = [reject for reject in rejects if reject.row <= last]
        taken += len(papers)
        yield (number, chunk.file, *chunk.rows), papers, rejects
        if taken == settings.limit:
            return


def _count(
    snapshot: Snapshot, settings: LabelSettings, folder: Path, watcher: Watcher, wanted: threading.Event
) -> _Counted:
    papers = 0
    reasons: dict[str, int] = {}

    def keys() -> Iterator[pl.Series]:
        nonlocal papers
        for chunk in ahead(snapshot.chunks()):
            _stop_if(wanted)
            papers += len(chunk.papers)
            for reason, count in _reasons(chunk.rejects).items():
                reasons[reason] = reasons.get(reason, 0) + count
            watcher.advance(len(chunk.papers), chunk.share, rejects=sum(reasons.values()))
            if len(chunk.papers):
                yield chunk.papers.get_column("key")

    with watcher.stage("Counting"):
        if settings.keep_duplicates:
            repeats = None
            for _ in keys():
                pass
        else:
            repeats = Repeats.find(keys(), folder)
    to_label = papers - (repeats.count if repeats is not None else 0)
    if settings.limit is not None:
        to_label = min(to_label, settings.limit)
    return _Counted(papers, to_label, reasons, repeats)


def _refuse_wrong_file(snapshot: Snapshot, counted: _Counted, settings: LabelSettings, rejects_path: str) -> None:
    """Raise DataError, with the rejects in their file, where the share of rejects is more than was allowed.

    Repeated ids are rejects, too, but no sign of a wrong file.
    """
    rejected = sum(counted.reasons.values())
    rows = rejected + counted.papers
    if counted.papers and rejected <= settings.max_rejects * rows:
        return
    with RejectsFile(Path(rejects_path)) as file:
        for chunk in snapshot.chunks():
            file.write(chunk.rejects)
    names = ", ".join(settings.snapshots)
    if not counted.papers:
        raise DataError(f"no paper in {names}: {file.in_words()}; see {rejects_path}")
    raise DataError(
        f"{rejected:,} of {rows:,} rows of {names} would be rejected ({file.in_words()}), a larger share than"
        f" --max-rejects {settings.max_rejects:g}; nothing was labelled, see {rejects_path}"
    )


def _stop_if(wanted: threading.Event) -> None:
    if wanted.is_set():
        raise KeyboardInterrupt


def _reasons(rejects: Iterable[Reject]) -> dict[str, int]:
    return dict(Counter(reject.reason for reject in rejects))
