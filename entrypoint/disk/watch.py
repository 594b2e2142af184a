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

from entrypoint.disk import ways
from entrypoint.disk.wakeup import Wakeup
from entrypoint.disk.ways import Inode, Interest
from entrypoint.telling.log import logger

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
        self._watched: dict[Inode, _Watched] = {}
        self._interests: dict[int, Interest] = {}
        self._lost: set[str] = set()

    def follow(self, files: Iterable[Path], listings: Iterable[tuple[Path, tuple[str, ...]]]) -> None:
        """Watch from now on for changes of these files, and of the files with these suffixes in these directories.

        Looking at the files after this call and acting on every wake-up misses no change.
        Raises OSError when the node has no inotify instance or watch left, RuntimeError when it has no thread left.
        """
        reader = self._living_reader()
        interests: dict[int, Interest] = {}
        for identity, (path, interest) in ways.interests(files, listings).items():
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

    def _watch(self, reader: _Reader, identity: Inode, path: bytes, *, contents: bool) -> WatchDescriptor | None:
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
                if ways.identity_of(each.path) != known:  # the kernel tells only once no file in it is open any more
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
