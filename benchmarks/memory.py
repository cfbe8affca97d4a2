"""How much memory labelling takes, and that it does not grow with the dump.

    python benchmarks/memory.py                 a stub in the place of the model, 100,000 and 1,000,000 papers
    python benchmarks/memory.py model 20000     a model folder, and so many papers

Each size is labelled in a process of its own from a synthetic dump; the figure is that process's peak resident memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from arxivclf import LabelSettings, Task, label
from arxivclf.labelling import run
from arxivclf.labelling.classifier import Classifier

EXAMPLES = Path(__file__).parents[1] / "examples" / "papers.jsonl"
BLOCK = 50_000


class Stub:
    """Everything that labelling asks of a model, without one: scores are drawn, tokens are none."""

    name, cleaning, thresholds, fingerprint = "stub", "none", {"ai": 0.5}, {"computed": "not at all"}
    task = Task.load(["ai"])
    encoder = SimpleNamespace(device=SimpleNamespace(told=lambda: ""))
    tokenizing, reason, gates, seen, training_range = "stub", "no device", (), None, None
    evaluation: ClassVar[dict[str, Any]] = {}
    prevalence: ClassVar[dict[str, float]] = {}
    target_prevalence: ClassVar[dict[str, float]] = {}

    def linear_logits(self, texts: pl.Series, years: Any) -> Any:
        return np.zeros((len(texts), 1), dtype=np.float32)

    def undecided(self, linear_logits: Any, years: Any) -> Any:
        return np.ones(len(linear_logits), dtype=bool)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [[] for _ in texts]

    def scores(
        self, linear_logits: Any, undecided: Any, token_ids: Sequence[list[int]], advance: Any, years: Any
    ) -> Any:
        advance(len(token_ids))
        return np.random.default_rng(0).random((len(token_ids), 1), dtype=np.float32)


def write_dump(path: Path, papers: int) -> None:
    """A Parquet dump of the example papers under ever new ids, from 2015 on."""
    example = pl.DataFrame([json.loads(line) for line in EXAMPLES.read_text().splitlines()], infer_schema_length=None)
    example = example.select("title", "abstract", "categories", "versions")
    writer = None
    for start in range(0, papers, BLOCK):
        count = min(BLOCK, papers - start)
        months = [f"{15 + start // BLOCK // 12:02d}{start // BLOCK % 12 + 1:02d}.{n:05d}" for n in range(1, count + 1)]
        block = example[np.arange(count) % len(example)].insert_column(0, pl.Series("id", months)).to_arrow()
        writer = writer or pq.ParquetWriter(path, block.schema, compression="zstd")
        writer.write_table(block, row_group_size=20_000)
    if writer is not None:
        writer.close()


def work(dump: str, model: str) -> None:
    if model == "stub":
        run.load = lambda settings, snapshot: Classifier((Stub(),))  # type: ignore[arg-type]
    summary = label(LabelSettings((dump,), (model,), output=f"{dump}.labels.parquet"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {"papers": summary.papers, "peak_mib": round(peak), "papers_per_s": round(summary.papers / summary.seconds)}
        )
    )


def measure(papers: int, model: str) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        dump = Path(folder) / "dump.parquet"
        write_dump(dump, papers)
        command = [sys.executable, __file__, "--work", str(dump), model]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    print(
        f"{found['papers']:>9,} papers   peak {found['peak_mib']:,} MiB   {found['papers_per_s']:,} papers/s",
        flush=True,
    )
    return found


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--work"]:
        work(*arguments[1:])
    elif arguments:
        measure(int(arguments[1]), arguments[0])
    else:
        small, large = measure(100_000, "stub"), measure(1_000_000, "stub")
        print(f"ratio {large['peak_mib'] / small['peak_mib']:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
