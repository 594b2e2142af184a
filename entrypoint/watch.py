"""Noticing changes: watchdog's inotify reader on directories, boiled down to one `Wakeup`.

Directories are watched and never files: kubelet rotates a token by swapping the `..data` link beside it, editors and
our own writes rename new files over old ones, and a watch on the file itself sees nothing of that.

Watchdog's `InotifyFD` is used without its `Observer`. Tried once more with watchdog 7.1: the observer tells of a file
that is renamed away after 0.5 s, because it waits for the other half of a rename; after a watched directory is removed
and made again it tells of nothing more, while `is_alive()` stays true; and it takes three threads instead of one.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from entrypoint.logs import logger
from entrypoint.wakeup import Wakeup

# IN_ATTRIB: a directory that could not be entered is not watched; that it may be entered again, its parent tells.
_ENTRIES = (
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_MOVED_FROM
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_ONLYDIR
)
# Not IN_OPEN, IN_ACCESS, IN_CLOSE_NOWRITE: our own reads cause them and would spin the loop.
_CONTENTS = _ENTRIES | InotifyConstants.IN_MODIFY | InotifyConstants.IN_CLOSE_WRITE
_MAX_LINKS = 40  # as many as the kernel follows

_Inode = tuple[int, int]
"""Device and inode number of a directory."""


class _Interest:
    """Which names of one directory matter."""

    __slots__ = ("contents", "names", "suffixes")

    def __init__(self) -> None:
        self.names: set[bytes] = set()
        self.suffixes: tuple[bytes, ...] = ()
        self.contents = False
        """Not only which files there are matters, but also what is in them."""

    def covers(self, name: bytes) -> bool:
        return name in self.names or (bool(self.suffixes) and name.endswith(self.suffixes))


class _Watched(NamedTuple):
    descriptor: WatchDescriptor
    path: bytes
    contents: bool


class Watcher:
    """Wakes the loop when a followed file may have changed, whatever link or directory on its way did."""

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        self._reader: _Reader | None = None
        self._lock = threading.Lock()
        self._watched: dict[_Inode, _Watched] = {}
        self._interests: dict[int, _Interest] = {}
        self._lost: set[str] = set()

    def follow(self, files: Iterable[Path], listings: Iterable[tuple[Path, tuple[str, ...]]]) -> None:
        """Watch from now on for changes of these files, and of the files with these suffixes in these directories.

        Looking at the files after this call and acting on every wake-up misses no change.
        Raises OSError when the node has no inotify instance or watch left, RuntimeError when it has no thread left.
        """
        reader = self._living_reader()
        interests: dict[int, _Interest] = {}
        for identity, (path, interest) in _by_identity(_interests(files, listings)).items():
            descriptor = self._watch(reader, identity, path, contents=interest.contents)
            if descriptor is not None:
                interests[descriptor] = interest
        self._interests = interests
        self._drop_others(reader, set(interests))

    def lost_directories(self) -> set[str]:
        """Return the watched directories that have been removed or replaced since this was last asked."""
        with self._lock:
            lost, self._lost = self._lost, set()
        return lost

    def stop(self) -> None:
        """Give back the inotify instance and end the reader's thread."""
        if self._reader is not None:
            self._reader.stop()

    # ---- called by the reader's thread: they only set flags ----

    def on_event(self, event: InotifyEvent) -> None:
        """Wake the loop if the event is about a name that matters."""
        interest = self._interests.get(event.wd)
        if interest is not None and interest.covers(event.name):
            self._wakeup.set()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Forget a directory that is no more."""
        with self._lock:
            for identity, watched in list(self._watched.items()):
                if watched.descriptor == wd:
                    del self._watched[identity]
                    self._lost.add(os.fsdecode(watched.path))
        self._wakeup.set()

    def on_queue_overflow(self) -> None:
        """Look at everything: the kernel dropped events."""
        self._wakeup.set()

    # ---- called by the main thread ----

    def _living_reader(self) -> _Reader:
        if self._reader is None or not self._reader.is_alive():
            with self._lock:
                self._watched.clear()
            self._reader = _Reader(self._wakeup)
            self._reader.start()
        return self._reader

    def _watch(self, reader: _Reader, identity: _Inode, path: bytes, *, contents: bool) -> WatchDescriptor | None:
        with self._lock:
            known = self._watched.get(identity)
        if known is not None and known.contents >= contents:
            return known.descriptor
        if known is not None:
            reader.remove_callbacks([(known.descriptor, _CALLBACK)])
        try:
            descriptor = reader.add_callback(path, Mask(_CONTENTS if contents else _ENTRIES), self, _CALLBACK)
        except (FileNotFoundError, NotADirectoryError):
            return None  # gone since; the watch on its parent tells when it is back
        with self._lock:
            self._watched[identity] = _Watched(descriptor, path, contents)
        return descriptor

    def _drop_others(self, reader: _Reader, kept: set[int]) -> None:
        with self._lock:
            dropped = {known: each for known, each in self._watched.items() if each.descriptor not in kept}
            for known, each in dropped.items():
                del self._watched[known]
                if _identity(each.path) != known:  # the kernel tells only once no file in it is open any more
                    self._lost.add(os.fsdecode(each.path))
        reader.remove_callbacks([(each.descriptor, _CALLBACK) for each in dropped.values()])


_CALLBACK = CallbackId(0)


class _Reader(InotifyFD):
    """Watchdog's reader thread; when it dies of an error the loop wakes up and starts another."""

    def __init__(self, wakeup: Wakeup) -> None:
        try:
            super().__init__()
        except OSError:
            with contextlib.suppress(AttributeError):
                os.close(self._inotify_fd)  # left open when there is no descriptor for the pipe beside it
            raise
        self._wakeup = wakeup

    def start(self) -> None:
        try:
            super().start()
        except RuntimeError:
            self._close_resources()  # `close` leaves that to the thread
            raise

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # a traceback on stderr is all that a thread's death would leave behind
            logger.error("the watch on files ended with %s, starting another: %s", type(error).__name__, error)
        finally:
            self._wakeup.set()


