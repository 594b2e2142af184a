"""Looking at processes: what they hold, what they take, and when they come to rest and to their end."""

from __future__ import annotations

import os
import platform
import re
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

REST = 0.15  # seconds without any CPU time: the process is asleep
_PATIENCE = 30.0  # seconds


class Usage(NamedTuple):
    """What one start took, in milliseconds of CPU and wall time."""

    cpu: float
    wall: float


class Memory(NamedTuple):
    """What a process holds, in MiB."""

    resident: float
    proportional: float


class Activity(NamedTuple):
    """What a process and its children have done so far: context switches, and milliseconds of CPU."""

    switches: int
    cpu: float


def machine() -> str:
    """Say what machine this is, for the line above a table."""
    return (
        f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}"
    )


def memory(pid: int) -> Memory:
    """Return the resident and the proportional memory of a process."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kibibytes = dict(re.findall(r"^(\w+): +(\d+) kB", told, re.MULTILINE))
    return Memory(int(kibibytes["Rss"]) / 1024, int(kibibytes["Pss"]) / 1024)


def activity(pid: int) -> Activity:
    """Return what all threads of a process and of its living descendants have done so far.

    Not exact while one of them runs: the kernel brings these figures up to date when it stops, and with each tick.
    """
    switches, cpu = 0, 0.0
    for thread in _threads(pid):
        counts = re.findall(r"ctxt_switches:\s+(\d+)", (thread / "status").read_text())
        switches += sum(int(count) for count in counts)
        cpu += int((thread / "schedstat").read_text().split()[0]) / 1e6
    return Activity(switches, cpu)


def cpu_clock(pid: int) -> float:
    """Return the milliseconds of CPU of a process without its children, exact even while it runs."""
    return time.clock_gettime((~pid << 3) | 2) * 1e3  # the kernel's number for the CPU clock of another process


def wait_until_asleep(pid: int, meanwhile: Callable[[], object] = lambda: None, step: float = 0.01) -> None:
    """Wait until a process has done nothing at all for `REST` seconds; call `meanwhile` at every look."""
    deadline = time.perf_counter() + _PATIENCE
    before, since = activity(pid), time.perf_counter()
    while (now := time.perf_counter()) - since < REST:
        if now > deadline:
            raise TimeoutError(f"process {pid} did not come to rest within {_PATIENCE:g} s")
        meanwhile()
        time.sleep(step)
        found = activity(pid)
        if found != before:
            before, since = found, time.perf_counter()


def reap(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end; return the milliseconds of CPU of the process and of the children that it has waited for."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return (usage.ru_utime + usage.ru_stime) * 1e3


class End:
    """The end of a process that may be no child of ours. Make it while the process is there."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    def wait(self) -> float:
        """Wait for the end; return the moment (perf_counter)."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if not poll.poll(_PATIENCE * 1e3):
            raise TimeoutError(f"a process did not end within {_PATIENCE:g} s")
        return time.perf_counter()

    def send(self, number: int) -> None:
        """Send a signal."""
        signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


def _threads(pid: int) -> Iterator[Path]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        yield thread
        for child in (thread / "children").read_text().split():
            yield from _threads(int(child))
