"""Which living instance owns the node.

In a rolling update with surge two instances run on a node for some seconds, each with a token of its own. The newest
that can do its work owns the node; an older one writes nothing until the newer has ended, in whatever way.

Each instance that can do its work has one of its own in `multus.d`, open for writing and locked. Its name begins with
the instance's rank. The lock alone says that the instance lives: a killed run leaves the file and no lock, a stopped
one (SIGSTOP, a paused container) keeps both, and its place. The kernel reports both ends of a life to who watches the
directory: a file that gets its name, and one that was open for writing and is closed.

It is a POSIX record lock because the kernel drops that before it reports the closing. A lock by `flock` is dropped
after it: who is woken could find it held, and would sleep on for ever. The price: a process loses such a lock when it
closes any descriptor of the file, so the own file is opened nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from entrypoint.disk import files
from entrypoint.disk.looks import NO_FILE
from entrypoint.telling.pace import Backoff, Pace, earliest

SUFFIXES = (".alive", ".waiting")
"""Of the file of one that can configure the node, and of one that cannot yet. No CNI runtime reads such a file, and no
release sweeps it away as its temporary file."""
NAME = re.compile(r"\.multus-entrypoint-([0-9]{20})-([0-9a-f]{12})\.(alive|waiting)")
LOCK = ".multus-entrypoint.lock"
"""Held while files of the node are written. Mode 600: a directory anybody could lock who may open it."""
_HIGHEST = 10**20 - 1
Rank = tuple[bool, int, str]
"""Whether the instance can configure the node, when it started, and a random tie-breaker."""
_FLOCK = struct.Struct("hhqqi")
"""The kernel's `struct flock`: kind, whence, start, length, and the process that holds the lock."""
_REMADE, _RETRY, _AGAIN = 1.0, 30.0, 5.0
"""Seconds between two files of one instance, until one that could not be made is tried again, and until a next look."""
_TURN, _LAST_TURN = 0.5, 0.05
"""Seconds to wait for another instance that is just writing: one flush of a file, unless it is stopped in the midst.
Less at the end, which must not take 100 ms."""


class Instance(NamedTuple):
    """One that lives, as who is none sees it."""

    rank: Rank
    pid: int
    """Its process; 0 when that is one of another container."""


class Own(NamedTuple):
    """Our own file, open and locked."""

    path: Path
    descriptor: int


def living(directory: Path) -> list[Instance]:
    """Return the living instances, the newest last; nothing is changed."""
    found = []
    with contextlib.suppress(OSError):
        for name in filter(NAME.fullmatch, os.listdir(directory)):
            with (
                contextlib.suppress(OSError),
                files.opened(directory / name, os.O_RDONLY | os.O_NOFOLLOW) as descriptor,
            ):
                pid = holder(descriptor)
                found += [] if pid is None else [Instance(rank_of(name), pid)]
    return sorted(found)


def sweep(directory: Path) -> None:
    """Take away what killed runs left there."""
    Owner(directory).leave()


def holder(descriptor: int) -> int | None:
    """Return the process that has this file locked, 0 for one of another container; None when none has, or none can."""
    asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    try:
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    except OSError:
        return None
    return None if kind == fcntl.F_UNLCK else int(pid)


def rank_of(name: str) -> Rank:
    """Read the rank in the name of such a file."""
    matched = NAME.fullmatch(name)
    assert matched is not None  # noqa: S101 - only such names are taken
    return matched[3] == "alive", int(matched[1]), matched[2]


