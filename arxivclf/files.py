"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from arxivclf.errors import DataError, reason

if TYPE_CHECKING:
    import filelock


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes its name when the block ends well, with its bytes on disk; else nothing of it stays.

    Raises DataError where it cannot be written.
    """
    # Where the name is a link, what it leads to is written.
    path = Path(os.path.realpath(path))
    # One name for all who write it, so that what a killed process leaves is written over by the next.
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            yield cast(BinaryIO, file)
        put_in_place(unfinished, path)
    except OSError as error:
        # Whoever writes may read other files meanwhile.
        if error.filename is not None and not is_about(error, unfinished, path):
            raise
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` as long as the block lasts. DataError where another process holds it, or where it
    cannot be made; `what` is what is written meanwhile."""
    # It brings asyncio, which those who write a file do without.
    import filelock

    lock = filelock.FileLock(path, timeout=0)
    try:
        hold(lock)
    except filelock.Timeout:
        raise DataError(f"{what}: another run is writing it; wait for that one, or name another") from None
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        yield
    finally:
        # Where an open file cannot go it stays, and is no lock once it is released.
        with suppress(OSError):
            path.unlink()
        lock.release()


def hold(lock: filelock.BaseFileLock) -> None:
    """Acquire a lock whose holders take its file, and maybe its folder, away with them. Raises what `acquire` does."""
    path = Path(lock.lock_file)
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        if path.exists():
            return
        # The process that held it took the file away in between.
        lock.release()


def put_in_place(unfinished: Path, path: Path) -> None:
    """Give a file its name when its bytes are on disk. Raises OSError."""
    sync_file(unfinished)
    unfinished.replace(path)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Have the bytes of a file on disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk, too: a rename is only safe from a power cut after this."""
    if os.name == "nt":
        return  # There a folder cannot be opened, and a rename is on disk when it is done.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_about(error: OSError, *paths: Path) -> bool:
    """Whether the file that an error names is one of these, or is in one of them, or above."""
    named = Path(str(error.filename))
    return any(path.is_relative_to(named) or named.is_relative_to(path) for path in paths)


def cannot_write(path: Path, error: OSError) -> DataError:
    """The error for a path that could not be written, in one line."""
    return DataError(f"{path}: cannot be written: {reason(error)}")
