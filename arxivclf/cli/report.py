"""`arxivclf report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from arxivclf.cli import options
from arxivclf.errors import ModelError, UsageError

_MODEL = "model"
_OF_ENDING = {
    "": "table",
    ".txt": "table",
    ".json": "json",
    ".md": "markdown",
    ".html": "html",
    ".htm": "html",
    ".csv": "csv",
}


@click.command(
    "report",
    epilog="""\b
Examples:
  arxivclf report
  arxivclf report dump.labels.parquet --label ai --threshold 0.7
  arxivclf report dump.labels.parquet --by year --by primary --errors 20
  arxivclf report works.labels.parquet --truth arxiv.parquet
  arxivclf report dump.labels.parquet --unseen-by model
  arxivclf report new.labels.parquet --compare old.labels.parquet
  arxivclf report november.labels.parquet --drift october.labels.parquet""",
)
@click.argument("labels", required=False)
@click.option("--label", metavar="NAME", help="Report on this label alone.")
@click.option(
    "--truth",
    metavar="FILE",
    help="Take the truth, and titles, from this dump or these labels, by the ids of the papers.",
)
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
    help="Show N papers of each kind where label and truth differ, those with the surest scores; with --compare, N"
    " papers whose label changed.",
)
@click.option(
    "--compare",
    metavar="LABELS",
    help="Say what changed since these labels, an earlier or another model's, on the papers in both.",
)
@click.option(
    "--drift",
    metavar="LABELS",
    help="Say whether papers have changed since these labels of an earlier dump: shares by year, scores, and words.",
)
@click.option(
    "--unseen-by",
    multiple=True,
    metavar="MODEL",
    help="Leave out the papers that this model met in training (a folder, a name on the hub, or bundled); repeatable.",
)
@click.option(
    "--for-precision",
    type=float,
    multiple=True,
    metavar="F",
    help="Show the lowest threshold whose precision is at least F with 95 % confidence; repeatable.",
)
@click.option(
    "--for-recall",
    type=float,
    multiple=True,
    metavar="F",
    help="Show the highest threshold whose recall is at least F with 95 % confidence; repeatable.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "markdown", "html", "csv"]),
    default="table",
    show_default="what the ending of -o says, or else table",
    help="The form; that of JSON is described in docs/report-json.md.",
)
@click.option("-o", "--output", metavar="FILE", help="Write it to FILE instead of to standard output (-).")
@options.naming
@click.pass_context
def command(
    ctx: click.Context,
    /,
    labels: str | None,
    compare: str | None,
    drift: str | None,
    form: str,
    output: str | None,
    id_column: str | None,
    text_column: str | None,
    label_column: str | None,
    unseen_by: tuple[str, ...],
    **asked: Any,
) -> None:
    """Show how good labels are: confusion matrix, and each figure with its 95 % interval.

    LABELS is a file that `arxivclf label` wrote, or a model folder, whose test split is then reported. Without it, the
    test split of ./model.
    """
    if labels is None and not Path(_MODEL).is_dir():
        raise ModelError("no ./model here, whose test split to report; name a file of labels, or a model folder")
    path, output = labels or _MODEL, None if output == "-" else output
    if asked["truth"] is None and (id_column or text_column or label_column):
        raise UsageError("--id-column, --text-column and --label-column are those of the file of --truth")
    if output is not None:
        _refuse_input_as_output(output, (path, compare, drift), asked["truth"])
    if ctx.get_parameter_source("form") is ParameterSource.DEFAULT:
        ending = Path(output or "").suffix.lower()
        if ending not in _OF_ENDING:
            raise UsageError(f"-o {output}: no form of a report ends in {ending}; --format names one")
        form = _OF_ENDING[ending]
    found: Any
    if compare is not None or drift is not None:
        option = "--compare" if compare is not None else "--drift"
        alone = ("threshold", "truth", "for_precision", "for_recall")
        for name in alone if compare is not None else (*alone, "by", "errors"):
            if asked[name] not in (None, ()) and (name != "errors" or asked[name]):
                raise UsageError(f"--{name.replace('_', '-')} and {option} do not go together")
    if drift is not None and unseen_by:
        raise UsageError("--unseen-by and --drift do not go together")
    if compare is not None and drift is not None:
        raise UsageError(
            "--compare and --drift do not go together: the one is of the same papers, the other of new ones"
        )
    seen = None
    if unseen_by:
        from arxivclf.model.hub import seen_by

        seen = seen_by(unseen_by)
    if compare is not None:
        from arxivclf.reporting.compare import compare as compared

        found = compared(compare, path, asked["label"], asked["by"], asked["errors"], seen)
    elif drift is not None:
        from arxivclf.reporting.drift import drift as drifted

        found = drifted(drift, path, asked["label"])
    else:
        from arxivclf.corpus.columns import Naming
        from arxivclf.reporting.report import report

        found = report(path, **asked, naming=Naming(id_column, text_column, label_column), unseen_by=seen)
    if form == "table" and output is None:
        from rich.console import Console

        from arxivclf.reporting.tables import tables

        console = Console(markup=False, emoji=False)
        for part in tables(found):
            console.print(part)
        return
    from arxivclf.reporting.formats import FORMS

    text = FORMS[form](found)
    if output is None:
        click.echo(text, nl=False)
    else:
        from arxivclf.files import whole_file

        with whole_file(Path(output)) as file:
            file.write(text.encode())
        click.echo(f"The report is in {output}.", err=True)


def _refuse_input_as_output(output: str, labels: Sequence[str | None], truth: str | None) -> None:
    """Raise UsageError if the report would take the place of what it is of, or is to be no file."""
    from arxivclf.corpus.sources import resolve
    from arxivclf.reporting.table import TEST_LABELS

    names = [*filter(None, labels), *(resolve([truth]) if truth is not None else [])]
    read = {Path(name, *more).resolve() for name in names for more in ([], [TEST_LABELS])}
    if not Path(output).name or Path(output).is_dir() or Path(output).resolve() in read:
        raise UsageError(f"-o {output}: is no place for a report; name a file that is not read")
