"""The local engine: chunks of a dump are read, prepared and scored, each step going on while the others do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing

from arxivclf.config import LabelSettings
from arxivclf.corpus.ids import count_restored
from arxivclf.corpus.rejects import Reject
from arxivclf.labelling.ahead import ahead
from arxivclf.labelling.census import Place, reasons_of, stop_if
from arxivclf.labelling.classifier import Classifier, Prepared
from arxivclf.labelling.engine import Facts, Finished, Work, facts_of
from arxivclf.labelling.parts import Part
from arxivclf.model.labels import Layout
from arxivclf.progress import Watcher


class LocalEngine:
    """This machine."""

    def __init__(self, settings: LabelSettings, classifier: Classifier) -> None:
        self._settings, self._classifier = settings, classifier

    @property
    def facts(self) -> Facts:
        return facts_of(self._settings, self._classifier)

    def told(self) -> str:
        """What the device has to tell when all is done."""
        model = self._classifier.models[0]
        return model.encoder.device.told() if model.encoder is not None else ""

    def finished(
        self, work: Work, todo: frozenset[int], watcher: Watcher, wanted: threading.Event
    ) -> Generator[Finished, None, None]:
        """The chunks `todo`, labelled, in order."""
        if todo:
            yield from _Run(self._settings, self._classifier, work, todo, watcher, wanted).parts()


def labelled_chunk(
    place: Place,
    prepared: Prepared | None,
    rejects: list[Reject],
    classifier: Classifier,
    layout: Layout,
    advance: Callable[[int], None],
) -> Finished:
    """A chunk as a part without hashes, its labels and its rejects; `prepared` is None where it holds no paper."""
    if prepared is None:
        table, restored, seen, outside = layout.schema().to_frame(), 0, {}, {}
    else:
        table = classifier.finish(prepared, layout, advance)
        restored, seen = count_restored(prepared.papers), classifier.count_seen(prepared.papers)
        outside = classifier.count_outside(prepared)
    labelled = {name: int(table.get_column(name).sum()) for name in layout.thresholds}
    decided = dict(sorted(table.get_column("decided_by").value_counts().iter_rows()))
    part = Part(*place, "", "", len(table), labelled, decided, reasons_of(rejects), restored, seen, outside)
    return part, table, rejects


class _Run:
    """One run over chunks of a dump."""

    def __init__(
        self,
        settings: LabelSettings,
        classifier: Classifier,
        work: Work,
        todo: frozenset[int],
        watcher: Watcher,
        wanted: threading.Event,
    ) -> None:
        self._settings, self._classifier, self._work, self._todo = settings, classifier, work, todo
        self._watcher, self._wanted, self._stopped = watcher, wanted, threading.Event()
        self._rejected = 0

    def parts(self) -> Iterator[Finished]:
        with ExitStack() as stack:
            prepared = stack.enter_context(closing(ahead(self._prepare())))
            scored = stack.enter_context(closing(ahead(self._score(prepared))))
            stack.callback(self._stopped.set)
            yield from scored

    def _prepare(self) -> Iterator[tuple[Place, Prepared | None, list[Reject]]]:
        chosen = self._work.census.chosen(self._work.snapshot, self._settings.chunk_rows, self._todo.__contains__)
        with closing(ahead(chosen, depth=2)) as read:
            for place, papers, rejects in read:
                yield place, self._classifier.prepare(papers) if len(papers) else None, rejects

    def _score(self, prepared: Iterator[tuple[Place, Prepared | None, list[Reject]]]) -> Iterator[Finished]:
        for place, chunk, rejects in prepared:
            self._rejected += len(rejects)
            yield labelled_chunk(place, chunk, rejects, self._classifier, self._work.layout, self._advance)

    def _advance(self, papers: int) -> None:
        if self._stopped.is_set():
            raise _StoppedError
        stop_if(self._wanted)
        self._watcher.advance(papers, rejects=self._rejected)


class _StoppedError(Exception):
    """Whoever asked for the labels has left; the thread that makes them may go, too."""
