"""Stopping in good order: Ctrl-C and SIGTERM ask a long job to stop where it can, rather than cut it off anywhere.

A KeyboardInterrupt that comes up anywhere can come up while another thread is waited for, or where polars turns it into
one more; then it is lost, or it is a traceback.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets, for the job to look at; the second stops at once."""
    wanted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wanted
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if wanted.is_set():
            raise KeyboardInterrupt
        wanted.set()
        if os.isatty(2):
            # Not print, which may be in the middle of another line.
            os.write(2, b"\nStopping in good order; Ctrl-C again stops at once.\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wanted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
