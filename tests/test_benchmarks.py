"""The benchmarks that need nothing beside the package still run; what they measure is no test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PAPERS, ROOT


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("steps.py", str(PAPERS), "bundled"), "| counting |"),
        (("memory.py", "stub", "300"), "300 papers   peak"),
    ],
)
def test_it_runs(command: tuple[str, ...], says: str, tmp_path: Path) -> None:
    name, *arguments = command
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
