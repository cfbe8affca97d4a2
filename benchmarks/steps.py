"""Where the time of a labelling goes: how long each step was at work, and how much of that another was, too.

    python benchmarks/steps.py dump.parquet model [--papers N] [--no-gate]

Reading, preparing (cleaning, linear model, tokenising), scoring and writing have a thread each. A step that is at work
all of the time is what the others wait for; the sum is above 100 % where they go on side by side. Counting comes before
the others and merging after them. Seconds are of the clock, so that a step that waits for a core counts as at work.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from arxivclf import LabelSettings, label
from arxivclf.corpus.snapshot import Snapshot
from arxivclf.labelling import classifier, run
from arxivclf.labelling.classifier import Classifier
from arxivclf.labelling.parts import Parts
from arxivclf.model.classifier import Model
from arxivclf.model.linear import Linear

SECONDS: dict[str, float] = defaultdict(float)
# A step within another is told apart from it.
STEPS: list[tuple[str, Any, str]] = [
    ("loading the model", Classifier, "load"),
    ("counting", run, "take_census"),
    ("preparing", Classifier, "prepare"),
    ("of it cleaning", classifier, "compose"),
    ("of it linear model", Linear, "logits_of_many"),
    ("of it tokenising", Model, "tokenize"),
    ("scoring", Classifier, "finish"),
    ("writing parts", Parts, "add"),
    ("merging", run, "make_output"),
]


def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*args, **named)
        finally:
            SECONDS[name] += time.perf_counter() - started

    return wrapped


def reading(chunks: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    def wrapped(self: Snapshot, *args: Any) -> Iterator[Any]:
        # Counting reads, too, and all of it.
        name, found = "reading" if len(args) > 1 else "of it reading", chunks(self, *args)
        while True:
            started = time.perf_counter()
            chunk = next(found, None)
            SECONDS[name] += time.perf_counter() - started
            if chunk is None:
                return
            yield chunk

    return wrapped


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dump")
    parser.add_argument("model")
    parser.add_argument("--papers", type=int, help="the first so many alone")
    parser.add_argument("--no-gate", action="store_true")
    given = parser.parse_args()
    for name, owner, method in STEPS:
        plain = owner.__dict__[method] if isinstance(owner, type) else getattr(owner, method)
        if isinstance(plain, classmethod):
            setattr(owner, method, staticmethod(timed(name, getattr(owner, method))))
        else:
            setattr(owner, method, timed(name, plain))
    Snapshot.chunks = reading(Snapshot.chunks)
    started = time.perf_counter()
    with TemporaryDirectory() as folder:
        output = str(Path(folder, "labels.parquet"))
        how = {"gate": not given.no_gate, "limit": given.papers}
        done = label(LabelSettings((given.dump,), (given.model,), output=output, **how))
    whole = time.perf_counter() - started
    print("| step | seconds | share |\n| --- | --- | --- |")
    order = ["loading the model", "counting", "of it reading", "reading", *(name for name, *_ in STEPS[2:])]
    for name in order:
        print(f"| {name} | {SECONDS[name]:.2f} | {SECONDS[name] / whole:.0%} |")
    print(f"| the whole | {whole:.2f} | {done.papers / (whole - SECONDS['loading the model']):,.0f} papers/s |")


if __name__ == "__main__":
    main()
