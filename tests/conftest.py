"""What all tests share: the example dump, a tiny encoder, a model trained on it, and a way to call the program."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from string import ascii_lowercase, digits, punctuation
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from arxivclf.cli import main
from arxivclf.corpus.snapshot import Snapshot
from arxivclf.corpus.sources import fetch, resolve

# A tiny model is computed before a second thread has woken up; and where something else runs, too, threads that wait
# for each other make a test ten times slower. The processes that tests start inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")

with suppress(ImportError):
    # How long examples take says nothing about a property. (The environment of tests/xla has no hypothesis.)
    from hypothesis import HealthCheck, settings

    settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("unhurried")

# Seconds after which a test fails that waits for another process: far more than any takes on the busiest machine, so
# that it only ends a test that hangs.
HANGS_S = 900.0

# The hub's client gives up after 10 s, which a server on loopback does not always keep to on a busy machine.
for _limit in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
    os.environ.setdefault(_limit, f"{HANGS_S:.0f}")

# What is remembered of one run must not decide in another.
_CACHE = TemporaryDirectory()
os.environ["XDG_CACHE_HOME"] = _CACHE.name

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAPERS = EXAMPLES / "papers.jsonl"
DATA = Path(os.environ.get("ARXIVCLF_DATA", ROOT.parent / "shared" / "data"))

real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real arXiv data is not at {DATA} (ARXIVCLF_DATA)")

# A training that takes seconds: few tokens, and steps large enough for a tiny encoder.
TINY = ("--max-tokens", "48", "--learning-rate", "3e-3", "--epochs", "6", "--since", "1990")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two narrow layers with seeded random weights, and a tokenizer made from the example dump."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("base")
    texts = " ".join(row["title"] + " " + row["abstract"] for row in map(json.loads, PAPERS.read_text().splitlines()))
    # By hand, for a tokenizer that is trained breaks ties in another way each time.
    words = Counter(re.findall(r"[a-z]+", texts.lower()))
    frequent = sorted((word for word in words if len(word) > 1), key=lambda word: (-words[word], word))[:1_500]
    signs = [*ascii_lowercase, *digits, *punctuation]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{sign}" for sign in signs), *frequent]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True, model_max_length=128)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on the example dump for the task ai. Do not write into it."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    result = CliRunner().invoke(main, ["train", str(PAPERS), "--base", str(tiny_base), "-o", str(folder), "-q", *TINY])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call the program in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object, **extra: Any) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in args], **extra)

    return call


def paper(paper_id: Any = "2101.00001", **changes: Any) -> dict[str, Any]:
    """A row of a dump, as Kaggle's snapshot has it; None takes a key away."""
    row = {
        "id": paper_id,
        "submitter": "A. Tester",
        "authors": "A. Tester",
        "title": "Learning to test\n  with few examples",
        "comments": None,
        "categories": "cs.LG stat.ML",
        "abstract": "  We test a model of testing.\nIt works.\n",
        "versions": [{"version": "v1", "created": "Fri, 1 Jan 2021 10:00:00 GMT"}],
        "update_date": "2021-02-03",
    } | changes
    return {name: value for name, value in row.items() if not (name in changes and value is None)}


def papers(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Rows with ids 2101.00001, 2101.00002 ... of which every third is about AI."""
    return [
        paper(
            f"2101.{number:05d}",
            title=f"Paper number {number}",
            categories="cs.LG stat.ML" if number % 3 == 0 else "hep-th math.AG",
            **changes,
        )
        for number in range(1, count + 1)
    ]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def snapshot(*paths: object, **how: Any) -> Snapshot:
    """A dump of local files."""
    return Snapshot(tuple(fetch(resolve([str(path) for path in paths]), Path())), **how)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    """Wait until a condition holds that `process` brings about; fail where it ends without, or hangs."""
    until = time.monotonic() + HANGS_S
    while not condition():
        if process.poll() is not None:
            # It may have come true just before the end.
            assert condition(), f"exit code {process.returncode}: {process.stderr.read() if process.stderr else ''!r}"
            return
        assert time.monotonic() < until, f"still waiting after {HANGS_S:.0f} s"
        time.sleep(0.005)


def error_line(result: Result, exit_code: int) -> str:
    """The one line of a failure: checks the exit code, that there is no traceback, and that the line is the last."""
    assert result.exit_code == exit_code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr
    assert errors[0] == lines[-1], result.stderr
    return errors[0]
