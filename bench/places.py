"""Where the program is measured: on this host as an ordinary process, or in the container (container.py)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cgroups
from cgroups import Limits, SpoiltError
from node import ENVIRONMENT, Node, wait_for
from processes import End, Usage, reap, wait_until_asleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgroups import Charged, Group

T = TypeVar("T")

PASS = "pass"
WAITING = "import os; os.close(os.open({ready!r}, os.O_CREAT)); os.read(os.pipe()[0], 1)"
"""As little to do as `pass`, but it says that it is there and waits to be looked at. Every interpreter has os."""

WATCHING = """
import ctypes, os
libc = ctypes.CDLL(None)
instance = libc.inotify_init1(os.O_CLOEXEC)
for path in sorted(os.listdir("/"))[:10]:
    libc.inotify_add_watch(instance, b"/" + path.encode(), 0x3c0)  # entries that come, go or are renamed
"""
"""Ten watches: giving them back to the kernel when the process ends takes longer than all else about its end."""


class Started(ABC):
    """A process from its exec on, of the program or of the bare interpreter. Its group, if it has one, is its own."""

    pid: int
    moment: float
    """perf_counter of the start."""
    late: float = 0.0
    """Milliseconds that the moment may be too early: how long nobody looked."""
    group: Group | None
    end: End

    def wait_ready(self, ready: Path) -> float:
        """Wait until the ready file is there; return the milliseconds since the start."""
        took = wait_for(ready.exists, self.moment, step=0.0005) * 1e3
        self.check()
        return took

    def wait_end(self) -> float:
        """Wait for the end; return the milliseconds since the start."""
        return (self.end.wait() - self.moment) * 1e3

    def usage_until_ready(self, ready: Path) -> Usage:
        """Return what it took until the ready file was there, and kill it.

        CPU time is known exactly only after the end, so the end comes at once and without warning.
        """
        wall = self.wait_ready(ready)
        self.end.send(signal.SIGKILL)
        self.wait_end()
        return self._usage(wall)

    def usage_until_end(self) -> Usage:
        """Return what it took until its end."""
        return self._usage(self.wait_end())

    def _usage(self, wall: float) -> Usage:
        if self.late > max(1, wall / 100):
            raise SpoiltError(f"a start was seen {self.late:.1f} ms late")
        return Usage(self.cpu_after_end(), wall)

    def cpu_until_asleep(self, ready: Path) -> float:
        """Return the milliseconds of CPU until it was ready and has gone to sleep, and kill it."""
        self.wait_ready(ready)
        wait_until_asleep(self.pid)
        self.end.send(signal.SIGKILL)
        self.wait_end()
        return self.cpu_after_end()

    def kill_time(self) -> float:
        """Kill it; return the milliseconds until the process has ended: the kernel's work alone."""
        before = time.perf_counter()
        self.end.send(signal.SIGKILL)
        return (self.end.wait() - before) * 1e3

    def exit_time(self) -> float:
        """Send SIGTERM; return the milliseconds until the process has ended."""
        before = time.perf_counter()
        self.end.send(signal.SIGTERM)
        took = (self.end.wait() - before) * 1e3
        code = self.exit_code()
        if code != 0:
            sys.exit(f"the program ended with exit code {code}")
        return took

    def charged(self, ready: Path) -> Charged:
        """Return what the group was charged at its highest until the process was ready and asleep."""
        while not ready.exists():
            self.group.look()
            time.sleep(0.001)
        wait_until_asleep(self.pid, meanwhile=self.group.look, step=0.001)
        self.check()
        return self.group.charged()

    def check(self) -> None:
        """Raise `SpoiltError` when the process is not in its group any more."""
        if self.group is not None:
            self.group.check(self.pid)

    @abstractmethod
    def cpu_after_end(self) -> float:
        """Return the milliseconds of CPU of the process and of its children, after its end."""

    @abstractmethod
    def exit_code(self) -> int:
        """Return the exit code, after the end."""