def _interests(files: Iterable[Path], listings: Iterable[tuple[Path, tuple[str, ...]]]) -> dict[bytes, _Interest]:
    """Return, for each directory to watch, the names in it that matter."""
    interests: dict[bytes, _Interest] = {}
    for path in files:
        _add_way(interests, os.fsencode(path))
    for directory, suffixes in listings:
        end = _add_way(interests, os.fsencode(directory))
        if end is None:
            continue
        interest = interests.setdefault(end, _Interest())
        interest.suffixes += tuple(os.fsencode(suffix) for suffix in suffixes)
        interest.contents = True
        for name in _links(end, interest.suffixes):
            _add_way(interests, os.path.join(end, name))
    return interests


def _by_identity(interests: dict[bytes, _Interest]) -> dict[_Inode, tuple[bytes, _Interest]]:
    """Merge the paths that are one directory, as bind mounts make them: inotify knows it once.

    What cannot be read is left out: inotify refuses to watch it, which watchdog does not report.
    """
    merged: dict[_Inode, tuple[bytes, _Interest]] = {}
    for path, interest in interests.items():
        identity = _identity(path)
        if identity is None or not os.access(path, os.R_OK):
            continue
        _, known = merged.setdefault(identity, (path, interest))
        known.names |= interest.names
        known.suffixes = tuple({*known.suffixes, *interest.suffixes})
        known.contents = known.contents or interest.contents
    return merged


def _identity(path: bytes) -> _Inode | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _add_way(interests: dict[bytes, _Interest], path: bytes) -> bytes | None:
    """Add every name that the kernel looks up on its way to `path`; return where the way ends, None if it is broken.

    Whatever then makes the path lead to other content is an entry of one of these directories that comes, goes or
    is replaced, or a change inside the file at the end.
    """
    # Not os.path.abspath: where a link stands before `..` it would lead elsewhere than the kernel goes.
    directory, pending = b"/", _parts(os.path.join(os.getcwdb(), path))
    links = 0
    while pending:
        name = pending.pop()
        if name == b"..":
            directory = os.path.dirname(directory)
            continue
        interest = interests.setdefault(directory, _Interest())
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
