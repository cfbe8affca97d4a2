"""Where a dump's bytes are: files, globs and folders as they stand; standard input and remote files, fetched first.

What can be read but once or slowly is copied to disk before anything else happens, so that a run can read it twice,
tell whether it is the same as before, and go on after it was killed. Only here pyarrow's file systems are known.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, cast

import xxhash

from arxivclf.errors import DataError, UsageError, one_line

STANDARD_INPUT = "-"
# Of a model folder, which has JSON of its own.
_MODEL_FILE = "arxivclf.json"
SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet")
PACKED = ("", ".gz", ".zst")

_SCHEMES = ("s3://", "gs://", "hf://")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Source:
    """One file of a dump: the name that the user knows it by, and the path where its bytes are."""

    name: str
    path: Path

    def fingerprint(self) -> str:
        """XXH3 (128 bits, hexadecimal) of its bytes: a file that has it is the same file, whatever its name."""
        digest = xxhash.xxh3_128()
        with open(self.path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return str(digest.hexdigest())


def resolve(paths: Sequence[str]) -> list[str]:
    """The names of all files, with globs and folders spelled out and sorted, each file once.

    Labels and rejects of ours are no dumps, unless nothing else is meant. Raises UsageError for a file that is not
    there, DataError for a folder without dumps.
    """
    names = [name for path in paths for name in _resolve_one(path)]
    by_place = {
        name if name == STANDARD_INPUT or is_remote(name) else Path(name).resolve(): name for name in names[::-1]
    }
    return list(dict.fromkeys(by_place.values()))[::-1]


def fetch(names: Sequence[str], folder: Path) -> list[Source]:
    """The sources of resolved names; standard input and remote files are copied into `folder` first."""
    sources = []
    for number, name in enumerate(names):
        if name != STANDARD_INPUT and not is_remote(name):
            sources.append(Source(name, Path(name)))
            continue
        path = folder / f"source-{number:06d}"
        with open(path, "wb") as copy, _stream(name) as stream:
            shutil.copyfileobj(stream, copy, _BLOCK)
        sources.append(Source("standard input" if name == STANDARD_INPUT else name, path))
    return sources


def is_remote(path: str) -> bool:
    """Whether a path names a file of a remote store. Raises UsageError for a store that is not known."""
    if "://" in path and not path.startswith(_SCHEMES):
        raise UsageError(f"{path}: no store that is known; remote files are {', '.join(_SCHEMES)}")
    return path.startswith(_SCHEMES)


@contextmanager
def remote_output(url: str) -> Iterator[BinaryIO]:
    """A file that is copied to a remote store when the block ends well; what was there stays until then."""
    system, path = _system(url)

    def there() -> tuple[object, ...]:
        found = system.get_file_info(path)
        return found.type, found.size, found.mtime_ns

    with _in_one_line(f"{url}: cannot be written"):
        before = there()
    # However a stream to a store ends, what went into it is a file then. Beside the parts there is room.
    with TemporaryFile(dir="." if os.access(".", os.W_OK) else None) as file:
        yield cast(BinaryIO, file)
        file.seek(0)
        with _in_one_line(f"{url}: cannot be written"):
            try:
                with system.open_output_stream(path, compression=None) as stream:
                    shutil.copyfileobj(file, stream, _BLOCK)
            except BaseException:
                with suppress(OSError, ValueError):
                    if there() != before:
                        system.delete_file(path)
                raise


def remote_exists(url: str) -> bool:
    """Whether a remote file is there."""
    from pyarrow.fs import FileType

    system, path = _system(url)
    with _in_one_line(f"{url}: cannot be reached"):
        return bool(system.get_file_info(path).type != FileType.NotFound)


def _resolve_one(path: str) -> list[str]:
    if path == STANDARD_INPUT:
        return [path]
    if is_remote(path):
        return _resolve_remote(path)
    if Path(path).is_file():
        return [path]
    if Path(path).is_dir():
        if (Path(path) / _MODEL_FILE).exists():
            raise UsageError(f"{path}: is a model, and no dump; --model {path} labels with it")
        names = sorted(str(entry) for entry in Path(path).iterdir() if entry.is_file() and is_dump(entry.name))
        if not names:
            raise DataError(
                f"{path}: no dump in this folder (files that end in {', '.join(SUFFIXES)}, or these .gz, .zst)"
            )
        return names
    return _dumps_of(path, (name for name in glob.glob(path, recursive=True) if Path(name).is_file()))


def _resolve_remote(url: str) -> list[str]:
    if not glob.has_magic(url):
        return [url]
    from pyarrow.fs import FileSelector

    scheme = url.split("://")[0]
    system, path = _system(url)
    fixed = path[: min(path.find(sign) for sign in "*?[" if sign in path)].rpartition("/")[0]
    with _in_one_line(f"{url}: cannot be listed"):
        found = system.get_file_info(FileSelector(fixed, recursive=True))
    # fnmatch lets a * stand for folders, too; here that takes two, as in a local glob.
    deep = "**" in path
    fits = (entry.path for entry in found if entry.is_file and fnmatch.fnmatch(entry.path, path))
    return _dumps_of(url, (f"{scheme}://{name}" for name in fits if deep or name.count("/") == path.count("/")))


def _dumps_of(pattern: str, found: Iterable[str]) -> list[str]:
    """What a pattern found, in order. Raises UsageError where that is nothing."""
    names = sorted(found)
    if not names:
        raise UsageError(f"{pattern}: no such file")
    return [name for name in names if not _is_ours(Path(name).name)] or names


def is_dump(name: str) -> bool:
    """Whether a file of this name, in a folder of dumps, is one."""
    endings = tuple(suffix + packed for suffix in SUFFIXES for packed in PACKED)
    return name.endswith(endings) and not _is_ours(name) and name[0] != "."


def _is_ours(name: str) -> bool:
    return any(mark in name for mark in (".labels.", ".rejects.", ".job.json"))


@contextmanager
def _stream(name: str) -> Iterator[BinaryIO]:
    if name == STANDARD_INPUT:
        if threading.current_thread() is threading.main_thread():
            # Polars took Ctrl-C over when it was imported, and lets a read that waits go on: this takes it back.
            signal.signal(signal.SIGINT, signal.getsignal(signal.SIGINT))
        yield sys.stdin.buffer
        return
    system, path = _system(name)
    try:
        # Not unpacked by its ending: what it holds is told by content, as for any other file.
        with system.open_input_stream(path, compression=None) as stream:
            yield cast(BinaryIO, stream)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {one_line(error)}") from None


def _system(url: str):  # type: ignore[no-untyped-def] # noqa: ANN202 (pyarrow is not typed)
    from pyarrow import fs

    if url.startswith("hf://"):
        from huggingface_hub import HfFileSystem

        return fs.PyFileSystem(fs.FSSpecHandler(HfFileSystem())), url.removeprefix("hf://")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if url.startswith("s3://") and endpoint:
        return fs.S3FileSystem(endpoint_override=endpoint), url.removeprefix("s3://")
    with _in_one_line(f"{url}: cannot be reached"):
        return fs.FileSystem.from_uri(url)


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Raise what the file systems raise as a DataError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise DataError(f"{what}: {one_line(error)}") from None
