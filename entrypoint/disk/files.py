"""Putting files on disk so that nobody ever sees half of one, renaming them, and sweeping up after a killed run.

A file is written beside its target under a name that no CNI runtime reads, flushed, and renamed over the target;
then the directory is flushed, so that a power cut leaves the old file or the new one. Whose turn it is to write,
`owner.turn` says.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from entrypoint.disk.looks import Signature, signature

_PREFIX, _SUFFIX = ".multus-entrypoint-", ".tmp"
_CREATING = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class ReplacedError(Exception):
    """Somebody else has written the target meanwhile; it is as they left it."""


def write(path: Path, content: bytes, mode: int, over: Signature | None = None) -> None:
    """Put `content` at `path` with the permission bits `mode`.

    Raises OSError or, when `path` is not the file `over` any more, `ReplacedError`; then the target is as it was.
    """
    with replacement(path, mode) as descriptor:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        if over is not None:
            os.fsync(descriptor)  # before the comparison: it takes long
            found = None
            with contextlib.suppress(FileNotFoundError):
                found = signature(path.stat())
            if found != over:
                raise ReplacedError


def make_directory(path: Path) -> None:
    """Make one directory, mode 755 whatever the umask, unless it is there. Raises OSError."""
    try:
        path.mkdir(mode=0o755)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    else:
        path.chmod(0o755)
        flush_directory(path.parent)


def remove(path: Path) -> None:
    """Take a file away; one that is gone already is fine. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        flush_directory(path.parent)


def mark(path: Path) -> None:
    """Make an empty file, mode 644, that need not survive a power cut. Raises OSError, for one when a link is there."""
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW) as descriptor:
        os.fchmod(descriptor, 0o644)  # whatever the umask


def make_locked(path: Path) -> int:
    """Make an empty file that has a record lock as soon as it has its name; return the open descriptor.

    It need not survive a power cut. Raises OSError.
    """
    temporary, descriptor = _locked_temporary(path, os.O_RDWR)
    try:
        os.fchmod(descriptor, 0o644)  # whatever the umask
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.rename(path)
    except BaseException:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)
        raise
    return descriptor


@contextlib.contextmanager
def turn(lock: Path, patience: float, cancelled: Callable[[], bool]) -> Iterator[None]:
    """Wait for other instances that are in such a block with this lock, at most so many seconds or until `cancelled`.

    The lock is a file of ours, mode 600. Where none can be made there is nobody to wait for.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            descriptor = stack.enter_context(opened(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW))
            end = time.monotonic() + patience
            while not _locked(descriptor) and not cancelled() and time.monotonic() < end:
                time.sleep(0.001)
        yield


def sweep(directories: Iterable[Path]) -> list[Path]:
    """Remove the temporary files that a killed run left there; return them.

    A file that another instance is writing at this moment is locked and stays. What cannot be removed stays too:
    no CNI runtime reads it.
    """
    swept: list[Path] = []
    for directory in directories:
        with contextlib.suppress(OSError):
            ours = [name for name in os.listdir(directory) if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]
            swept += [directory / name for name in ours if _remove_abandoned(directory / name)]
    return swept


@contextlib.contextmanager
def replacement(path: Path, mode: int) -> Iterator[int]:
    """Yield a descriptor to write to; on success what was written takes the place of `path`."""
    temporary, lock = _locked_temporary(path, os.O_RDONLY)
    try:
        with os.fdopen(lock), open(temporary, "r+b", buffering=0) as writing:  # and makes none: it would not be secret
            yield writing.fileno()
            os.fchmod(writing.fileno(), mode)
            os.fsync(writing.fileno())
            # As long as it is open for writing, an execution fails with "text file busy". The lock lasts longer.
            writing.close()
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)


def _locked_temporary(path: Path, access: int) -> tuple[Path, int]:
    """Make a temporary file; return it, and a descriptor that has it locked. Raises OSError.

    The lock tells another instance's sweep that the file is in use. A sweep that comes before it takes the file away.
    """
    while True:
        temporary = path.with_name(f"{_PREFIX}{os.urandom(6).hex()}{_SUFFIX}")
        with contextlib.ExitStack() as undo:
            descriptor = os.open(temporary, access | _CREATING, 0o600)
            undo.callback(temporary.unlink, missing_ok=True)
            undo.callback(os.close, descriptor)
            if _locked(descriptor) and os.path.lexists(temporary):
                undo.pop_all()
                return temporary, descriptor


def _locked(descriptor: int) -> bool:
    """Lock a file; say whether that was possible, or it is another's. Raises OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Yield a descriptor of what stands there. Raises OSError."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)  # non-blocking: it may be a FIFO
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def flush_directory(path: Path) -> None:
    """Have the names in a directory survive a power cut. Raises OSError."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


def _remove_abandoned(path: Path) -> bool:
    try:
        with opened(path, os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
            if not _locked(descriptor):
                return False
            path.unlink()
    except OSError:
        return False
    return True


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
