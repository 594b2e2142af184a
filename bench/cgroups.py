"""Control groups: a scratch group with limits for one start, and the counters of that group or of a container's.

Written for versions 1 and 2 of the kernel's interface. Only version 1 has been run.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path("/sys/fs/cgroup")
UNIFIED = (TOP / "cgroup.controllers").exists()
"""Version 2. A machine with both mounted has its memory and CPU controllers in version 1."""
_PERIOD = 100_000  # microseconds, as kubelet sets it
_MEBIBYTE = 1 << 20


class Limits(NamedTuple):
    """What a group may take."""

    cpus: float | None = None
    memory: int | None = None
    """Bytes."""


class Charged(NamedTuple):
    """What a group was charged at its highest, in MiB, and how often it ran into its limit."""

    peak: float
    own: float
    """Memory of the processes themselves, when the most was seen."""
    cache: float
    """Page cache, when the most was seen."""
    hits: int


class SpoiltError(Exception):
    """The sample is to be taken again: something else on this machine got in between."""


class Group:
    """A control group and its counters."""

    def __init__(self, cpu: Path, memory: Path) -> None:
        """Both directories are the same in version 2; `cpu` is where CPU time is counted."""
        self.cpu_dir = cpu
        self.memory_dir = memory
        self._most = (0, 0, 0)
        self._hits_before = 0

    def cpu(self) -> float:
        """Return the milliseconds of CPU of all processes that ever were in the group; exact when none runs."""
        if UNIFIED:
            return _fields(self.cpu_dir / "cpu.stat")["usage_usec"] / 1e3
        return _number(self.cpu_dir / "cpuacct.usage") / 1e6

    def reset(self) -> None:
        """Forget what was charged at its highest, as far as the kernel lets one."""
        self._most = (0, 0, 0)
        if UNIFIED:
            self._hits_before = _fields(self.memory_dir / "memory.events")["max"]
        else:
            for counter in ("memory.max_usage_in_bytes", "memory.failcnt"):
                (self.memory_dir / counter).write_text("0")

    def look(self) -> None:
        """Remember what the charged memory consists of if it is the most so far: the kernel keeps only the sum."""
        used = _number(self.memory_dir / ("memory.current" if UNIFIED else "memory.usage_in_bytes"))
        if used > self._most[0]:
            fields = _fields(self.memory_dir / "memory.stat")
            own, cache = ("anon", "file") if UNIFIED else ("total_rss", "total_cache")
            self._most = (used, fields[own], fields[cache])

    def charged(self) -> Charged:
        """Return the most that was charged since `reset`; what it consists of is known from calls of `look`."""
        if UNIFIED:
            peak = _number(self.memory_dir / "memory.peak")
            hits = _fields(self.memory_dir / "memory.events")["max"] - self._hits_before
        else:
            peak = _number(self.memory_dir / "memory.max_usage_in_bytes")
            hits = _number(self.memory_dir / "memory.failcnt")
        _, own, cache = self._most
        return Charged(peak / _MEBIBYTE, own / _MEBIBYTE, cache / _MEBIBYTE, hits)

    def only_process(self) -> int:
        """Return the one process that is in the group; in version 2 runtimes put it into a group below."""
        found = [pid for each in self.memory_dir.rglob("cgroup.procs") for pid in each.read_text().split()]
        if len(found) != 1:
            raise SpoiltError(f"not one process in {self.memory_dir}, but {len(found)}")
        return int(found[0])

    def check(self, pid: int) -> None:
        """Raise `SpoiltError` when a process is not in this group any more, and so ran without its limits."""
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            return  # it has ended
        counting = {"memory", "cpu", "cpuacct"}
        for line in lines:
            _, controllers, path = line.split(":", 2)
            matters = counting & set(controllers.split(",")) or (UNIFIED and not controllers)
            if matters and self.memory_dir.name not in path:
                raise SpoiltError(f"process {pid} is in {path}")


def obstacle() -> str | None:
    """Say why no group can be made here; None when it can."""
    if os.geteuid() != 0:
        return "control groups need root"
    if UNIFIED and not {"cpu", "memory"} <= set((TOP / "cgroup.subtree_control").read_text().split()):
        return f"the controllers cpu and memory are not on in {TOP}/cgroup.subtree_control"
    for top in _tops():
        if not os.access(top, os.W_OK) or not top.is_dir() or os.statvfs(top).f_flag & os.ST_RDONLY:
            return f"{top} is not there or may not be written"
    return None


@contextlib.contextmanager
def scratch(limits: Limits) -> Iterator[Group]:
    """Make a group with these limits, and remove it when its processes have ended."""
    name = f"multus-entrypoint-bench-{os.getpid()}-{time.monotonic_ns()}"
    directories = [top / name for top in _tops()]
    made: list[Path] = []
    try:
        for directory in directories:
            directory.mkdir()
            made.append(directory)
        _limit(directories, limits)
        yield Group(cpu=directories[-1], memory=directories[0])
    finally:
        for directory in made:
            _remove(directory)


def launcher(group: Group) -> list[str]:
    """Return what to put before a command so that it starts inside of the group.

    A shell moves itself there and becomes the command: nothing of this process, which is large, is charged to it.
    """
    places = {group.memory_dir, group.cpu_dir, *([] if UNIFIED else [TOP / "cpu" / group.memory_dir.name])}
    moves = "; ".join(f"echo $$ > {place}/cgroup.procs" for place in sorted(places))
    return ["/bin/sh", "-c", f'{moves}; exec "$@"', "sh"]


def _tops() -> list[Path]:
    """Return the hierarchies in which a group is made: that of memory first, that which counts CPU time last."""
    if UNIFIED:
        return [TOP]
    # Often cpu and cpuacct are one hierarchy, under both names.
    return list(dict.fromkeys((TOP / name).resolve() for name in ("memory", "cpu", "cpuacct")))


def _limit(directories: list[Path], limits: Limits) -> None:
    memory, cpu = directories[0], directories[0 if UNIFIED else 1]
    if limits.cpus is not None:
        quota = int(limits.cpus * _PERIOD)
        if UNIFIED:
            (cpu / "cpu.max").write_text(f"{quota} {_PERIOD}")
        else:
            (cpu / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (cpu / "cpu.cfs_quota_us").write_text(str(quota))
    if limits.memory is not None:
        (memory / ("memory.max" if UNIFIED else "memory.limit_in_bytes")).write_text(str(limits.memory))


def _remove(directory: Path) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError):  # the kernel may not be done with the process that has just ended
            directory.rmdir()
            return
        time.sleep(0.01)


def _number(path: Path) -> int:
    return int(path.read_text())


def _fields(path: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in path.read_text().splitlines())}
