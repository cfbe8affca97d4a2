"""`arxivclf label`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from arxivclf.cli import options
from arxivclf.cli.screen import Screen
from arxivclf.config import LabelSettings

if TYPE_CHECKING:
    from arxivclf.labelling.job import LabelSummary
    from arxivclf.labelling.planning import Plan


_option = partial(options.setting, LabelSettings)


@click.command(
    "label",
    epilog="""\b
Examples:
  arxivclf label dump.parquet
  arxivclf label dump.jsonl.gz --model models/robotics --keep title,doi -o robots.csv
  zcat dump.jsonl.gz | arxivclf label - -o - | head""",
)
@options.snapshots(required=True)
@_option(
    "--model",
    metavar="DIR|NAME",
    multiple=True,
    help="A model folder, a hub name with @REVISION, or bundled. Repeatable: one pass."
    "  [default: ./model, or else bundled]",
)
@_option(
    "--task", metavar="NAME|FILE.toml", multiple=True, help="Names the labels of a model without names of its own."
)
@_option(
    "-o",
    "--output",
    metavar="FILE",
    help="A .parquet, .jsonl (.gz, .zst) or .csv file, or - for JSON lines on standard output."
    "  [default: <first snapshot's stem>.labels.parquet]",
)
@_option("--rejects", metavar="FILE", help="Where rejected rows go.  [default: <output stem>.rejects.jsonl]")
@_option(
    "--reuse",
    metavar="LABELS",
    help="Take over scores from these labels (.parquet) where the paper's text is the same.",
)
@_option(
    "--keep", metavar="COLUMNS", multiple=True, help="Columns of the dump to keep, with commas between. Repeatable."
)
@_option("--limit", type=int, metavar="N", help="Stop after so many papers.")
@_option("--chunk-rows", type=int, metavar="N", help="Rows read at a time.")
@_option("--gate/--no-gate", help="Let the linear model decide what it is sure of.  [default: gate]")
@_option("--engine", help="Label on this machine, or on a Ray cluster.")
@_option("--ray-address", metavar="ADDRESS", help="The cluster: auto, or host:port.  [default: one for this run]")
@_option(
    "--workers",
    type=int,
    metavar="N",
    help="Processes on the Ray cluster; with --plan, machines like this one.  [default: as many as fit]",
)
@_option("--shard", metavar="I/N", help="Label the stretch I (from 0) of N; other runs label the others.")
@_option("--threshold", type=float, metavar="F", help="Give a label from this score on.  [default: the model's own]")
@_option(
    "--prevalence",
    metavar="LABEL=SHARE",
    multiple=True,
    help="Shift scores to a dump where this share has the label, or auto: estimate it. Repeatable.",
)
@_option("--max-rejects", type=float, metavar="F", help="Fail when a larger share of rows is rejected.")
@_option("--keep-duplicates", is_flag=True, help="Label every row of an id that comes again, not just the last.")
@_option("--overwrite", is_flag=True, help="Replace labels that are there.")
@click.option(
    "--plan",
    is_flag=True,
    help="Label samples only, and say how long all of it takes here, or on N machines like it (--workers N).",
)
@click.option("--price", type=float, metavar="F", help="With --plan: what such a machine costs an hour.")
@options.naming
@options.computing
@_option("--seed", type=int, help="Changes nothing, for labelling draws nothing at random.")
@options.listening
@click.pass_context
def command(
    ctx: click.Context, /, quiet: bool, log_json: str | None, plan: bool, price: float | None, **_: Any
) -> None:
    """Label every paper of a dump; writes one row for each, in the order of the dump.

    SNAPSHOT is a file, a glob, a folder, s3://, gs:// or hf://, or - for standard input: a Kaggle snapshot, OpenAlex
    works, or any table with id, title and abstract (or text), as JSON lines (plain, .gz or .zst) or Parquet.
    """
    given = options.given(ctx, LabelSettings)
    for name in ("keep", "prevalence"):
        if name in given:
            given[name] = tuple(
                dict.fromkeys(item.strip() for items in given[name] for item in items.split(",") if item.strip())
            )
    settings = LabelSettings(**given)
    options.refuse_log_into(log_json, (*settings.snapshots, settings.reuse), (settings.output, settings.rejects))
    if price is not None and (not plan or price < 0):
        raise click.UsageError("--price is for --plan, and at least 0")
    with Screen(quiet, log_json) as screen:
        screen.begin("Loading the libraries", None)
        if plan:
            from arxivclf.labelling import planning

            screen.end()
            found = planning.plan(settings, screen)
            screen.event("plan", **asdict(found))
        else:
            from arxivclf.labelling.run import label

            screen.end()
            try:
                summary = label(settings, screen)
            except KeyboardInterrupt:
                goes_on = "" if settings.output == "-" else "; the same command goes on where it was"
                raise options.Interrupted(f"interrupted{goes_on}") from None
            screen.event("done", **asdict(summary))
    if plan:
        show_plan(found, settings.workers, price)
    else:
        show(summary)


def show_plan(plan: Plan, workers: int | None, price: float | None) -> None:
    """Say how long it takes, and what it costs."""

    def line(what: str, figure: str) -> None:
        click.echo(f"{what:<20} {figure}")

    def took(seconds: float) -> str:
        minutes = round(seconds / 60)
        return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"

    line("papers", f"{plan.rows:,}{'' if plan.exact else ' (told by the bytes of the first)'}")
    line("sample", f"{plan.sampled:,}, labelled here; the gate decided {plan.gate_share:.1%}")
    line("rate", f"{plan.papers_per_s:,.0f} papers/s, and {plan.fixed_s:.1f} s for each run")
    for count in (1, *([workers] if workers is not None and workers > 1 else [])):
        cost = f", {plan.price(price, count):,.2f} at {price:g} an hour each" if price is not None else ""
        where = "here" if count == 1 else f"on {count} like it"
        line(where, took(plan.seconds(count)) + cost)


def show(summary: LabelSummary) -> None:
    """Say what became of the papers."""
    lines = list(_lines(summary))
    width = max(20, *(len(what) for what, _ in lines))
    for what, figure in lines:
        click.echo(f"{what:<{width}} {figure}", err=summary.output == "-")


def _lines(summary: LabelSummary) -> Iterator[tuple[str, str]]:
    yield "papers", f"{summary.papers:,}"
    for name, count in summary.labelled.items():
        yield f"labelled {name}", f"{count:,} ({count / max(1, summary.papers):.1%})"
    for reason, count in summary.rejects.items():
        yield f"rejected, {reason}", f"{count:,}"
    if not summary.rejects:
        yield "rejected", "0"
    if summary.decided.keys() - {"encoder"}:
        shares = (f"{name} {count:,} ({count / summary.papers:.1%})" for name, count in summary.decided.items())
        yield "decided by", ", ".join(shares)
    if summary.bound is not None:
        share = f"at most {summary.bound:.2%} of the papers labelled without it"
        yield "changed by the gate", f"{share}, for each label (95 % confidence)"
        for name, gate in summary.gates.items():
            counts = f"{gate.lost:,} lost and {gate.gained:,} gained of {gate.labelled:,} labelled"
            yield f"on validation, {name}", counts
    if summary.prevalence:
        shifts = (f"{name} {of['target']:.2%} (from {of['fitted']:.2%})" for name, of in summary.prevalence.items())
        yield "scores shifted to", ", ".join(shifts)
    if summary.ids_restored:
        yield "damaged ids", f"{summary.ids_restored:,} (zeros lost; told from the dates, kept as they stand)"
    if summary.seen:
        from arxivclf.corpus.seen import told

        yield "seen in training", f"{told(summary.seen)}; report --unseen-by leaves them out"
    for warning in summary.warnings:
        yield "warning", warning
    found = summary.papers - summary.papers_now
    before = f" ({found:,} were done before)" if found else ""
    yield "time", f"{summary.seconds:.1f} s, {summary.papers_now / max(summary.seconds, 1e-3):,.0f} papers/s{before}"
    if summary.waits_for:
        yield "labels", f"none yet, {summary.waits_for}; the last shard makes {summary.output}, or arxivclf merge does"
        return
    if summary.output != "-":
        yield "labels", summary.output
    if summary.rejects_file:
        yield "rejects", summary.rejects_file
