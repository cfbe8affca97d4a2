"""Options that several commands share, and how options become settings."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import click
from click.core import ParameterSource

from arxivclf.config import DeviceName, choices_of
from arxivclf.corpus.sources import is_dump

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def snapshots(required: bool) -> Callable[[Decorated], Decorated]:
    """The dumps to read."""
    return click.argument(
        "snapshots", metavar="SNAPSHOT..." if required else "[SNAPSHOT...]", nargs=-1, required=required
    )


def listening(command: Decorated) -> Decorated:
    """How much a long job says, and where: --quiet, --log-json."""
    command = click.option(
        "--log-json", type=click.Path(dir_okay=False), help="Write events to this file, one a line."
    )(command)
    return click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")(command)


def computing(command: Decorated) -> Decorated:
    """Where to compute: --device."""
    devices = click.Choice(get_args(DeviceName))
    return click.option(
        "--device", type=devices, default="auto", show_default=True, help="auto: a TPU or a GPU where there is one."
    )(command)


def naming(command: Decorated) -> Decorated:
    """What a dump calls its columns: --id-column, --text-column, --label-column."""
    for what, usual in (
        ("label", "categories, or else label"),
        ("text", "title and abstract, or else text"),
        ("id", "id"),
    ):
        command = click.option(
            f"--{what}-column", metavar="NAME", help=f"The column of the {what} where it is not {usual}."
        )(command)
    return command


class Interrupted(click.ClickException):
    """Ctrl-C or SIGTERM, with how to go on."""

    exit_code = 130


def refuse_log_into(log_json: str | None, inputs: Iterable[str | None], outputs: Iterable[str | None]) -> None:
    """Raise a usage error if the events would be written into a file that is read, or that is to be written."""
    if not log_json:
        return
    log = Path(log_json).resolve()
    if log_json == "-" or log in [Path(name).resolve() for name in outputs if name]:
        raise click.UsageError(f"--log-json {log_json}: is no file of its own; name one for the events alone")
    for name in filter(None, inputs):
        place = Path(name).resolve()
        if log == place or (log.parent == place and is_dump(log.name)) or (glob.has_magic(name) and _fits(log, name)):
            raise click.UsageError(f"--log-json {log_json}: is a file that is read")


def _fits(path: Path, pattern: str) -> bool:
    """Whether a glob would find an absolute path."""
    whole = os.path.normpath(Path(glob.escape(str(Path.cwd())), pattern))
    if "**" not in pattern:
        return path.match(whole)
    # Two stars stand for any folders, or for none.
    return any(fnmatch.fnmatch(str(path), one) for one in (whole, whole.replace("**/", "")))


def given(ctx: click.Context, settings: type[Any]) -> dict[str, Any]:
    """The parameters of a command that belong to `settings` and were given on the command line or by environment."""
    names = {field.name for field in fields(settings)}
    return {
        name: value
        for name, value in ctx.params.items()
        if name in names and ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }


def setting(settings: type[Any], *names: str, **how: Any) -> Callable[[Decorated], Decorated]:
    """An option for a setting; its name, default and choices are the setting's, so that they are written down once."""
    name = max(names, key=len).partition("/")[0].lstrip("-").replace("-", "_")
    defaults = {field.name: field.default for field in fields(settings)}
    default = defaults[name]
    shown = default is not None and default != () and not isinstance(default, bool)
    if choices := choices_of(get_type_hints(settings)[name]):
        how["type"] = click.Choice(choices)
    return click.option(*names, default=default, show_default=shown, **how)
