"""Giving files other names in the same directory. Whose turn it is to do so, `owner.turn` says."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from entrypoint.disk.files import flush_directory, opened


def rename(path: Path, to: Path, *, over: bool) -> None:
    """Give a file another name; only with `over`, over what has that name. Raises OSError.

    The file is flushed first: its owner may not have done so, and after a power cut both names would be empty.
    """
    with opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)
    before = path.lstat()
    if not over and os.path.lexists(to):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(to))
    path.rename(to)
    # A rename onto another link of the same file, as a run killed in `rename_unless_taken` leaves it, does nothing.
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(path.lstat(), before):
            path.unlink()
    flush_directory(path.parent)


def rename_unless_taken(path: Path, to: Path) -> bool:
    """Give a file another name; return False when a file has that name already.

    A hard link does it without a gap in which somebody's new file could be overwritten. A run that was killed in
    between has left both names to the same file: it is finished. Raises OSError.
    """
    try:
        os.link(path, to, follow_symlinks=False)
    except FileExistsError:
        if not same_file(path, to):
            return False
    flush_directory(path.parent)  # a power cut must not take the old name and keep back the new one
    path.unlink()
    flush_directory(path.parent)
    return True


def same_file(path: Path, other: Path) -> bool:
    """Say whether two names are the same file, not whether one is a link that leads to the other. Raises OSError."""
    return os.path.samestat(path.lstat(), other.lstat())
