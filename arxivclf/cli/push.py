"""`arxivclf push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from arxivclf.model.hub import Pushed


@click.command(
    "push",
    epilog="""\b
Examples:
  arxivclf push model ada/arxiv-ai
  arxivclf push models/robotics ada/arxiv-robotics --private --revision v2""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("repo")
@click.option("--private", is_flag=True, help="Make the repository private, where it is made anew.")
@click.option("--revision", metavar="NAME", help="Push to this branch; it is made where it is absent.  [default: main]")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")
def command(model: Path, repo: str, private: bool, revision: str | None, quiet: bool) -> None:
    """Push a model folder to the Hugging Face Hub, whence `--model REPO` and `--base REPO` take it.

    MODEL is a folder that `arxivclf train` made; its model files are pushed, and nothing else that lies there. REPO is
    owner/name; it is made where it is absent. The token is that of `hf auth login`, or HF_TOKEN.
    """
    from arxivclf.model.hub import push

    if not quiet:
        click.echo(f"Pushing {model} to {repo}", err=True)
    show(push(model, repo, private=private, revision=revision, quiet=quiet))


def show(pushed: Pushed) -> None:
    """Say where the model is now, with the commit."""
    click.echo(f"{'Pushed to' if pushed.changed else 'Nothing has changed at'} {pushed.url}")
