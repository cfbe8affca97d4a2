"""The command line as a contract: help, names, defaults, exit codes, and what a start costs."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import polars as pl
import pytest
from click.testing import Result
from conftest import EXAMPLES, error_line

import arxivclf
from arxivclf.cli import main
from arxivclf.config import LabelSettings, TrainSettings

HEAVY = ("torch", "transformers", "polars", "numpy", "pyarrow", "rich", "huggingface_hub")
COMMANDS = main.list_commands(click.Context(main))


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "arxivclf", *arguments], capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    imported = {line.rsplit("|", 1)[-1].strip() for line in start(*arguments).stderr.splitlines()}
    assert "click" in imported
    assert not imported & set(HEAVY)


def test_help_costs_less_cpu_than_five_imports_of_click() -> None:
    """About 0.28 s where it was measured (it took 0.11 s); a ratio, so that it holds on a slower machine."""

    def cpu_s(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # By turns, for the machine may slow down in between; the least of each is what it takes when nothing interferes.
    times = [(cpu_s("-m", "arxivclf", "--help"), cpu_s("-c", "import click")) for _ in range(4)]
    assert min(ours for ours, _ in times) < 5 * min(clicks for _, clicks in times)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_help_with_an_example(cli: Callable[..., Result], command: str, flag: str) -> None:
    result = cli(command, flag)
    assert result.exit_code == 0
    assert f"  arxivclf {command}" in result.stdout.split("Example", 1)[1]


# The contract: each option of a command with its default; None where help does not name one.
CONTRACT: dict[str, dict[str, object]] = {
    "train": {
        "--task": ("ai",),
        "--base": "minilm",
        "--output": "model",
        "--config": None,
        "--since": 2010,
        "--max-papers": None,
        "--sample": None,
        "--undersample": None,
        "--weak-negatives": None,
        "--weak-negative-share": 0.10,
        "--balance": "none",
        "--validation": (),
        "--split": "hash",
        "--clean": "none",
        "--epochs": None,
        "--learning-rate": None,
        "--batch-size": 32,
        "--max-tokens": 512,
        "--device": "auto",
        "--seed": 0,
        "--quiet": False,
        "--log-json": None,
        "--id-column": None,
        "--text-column": None,
        "--label-column": None,
        "--push": None,
        "--resume": False,
        "--loss": "cross-entropy",
        "--tune": "all",
        "--track": (),
        "--exclude": None,
        "--gate": True,
        "--gate-risk": 0.02,
    },
    "label": {
        "--model": (),
        "--gate": True,
        "--task": (),
        "--output": None,
        "--rejects": None,
        "--reuse": None,
        "--keep": (),
        "--limit": None,
        "--chunk-rows": 16_384,
        "--engine": "local",
        "--ray-address": None,
        "--workers": None,
        "--shard": None,
        "--plan": False,
        "--price": None,
        "--threshold": None,
        "--prevalence": (),
        "--max-rejects": 0.01,
        "--keep-duplicates": False,
        "--overwrite": False,
        "--device": "auto",
        "--seed": 0,
        "--quiet": False,
        "--log-json": None,
        "--id-column": None,
        "--text-column": None,
        "--label-column": None,
    },
    "merge": {},
    "report": {
        "--label": None,
        "--threshold": None,
        "--truth": None,
        "--drift": None,
        "--unseen-by": (),
        "--by": (),
        "--errors": 0,
        "--compare": None,
        "--for-precision": (),
        "--for-recall": (),
        "--format": "table",
        "--output": None,
        "--id-column": None,
        "--text-column": None,
        "--label-column": None,
    },
    "tasks": {"--categories": False},
    "push": {"--private": False, "--revision": None, "--quiet": False},
}


@pytest.mark.parametrize("command", COMMANDS)
def test_options_and_defaults_are_those_of_the_contract(command: str) -> None:
    found = main.get_command(click.Context(main), command)
    assert found is not None
    arguments = {"train": ["a-file"], "label": ["a-file"], "push": ["a-folder", "owner/name"], "merge": ["a-file"]}.get(
        command, []
    )
    values = found.make_context(command, arguments).params
    options = {
        max(option.opts, key=len): values[option.name] for option in found.params if isinstance(option, click.Option)
    }
    assert options == CONTRACT[command]


def test_every_setting_is_an_option_or_named_in_its_docstring() -> None:
    for settings, command in ((TrainSettings, "train"), (LabelSettings, "label")):
        fields = set(settings.__dataclass_fields__)
        options = {name.lstrip("-").replace("-", "_") for name in CONTRACT[command]}
        assert options - fields <= {"config", "quiet", "log_json", "seed", "plan", "price"}
        for name in fields - options - {"snapshots"}:
            assert f"`{name}`" in (settings.__doc__ or ""), name


def test_bad_usage_is_one_line_and_exit_code_2(cli: Callable[..., Result]) -> None:
    for arguments, says in (
        (["label"], "Missing argument"),
        (["train", "--epochs", "many", "x"], "not a valid float"),
        (["train", "--clean", "soap", "x"], "soap"),
        (["lable"], "No such command"),
        (["train", "--epochs", "-1", "x"], "epochs must be at least 0"),
        (["label", "x", "--threshold", "7"], "threshold must be"),
        (["train"], "no dump to train on"),
        (["push", "a-folder"], "Missing argument"),
        (["train", "x", "--config", "absent.toml"], "no such settings file"),
    ):
        assert says in error_line(cli(*arguments), 2)


def test_without_a_command_the_help_is_shown(cli: Callable[..., Result]) -> None:
    result = cli()
    assert result.exit_code == 2
    assert "Commands:" in result.output


def test_tasks(cli: Callable[..., Result]) -> None:
    shown = cli("tasks")
    assert shown.exit_code == 0
    for name in ("ai", "cv", "nlp", "robotics", "cyber", "stat.ML", "cmp-lg"):
        assert name in shown.stdout
    own = cli("tasks", EXAMPLES / "own-task.toml")
    assert "quantum" in own.stdout
    assert "astro-ph.*" in own.stdout
    assert "cmp-lg (counts as cs.CL)" in cli("tasks", "--categories").stdout


def test_an_interrupt_exits_with_130(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("arxivclf.training.train.train", interrupted)
    assert "interrupted" in error_line(cli("train", "dump.parquet"), 130)


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m arxivclf tasks --categories | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_the_public_names_are_there() -> None:
    for name in arxivclf.__all__:
        assert getattr(arxivclf, name).__name__ == name
    assert set(arxivclf.__all__) <= set(dir(arxivclf))
    with pytest.raises(AttributeError, match="nope"):
        _ = arxivclf.nope


def test_importing_the_package_costs_nothing() -> None:
    code = "import sys, arxivclf; print(sorted(m for m in sys.modules if m.split('.')[0] in " + repr(HEAVY) + "))"
    code = f"import os; before = dict(os.environ); {code}; print(os.environ == before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True"]


def imports(path: Path) -> list[str]:
    """All modules that a file imports, wherever in it, by their whole names."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def test_one_module_alone_knows_torch_xla() -> None:
    package = Path(arxivclf.__file__).parent
    known = [path.name for path in package.rglob("*.py") if any(name.startswith("torch_xla") for name in imports(path))]
    assert known == ["xla.py"]


