"""Copying and comparing programs of many MiB, so that the page cache does not fill the container's memory limit."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from entrypoint.disk.files import opened, replacement

_CHUNK = 1 << 20  # bytes: small enough to notice a signal in time and to keep few dirty pages


class CancelledError(Exception):
    """The program was told to stop in the middle of a copy; the target is as it was."""


def copy(source: Path, path: Path, cancelled: Callable[[], bool]) -> None:
    """Put a copy of the file `source` at `path`, with its permission bits.

    The target may be a running program: it is replaced, never opened, so "text file busy" cannot happen (upstream
    issue 1221). The page cache of what a container reads and writes counts against its memory limit, so each chunk is
    flushed and let go of.
    Raises OSError or, when `cancelled` says so between two chunks, `CancelledError`; then the target is as it was.
    """
    with opened(source, os.O_RDONLY) as origin:
        mode = stat.S_IMODE(os.fstat(origin).st_mode)
        with replacement(path, mode) as target:
            offset = 0
            while sent := os.sendfile(target, origin, offset, _CHUNK):
                if cancelled():
                    raise CancelledError
                offset += sent
                os.fdatasync(target)
                _let_go((origin, target), offset)


def compared(one: Path, other: Path, cancelled: Callable[[], bool]) -> tuple[bool, str]:
    """Say whether two files hold the same bytes, and return the SHA-256 digest of the first.

    Nothing of them is left in the page cache. Raises OSError or `CancelledError`.
    """
    hashed, same = hashlib.sha256(), True
    with opened(one, os.O_RDONLY) as first, opened(other, os.O_RDONLY) as second:
        offset = 0
        while True:
            chunks = [os.pread(descriptor, _CHUNK, offset) for descriptor in (first, second)]
            _let_go((first, second), offset + _CHUNK)
            same = same and chunks[0] == chunks[1]
            if not chunks[0]:
                return same, hashed.hexdigest()
            if cancelled():
                raise CancelledError
            hashed.update(chunks[0])
            offset += len(chunks[0])


def digest(path: Path, cancelled: Callable[[], bool]) -> str:
    """Return the SHA-256 digest of a file. Raises OSError or `CancelledError`."""
    return compared(path, path, cancelled)[1]


def _let_go(descriptors: Iterable[int], end: int) -> None:
    """Let the kernel forget these files up to the offset `end`: from the beginning, because it forgets whole folios."""
    for descriptor in descriptors:
        os.posix_fadvise(descriptor, 0, end, os.POSIX_FADV_DONTNEED)
