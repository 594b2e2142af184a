"""Giving files other names, while another instance may do the same in the same directory."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from entrypoint.disk.files import acquire, opened

_RENAME_PATIENCE = 0.05  # seconds: a rename takes a fraction of a millisecond, and leaving must not take 100


def rename(path: Path, to: Path, *, over: bool) -> None:
    """Give a file another name in the same directory; only with `over`, over what has that name. Raises OSError."""
    with _renaming(path.parent):
        before = path.lstat()
        if not over and os.path.lexists(to):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(to))
        path.rename(to)
        # A rename onto another link of the same file, as a run killed in `rename_unless_taken` leaves it, does nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.lstat(), before):
                path.unlink()


def rename_unless_taken(path: Path, to: Path) -> bool:
    """Give a file another name in the same directory; return False when a file has that name already.

    A hard link does it without a gap in which somebody's new file could be overwritten. A run that was killed in
    between has left both names to the same file: it is finished. Raises OSError.
    """
    with _renaming(path.parent):
        try:
            os.link(path, to, follow_symlinks=False)
        except FileExistsError:
            if not same_file(path, to):
                return False
        path.unlink()
    return True


@contextlib.contextmanager
def _renaming(directory: Path) -> Iterator[None]:
    """Keep other instances from renaming in this directory, and flush it afterwards. Raises OSError.

    In a rolling update the old instance gives a name back while the new one takes it away. As long as both names are
    one file each would remove the other's, and the master would be gone.
    """
    with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        acquire(descriptor, _RENAME_PATIENCE)
        yield
        os.fsync(descriptor)


def same_file(path: Path, other: Path) -> bool:
    """Say whether two names are the same file, not whether one is a link that leads to the other. Raises OSError."""
    return os.path.samestat(path.lstat(), other.lstat())
