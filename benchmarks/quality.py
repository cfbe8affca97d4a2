"""How good the labels of models are, by label and by range of years, with their gate and without.

    python benchmarks/quality.py PAPERS... --model bundled --model five-labels [--truth FILE]

Labels the papers (dumps with categories) with every model, with its gate and without where it has one, and prints a
Markdown table: F1, average precision, expected calibration error (15 bins of equal size), and the labelled share next
to the true one. A dump without categories takes its ground truth from the column `label` of the same file: a yes or no
for `--label`, or else the first label. Only rows with at least 200 papers are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from arxivclf import LabelSettings, label
from arxivclf.corpus.ids import arxiv_key, years_of
from arxivclf.model.hub import find_folder
from arxivclf.reporting.metrics import Confusion, average_precision, calibration_error

RANGES = ((2007, 2014), (2015, 2019), (2020, 2023), (2024, 2024), (2025, 2026))
FEWEST = 200


def rows(papers: str, model: str, gate: bool, asked: str, by_year: bool) -> Iterator[tuple[str, ...]]:
    """The rows of one dump and one model."""
    with TemporaryDirectory() as folder:
        output = Path(folder, "labels.parquet")
        settings = LabelSettings((papers,), model=(model,), output=str(output), gate=gate, max_rejects=1.0)
        label(settings)
        labels = pl.read_parquet(output)
    names = [column.removesuffix("_score") for column in labels.columns if column.endswith("_score")]
    if labels.get_column("categories").null_count() == len(labels):
        truth = pl.read_parquet(papers, columns=["id", "label", "year"])
        labels = labels.drop(f"{asked}_truth").join(truth.rename({"label": f"{asked}_truth"}), on="id")
        names = [asked]
    else:
        labels = labels.with_columns(year=pl.lit(None, pl.Int64))
    key = arxiv_key(pl.col("id"), pl.col("created"))
    years = years_of(labels.select("created", pl.col("year").cast(pl.Int64), key=key))
    ranges = [(year, year) for year in range(2010, 2027)] if by_year else RANGES
    for name in names:
        truth, given, scores = (labels.get_column(f"{name}{end}").to_numpy() for end in ("_truth", "", "_score"))
        whole = int(years[years > 0].min(initial=9999)), int(years.max())
        for first, last in (whole, *(each for each in ranges if each != whole)):
            which = (years >= first) & (years <= last)
            if which.sum() < FEWEST or not truth[which].any():
                continue
            y_true, y_pred, score = truth[which].astype(bool), given[which], scores[which]
            yield (
                Path(papers).stem, f"{Path(model).name}{'' if gate else ', no gate'}", name,
                str(first) if first == last else f"{first}-{last}", f"{which.sum():,}",
                f"{Confusion.count(y_true, y_pred).f1:.3f}", f"{average_precision(y_true, score):.3f}",
                f"{calibration_error(y_true, score):.3f}", f"{np.mean(y_pred):.3f} / {np.mean(y_true):.3f}",
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("papers", nargs="+")
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--label", default="ai", help="The label that a yes or no answers.")
    parser.add_argument("--by-year", action="store_true", help="Single years instead of ranges.")
    arguments = parser.parse_args()
    header = (
        "papers",
        "model",
        "label",
        "years",
        "n",
        "F1",
        "average precision",
        "calibration error",
        "labelled / true",
    )
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header), flush=True)
    for model in arguments.model:
        has_encoder = (find_folder(model) / "config.json").exists()
        for papers in arguments.papers:
            for gate in (True, False) if has_encoder else (True,):
                for row in rows(papers, model, gate, arguments.label, arguments.by_year):
                    print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
