"""What a person sees of a long job: a bar on a terminal, else a plain line every so often; and events for a machine."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

from arxivclf.errors import UsageError
from arxivclf.progress import Watcher

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_EVERY_S = 10.0
_EVENT_EVERY_S = 1.0


class Screen(Watcher):
    """Shows progress on standard error and writes events to `log_json`; use it as a context."""

    def __init__(self, quiet: bool = False, log_json: str | None = None) -> None:
        self._quiet = quiet
        self._log_path = log_json
        self._log: IO[str] | None = None
        self._open = ExitStack()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""

    def __enter__(self) -> Screen:
        if self._log_path:
            try:
                self._log = self._open.enter_context(open(self._log_path, "a", encoding="utf-8"))
            except OSError as error:
                raise UsageError(f"--log-json {self._log_path}: {error.strerror}") from None
        if sys.stderr.isatty() and not self._quiet:
            self._bar = self._open.enter_context(_progress())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.event("error", message=str(error) or type(error).__name__)
        self._open.close()

    def event(self, name: str, **facts: Any) -> None:
        """Write an event to the log, if there is one."""
        if self._log is not None:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._log.write(json.dumps({"time": stamp, "event": name, **facts}) + "\n")
            self._log.flush()

    def begin(self, stage: str, total: int | None, done: int = 0) -> None:
        self._stage, self._total, self._done = stage, total, done
        self._papers, self._facts = 0, dict[str, float]()
        self._share: float | None = None
        self._started = self._line_at = self._event_at = time.monotonic()
        self.event("begin", stage=stage, total=total, done=done)
        if self._bar is not None:
            self._task = self._bar.add_task(stage, total=1.0, figures="")

    def advance(self, papers: int, share: float | None = None, **facts: float) -> None:
        self._papers += papers
        self._share = share if self._total is None else (self._done + self._papers) / max(1, self._total)
        self._facts |= facts
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._share or 0.0, figures=self._figures(now))
        elif not self._quiet and now - self._line_at >= _LINE_EVERY_S:
            self._line_at = now
            done = f"{self._share:.1%}, " if self._share is not None else ""
            print(f"{self._stage}: {done}{self._figures(now)}", file=sys.stderr, flush=True)
        if now - self._event_at >= _EVENT_EVERY_S:
            self._event_at = now
            self.event("progress", **self._state(now))

    def end(self) -> None:
        now = time.monotonic()
        self.event("end", **self._state(now))
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        if not self._quiet and self._papers:
            took = _clock(now - self._started)
            self._print(
                f"{self._stage}: {self._papers:,} papers in {took}, {self._rate(now):,.0f} papers/s{self._told()}"
            )

    def say(self, text: str, **facts: object) -> None:
        self.event("say", text=text, **facts)
        if not self._quiet:
            self._print(text)

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _figures(self, now: float) -> str:
        left = ""
        if self._share:
            todo = 1 - self._done / self._total if self._total else 1.0
            ours = self._share - (1 - todo)
            left = f", {_clock((now - self._started) * (1 - self._share) / ours)} left" if ours > 0 else ""
        return f"{self._papers:,} papers, {self._rate(now):,.0f} papers/s{left}{self._told()}"

    def _told(self) -> str:
        loss = f", loss {self._facts['loss']:.3f}" if "loss" in self._facts else ""
        rejects = f", {self._facts['rejects']:,.0f} rejects" if self._facts.get("rejects") else ""
        return loss + rejects

    def _rate(self, now: float) -> float:
        return self._papers / max(1e-9, now - self._started)

    def _state(self, now: float) -> dict[str, Any]:
        return {
            "stage": self._stage,
            "papers": self._papers,
            "share": self._share,
            "papers_per_s": round(self._rate(now), 2),
            "elapsed_s": round(now - self._started, 2),
            **self._facts,
        }


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}"),
        console=Console(stderr=True),
        transient=True,
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
