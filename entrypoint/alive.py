"""The file by which an instance of this program says that it lives: its name, its rank and its lock.

Each instance that can do its work has one of its own in `multus.d`, open for writing and locked. Its name begins with
the instance's rank. The lock alone says that the instance lives: a killed run leaves the file and no lock, a stopped
one (SIGSTOP, a paused container) keeps both, and its place. The kernel reports both ends of a life to who watches the
directory: a file that gets its name, and one that was open for writing and is closed.

It is a POSIX record lock because the kernel drops that before it reports the closing. A lock by `flock` is dropped
after it: who is woken could find it held, and would sleep on for ever. The price: a process loses such a lock when it
closes any descriptor of the file, so the own file is opened nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
from pathlib import Path
from typing import NamedTuple

from entrypoint import files

SUFFIX = ".alive"
"""No CNI runtime reads such a file, and no release sweeps it away as its temporary file."""
NAME = re.compile(r"\.multus-entrypoint-([0-9]{20})-([0-9a-f]{12})" + re.escape(SUFFIX))
_TRIES = 5
"""Another instance's sweep may take a file away before it is locked, and its end the empty directory."""
NOBODY = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
"""Gone, or no file of an instance."""
READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
Rank = tuple[int, str]
"""When the instance started, and a random tie-breaker."""
_FLOCK = struct.Struct("hhqqi")
"""The kernel's `struct flock`: kind, whence, start, length, and the process that holds the lock."""


class Instance(NamedTuple):
    """One that lives, as who is none sees it."""

    rank: Rank
    pid: int
    """Its process; 0 when that is one of another container."""


class Own(NamedTuple):
    """Our own file, open and locked."""

    path: Path
    descriptor: int


def living(directory: Path) -> list[Instance]:
    """Return the living instances, the newest last; nothing is changed."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if NAME.fullmatch(name):
                with contextlib.suppress(OSError):
                    pid = _holder(directory / name)
                    found += [] if pid is None else [Instance(rank_of(name), pid)]
    return sorted(found)


def _holder(path: Path) -> int | None:
    """Return the process that holds the lock, None when nobody does. Raises OSError."""
    descriptor = os.open(path, READING)
    try:
        asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else int(pid)


def rank_of(name: str) -> Rank:
    """Read the rank in the name of such a file."""
    matched = NAME.fullmatch(name)
    assert matched is not None  # noqa: S101 - only such names are taken
    return int(matched[1]), matched[2]


def lives(descriptor: int) -> bool:
    """Say whether an instance has this file locked."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in {errno.EAGAIN, errno.EACCES}  # held, and not without locks at all
    return False


def stands(own: Own) -> bool:
    """Say whether the own file still has its name."""
    try:
        return os.path.samestat(own.path.lstat(), os.fstat(own.descriptor))
    except OSError as error:
        return error.errno not in {errno.ENOENT, errno.ENOTDIR}  # anything else is no news


def made(directory: Path, rank: int) -> Own:
    """Make a file that is locked from the moment at which it has its name. Raises OSError."""
    for tries_left in reversed(range(_TRIES)):
        # Never a name that was there before: who found an earlier file without a lock may be about to remove it.
        path = directory / f".multus-entrypoint-{rank:020}-{os.urandom(6).hex()}{SUFFIX}"
        try:
            files.make_directory(directory)
            return Own(path, files.make_locked(path))
        except (FileNotFoundError, BlockingIOError):
            if not tries_left:
                raise
    raise AssertionError
