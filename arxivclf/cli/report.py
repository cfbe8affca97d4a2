"""`arxivclf report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from arxivclf.errors import ModelError

# The name is that of model.folder, which is too heavy to import for it.
_MODEL, _TEST_LABELS = "model", "test.labels.parquet"


@click.command(
    "report",
    epilog="""\b
Examples:
  arxivclf report
  arxivclf report dump.labels.parquet --label ai --threshold 0.7
  arxivclf report dump.labels.parquet --by year --by primary --errors 20""",
)
@click.argument("labels", required=False)
@click.option("--label", metavar="NAME", help="Report on this label alone.")
@click.option("--threshold", type=float, metavar="F", help="Judge the labels that this threshold would give.")
@click.option(
    "--by",
    multiple=True,
    metavar="COLUMN",
    help="Part the papers by year, primary (category), archive, or a column that was kept; repeatable.",
)
@click.option(
    "--errors",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Show N papers of each kind where label and truth differ, those with the surest scores.",
)
@click.option(
    "--for-precision",
    type=float,
    multiple=True,
    metavar="F",
    help="Show the lowest threshold with this precision; repeatable.",
)
@click.option(
    "--for-recall",
    type=float,
    multiple=True,
    metavar="F",
    help="Show the highest threshold with this recall; repeatable.",
)
def command(labels: str | None, **asked: Any) -> None:
    """Show how good labels are: confusion matrix, and each figure with its 95 % interval.

    LABELS is a file that `arxivclf label` wrote, or a model folder, whose test split is then reported. Without it, the
    test split of ./model.
    """
    path = Path(labels or _MODEL)
    if labels is None and not path.is_dir():
        raise ModelError("no ./model here, whose test split to report; name a file of labels, or a model folder")
    if path.is_dir():
        path = path / _TEST_LABELS
        if not path.exists():
            raise ModelError(f"{path.parent}: no {_TEST_LABELS} there; not a model that `arxivclf train` made")
    from rich.console import Console

    from arxivclf.reporting.report import report
    from arxivclf.reporting.tables import tables

    console = Console()
    found = report(path, **asked)
    click.echo(f"Labels in {found.source}")
    for part in tables(found):
        console.print(part)
