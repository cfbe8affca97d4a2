"""The command line: the program and its exit codes. Each command is a module here, imported when it is used."""

from __future__ import annotations

import os
import signal
import sys
import threading
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

import click

from arxivclf import __version__
from arxivclf.errors import ArxivclfError, plain, reason

_COMMANDS = ("train", "label", "merge", "report", "tasks", "push")


class Program(click.Group):
    """A group that imports a command when it is asked for, and gives every error one line and its exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"arxivclf.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = get_close_matches(args[0], _COMMANDS, 1) if args[0] not in _COMMANDS else []
        if near and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        extra["standalone_mode"] = False
        # Else accelerate, which comes with peft, starts torch-xla wherever that is installed.
        os.environ.setdefault("USE_TORCH_XLA", "0")
        # To be ended is to be interrupted; whoever ignores it goes on to.
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            code = super().main(*args, **extra)
            if sys.stdout is not None:
                sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            hint = f" ({error.ctx.command_path} --help shows how)" if error.ctx else ""
            _stop(error.format_message() + hint, error.exit_code)
        except click.ClickException as error:
            _stop(error.format_message(), error.exit_code)
        except ArxivclfError as error:
            _stop(str(error), error.exit_code)
        except click.Abort:
            _stop("interrupted", 130)
        except BrokenPipeError:
            # Whoever read the output has seen enough; Python would complain once more on its way out.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _stop(where + reason(error), 1)
        except Exception as error:
            # Torch's own kind, without importing it.
            if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
                raise
            told = str(error).partition("\n")[0][:200] or "not enough memory"
            _stop(f"{told}; train takes less with a smaller --batch-size or --max-tokens, label with --device cpu", 1)
        sys.exit(code if isinstance(code, int) else 0)


def _stop(message: str, exit_code: int) -> NoReturn:
    click.echo("Error: " + plain(message), err=True)
    sys.exit(exit_code)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
The shortest session, in a folder that holds a dump:
  arxivclf train dump.parquet
  arxivclf label dump.parquet
  arxivclf report""",
)
@click.version_option(__version__, prog_name="arxivclf", message="%(prog)s %(version)s")
def main() -> None:
    """Train a classifier on arXiv metadata, label whole dumps, see how good the labels are."""
