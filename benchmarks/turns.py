"""Sides of a benchmark that take turns, each in a process of its own, so that a machine's moods meet all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

POOL = "pool.parquet"

Ready = tuple[dict[str, Any], Callable[[str, str], float]]
"""What is known of a side before it runs, `papers` how many it will label, and a run from a file to a file: seconds."""


def serve(name: str, folder: Path, ready: Callable[[], Ready]) -> None:
    """In the process of a side: tell what is known of it, then label each stretch asked for and tell the seconds."""
    answers = os.fdopen(os.dup(1), "w")
    # Libraries print, too.
    os.dup2(2, 1)
    facts, run = ready()
    papers = pl.read_parquet(folder / POOL, n_rows=facts["papers"])
    papers.write_parquet(folder / f"{name}.papers.parquet")
    print(json.dumps(facts | {"papers": len(papers)}), file=answers, flush=True)
    for line in sys.stdin:
        number, first, last = map(int, line.split())
        source, output = (folder / f"{name}.{number}.{what}.parquet" for what in ("papers", "labels"))
        papers[first:last].write_parquet(source)
        print(run(str(source), str(output)), file=answers, flush=True)


class Side:
    """A side, by the command that `serve`s it. `facts` are its figures, or the `error` that it ended with."""

    def __init__(self, name: str, folder: Path, command: list[str]) -> None:
        self._name, self._folder, self._log = name, folder, folder / f"{name}.log"
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true"}
        pipe = subprocess.PIPE
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environment)
        self.facts: dict[str, Any] = {"seconds": 0.0}
        if (found := self._answer()) is not None:
            tried = [line.strip() for line in self._said() if line.endswith("papers/s")]
            self.facts |= found | {"tried": tried}

    def _said(self) -> list[str]:
        return self._log.read_text().strip().splitlines()

    def _answer(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if line:
            return json.loads(line)
        self.facts = {"error": (self._said() or [f"exit code {self._process.wait()}"])[-1]}
        return None

    def turn(self, number: int, rounds: int) -> None:
        """Let it label the stretch `number` of its papers."""
        if "error" in self.facts or self._process.stdin is None:
            return
        bounds = (self.facts["papers"] * at // rounds for at in (number, number + 1))
        print(number, *bounds, file=self._process.stdin, flush=True)
        if (seconds := self._answer()) is not None:
            self.facts["seconds"] += seconds

    def end(self, rounds: int) -> dict[str, Any]:
        """Its figures; its labels are in `<name>.parquet` then."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        if "error" not in self.facts:
            parts = [pl.read_parquet(self._folder / f"{self._name}.{at}.labels.parquet") for at in range(rounds)]
            pl.concat(parts).write_parquet(self._folder / f"{self._name}.parquet")
        return self.facts