class Place(ABC):
    """Starts the program and the bare interpreter."""

    name: str
    """As the table calls it."""
    between: float
    """Seconds between two changes, so that the program is asleep and has CPU time left when the next one comes."""
    limits: Limits
    """The limits where nothing else is said."""
    without_limits: str | None = None
    """Why no limits can be set; None when they can."""

    @abstractmethod
    def new_node(self) -> Node:
        """Make an empty node where the last one was."""

    @abstractmethod
    def start(self, node: Node, limits: Limits, *, cold: bool = False) -> contextlib.AbstractContextManager[Started]:
        """Start the program; `cold` with as little as possible of what it reads in the page cache."""

    @abstractmethod
    def start_bare(
        self, node: Node, limits: Limits, code: str = PASS, *, cold: bool = False
    ) -> contextlib.AbstractContextManager[Started]:
        """Start the bare interpreter; `{ready!r}` in the code is the ready file as the process sees it."""


class Process(Started):
    """A child of ours."""

    def __init__(self, process: subprocess.Popen[bytes], moment: float, group: Group | None) -> None:
        self.process = process
        self.pid = process.pid
        self.moment = moment
        self.group = group
        self.end = End(self.pid)
        self._cpu = 0.0

    def cpu_after_end(self) -> float:
        """From the rusage that comes with the end, which counts the children that were waited for."""
        self._reap()
        return self._cpu

    def exit_code(self) -> int:
        self._reap()
        return self.process.returncode

    def close(self) -> None:
        """End it if it runs still."""
        if self.process.returncode is None:
            self.process.kill()
            self._reap()
        self.end.close()

    def _reap(self) -> None:
        if self.process.returncode is None:
            self._cpu = reap(self.process)


class Host(Place):
    """This machine, without any limit unless one is asked for, with the virtual environment of this interpreter."""

    name = "host"
    between = 0.02
    limits = Limits()

    def __init__(self, scratch: Path, multus: Path) -> None:
        self._root = scratch / "host"
        self._multus = multus
        self.without_limits = cgroups.obstacle()

    def new_node(self) -> Node:
        shutil.rmtree(self._root, ignore_errors=True)
        return Node(self._root, self._multus)

    @contextlib.contextmanager
    def start(self, node: Node, limits: Limits, *, cold: bool = False) -> Iterator[Process]:
        with self._started(node, node.command, limits, cold=cold) as process:
            yield process

    @contextlib.contextmanager
    def start_bare(self, node: Node, limits: Limits, code: str = PASS, *, cold: bool = False) -> Iterator[Process]:
        command = [sys.executable, "-c", code.replace("{ready!r}", repr(str(node.ready)))]
        with self._started(node, command, limits, cold=cold) as process:
            yield process

    @contextlib.contextmanager
    def _started(self, node: Node, command: list[str], limits: Limits, *, cold: bool) -> Iterator[Process]:
        with contextlib.ExitStack() as stack:
            group = stack.enter_context(cgroups.scratch(limits)) if limits != Limits() else None
            if cold:
                # The interpreter and its library run this process too, and stay.
                evict([Path(sys.prefix), Path(__file__).parent.parent / "entrypoint", self._multus])
            node.ready.unlink(missing_ok=True)
            prefix = cgroups.launcher(group) if group else []
            moment = time.perf_counter()
            process = Process(spawn([*prefix, *command]), moment, group)
            stack.callback(process.close)
            yield process


def spawn(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a process that says nothing, in the small environment that every process here gets."""
    null = subprocess.DEVNULL
    return subprocess.Popen(command, env=ENVIRONMENT, stdin=null, stdout=null, stderr=null)


def evict(paths: list[Path]) -> None:
    """Take files, and those below directories, out of the page cache; what is mapped or was not yet written stays."""
    for path in paths:
        for each in path.rglob("*") if path.is_dir() else [path]:
            if each.is_symlink() or not each.is_file():
                continue
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def unless_spoilt(measure: Callable[[], T]) -> T:
    """Return what is measured; measure again when the sample was spoilt."""
    for _ in range(50):
        try:
            return measure()
        except SpoiltError as error:
            last = error
    sys.exit(f"this machine lets nothing be measured: {last}")
