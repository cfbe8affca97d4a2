"""What weak negatives are worth: how many papers of another corpus a model takes for its own, with them and without.

    python benchmarks/weak_negatives.py arxiv.parquet works.jsonl.gz [VALIDATION] [PAPERS]

A third of the works (JSON lines), by a hash of the id, is held out; two models of the task ai are trained on PAPERS
(20,000) of the dump, one with the other two thirds as weak negatives (a tenth of its training part), else alike. Both
label the third that neither saw.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import polars as pl
import xxhash

from arxivclf import LabelSettings, TrainSettings, label, train

HELD_OUT_OF = 3


def lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        yield from file


def part(works: Path, folder: Path) -> tuple[Path, Path]:
    """The works to learn from and those held out, as files."""
    paths = folder / "learnt.jsonl", folder / "held_out.jsonl"
    with open(paths[0], "wb") as learnt, open(paths[1], "wb") as held_out:
        for line in lines(works):
            third = xxhash.xxh3_64_intdigest(str(orjson.loads(line)["id"]).encode()) % HELD_OUT_OF == 0
            (held_out if third else learnt).write(line)
    return paths


def main(dump: str, works: str, validation: str | None = None, papers: str = "20000") -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        learnt, held_out = part(Path(works), folder)
        for title, weak in (("without", None), ("with", str(learnt))):
            settings = TrainSettings(
                (dump,), max_papers=int(papers), clean="cset2020", max_tokens=128, epochs=1.0,
                validation=(validation,) if validation else (), weak_negatives=weak, output=str(folder / title),
            )  # fmt: skip
            info = train(settings).info
            # Works without an abstract are papers, too; those without a title as well are rejects.
            labels = LabelSettings(
                (str(held_out),), model=(str(folder / title),), output=f"{folder / title}.parquet", max_rejects=1.0
            )
            label(labels)
            found = pl.read_parquet(f"{folder / title}.parquet")
            positive, f1 = int(found.get_column("ai").sum()), info.metrics["validation"]["ai"]["f1"]
            print(
                f"{title + ' weak negatives':<23} {info.papers.get('weak_negatives', 0):>6,} of"
                f" {info.papers['train']['papers']:>7,} papers to train   F1 {f1:.4f}"
                f"   held out: {positive:,} of {len(found):,} called AI ({positive / len(found):.2%}),"
                f" mean score {found.get_column('ai_score').mean():.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
