"""Which directories to watch: each that the kernel passes on its way to a file, links included."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_MAX_LINKS = 40  # as many as the kernel follows
Inode = tuple[int, int]
"""Device and inode number of a directory."""


@dataclass(slots=True)
class Interest:
    """Which names of one directory matter."""

    names: set[bytes] = field(default_factory=set)
    suffixes: tuple[bytes, ...] = ()
    contents: bool = False
    """Not only which files there are matters, but also what is in them."""

    def covers(self, name: bytes) -> bool:
        """Say whether this name is one of them."""
        return name in self.names or name.endswith(self.suffixes)


def interests(
    files: Iterable[Path], listings: Iterable[tuple[Path, tuple[str, ...]]]
) -> dict[Inode, tuple[bytes, Interest]]:
    """Return each directory to watch for these files, and for those with these suffixes in these directories.

    Paths that are one directory, as bind mounts make them, are merged: inotify knows it once. What cannot be read is
    left out: inotify refuses to watch it, which watchdog does not report.
    """
    merged: dict[Inode, tuple[bytes, Interest]] = {}
    for path, interest in _by_path(files, listings).items():
        identity = identity_of(path)
        if identity is None or not os.access(path, os.R_OK):
            continue
        _, known = merged.setdefault(identity, (path, interest))
        known.names |= interest.names
        known.suffixes = tuple({*known.suffixes, *interest.suffixes})
        known.contents = known.contents or interest.contents
    return merged


def _by_path(files: Iterable[Path], listings: Iterable[tuple[Path, tuple[str, ...]]]) -> dict[bytes, Interest]:
    found: dict[bytes, Interest] = {}
    for path in files:
        _add_way(found, os.fsencode(path))
    for directory, suffixes in listings:
        end = _add_way(found, os.fsencode(directory))
        if end is None:
            continue
        interest = found.setdefault(end, Interest())
        interest.suffixes += tuple(os.fsencode(suffix) for suffix in suffixes)
        interest.contents = True
        for name in _links(end, interest.suffixes):
            _add_way(found, os.path.join(end, name))
    return found


def identity_of(path: bytes | Path) -> Inode | None:
    """Return which directory has this path; None when none has."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _add_way(interests: dict[bytes, Interest], path: bytes) -> bytes | None:
    """Add every name that the kernel looks up on its way to `path`; return where the way ends, None if it is broken.

    Whatever then makes the path lead to other content is an entry of one of these directories that comes, goes or
    is replaced, or a change inside the file at the end.
    """
    # Not os.path.abspath: where a link stands before `..` it would lead elsewhere than the kernel goes.
    try:
        directory, pending = b"/", _parts(path if os.path.isabs(path) else os.path.join(os.getcwdb(), path))
    except OSError:  # the working directory has been removed, and with it what is relative to it
        return None
    links = 0
    while pending:
        name = pending.pop()
        if name == b"..":
            directory = os.path.dirname(directory)
            continue
        interest = interests.setdefault(directory, Interest())
        interest.names.add(name)
        step = os.path.join(directory, name)
        try:
            mode = os.lstat(step).st_mode
            if stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    return None
                target = os.readlink(step)
                directory = b"/" if target.startswith(b"/") else directory
                pending += _parts(target)
                continue
        except OSError:
            return None
        if not pending and not stat.S_ISDIR(mode):
            interest.contents = True
        directory = step
    return directory


def _parts(path: bytes) -> list[bytes]:
    """Return the names of a path, the first last."""
    return [part for part in reversed(path.split(b"/")) if part not in {b"", b"."}]


def _links(directory: bytes, suffixes: tuple[bytes, ...]) -> list[bytes]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.name.endswith(suffixes) and entry.is_symlink()]
    except OSError:
        return []
