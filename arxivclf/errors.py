"""Every error that a user can cause, as one tree; it knows nothing of the command line.

Each carries one line: what, where, and what next. The exit code is the one that the command line gives back. An error
is made of its message alone, so that it can be pickled and cross from one process to another.
"""

from __future__ import annotations

import errno
import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class ArxivclfError(Exception):
    """The root of the tree: something outside the program is wrong, and the message says what."""

    exit_code = 1


class DataError(ArxivclfError):
    """A dump, a labels file or a task file cannot be used as it is."""


class ModelError(ArxivclfError):
    """A model folder or a base model cannot be loaded, or must not be."""


class HubError(ArxivclfError):
    """The hub cannot be reached, or does not let us do what was asked for."""


class DeviceError(ArxivclfError):
    """The device that was asked for is not there."""


class MissingExtraError(ArxivclfError):
    """An optional part of the program is not installed; the message has the command that installs it."""


class UsageError(ArxivclfError):
    """The request itself makes no sense, whatever the data."""

    exit_code = 2


def plain(text: str) -> str:
    """A text as one line, without what a terminal would obey: names of files and columns, and dumps, may hold that."""
    return _CONTROL.sub("", " ".join(text.split()))


def reason(error: OSError) -> str:
    """What the system says went wrong, without the name of the file."""
    return "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror or str(error)


def one_line(error: BaseException) -> str:
    """What an error says, in one line that is not too long for a terminal."""
    return " ".join(str(error).split())[:300]
