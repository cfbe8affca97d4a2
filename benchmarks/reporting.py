"""How long a report takes, from start to prompt, and how much memory.

    python benchmarks/reporting.py              10,000 and 3,000,000 papers
    python benchmarks/reporting.py 500000       so many

Each report, by year and by primary category, is a process of its own over synthetic labels. Beside it stands what
reading the same three columns and computing the same figures, without an interval and without a slice, takes
scikit-learn in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from arxivclf.corpus.taxonomy import CATEGORIES

PEER = """
import sys
import polars as pl
from sklearn.metrics import (accuracy_score, average_precision_score, confusion_matrix, f1_score, precision_score,
                             recall_score, roc_auc_score)
table = pl.read_parquet(sys.argv[1], columns=["ai", "ai_score", "ai_truth"]).drop_nulls()
given, score, truth = (table[name].to_numpy() for name in ("ai", "ai_score", "ai_truth"))
print(confusion_matrix(truth, given))
for figure in (accuracy_score, precision_score, recall_score, f1_score):
    print(figure(truth, given))
print(average_precision_score(truth, score), roc_auc_score(truth, score))
"""


def write_labels(path: Path, papers: int) -> None:
    """Labels as `arxivclf label` writes them: a tenth is about AI, and one in fifty has no truth."""
    random = np.random.default_rng(0)
    truth = random.random(papers) < 0.1
    scores = (1 / (1 + np.exp(-random.normal(truth * 6 - 4, 1.5)))).astype(np.float32)
    names = np.array(sorted(CATEGORIES))
    first, second = (names[random.integers(0, len(names), papers)] for _ in range(2))
    days = np.datetime64("1991-08-01") + random.integers(0, 12_000, papers)
    pl.DataFrame(
        {
            "id": np.char.add("2101.", np.char.zfill(np.arange(papers).astype(str), 7)),
            "created": days,
            "categories": np.char.add(np.char.add(first, " "), second),
            "ai": scores >= 0.5,
            "ai_score": scores,
            "ai_truth": pl.Series(truth).set(pl.Series(np.arange(papers) % 50 == 7), None),
            "decided_by": pl.repeat("gate", papers, eager=True),
            "text_hash": random.integers(0, 2**63, papers).astype(np.uint64),
        }
    ).write_parquet(path)


def run(*command: str) -> tuple[float, float]:
    """The seconds that a command takes, and its peak resident memory in GB."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.monotonic() - started, usage.ru_maxrss / 2**20


def main(sizes: list[int]) -> None:
    print(
        "| papers | seconds | memory, GB | scikit-learn, seconds | memory, GB |\n| ---: | ---: | ---: | ---: | ---: |"
    )
    with TemporaryDirectory() as folder:
        for papers in sizes:
            path = Path(folder) / "x.labels.parquet"
            write_labels(path, papers)
            ours = run(sys.executable, "-m", "arxivclf", "report", str(path), "--by", "year", "--by", "primary")
            peer = run(sys.executable, "-c", PEER, str(path))
            print(f"| {papers:,} | {ours[0]:.2f} | {ours[1]:.2f} | {peer[0]:.2f} | {peer[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [10_000, 3_000_000])
