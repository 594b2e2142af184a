"""Putting files on disk so that nobody ever sees half of one, and sweeping up after a killed run.

A file is written beside its target under a name that no CNI runtime reads, flushed, and renamed over the target;
then the directory is flushed, so that a power cut leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from entrypoint.node import Identity

_PREFIX, _SUFFIX = ".multus-entrypoint-", ".tmp"
_CHUNK = 4 << 20  # bytes: small enough to notice a signal in time and to keep few dirty pages
_SAMPLES = 16
_RENAME_TRIES = 50  # a millisecond apart: a rename takes a fraction of one, and leaving must not take 100


class CancelledError(Exception):
    """The program was told to stop in the middle of a copy; the target is as it was."""


def write(path: Path, content: bytes, mode: int) -> Identity:
    """Put `content` at `path` with the permission bits `mode`; return the identity of the new file.

    Raises OSError; then the target is as it was.
    """
    with _replacement(path, mode) as descriptor:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        return identity(os.fstat(descriptor))


def copy(source: Path, path: Path, cancelled: Callable[[], bool]) -> os.stat_result:
    """Put a copy of the file `source` at `path`, with its permission bits and its time; return the new file's status.

    The target may be a running program: it is replaced, never opened, so "text file busy" cannot happen (upstream
    issue 1221).
    Raises OSError or, when `cancelled` says so between two chunks, `CancelledError`; then the target is as it was.
    """
    with _opened(source, os.O_RDONLY) as origin:
        status = os.fstat(origin)
        with _replacement(path, status.st_mode & 0o7777) as descriptor:
            with contextlib.suppress(OSError):  # not every file system can, and it only spares work
                os.posix_fallocate(descriptor, 0, status.st_size)
            os.ftruncate(descriptor, _copy_content(origin, descriptor, cancelled))
            with contextlib.suppress(OSError):  # without the time a restart has to compare every byte, that is all
                os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
            written = os.fstat(descriptor)
    # The rename has changed its time of change. Somebody may have taken it away, or put another there, since.
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(path)
        if os.path.samestat(found, written):
            return found
    return written


def _copy_content(origin: int, descriptor: int, cancelled: Callable[[], bool]) -> int:
    """Copy what is in one open file to the other, past the page cache; return the number of bytes.

    The page cache of what a container writes counts against its memory limit. Written directly from the mapped source,
    nothing is cached and the CPU copies nothing, which takes it a quarter of the time. Where a file system cannot do
    that, each chunk is flushed and let go of. Of the source, what was in memory before stays there: somebody else,
    who unpacked the image for one, is charged for it. Raises OSError or `CancelledError`.
    """
    in_memory = _begins_in_memory(origin)
    size = os.fstat(origin).st_size  # what is added from now on is for the next copy: whoever asked for it will see
    direct = True
    offset = 0
    while (left := min(size, os.fstat(origin).st_size) - offset) > 0:
        if cancelled():
            raise CancelledError
        whole = left - left % mmap.PAGESIZE  # only whole blocks can be written directly, the last bytes go separately
        length = min(_CHUNK, whole or left)
        direct = _write_directly(descriptor, wanted=direct and whole > 0)
        try:
            # Every file system that programs run from can map files.
            chunk = mmap.mmap(origin, length, mmap.MAP_PRIVATE | mmap.MAP_POPULATE, mmap.PROT_READ, offset=offset)
        except ValueError:
            continue  # it has become shorter at this very moment
        with chunk:
            try:
                _write_at(descriptor, chunk, offset)
            except OSError as error:
                if os.fstat(origin).st_size < offset + length:
                    continue  # it has become shorter since it was mapped
                if not direct or error.errno not in {errno.EINVAL, errno.EFAULT}:
                    raise
                direct = False  # as some file systems say only now
                continue
        if not direct:
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)
        if not in_memory:
            os.posix_fadvise(origin, offset, length, os.POSIX_FADV_DONTNEED)
        offset += length
    return offset


def _begins_in_memory(descriptor: int) -> bool:
    """Say whether the first byte can be read without the disk; False where the file system cannot tell.

    One look and not one a chunk: asking makes the kernel read ahead, which elsewhere than at the beginning is slow.
    """
    try:
        return bool(os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT))
    except OSError:
        return False


def _write_directly(descriptor: int, *, wanted: bool) -> bool:
    """Switch writing past the page cache on or off; return whether it is on now."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags)
    except OSError:  # this file system cannot
        return False
    return wanted