class Owner:
    """Our instance among those that share a directory. It looks and speaks when it is called, and never by itself."""

    def __init__(self, directory: Path) -> None:
        """Take a rank above that of every instance that lives; nothing is written."""
        self._directory = directory
        self._others: dict[str, int] = {}
        """Descriptors of the files of other living instances: one that is removed still shows its lock."""
        self._found = True
        """The directory was there before this instance, and all the time."""
        self._joined, self._able = False, False
        self._own: Own | None = None
        self._retry_at: float | None = None
        """When to make the own file, which is missing (monotonic seconds)."""
        self._remade, self._retry = Pace(1, _REMADE), Backoff(_RETRY, _RETRY)
        self._again_at: float | None = None
        """When to look again because a look failed."""
        self.complaint: str | None = None
        """Why other instances cannot know of this one."""
        self.bereaved = float("-inf")
        """When this one last saw that another has ended (monotonic seconds)."""
        self.look()
        # The clock that the containers of a node share: it runs on in suspend, and begins anew with a boot. In a time
        # namespace of its own an instance may be far behind, and still is the newer one.
        highest = max((rank_of(name)[1] for name in self._others), default=0)
        self._start = min(max(time.clock_gettime_ns(time.CLOCK_BOOTTIME), highest + 1), _HIGHEST)

    @property
    def accompanied(self) -> bool:
        """Another instance that can configure the node lives."""
        return any(rank_of(name)[0] for name in self._others)

    @property
    def superseded(self) -> bool:
        """Another one that can configure the node is newer than this one, which could do it too."""
        return self._able and not self._first

    @property
    def _first(self) -> bool:
        own = rank_of(self._own.path.name) if self._own else (self._able, self._start, "")
        return all(rank_of(name) < own for name in self._others)

    @property
    def deadline(self) -> float | None:
        """When to look again although nothing happened (monotonic seconds)."""
        return earliest(self._retry_at, self._again_at)

    def look(self) -> None:
        """See who lives, take away what killed runs left, and put the own file back when somebody has removed it."""
        own = self._own.path.name if self._own else None
        self._again_at = None
        names: list[str] = []
        try:
            names = [name for name in os.listdir(self._directory) if NAME.fullmatch(name)]
        except OSError as error:
            self._found = self._found and error.errno != errno.ENOENT
            self._failed(error)
        for name in set(names) - {own, *self._others}:
            try:
                self._meet(name)
            except OSError as error:  # one that may not be read hides no other one
                self._failed(error)
        for name, descriptor in list(self._others.items()):
            if holder(descriptor) is None:
                os.close(self._others.pop(name))
                self.bereaved = time.monotonic()
                with contextlib.suppress(OSError):
                    (self._directory / name).unlink()
        if self._joined and not self._stands():
            self._speak()
        else:
            self._retry_at = None  # it may have been brought back

    def join(self, *, able: bool) -> None:
        """Tell the others that this instance can configure the node, or else that it writes what it can meanwhile.

        Who cannot, writes nothing while one who can lives: a good instance must not stand by for one that can do
        nothing. Of several who cannot the newest writes. Where no file can be made, it does its work all the same.
        """
        if not self._joined or (able and not self._able):
            self._joined, self._able = True, able
            self._speak(anew=self._own is not None)

    def overtaken(self) -> bool:
        """Look whether a newer one has come; for the midst of long work."""
        if self._joined:
            self.look()
        return not self._first

    @contextlib.contextmanager
    def turn(self, cancelled: Callable[[], bool]) -> Iterator[bool]:
        """Let another instance finish what it is writing, hold it back meanwhile, and yield whether this one may write.

        A newer one has its file before it waits here, and who has waited looks again: so nothing of the older one's
        comes after the newer one's. One that was stopped in the midst of its turn is not waited for.
        """
        with files.turn(self._directory / LOCK, _TURN, cancelled):
            self.look()
            yield self._joined and self._first

    @contextlib.contextmanager
    def ending(self) -> Iterator[bool]:
        """Give up the place and yield whether no other instance lives that can configure the node.

        Of several that end at once exactly one is told so: each gives up its place first and looks then, in its turn.
        """
        with files.turn(self._directory / LOCK, _LAST_TURN, lambda: False):
            self._give_up()
            self.look()
            yield not self.accompanied

    def leave(self) -> None:
        """Make room: leave nothing in the directory, nor a directory of ours if that was all that it held."""
        self._give_up()
        while self._others:
            os.close(self._others.popitem()[1])
        if not self._found:
            with contextlib.suppress(OSError):
                if os.listdir(self._directory) == [LOCK]:
                    (self._directory / LOCK).unlink()
                self._directory.rmdir()

    def _give_up(self) -> None:
        self._joined = self._able = False
        if self._own is not None:
            os.close(self._own.descriptor)  # the others are woken by this, and find no lock
            with contextlib.suppress(OSError):
                self._own.path.unlink()
            self._own = None

    def _failed(self, error: OSError) -> None:
        """Look again later after a look that was no news: who was known to live is asked directly."""
        if error.errno not in NO_FILE:
            self._again_at = time.monotonic() + _AGAIN

    def _meet(self, name: str) -> None:
        """Open the file of an instance that was not known, whether it lives or not. Raises OSError."""
        descriptor = os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._others[name] = descriptor
        else:
            os.close(descriptor)

    def _stands(self) -> bool:
        """Say whether the own file says what is so, and still has its name; a look that failed is no news."""
        if self._own is None or rank_of(self._own.path.name)[0] != self._able:
            return False
        try:
            return os.path.samestat(self._own.path.lstat(), os.fstat(self._own.descriptor))
        except OSError as error:
            return error.errno not in NO_FILE

    def _speak(self, *, anew: bool = False) -> None:
        """Make the own file, though not again and again."""
        now = time.monotonic()
        self._retry_at = earliest(self._retry.at, None if anew else self._remade.free_at(now))
        if self._retry_at is not None and now < self._retry_at:
            return
        self._retry_at = None
        before = self._own
        # Never a name that was there before: who found an earlier file without a lock may be about to remove it.
        name = f".multus-entrypoint-{self._start:020}-{os.urandom(6).hex()}{SUFFIXES[0 if self._able else 1]}"
        try:
            files.make_directory(self._directory)
            self._own = Own(self._directory / name, files.make_locked(self._directory / name))
        except FileNotFoundError:
            return  # without the directory above, or another's end has taken ours away: that it is there is an event
        except OSError as error:
            self._retry_at = self._retry.failed(now)
            self.complaint = (
                f"cannot write {self._directory}/*{SUFFIXES[0]}: {error.strerror}; "
                "during an update another instance on this node will not know of this one"
            )
            return
        if before is not None:
            os.close(before.descriptor)  # only now: who had it open has seen its lock all the time
            with contextlib.suppress(OSError):
                before.path.unlink()
        self._remade.took(now)
        self._retry.succeeded()
        self.complaint = None
