"""Noticing changes: watchdog's inotify reader on directories, boiled down to one `Wakeup`.

Directories are watched and never files: kubelet rotates a token by swapping the `..data` link beside it, editors and
our own writes rename new files over old ones, and a watch on the file itself sees nothing of that. Watched is each
directory that the kernel passes on its way to a file, links included.

Watchdog's `InotifyFD` is used without its `Observer`. Tried once more with watchdog 7.1: the observer tells of a file
that is renamed away after 0.5 s, because it waits for the other half of a rename; after a watched directory is removed
and made again it tells of nothing more, while `is_alive()` stays true; and it takes three threads instead of one.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask, WatchDescriptor

from entrypoint.disk.wakeup import Wakeup

# IN_ATTRIB: a directory that could not be entered is not watched; that it may be entered again, its parent tells.
# IN_MASK_ADD: two paths may lead to one directory, as bind mounts make them, and inotify knows it once.
_ENTRIES = (
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_MOVED_FROM
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_MASK_ADD
)
# Not IN_OPEN, IN_ACCESS, IN_CLOSE_NOWRITE: our own reads cause them and would spin the loop.
_CONTENTS = _ENTRIES | InotifyConstants.IN_MODIFY | InotifyConstants.IN_CLOSE_WRITE
_LOGGER = logging.getLogger("entrypoint")  # by its name, because `telling` is above this folder
_MAX_LINKS = 40  # as many as the kernel follows
_ROUNDS = 8
"""How often directories are gone over again that somebody makes meanwhile: then it is time to look."""
Interest = Path | tuple[Path, tuple[str, ...]]
"""A file to follow, or those of a directory that have one of these suffixes."""


class Watcher:
    """Wakes the loop when a followed file may have changed, whatever link or directory on its way did."""

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        self._reader: _Reader | None = None
        self._numbers = itertools.count()
        self._callbacks: list[tuple[WatchDescriptor, CallbackId]] = []

    def follow(self, interests: Collection[Interest]) -> None:
        """Watch from now on for changes of these files, and of the files with these suffixes in these directories.

        Looking at the files after this call and acting on every wake-up misses no change.
        Raises OSError when the node has no inotify instance or watch left, RuntimeError when it has no thread left.
        """
        if self._reader is None or not self._reader.is_alive():
            reader = _Reader(self._wakeup)
            reader.start()
            self._reader, self._callbacks = reader, []
        known = {descriptor for descriptor, _ in self._callbacks}
        # What was first watched now may have changed after it was seen and before it was watched: go over it again.
        for _ in range(_ROUNDS):
            found = self._watch(self._reader, interests)
            if found <= known:
                return
            known = found
        self._wakeup.set()  # somebody makes directories without end: look in between

    def _watch(self, reader: _Reader, interests: Collection[Interest]) -> set[WatchDescriptor]:
        """Watch the way as it is now, and nothing else any more; return what is watched.

        Watched anew each time: the path may lead to another directory now, though one with the same inode number.
        The kernel keeps the watch of one that was watched before, and nothing is missed between.
        """
        before, self._callbacks = self._callbacks, []
        refused: OSError | None = None
        for path, directory in _on_the_way(interests, self._wakeup).items():
            if os.access(path, os.R_OK):  # else inotify refuses to watch it, which watchdog does not report
                mask, number = Mask(_CONTENTS if directory.contents else _ENTRIES), CallbackId(next(self._numbers))
                try:
                    self._callbacks.append((reader.add_callback(path, mask, directory, number), number))
                except (FileNotFoundError, NotADirectoryError):
                    pass  # gone since: it is back when the watch on its parent says so
                except OSError as error:
                    refused = error  # the kernel refuses new ones only: the others stay watched
        reader.remove_callbacks(before)
        if refused is not None:
            raise refused
        return {descriptor for descriptor, _ in self._callbacks}

    def stop(self) -> None:
        """Give back the inotify instance and end the reader's thread."""
        if self._reader is not None:
            self._reader.stop()


class _Directory:
    """Which names of a directory matter. The reader's thread calls it, and all that it does is to set a flag."""

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        self.names: set[bytes] = set()
        self.suffixes: tuple[bytes, ...] = ()
        self.contents = False
        """Not only which files there are matters, but also what is in them."""

    def on_event(self, event: InotifyEvent) -> None:
        """Wake the loop if the event is about a name that matters."""
        if event.name in self.names or event.name.endswith(self.suffixes):
            self._wakeup.set()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Look where the path leads now: the directory is no more."""
        self._wakeup.set()

    def on_queue_overflow(self) -> None:
        """Look at everything: the kernel dropped events."""
        self._wakeup.set()


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
            ended = "the watch on files ended with %s, starting another: %s"
            _LOGGER.log(logging.ERROR, ended, type(error).__name__, error)
        finally:
            self._wakeup.set()


def _on_the_way(interests: Iterable[Interest], wakeup: Wakeup) -> dict[bytes, _Directory]:
    """Return each directory on the way to these files, and to those with these suffixes in these directories."""
    found: defaultdict[bytes, _Directory] = defaultdict(lambda: _Directory(wakeup))
    pending = list(interests)
    while pending:
        interest = pending.pop()
        with contextlib.suppress(OSError):  # the way is broken: up to there it is followed
            if isinstance(interest, Path):
                found[os.path.dirname(_way(found, os.fsencode(interest)))].contents = True
                continue
            end, suffixes = _way(found, os.fsencode(interest[0])), tuple(map(os.fsencode, interest[1]))
            found[end].suffixes += suffixes
            found[end].contents = True
            with os.scandir(end) as entries:
                links = [each.path for each in entries if each.name.endswith(suffixes) and each.is_symlink()]
            pending += [Path(os.fsdecode(link)) for link in links]
    return found


def _way(found: defaultdict[bytes, _Directory], path: bytes) -> bytes:
    """Add every name that the kernel looks up on its way to `path`; return where the way ends.

    Whatever then makes the path lead to other content is an entry of one of these directories that comes, goes or
    is replaced, or a change inside the file at the end. Raises OSError where the way is broken.
    """
    # Not os.path.abspath: where a link stands before `..` it would lead elsewhere than the kernel goes.
    directory, pending = b"/", _parts(path if os.path.isabs(path) else os.path.join(os.getcwdb(), path))
    links = 0
    while pending:
        name = pending.pop()
        if name == b"..":
            directory = os.path.dirname(directory)
            continue
        found[directory].names.add(name)
        step = os.path.join(directory, name)
        if not stat.S_ISLNK(os.lstat(step).st_mode):
            directory = step
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(step)
        directory = b"/" if target.startswith(b"/") else directory
        pending += _parts(target)
    return directory


def _parts(path: bytes) -> list[bytes]:
    """Return the names of a path, the first last."""
    return [part for part in reversed(path.split(b"/")) if part not in {b"", b"."}]
