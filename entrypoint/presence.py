"""Which living instance owns the node.

In a rolling update with surge two instances run on a node for some seconds, each with a token of its own. The newest
that can do its work owns the node; an older one writes nothing until the newer has ended, in whatever way. The file of
each (`alive.py`) tells the others that it lives.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from entrypoint import alive, files

_REMADE, _RETRY, _AGAIN = 1.0, 30.0, 5.0
"""Seconds between two files of one instance, until one that could not be made is tried again, and until a next look."""
_TURN = 0.5
"""Seconds to wait for another instance that is just writing: one flush of a file, unless it is stopped in the midst."""


class Presence:
    """Our instance among those that share a directory. It looks and speaks when it is called, and never by itself."""

    def __init__(self, directory: Path) -> None:
        """Take a rank above that of every instance that lives; nothing is written."""
        self._directory = directory
        self._others: dict[str, int] = {}
        """Descriptors of the files of other living instances: one that is removed still shows its lock."""
        self._found = True
        """The directory was there before this instance, and all the time."""
        self._able = False
        self._own: alive.Own | None = None
        self._retry_at: float | None = None
        """When to make the own file, which is missing (monotonic seconds)."""
        self._not_before = float("-inf")
        self._again_at: float | None = None
        """When to look again because a look failed."""
        self.complaint: str | None = None
        """Why other instances cannot know of this one."""
        self.look()
        # The clock that the containers of a node share: it runs on in suspend, and begins anew with a boot. In a time
        # namespace of its own an instance may be far behind, and still is the newer one.
        highest = max((alive.rank_of(name)[0] for name in self._others), default=0)
        self._rank = max(time.clock_gettime_ns(time.CLOCK_BOOTTIME), highest + 1)

    @property
    def accompanied(self) -> bool:
        """Another instance that can do its work lives."""
        return bool(self._others)

    @property
    def superseded(self) -> bool:
        """Another one that can do its work is newer than this one, which could do it too."""
        own = alive.rank_of(self._own.path.name) if self._own else (self._rank, "")
        return self._able and any(alive.rank_of(name) > own for name in self._others)

    @property
    def owner(self) -> bool:
        """Ours is the newest that can do its work."""
        return self._able and not self.superseded

    @property
    def deadline(self) -> float | None:
        """When to look again although nothing happened (monotonic seconds)."""
        return min((at for at in (self._retry_at, self._again_at) if at is not None), default=None)

    def look(self) -> None:
        """See who lives, take away what killed runs left, and put the own file back when somebody has removed it."""
        own = self._own.path.name if self._own else None
        self._again_at = None
        names: list[str] = []
        try:
            names = [name for name in os.listdir(self._directory) if alive.NAME.fullmatch(name)]
        except OSError as error:
            self._found = self._found and error.errno != errno.ENOENT
            self._failed(error)
        for name in set(names) - {own, *self._others}:
            try:
                self._meet(name)
            except OSError as error:  # one that may not be read hides no other one
                self._failed(error)
        for name, descriptor in list(self._others.items()):
            if not alive.lives(descriptor):
                os.close(self._others.pop(name))
                with contextlib.suppress(OSError):
                    (self._directory / name).unlink()
        if self._able and (self._own is None or not alive.stands(self._own)):
            self._speak()
        else:
            self._retry_at = None  # it may have been brought back

    def join(self) -> None:
        """Tell the others that this instance can do its work. Where that is not possible it does it all the same."""
        if not self._able:
            self._able = True
            self._speak()

    def overtaken(self) -> bool:
        """Look whether a newer one has come; for the midst of long work."""
        if self._able:
            self.look()
        return self.superseded

    @contextlib.contextmanager
    def turn(self, cancelled: Callable[[], bool]) -> Iterator[bool]:
        """Let another instance finish what it is writing, hold it back meanwhile, and yield whether this one may write.

        A newer one has its file before it waits here, and who has waited looks again: so nothing of the older one's
        comes after the newer one's. One that was stopped in the midst of its turn is not waited for.
        """
        with files.turn(self._directory, _TURN, cancelled):
            self.look()
            yield self.owner

    def leave(self) -> None:
        """Make room: leave nothing in the directory, nor a directory of ours if that was all that it held."""
        self._able = False
        self.forget()
        if self._own is not None:
            os.close(self._own.descriptor)  # the others are woken by this, and find no lock
            with contextlib.suppress(OSError):
                self._own.path.unlink()
            self._own = None
        if not self._found:
            with contextlib.suppress(OSError):
                self._directory.rmdir()

    def forget(self) -> None:
        """Give back what is held of the others' files."""
        while self._others:
            os.close(self._others.popitem()[1])

    def _failed(self, error: OSError) -> None:
        """Look again later after a look that was no news: who was known to live is asked directly."""
        if error.errno not in alive.NOBODY:
            self._again_at = time.monotonic() + _AGAIN

    def _meet(self, name: str) -> None:
        """Open the file of an instance that was not known, whether it lives or not. Raises OSError."""
        try:
            descriptor = os.open(self._directory / name, alive.READING)
        except OSError as error:
            if error.errno in alive.NOBODY:
                return
            raise
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._others[name] = descriptor
        else:
            os.close(descriptor)

    def _speak(self) -> None:
        """Make the own file, though not again and again."""
        now = time.monotonic()
        self._retry_at = max(now, self._not_before)
        if now < self._retry_at:
            return
        before = self._own
        try:
            self._own = alive.made(self._directory, self._rank)
        except FileNotFoundError:
            self._retry_at = None  # without the directory above: when it is there, that is an event
            return
        except OSError as error:
            self._not_before = self._retry_at = now + _RETRY
            self.complaint = (
                f"cannot write {self._directory}/*{alive.SUFFIX}: {error.strerror}; "
                "during an update another instance on this node will not know of this one"
            )
            return
        if before is not None:
            os.close(before.descriptor)  # only now: who had it open has seen its lock all the time
        self._not_before, self._retry_at = now + _REMADE, None
        self.complaint = None


def sweep(directory: Path) -> None:
    """Take away what killed runs left there."""
    Presence(directory).forget()
