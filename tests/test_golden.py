"""What the terminal shows, kept as files: each table at 80 and at 120 columns.

`ARXIVCLF_GOLDEN=write pytest tests/test_golden.py` writes them anew; look at the difference before it is committed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import Result
from test_compare import pair
from test_drift import dumps
from test_slices import labels_of

GOLDEN = Path(__file__).parent / "golden"
WRITE = os.environ.get("ARXIVCLF_GOLDEN") == "write"
WIDTHS = (80, 120)

SCREENS = {
    "report": ("labels.parquet", "--by", "year", "--by", "primary", "--errors", "3", "--for-precision", "0.9"),
    "several-labels": ("two.parquet", "--for-recall", "0.93", "--for-precision", "0.995"),
    "model": ("model",),
    "without-truth": ("blind.parquet", "--by", "year"),
    "adjusted": ("adjusted.parquet", "--by", "year"),
    "truth": ("blind.parquet", "--truth", "truth.parquet"),
    "compare": ("new.parquet", "--compare", "old.parquet", "--by", "year", "--errors", "3"),
    "compare-without-truth": ("blind-new.parquet", "--compare", "blind-old.parquet"),
    "drift": ("later.parquet", "--drift", "earlier.parquet"),
    "drift-without-words": ("bare-later.parquet", "--drift", "bare-earlier.parquet"),
}


@pytest.fixture
def files(tmp_path: Path) -> None:
    """The files that the screens are of."""
    frames = {"labels": labels_of()}
    more = frames["labels"].select(pl.col("ai", "ai_score", "ai_truth").name.replace("ai", "robotics"))
    frames["two"] = frames["labels"].hstack(more.reverse())
    frames["blind"] = frames["labels"].with_columns(ai_truth=pl.lit(None, pl.Boolean))
    frames["truth"] = frames["labels"].select("id", "title", "ai_truth").head(1_500)
    frames["old"], frames["new"] = pair()
    frames |= {f"blind-{name}": frames[name].drop("ai_truth") for name in ("old", "new")}
    frames["earlier"], frames["later"] = dumps(more=0.1)
    frames |= {f"bare-{name}": frames[name].select("id", "ai", "ai_score") for name in ("earlier", "later")}
    for name, frame in frames.items():
        frame.write_parquet(tmp_path / f"{name}.parquet")
    counts = {"true_positives": 391, "false_positives": 102, "false_negatives": 17, "true_negatives": 1_490}
    job = {"labels": {"ai": 0.501}, "evaluation": {"ai": counts}}
    footer = {"arxivclf": json.dumps({"job": job, "parts": []})}
    frames["blind"].write_parquet(tmp_path / "adjusted.parquet", metadata=footer)
    model = tmp_path / "model"
    model.mkdir()
    frames["labels"].write_parquet(model / "test.labels.parquet")
    alone = {"precision": 0.8, "recall": 0.75, "f1": 0.7742, "accuracy": 0.91, "average_precision": 0.82}
    without_gate = {"precision": 0.85, "recall": 0.8, "f1": 0.8242, "accuracy": 0.93, "average_precision": 0.88}
    metrics = {"alone": {"linear": {"test": {"ai": alone}}, "encoder": {}}, "test_without_gate": {"ai": without_gate}}
    (model / "arxivclf.json").write_text(json.dumps({"metrics": metrics}))


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("screen", SCREENS)
def test_the_screen_is_the_one_that_was_looked_at(screen: str, width: int, cli: Callable[..., Result]) -> None:
    shown = cli("report", *SCREENS[screen], env={"COLUMNS": str(width)})
    assert shown.exit_code == 0, shown.output
    lines = [line.rstrip() for line in shown.stdout.splitlines()]
    assert max(map(len, lines)) <= width
    text = "\n".join(lines) + "\n"
    path = GOLDEN / f"{screen}.{width}.txt"
    if WRITE:
        path.write_text(text)
    assert path.read_text() == text


def test_every_golden_file_is_one_of_a_screen() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {
        f"{screen}.{width}.txt" for screen in SCREENS for width in WIDTHS
    }


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("more", [{}, {"NO_COLOR": "1"}])
def test_a_pipe_gets_no_colours_and_80_columns(more: dict[str, str], tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")} | more
    command = [sys.executable, "-m", "arxivclf", "report", "labels.parquet"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "precision" in done.stdout
