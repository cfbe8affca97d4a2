"""`arxivclf train`."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from arxivclf.cli import options
from arxivclf.cli.push import show
from arxivclf.cli.screen import Screen
from arxivclf.config import CONFIG_FILE, TrainSettings, read_train_settings
from arxivclf.progress import is_first

_option = partial(options.setting, TrainSettings)


@click.command(
    "train",
    epilog="""\b
Examples:
  arxivclf train dump.parquet
  arxivclf train dump.jsonl --task robotics --task cyber --clean cset2020 -o models/two
  arxivclf train            (all from arxivclf.toml in this folder)""",
)
@options.snapshots(required=False)
@_option(
    "--task", multiple=True, metavar="NAME|FILE.toml", help="What to tell: a built-in task or a task file. Repeatable."
)
@_option(
    "--base", metavar="NAME", help="The encoder to start from: minilm, a folder, a hub name (with @REVISION), or none."
)
@_option("-o", "--output", metavar="DIR", help="The model folder to write.")
@click.option(
    "--config",
    metavar="FILE",
    help=f"Settings file; file names in it are relative to it.  [default: {CONFIG_FILE}, when it is there]",
)
@_option("--since", type=int, metavar="YEAR", help="Leave out papers from before this year.")
@_option("--max-papers", type=int, metavar="N", help="Take at most so many papers.")
@_option("--sample", type=float, metavar="PCT", help="Take this percentage of the papers.")
@_option(
    "--undersample",
    type=float,
    metavar="RATIO",
    help="Train the encoder on so many negatives for each positive, others in each pass.",
)
@_option("--weak-negatives", metavar="FILE", help="A dump whose papers all count as negative, to train on.")
@_option("--weak-negative-share", type=float, metavar="F", help="Their share of the training part.")
@_option("--validation", metavar="FILE", help="Validate on this dump instead of the hashed split.")
@_option("--exclude", metavar="FILE", help="A dump whose papers take no part, to be judged on later.")
@_option("--split", help="Part the papers by a hash of the id, or by age.")
@_option("--clean", help="How the text is cleaned.")
@_option(
    "--epochs", type=float, metavar="F", help="Passes over the papers.  [default: 160,000 papers in all, 6 at most]"
)
@_option("--learning-rate", type=float, metavar="F", help="Peak of the schedule.  [default: what fits the base]")
@_option("--batch-size", type=int, metavar="N", help="Papers a step.")
@_option("--max-tokens", type=int, metavar="N", help="Cut longer texts.")
@_option("--resume", is_flag=True, help="Go on with a training of this model that was cut off.")
@_option("--loss", help="What is minimised.")
@_option("--tune", help="Which weights are trained.")
@_option(
    "--track",
    multiple=True,
    help="Also write figures to TensorBoard (<model>.runs) or Weights & Biases. Repeatable.",
)
@_option("--gate/--no-gate", help="Fit a linear model that decides what it is sure of.  [default: gate]")
@_option(
    "--gate-risk",
    type=float,
    metavar="F",
    help="At most this share of a label's papers may get another label by it, with 95 % confidence.",
)
@_option("--push", metavar="REPO", help="Push the model to this repository (owner/name) on the hub.")
@options.naming
@options.computing
@_option("--seed", type=int, help="Seed of all that is random.")
@options.listening
@click.pass_context
def command(ctx: click.Context, /, config: str | None, quiet: bool, log_json: str | None, **_: Any) -> None:
    """Fine-tune a classifier on a dump of arXiv metadata; writes a model folder.

    SNAPSHOT is a file, a glob, a folder, s3://, gs:// or hf://, or - for standard input: a Kaggle snapshot, OpenAlex
    works, or any table with id, title and abstract (or text), and categories (or label), as JSON lines (plain, .gz or
    .zst) or Parquet.
    """
    given = options.given(ctx, TrainSettings)
    path = Path(config or CONFIG_FILE)
    settings = read_train_settings(path, given) if config or path.exists() else TrainSettings(**given)
    options.refuse_log_into(
        log_json,
        (*settings.snapshots, settings.validation, settings.weak_negatives, settings.exclude),
        (settings.output,),
    )
    # Of the processes that torchrun starts the first alone speaks.
    first = is_first()
    with Screen(quiet or not first, log_json if first else None) as screen:
        if config is None and path.exists():
            screen.say(f"Settings from {path}")
        screen.begin("Loading the libraries", None)
        from arxivclf.training.train import train

        screen.end()
        started = time.time()
        try:
            result = train(settings, screen)
        except KeyboardInterrupt:
            from arxivclf.model.folder import checkpoint_of

            kept = checkpoint_of(Path(settings.output))
            # One that was there before may be another training's.
            own = kept.exists() and (settings.resume or kept.stat().st_mtime >= started)
            goes_on = "; --resume goes on from its checkpoint" if own else ""
            raise options.Interrupted(f"interrupted{goes_on}") from None
        if not first:
            return
        screen.event("done", folder=str(result.folder), metrics=result.info.metrics)
    from rich.console import Console
    from rich.text import Text

    from arxivclf.reporting.tables import label_tables

    console = Console(markup=False, emoji=False)
    for report in (result.validation, result.test):
        console.rule(Text(f"on {report.source}"), align="left")
        for label in report.labels:
            for part in label_tables(label):
                console.print(part)
    if result.rejects_file:
        click.echo(f"Rejected rows are in {result.rejects_file}.")
    from arxivclf.training.card import how_calibrated

    for name in result.info.calibrations:
        validation, test = (result.info.metrics[part][name] for part in ("validation", "test"))
        click.echo(
            f"{name}: scores {how_calibrated(result.info, name)}; expected calibration error on validation"
            f" {validation['calibration_error']:.3f} (before: {validation['calibration_error_before']:.3f}), on test"
            f" {test['calibration_error']:.3f}; labelled from a score of {result.info.thresholds[name]:.3f} on"
        )
    click.echo(f"The model is in {result.folder}, and its card in {result.folder / 'README.md'}.")
    if result.pushed:
        show(result.pushed)
