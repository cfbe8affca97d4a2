"""`arxivclf merge`."""

from __future__ import annotations

import click


@click.command(
    "merge",
    epilog="""\b
Example:
  arxivclf merge dump.labels.parquet""",
)
@click.argument("labels")
def command(labels: str) -> None:
    """Make LABELS of the parts that `arxivclf label --shard` left beside it.

    The shard that is last does this itself; this is for when it could not, or for a machine that has neither the dump
    nor the model. Says which chunks are missing where some are.
    """
    from arxivclf.cli.label import show
    from arxivclf.labelling.merge import merge

    show(merge(labels))
