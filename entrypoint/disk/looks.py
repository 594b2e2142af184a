"""One look at a file or a directory: what is there, or why nothing can be said, as a value."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 1 << 20
"""The most that is read of one file, in bytes: a container has some MiB."""
NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG})
"""No file to read: nothing there, a ring of links, a socket. After any other error nothing is known."""
Signature = tuple[int, ...]
"""What of a file's status changes whenever its content does."""
Inode = tuple[int, int]
"""Device and inode number of a directory."""


class File(NamedTuple):
    """A regular file with its content and its permission bits."""

    content: bytes
    mode: int
    identity: Signature


class Absent(NamedTuple):
    """There is nothing under this name, or no regular file that can be read; `why` says which for a person."""

    why: str = "does not exist"
    missing: bool = True
    """There is nothing; otherwise something that must not be there, or that could not be looked at."""
    failed: bool = False
    """The look itself failed, which is no news: only "does not exist" means gone."""


Look = File | Absent


def unknown(look: Look) -> bool:
    """Say whether the look failed: what is there is to stay until there is news."""
    return isinstance(look, Absent) and look.failed


def holds(look: Look, content: bytes, mode: int) -> bool:
    """Say whether there is a file with this content and these permission bits."""
    return isinstance(look, File) and look.content == content and look.mode == mode


def read(path: Path | str) -> Look:
    """Read a regular file of at most `MAX_BYTES`; a FIFO or a device never blocks, and errors are values."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        missing = error.errno in {errno.ENOENT, errno.ENOTDIR} and not os.path.islink(path)
        return Absent(reason(error), missing=missing, failed=error.errno not in NO_FILE)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return Absent("is not a regular file", missing=False)
        content = bytearray()
        while chunk := os.read(descriptor, MAX_BYTES + 1 - len(content)):
            content += chunk
    except OSError as error:
        return Absent(reason(error), missing=False, failed=True)
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        return Absent(f"is larger than {MAX_BYTES} bytes", missing=False)
    return File(bytes(content), stat.S_IMODE(status.st_mode), signature(status))


def own(path: Path) -> Look:
    """Read a file of ours: one that may not be read is damaged, as one with another content is."""
    look = read(path)
    if isinstance(look, Absent) and look.failed and os.path.lexists(path) and not os.access(path, os.R_OK):
        return look._replace(failed=False)
    return look


def output(path: Path) -> Look:
    """Read what stands under an output's name.

    A directory, which no CNI runtime reads, is as good as nothing. A link that leads out of its directory leads
    elsewhere on the host.
    """
    if os.path.isdir(path) and not os.path.islink(path):
        return Absent("is a directory")
    if why := leads_away(path):
        return Absent(why, missing=False)
    return own(path)


def program_fault(path: Path) -> str | None:
    """Say what keeps a file from being run; None when nothing does."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return reason(error)
    except ValueError:
        return "is no file name"
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    return None if mode & 0o111 else "is not executable"


def source_fault(path: Path) -> str | None:
    """Say what keeps a program from being installed; None when nothing does."""
    return program_fault(path) or ("is empty" if os.path.getsize(path) == 0 else None)


def leads_away(path: Path) -> str | None:
    """Say of a link that it leads out of its directory: there the host has another file than this container."""
    if not os.path.islink(path) or os.path.dirname(os.path.realpath(path)) == os.path.realpath(path.parent):
        return None
    return f"is a link to {os.readlink(path)}, and of that place on the host nothing can be seen from here"


def listing(directory: Path) -> tuple[list[os.DirEntry[str]], str | None]:
    """Return what is in a directory, and why it could not be listed; nothing is in one that is not there."""
    try:
        with os.scandir(directory) as entries:
            return list(entries), None
    except (FileNotFoundError, NotADirectoryError):
        return [], None
    except OSError as error:
        return [], reason(error)


def signature(status: os.stat_result) -> Signature:
    """Return what changes whenever the content of a file does.

    With the times, because file systems give a removed file's inode number to the next new one.
    """
    which = status.st_dev, status.st_ino
    return *which, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def inode(path: Path) -> Inode | None:
    """Return which directory has this path; None when none has."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def reason(error: OSError) -> str:
    """Say in the words of a message why a look failed."""
    if error.errno == errno.ENOENT:
        return "does not exist"
    return f"cannot be read: {error.strerror}"