def test_imports_run_downwards_only() -> None:
    """cli, then training and labelling side by side, then model and reporting, then corpus."""
    ground = {"config", "errors", "files", "progress", "stopping"}
    below = {
        "corpus": set(),
        "reporting": {"corpus"},
        "model": {"corpus"},
        "training": {"corpus", "model", "reporting"},
        "labelling": {"corpus", "model"},
        "cli": {"corpus", "model", "reporting", "training", "labelling"},
    }
    package = Path(arxivclf.__file__).parent
    for room, may in below.items():
        for path in (package / room).glob("*.py"):
            parts = [name.split(".") for name in imports(path)]
            imported = {part[1] for part in parts if part[0] == "arxivclf" and len(part) > 1} - {"__version__"}
            assert imported <= may | ground | {room}, path
            assert room not in ("corpus", "reporting") or not {"torch", "click"} & {part[0] for part in parts}, path


@pytest.mark.parametrize(("typed", "meant"), [("taks", "tasks"), ("lable", "label"), ("frobnicate", None)])
def test_a_command_that_was_mistyped(cli: Callable[..., Result], typed: str, meant: str | None) -> None:
    said = error_line(cli(typed), 2)
    assert f"No such command {typed!r}" in said
    assert ("Did you mean" in said) is (meant is not None)
    assert meant is None or f"Did you mean {meant!r}?" in said


def test_an_error_does_not_command_a_terminal(cli: Callable[..., Result]) -> None:
    pl.DataFrame({"\x1b]0;owned\x07x_score": [0.5]}).write_parquet("x.parquet")
    assert "no label 'zz'; there are ]0;ownedx" in error_line(cli("report", "x.parquet", "--label", "zz"), 2)