def _write_at(descriptor: int, content: mmap.mmap, offset: int) -> None:
    with memoryview(content) as view:
        done = 0
        while done < len(view):
            with view[done:] as rest:
                done += os.pwrite(descriptor, rest, offset + done)


def same_content(one: Path, other: Path, cancelled: Callable[[], bool]) -> bool:
    """Say whether two files hold the same bytes. Raises OSError or `CancelledError`."""
    with _opened(one, os.O_RDONLY) as first, _opened(other, os.O_RDONLY) as second:
        if os.fstat(first).st_size != os.fstat(second).st_size:
            return False
        buffers = bytearray(_CHUNK >> 2), bytearray(_CHUNK >> 2)
        while True:
            read = [os.readv(descriptor, [buffer]) for descriptor, buffer in zip((first, second), buffers, strict=True)]
            if read[0] != read[1] or buffers[0] != buffers[1]:
                return False
            if not read[0]:
                return True
            if cancelled():
                raise CancelledError


def looks_copied(source: Path, path: Path) -> bool:
    """Say whether `path` looks like what `copy` made of `source`: size, time, and blocks from all over the file.

    Comparing 64 MiB costs more than all the rest of a start, and fills the page cache that counts against the memory
    limit. Size and time are what rsync goes by. The blocks are for images whose build gives every file the same date:
    the first one holds the build ID. Raises OSError.
    """
    with _opened(source, os.O_RDONLY) as first, _opened(path, os.O_RDONLY) as second:
        wanted, found = os.fstat(first), os.fstat(second)
        if (wanted.st_size, wanted.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
            return False
        for descriptor in (first, second):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
        last = max(0, wanted.st_size - mmap.PAGESIZE)
        offsets = (last * number // (_SAMPLES - 1) for number in range(_SAMPLES))
        return all(os.pread(first, mmap.PAGESIZE, at) == os.pread(second, mmap.PAGESIZE, at) for at in offsets)


def make_directory(path: Path) -> None:
    """Make one directory, mode 755, unless it is there. Raises OSError."""
    try:
        path.mkdir(mode=0o755)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        _flush_directory(path.parent)


def remove(path: Path) -> None:
    """Take a file away; one that is gone already is fine. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        _flush_directory(path.parent)


def mark(path: Path) -> None:
    """Make an empty file, mode 644, that need not survive a power cut. Raises OSError, for one when a link is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(descriptor, 0o644)  # whatever the umask
    finally:
        os.close(descriptor)


def unmark(path: Path) -> None:
    """Take away what `mark` made; if it is gone already, that is fine. Raises OSError."""
    path.unlink(missing_ok=True)


def rename(path: Path, to: Path) -> None:
    """Give a file another name in the same directory, over what has that name. Raises OSError."""
    with _renaming(path.parent):
        before = path.lstat()
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
    with _opened(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        for tries_left in reversed(range(_RENAME_TRIES)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not tries_left:
                    raise
                time.sleep(0.001)
        yield
        os.fsync(descriptor)


def same_file(path: Path, other: Path) -> bool:
    """Say whether two names are the same file, not whether one is a link that leads to the other. Raises OSError."""
    return os.path.samestat(path.lstat(), other.lstat())


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


@contextlib.contextmanager
def _replacement(path: Path, mode: int) -> Iterator[int]:
    """Yield a descriptor to write to; on success what was written takes the place of `path`."""
    temporary = path.with_name(f"{_PREFIX}{os.urandom(6).hex()}{_SUFFIX}")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as writing, _opened(temporary, os.O_RDONLY) as locked:
            fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)  # tells another instance's sweep that it is in use
            yield descriptor
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
            # As long as it is open for writing, an execution fails with "text file busy". The lock lasts longer.
            writing.close()
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_directory(path.parent)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # non-blocking: it may be a FIFO
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _flush_directory(path: Path) -> None:
    with _opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


def _remove_abandoned(path: Path) -> bool:
    try:
        with _opened(path, os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:
        return False
    return True
