"""Making the output of the parts: by the run that made the last of them, or later, without dump and model."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import polars as pl

from arxivclf.corpus.rejects import take_away
from arxivclf.corpus.sources import is_remote, remote_output
from arxivclf.errors import DataError, UsageError
from arxivclf.files import whole_file
from arxivclf.labelling import job as jobs
from arxivclf.labelling.census import stop_if
from arxivclf.labelling.job import LabelSummary
from arxivclf.labelling.parts import Job, Part, Parts
from arxivclf.labelling.sink import check_form, open_sink
from arxivclf.stopping import stopping


def merge(output: str) -> LabelSummary:
    """Make the output of the parts that shards left. Raises UsageError where there are none, DataError where some of
    the chunks are missing, and which these are."""
    started = time.monotonic()
    if is_remote(output):
        raise UsageError(f"{output}: parts lie beside a local output, and on no remote store")
    check_form(output, pl.Schema())
    if not Parts(Path(output)).folder.is_dir():
        there = "the labels are whole" if Path(output).exists() else "there is nothing to merge"
        raise UsageError(f"{output}: no parts beside it; {there}")
    with stopping() as wanted, Parts(Path(output)) as parts:
        plan, job = parts.planned(), parts.job()
        if plan is None or job is None:
            raise DataError(f"{output}: no shard of it has counted its dump yet; run them first")
        parts.look()
        if told := missing(parts, plan["chunks"]):
            raise DataError(f"{output}: {told}; run their shards (again), or all of it without --shard")
        rejects = plan["rejects"] or jobs.rejects_of(output)
        jobs.refuse_foreign_rejects(rejects)
        made = make_output(parts, output, rejects, parts.schema(), job, wanted)
    took = time.monotonic() - started
    return LabelSummary.of(made, output, rejects, 0, took, prevalence=job.get("prevalence"))


def missing(parts: Parts, chunks: int) -> str:
    """Which chunks are not done, in words; "" where all are."""
    left = [number for number in range(chunks) if number not in parts.done]
    if not left:
        return ""
    stretches: list[list[int]] = []
    for number in left:
        if stretches and stretches[-1][1] == number - 1:
            stretches[-1][1] = number
        else:
            stretches.append([number, number])
    shown = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in stretches[:5])
    return f"{len(left):,} of {chunks:,} chunks are missing ({shown}{', ...' if len(stretches) > 5 else ''})"


def make_output(
    parts: Parts, output: str, rejects: str, schema: pl.Schema, job: Job, wanted: threading.Event
) -> list[Part]:
    """Make the output of all parts. It comes last, by one rename: what is there is whole."""
    made = [parts.done[number] for number in sorted(parts.done)]
    if any(part.reasons for part in made):
        with remote_output(rejects) if is_remote(rejects) else whole_file(Path(rejects)) as file:
            for lines in parts.reject_lines():
                file.write(lines)
    elif not is_remote(rejects):
        take_away(Path(rejects))
    footer = jobs.footer(job, made)
    jobs.record(output, None)
    with open_sink(output, schema, footer) as sink:
        for table in parts.tables():
            stop_if(wanted)
            sink.write(table)
    jobs.record(output, footer)
    parts.finish()
    return made
