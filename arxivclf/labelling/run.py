"""Labelling a dump, whatever does it: from names to labels on disk, each paper once."""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from arxivclf.config import LabelSettings
from arxivclf.corpus.columns import Naming
from arxivclf.corpus.rejects import rejects_at
from arxivclf.corpus.snapshot import Snapshot, stem
from arxivclf.corpus.sources import fetch, is_remote, resolve
from arxivclf.corpus.tasks import Label, Task
from arxivclf.errors import UsageError
from arxivclf.files import only_one
from arxivclf.labelling import job as jobs
from arxivclf.labelling.census import refuse_wrong_file, take_census
from arxivclf.labelling.engine import Engine, Finished, Work, load
from arxivclf.labelling.job import LabelSummary
from arxivclf.labelling.local import LocalEngine
from arxivclf.labelling.merge import make_output, missing
from arxivclf.labelling.parts import Part, Parts, Shard
from arxivclf.labelling.sink import STANDARD_OUTPUT, check_form, open_sink
from arxivclf.model.labels import Layout
from arxivclf.progress import Watcher
from arxivclf.stopping import stopping


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
    first = settings.snapshots[0]
    output = settings.output or f"{stem(names[0] if glob.has_magic(first) else first)}.labels.parquet"
    rejects = settings.rejects or jobs.rejects_of(output)
    # What a run before has put among the dumps of a folder or a pattern is none of them.
    own = _places(output, rejects)
    names = [one for one in names if one in settings.snapshots or Path(one).resolve() not in own] or names
    shard = Shard.of(settings.shard) if settings.shard is not None else None
    check_form(output, pl.Schema())
    jobs.refuse_input_as_output(names, output, rejects, settings.reuse)
    _refuse_what_cannot_be(settings, output)
    with ExitStack() as stack:
        parts: Parts | None = None
        if output == STANDARD_OUTPUT:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            jobs.refuse_foreign_rejects(rejects)
        else:
            place = Path(Path(output).name) if is_remote(output) else Path(output)
            parts = stack.enter_context(Parts(place, shard))
            folder = parts.folder if shard is None else Path(stack.enter_context(TemporaryDirectory()))
        if shard is None and not is_remote(rejects) and Path(rejects).parent.is_dir():
            stack.enter_context(only_one(Path(rejects).with_name(f".{Path(rejects).name}.lock"), rejects))
        with watcher.stage("Fetching the dump"):
            sources = fetch(names, folder)
        unchanged = jobs.Unchanged(sources)
        snapshot = Snapshot(tuple(sources), Naming.of(settings), settings.keep)
        snapshot.check()
        with watcher.stage("Loading the model"):
            engine = _engine(settings, snapshot, stack)
            facts = engine.facts
        layout = Layout(facts.thresholds, snapshot.kept_types())
        check_form(output, layout.schema())
        with watcher.stage("Looking for earlier labels"):
            job = jobs.describe(settings, sources, facts)
        if parts is not None:
            done = jobs.already_done(output, job)
            there = is_remote(rejects) or Path(rejects).exists()
            lost = not there and any(part.reasons for part in done or ())
            if done is not None and not (lost and settings.overwrite):
                again = f", but {rejects} is not there; --overwrite makes it" if lost else ""
                watcher.say(f"{output} holds these labels already{again}")
                if all(one == job for one in parts.jobs()):
                    parts.finish()
                took = time.monotonic() - started
                return LabelSummary.of(
                    done, output, rejects if there else None, 0, took, facts.gates, "", facts.prevalence
                )
            jobs.refuse_foreign_rejects(rejects)
            jobs.refuse_other(parts, output, job, settings.overwrite)
            jobs.refuse_rejects_of_others(output, rejects, job)
            parts.begin(job)
        watcher.say(facts.told)
        wanted = stack.enter_context(stopping())
        task = Task(tuple(Label(name, name, tuple(categories)) for name, categories in facts.categories.items()))
        census = take_census(snapshot, task, settings, folder, watcher, wanted)
        refuse_wrong_file(snapshot, census, settings, rejects, parts)
        if told := census.wording.told():
            watcher.say(f"In the dump, {told}")
        mine = shard.of_chunks(census.chunks) if shard is not None else range(census.chunks)
        todo = frozenset(mine).difference(parts.done if parts is not None else ())
        papers_now = sum(map(census.papers_of, todo))
        papers = sum(map(census.papers_of, mine))
        with watcher.stage("Labelling", papers, papers - papers_now):
            found = engine.finished(Work(snapshot, job["input"], layout, census), todo, watcher, wanted)
            with closing(found):
                if parts is None:
                    made = _stream(found, output, rejects, layout)
                else:
                    # By the name of the output where none was given, for who merges may be in another folder.
                    named = settings.rejects and (rejects if is_remote(rejects) else str(Path(rejects).resolve()))
                    parts.plan({"chunks": census.chunks, "rejects": named})
                    for part, table, rejected in found:
                        # Before each is kept, for a run that is killed is never asked at its end.
                        unchanged.refuse_change(job["input"], parts)
                        parts.add(part, table, rejected)
        unchanged.refuse_change(job["input"], parts)
        waits = ""
        if parts is not None:
            made = [parts.done[number] for number in mine]
            waits = _waits_for(parts, census.chunks) if shard is not None else ""
            if not waits:
                with parts.alone() as may:
                    if may:
                        made = make_output(parts, output, rejects, layout.schema(), job, wanted)
                    elif not Path(output).exists():
                        waits = "another shard is making them"
        if told := engine.told():
            watcher.say(told)
        took = time.monotonic() - started
        return LabelSummary.of(made, output, rejects, papers_now, took, facts.gates, waits, facts.prevalence)


def _refuse_what_cannot_be(settings: LabelSettings, output: str) -> None:
    """Raise UsageError for settings that rule each other out."""
    if output == STANDARD_OUTPUT and (settings.shard is not None or settings.engine != "local"):
        raise UsageError("standard output takes the labels of one run on one machine; -o names a file")
    if settings.workers is not None and settings.engine == "local":
        raise UsageError("--workers is for --engine ray, and for --plan")
    if settings.shard is not None and is_remote(output):
        raise UsageError(f"{output}: shards share the folder of a local output; -o names a file that all of them see")


def _places(output: str, rejects: str) -> list[Path]:
    return [Path(one).resolve() for one in (output, rejects) if one != STANDARD_OUTPUT and not is_remote(one)]


def _waits_for(parts: Parts, chunks: int) -> str:
    """The chunks that other shards have not done yet; "" where all are, or where one of them made the output."""
    parts.look()
    return missing(parts, chunks) if parts.job() is not None else ""


def _engine(settings: LabelSettings, snapshot: Snapshot, stack: ExitStack) -> Engine:
    if settings.engine == "local":
        return LocalEngine(settings, load(settings, snapshot))
    from arxivclf.labelling.cluster import RayEngine

    return stack.enter_context(RayEngine(settings))


def _stream(finished: Iterator[Finished], output: str, rejects: str, layout: Layout) -> list[Part]:
    """Write labels as they come, to standard output, which nothing can be merged into later."""
    made = []
    with rejects_at(rejects) as file, open_sink(output, layout.schema(), {}) as sink:
        for part, table, rejected in finished:
            sink.write(table)
            file.write(rejected)
            made.append(part)
    return made
