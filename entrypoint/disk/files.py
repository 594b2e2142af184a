"""Putting files on disk so that nobody ever sees half of one, and sweeping up after a killed run.

A file is written beside its target under a name that no CNI runtime reads, flushed, and renamed over the target;
then the directory is flushed, so that a power cut leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_PREFIX, _SUFFIX = ".multus-entrypoint-", ".tmp"
_CREATING = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY_TRIES = 10


Identity = tuple[int, int, int]
"""Device, inode and modification time of a file: what stays the same when a name points to the same file."""


class ReplacedError(Exception):
    """Somebody else has written the target meanwhile; it is as they left it."""


def write(path: Path, content: bytes, mode: int, over: Identity | None = None) -> Identity:
    """Put `content` at `path` with the permission bits `mode`; return the identity of the new file.

    Raises OSError or, when `path` is not the file `over` any more, `ReplacedError`; then the target is as it was.
    """
    with replacement(path, mode) as descriptor:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        if over is not None:
            os.fsync(descriptor)  # before the comparison: it takes long
            if not _is(path, over):
                raise ReplacedError
        return identity(os.fstat(descriptor))


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
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(descriptor, 0o644)  # whatever the umask
    finally:
        os.close(descriptor)


def make_locked(path: Path) -> int:
    """Make an empty file, mode 644, that has a record lock as soon as it has its name; return the open descriptor.

    It need not survive a power cut. Raises OSError.
    """
    temporary = _temporary(path)
    descriptor = os.open(temporary, _CREATING, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # tells another instance's sweep that it is in use
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.rename(path)
    except BaseException:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)
        raise
    return descriptor


@contextlib.contextmanager
def turn(lock: Path, patience: float, cancelled: Callable[[], bool]) -> Iterator[None]:
    """Wait for other instances that are in such a block with this lock, for at most so many seconds.

    The lock is a file of ours, mode 600. Where none can be made there is nobody to wait for.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            descriptor = stack.enter_context(opened(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW))
            acquire(descriptor, patience, cancelled)
        yield


def acquire(descriptor: int, patience: float, cancelled: Callable[[], bool] = lambda: False) -> None:
    """Lock a file; wait for another's lock so many seconds, or until `cancelled` says so. Raises BlockingIOError."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if cancelled() or time.monotonic() > end:
                raise
            time.sleep(0.001)
        else:
            return


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


def identity(status: os.stat_result) -> Identity:
    """Return what stays the same as long as a name points to the same file.

    With the time of its last change, because file systems give a removed file's inode number to the next new one.
    """
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _is(path: Path, known: Identity) -> bool:
    try:
        return identity(path.stat()) == known
    except OSError:
        return False


@contextlib.contextmanager
def replacement(path: Path, mode: int) -> Iterator[int]:
    """Yield a descriptor to write to; on success what was written takes the place of `path`."""
    temporary, descriptor, lock = _locked_temporary(path)
    try:
        with os.fdopen(lock), os.fdopen(descriptor, "wb", buffering=0) as writing:
            yield descriptor
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
            # As long as it is open for writing, an execution fails with "text file busy". The lock lasts longer.
            writing.close()
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)


def _locked_temporary(path: Path) -> tuple[Path, int, int]:
    """Make a temporary file; return it, open for writing, and a descriptor that has it locked. Raises OSError.

    The lock tells another instance's sweep that the file is in use. A sweep that comes before it takes the file away.
    """
    for tries_left in reversed(range(_TEMPORARY_TRIES)):
        temporary = _temporary(path)
        with contextlib.ExitStack() as undo:
            descriptor = os.open(temporary, _CREATING, 0o600)
            undo.callback(os.close, descriptor)
            undo.callback(temporary.unlink, missing_ok=True)
            try:
                lock = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
                undo.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.lstat(temporary)
            except (BlockingIOError, FileNotFoundError):
                if not tries_left:
                    raise
            else:
                undo.pop_all()
                return temporary, descriptor, lock
    raise AssertionError


def _temporary(path: Path) -> Path:
    return path.with_name(f"{_PREFIX}{os.urandom(6).hex()}{_SUFFIX}")


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
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:
        return False
    return True
