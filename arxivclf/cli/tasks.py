"""`arxivclf tasks`."""

from __future__ import annotations

import click


@click.command(
    "tasks",
    epilog="""\b
Examples:
  arxivclf tasks
  arxivclf tasks mine.toml""",
)
@click.argument("files", metavar="[FILE.toml]...", nargs=-1)
@click.option("--categories", is_flag=True, help="List the categories that there are.")
def command(files: tuple[str, ...], categories: bool) -> None:
    """Show the tasks there are, and what counts as positive in each; or those of task files."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from arxivclf.corpus.tasks import Task, built_in
    from arxivclf.corpus.taxonomy import CATEGORIES, SAME_AS

    console = Console()
    if categories:
        for category in sorted(CATEGORIES):
            console.print(
                f"{category} (counts as {SAME_AS[category]})" if category in SAME_AS else category, highlight=False
            )
        return
    task = Task.load(files) if files else built_in()
    table = Table("task", "meaning", "positive categories", "also found as", box=box.SIMPLE_HEAD, pad_edge=False)
    for label in task.labels:
        others = sorted(set(label.spellings()) - set(label.categories))
        cells = (label.name, label.description, " ".join(label.categories) or "(a label column)", " ".join(others))
        table.add_row(*map(Text, cells))
    console.print(table)
