"""The local engine: read a dump chunk by chunk, label each, write it, on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from arxivclf.config import LabelSettings
from arxivclf.corpus.columns import Naming
from arxivclf.corpus.ids import count_restored
from arxivclf.corpus.rejects import RejectsFile
from arxivclf.corpus.snapshot import STANDARD_INPUT, Snapshot, stem
from arxivclf.errors import DataError, UsageError
from arxivclf.labelling.chunk import label_chunk
from arxivclf.labelling.sink import FORMS, STANDARD_OUTPUT, check_form, open_sink
from arxivclf.model.classifier import Classifier
from arxivclf.model.labels import Layout
from arxivclf.progress import Watcher


@dataclass(frozen=True)
class LabelSummary:
    """What a run did: where the labels are, how many papers got each label, how many rows were rejected, and why."""

    output: str
    rejects_file: str | None
    papers: int
    labelled: Mapping[str, int]
    rejects: Mapping[str, int]
    ids_restored: int
    seconds: float


def label(settings: LabelSettings, watcher: Watcher | None = None) -> LabelSummary:
    """Label a dump: one row for each paper, in the order of the dump, and one reject for each row that is no paper.

    Raises UsageError, DataError, ModelError or DeviceError. Rejects are kept whatever happens; so are the labels of the
    other papers when too many rows were rejected, which is a DataError too.
    """
    watcher = watcher or Watcher()
    started = time.monotonic()
    if not settings.snapshots:
        raise UsageError("no dump to label: name at least one snapshot")
    naming = Naming(settings.id_column, settings.text_column, settings.label_column)
    snapshot = Snapshot(settings.snapshots, naming, settings.keep)
    output = settings.output or f"{stem(settings.snapshots[0])}.labels.parquet"
    rejects_path = settings.rejects or _beside(output)
    _refuse_to_overwrite(settings, snapshot, output, rejects_path)
    snapshot.check()
    classifier = Classifier.load(settings.model, settings.device)
    thresholds = classifier.info.thresholds
    if settings.threshold is not None:
        thresholds = dict.fromkeys(thresholds, settings.threshold)
    layout = Layout(thresholds, snapshot.kept_types())
    check_form(output, layout.schema())
    watcher.say(f"Labelling with {settings.model} on {classifier.encoder.device.reason}")

    papers = ids_restored = 0
    labelled = dict.fromkeys(thresholds, 0)
    share: float | None = 0.0
    with ExitStack() as stack:
        rejects = stack.enter_context(RejectsFile(Path(rejects_path)))
        sink = stack.enter_context(open_sink(output, layout.schema()))
        stack.enter_context(watcher.stage("Labelling", settings.limit))
        for chunk in snapshot.chunks(settings.chunk_rows):
            rejects.write(chunk.rejects)
            wanted = chunk.papers if settings.limit is None else chunk.papers.head(settings.limit - papers)
            if len(wanted):
                part = _Part(watcher, len(wanted), share, None if settings.limit else chunk.share)
                table = label_chunk(wanted, classifier, layout, part.advance)
                sink.write(table)
                papers += len(table)
                ids_restored += count_restored(wanted)
                for name in labelled:
                    labelled[name] += int(table.get_column(name).sum())
            share = None if settings.limit else chunk.share
            watcher.advance(0, share, rejects=rejects.count)
            if settings.limit is not None and papers >= settings.limit:
                break
        if not papers:
            raise DataError(f"no paper in {', '.join(settings.snapshots)}: {rejects.in_words()}; see {rejects_path}")
    summary = LabelSummary(
        output,
        rejects_path if rejects.count else None,
        papers,
        labelled,
        rejects.reasons,
        ids_restored,
        time.monotonic() - started,
    )
    rows = papers + rejects.count
    if rejects.count > settings.max_rejects * rows:
        raise DataError(
            f"{rejects.count:,} of {rows:,} rows rejected ({rejects.in_words()}), a larger share"
            f" than --max-rejects {settings.max_rejects:g}: see {rejects_path}. The other {papers:,} are in {output}."
        )
    return summary


class _Part:
    """Tells of the papers of one chunk as they are scored, as a share of the whole dump."""

    def __init__(self, watcher: Watcher, papers: int, before: float | None, after: float | None) -> None:
        self._watcher, self._papers, self._before, self._after = watcher, papers, before, after
        self._done = 0

    def advance(self, papers: int) -> None:
        self._done += papers
        share = None
        if self._before is not None and self._after is not None:
            share = self._before + (self._after - self._before) * self._done / self._papers
        self._watcher.advance(papers, share)


def _refuse_to_overwrite(settings: LabelSettings, snapshot: Snapshot, output: str, rejects_path: str) -> None:
    inputs = {Path(path).resolve() for path in snapshot.files() if path != STANDARD_INPUT}
    for path in (output, rejects_path):
        if path != STANDARD_OUTPUT and Path(path).resolve() in inputs:
            raise UsageError(f"{path}: is the dump itself; -o names another file")
    if output != STANDARD_OUTPUT and Path(output).exists() and not settings.overwrite:
        raise UsageError(f"{output}: there already; --overwrite replaces it, -o names another file")
    if settings.overwrite:
        Path(rejects_path).unlink(missing_ok=True)


def _beside(output: str) -> str:
    if output == STANDARD_OUTPUT:
        return "stdout.rejects.jsonl"
    form = next((form for form in sorted(FORMS, key=len, reverse=True) if output.endswith(form)), "")
    return output.removesuffix(form) + ".rejects.jsonl"
