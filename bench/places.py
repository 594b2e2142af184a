"""Where the program is measured: on this host as an ordinary process, or in a container as the DaemonSet says.

Limits and counters are those of control groups, of version 1 or 2 of the kernel's interface.
"""

from __future__ import annotations

import contextlib
import copy
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from node import PATIENCE, Node, reap, spawn, wait_for, wait_until_asleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
TOP = Path("/sys/fs/cgroup")
UNIFIED = (TOP / "cgroup.controllers").exists()
"""Version 2. A machine with both mounted has its memory and CPU controllers in version 1."""
_PERIOD = 100_000  # microseconds, as kubelet sets it

PASS = "pass"
WAITING = "import os; os.close(os.open({ready!r}, os.O_CREAT)); os.read(os.pipe()[0], 1)"
"""As little to do as `pass`, but it says that it is there and waits to be looked at. Every interpreter has os."""


class Limits(NamedTuple):
    """What a group may take."""

    cpus: float | None = None
    memory: int | None = None
    """Bytes."""


class Usage(NamedTuple):
    """What one start took, in milliseconds of CPU and wall time."""

    cpu: float
    wall: float


class SpoiltError(Exception):
    """The sample is to be taken again: something else on this machine got in between."""


def unless_spoilt(measure: Callable[[], T]) -> T:
    """Return what is measured; measure again when the sample was spoilt."""
    for _ in range(50):
        try:
            return measure()
        except SpoiltError as error:
            last = error
    sys.exit(f"this machine lets nothing be measured: {last}")


# ---- control groups ----


class Group(NamedTuple):
    """A control group and its counters: the directory where CPU time is counted, and that where memory is."""

    cpu: Path
    memory: Path

    def cpu_time(self) -> float:
        """Return the milliseconds of CPU of all processes that ever were in it; exact when none runs.

        Raises `SpoiltError` when who clears up after a container was faster.
        """
        try:
            if UNIFIED:
                return _fields(self.cpu / "cpu.stat")["usage_usec"] / 1e3
            return int((self.cpu / "cpuacct.usage").read_text()) / 1e6
        except OSError as error:
            raise SpoiltError(f"the control group is gone: {error}") from None

    def forget(self) -> None:
        """Forget what was charged at the most, as far as the kernel lets one."""
        if not UNIFIED:
            for counter in ("memory.max_usage_in_bytes", "memory.failcnt"):
                (self.memory / counter).write_text("0")

    def charged(self) -> tuple[float, int]:
        """Return the most that was charged, in MiB, and how often the limit was hit."""
        peak = int((self.memory / ("memory.peak" if UNIFIED else "memory.max_usage_in_bytes")).read_text())
        events = self.memory / ("memory.events" if UNIFIED else "memory.failcnt")
        return peak / (1 << 20), _fields(events)["max"] if UNIFIED else int(events.read_text())

    def only_process(self) -> int:
        """Return the one process that is in the group; in version 2 runtimes put it into a group below."""
        found = [pid for each in self.memory.rglob("cgroup.procs") for pid in each.read_text().split()]
        if len(found) != 1:
            raise SpoiltError(f"not one process in {self.memory}, but {len(found)}")
        return int(found[0])

    def check(self, pid: int) -> None:
        """Raise `SpoiltError` when a process is not in this group any more, and so ran without its limits."""
        with contextlib.suppress(OSError):  # it has ended
            for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                counts = {"memory", "cpu", "cpuacct"} & set(controllers.split(",")) or (UNIFIED and not controllers)
                if counts and self.memory.name not in path:
                    raise SpoiltError(f"process {pid} is in {path}")


def _fields(path: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in path.read_text().splitlines())}


def _tops() -> list[Path]:
    """Return the hierarchies in which a group is made: that of memory first, that which counts CPU time last."""
    if UNIFIED:
        return [TOP]
    # Often cpu and cpuacct are one hierarchy, under both names.
    return list(dict.fromkeys((TOP / name).resolve() for name in ("memory", "cpu", "cpuacct")))


@contextlib.contextmanager
def scratch_group(limits: Limits) -> Iterator[Group]:
    """Make a group with these limits, and remove it when its processes have ended."""
    name = f"multus-entrypoint-bench-{os.getpid()}-{time.monotonic_ns()}"
    directories = [top / name for top in _tops()]
    with contextlib.ExitStack() as stack:
        for directory in directories:
            directory.mkdir()
            stack.callback(wait_for, lambda each=directory: _removed(each), step=0.01)
        cpu, quota = directories[0 if UNIFIED else 1], int((limits.cpus or 0) * _PERIOD)
        files = {
            **({cpu / "cpu.max": f"{quota} {_PERIOD}"} if quota and UNIFIED else {}),
            **({cpu / "cpu.cfs_quota_us": str(quota)} if quota and not UNIFIED else {}),
            directories[0] / ("memory.max" if UNIFIED else "memory.limit_in_bytes"): str(limits.memory or -1),
        }
        for path, text in files.items():
            if text != "-1":
                path.write_text(text)
        yield Group(cpu=directories[-1], memory=directories[0])


def _removed(directory: Path) -> bool:
    with contextlib.suppress(OSError):  # the kernel may not be done with the process that has just ended
        directory.rmdir()
    return not directory.exists()


def no_groups() -> str | None:
    """Say why no group can be made here; None when it can."""
    try:
        with scratch_group(Limits(cpus=1, memory=1 << 30)):
            return None
    except (OSError, IndexError) as error:
        return f"control groups cannot be made: {error}"


def launcher(group: Group) -> list[str]:
    """Return what to put before a command so that it starts inside of the group.

    A shell moves itself there and becomes the command: nothing of this process, which is large, is charged to it.
    """
    places = {group.memory, group.cpu, *([] if UNIFIED else [TOP / "cpu" / group.memory.name])}
    moves = "; ".join(f"echo $$ > {place}/cgroup.procs" for place in sorted(places))
    return ["/bin/sh", "-c", f'{moves}; exec "$@"', "sh"]


def evict(paths: list[Path]) -> None:
    """Take files, and those below directories, out of the page cache; what is mapped or was not yet written stays."""
    for path in paths:
        for each in path.rglob("*") if path.is_dir() else [path]:
            if each.is_file() and not each.is_symlink():
                with each.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ---- a start ----


class Started:
    """A process from its exec on, of the program or of the bare interpreter. Its group, if it has one, is its own."""

    def __init__(self, pid: int, group: Group | None = None) -> None:
        """Make it while the process is there."""
        self.pid, self.group = pid, group
        self._end = os.pidfd_open(pid)
        self.moment = time.perf_counter()
        self.late = 0.0
        """Milliseconds that the moment may be too early: how long nobody looked."""
        self.cpu_after_end: Callable[[], float]
        """Returns the milliseconds of CPU of the process and of its children, after its end."""
        self.exit_code: Callable[[], int]

    def close(self) -> None:
        """Give back what was taken for looking at it."""
        os.close(self._end)

    def wait_ready(self, ready: Path) -> float:
        """Wait until the ready file is there; return the milliseconds since the start."""
        took = wait_for(ready.exists, self.moment, step=0.0005)
        if self.group is not None:
            self.group.check(self.pid)
        return took

    def usage(self, ready: Path | None = None) -> Usage:
        """Return what it took until the ready file was there, or else until its end.

        CPU time is known exactly only after the end, so the end comes at once and without warning.
        """
        wall = self.wait_ready(ready) if ready else self._wait_end() - self.moment * 1e3
        self.kill()
        if self.late > max(1, wall / 100):
            raise SpoiltError(f"a start was seen {self.late:.1f} ms late")
        return Usage(self.cpu_after_end(), wall)

    def kill(self) -> None:
        """End it without warning, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._end, signal.SIGKILL)
        self._wait_end()

    def exit_time(self) -> float:
        """Send SIGTERM; return the milliseconds until the process has ended."""
        before = time.perf_counter()
        signal.pidfd_send_signal(self._end, signal.SIGTERM)
        took = self._wait_end() - before * 1e3
        if code := self.exit_code():
            sys.exit(f"the program ended with exit code {code}")
        return took

    def _wait_end(self) -> float:
        """Wait for the end; return the moment in milliseconds (perf_counter)."""
        if not select.select([self._end], [], [], PATIENCE)[0]:
            raise TimeoutError(f"a process did not end within {PATIENCE:g} s")
        return time.perf_counter() * 1e3


# ---- the host ----


class Host:
    """This machine, without any limit unless one is asked for, with the virtual environment of this interpreter."""

    name = "host"
    limits = Limits()

    def __init__(self, scratch: Path, multus: Path) -> None:
        self._root, self._multus = scratch / "host", multus
        self.without_limits = no_groups()
        """Why no limits can be set; None when they can."""

    def new_node(self) -> Node:
        """Make an empty node where the last one was."""
        shutil.rmtree(self._root, ignore_errors=True)
        return Node(self._root, self._multus)

    @contextlib.contextmanager
    def start(self, node: Node, limits: Limits, bare: str | None = None, *, cold: bool = False) -> Iterator[Started]:
        """Start the program, or the bare interpreter with this code, in which `{ready!r}` is the ready file.

        `cold`: with as little as possible of what it reads in the page cache.
        """
        command = node.command if bare is None else [sys.executable, "-c", bare.format(ready=str(node.ready))]
        node.ready.unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            group = stack.enter_context(scratch_group(limits)) if limits != Limits() else None
            if cold:
                # The interpreter and its library run this process too, and stay.
                evict([Path(sys.prefix), Path(__file__).parent.parent / "entrypoint", self._multus])
            moment = time.perf_counter()
            process = spawn([*(launcher(group) if group else []), *command])
            started = Started(process.pid, group)
            started.moment = moment
            started.cpu_after_end = lambda: reap(process)
            started.exit_code = process.wait
            try:
                yield started
            finally:
                process.kill()
                process.wait()
                started.close()


# ---- the container ----

IMAGE = "localhost/multus-entrypoint:bench"
_PYTHON = "/opt/multus-entrypoint/bin/python3"
_READ_AT_START = ("opt", "usr/lib", "usr/bin", "usr/src")
"""Below the image's root: all that is not configuration."""


class Container:
    """The container that podman starts as the DaemonSet says, under its limits unless others are asked for."""

    name = "container"
    without_limits = None

    def __init__(self, scratch: Path, image: str | None) -> None:
        """Measure this image, or else build one of this tree around a stand-in for multus of 64 MiB."""
        sys.path.insert(0, str(Path(__file__).parent.parent))
        from tests import manifests
        from tests.container import images, lab

        self._lab, self._scratch, self._pods = lab, scratch / "container", 0
        self.obstacle = images.reason_to_skip()
        """Why no container can be started here; None when one can."""
        if self.obstacle is None and image is None:
            images.stand_in_as_big_as_multus()
            images.build(IMAGE, images.STAND_IN, quiet=True)
            # Not its name, which a bench in another tree may give to another image meanwhile.
            image = lab.podman("image", "inspect", "--format={{.Id}}", IMAGE).stdout.strip()
        self._image = image
        self._daemon_set = manifests.only(
            manifests.documents(manifests.DEPLOYMENTS / "multus-daemonset.yml"), "DaemonSet"
        )
        (container,) = self._daemon_set["spec"]["template"]["spec"]["containers"]
        self.limits = Limits(memory=manifests.memory(container["resources"]["limits"]["memory"]))

    def new_node(self) -> Node:
        """Make an empty node where the last one was."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        return Node(self._scratch / "node", Path("in the image"))

    @contextlib.contextmanager
    def start(self, node: Node, limits: Limits, bare: str | None = None, *, cold: bool = False) -> Iterator[Started]:
        """Start the program, or the bare interpreter, as on the host."""
        node.ready.unlink(missing_ok=True)
        daemon_set = copy.deepcopy(self._daemon_set)
        (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
        if bare is None:
            # Off in the manifest; without it a master that is gone has no consequence to measure.
            container["args"].append("--cleanup-config-on-exit")
        else:
            (ready,) = (flag.partition("=")[2] for flag in container["args"] if flag.startswith("--ready-file="))
            container["command"], container["args"] = [_PYTHON, "-c", bare.format(ready=ready)], []
        set_limits = {"cpu": limits.cpus, "memory": limits.memory}
        container["resources"]["limits"] = {name: value for name, value in set_limits.items() if value}
        self._pods += 1
        directory = self._scratch / f"pod-{self._pods}"
        directory.mkdir()
        pod = self._lab.Pod(daemon_set, node, self._image, directory)
        pod.replace_volume("service-account", node.account_dir)
        pod.replace_volume("ready", node.ready.parent)
        running = pod.create("kube-multus")
        with contextlib.ExitStack() as stack:
            stack.callback(self._remove, running.identifier)
            yield self._seen_to_start(running, stack, cold=cold)

    def _seen_to_start(self, running, stack: contextlib.ExitStack, *, cold: bool) -> Started:
        """Start it, and catch the moment when the runtime's process becomes ours: its name is another one then.

        Its CPU time until then is the runtime's, and is taken off.
        """
        self._lab.podman("init", running.identifier)  # all is set up, and the runtime's process waits for the start
        group = Group(cpu=running.cgroup.cpu, memory=running.cgroup.memory)
        pid = group.only_process()
        started = Started(pid, group)
        stack.callback(started.close)
        if cold:
            evict([Path(f"/proc/{pid}/root", name) for name in _READ_AT_START])
        runtime, charged, clock = _name(pid), group.cpu_time(), _cpu_clock(pid)
        starting = subprocess.Popen(["podman", "start", running.identifier], stdout=subprocess.DEVNULL)
        stack.callback(starting.wait)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, -20)  # before podman, which keeps both processors of a small machine busy
        try:
            last = clock
            while _name(pid) == runtime:
                started.moment, last = time.perf_counter(), _cpu_clock(pid)
                time.sleep(0.0001)
            started.late = (time.perf_counter() - started.moment) * 1e3
            group.forget()
            group.check(pid)
        except OSError as error:
            raise SpoiltError(f"the start of a process was not seen: {error}") from None
        finally:
            os.setpriority(os.PRIO_PROCESS, 0, own)
        started.cpu_after_end = lambda: group.cpu_time() - (charged + last - clock)
        started.exit_code = running.wait
        return started

    def _remove(self, identifier: str) -> None:
        for _ in range(5):  # podman's own cleaning up after the end may be in the way
            removing = self._lab.podman("rm", "--force", "--time", "0", "--ignore", identifier, check=False)
            if removing.returncode == 0:
                return


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text()


def _cpu_clock(pid: int) -> float:
    """Return the milliseconds of CPU of a process without its children, exact even while it runs."""
    return time.clock_gettime((~pid << 3) | 2) * 1e3  # the kernel's number for the CPU clock of another process


def charged_when_asleep(started: Started, ready: Path) -> tuple[float, int]:
    """Return the most that the group was charged until the process was ready and asleep, and its hits of the limit."""
    started.wait_ready(ready)
    wait_until_asleep(started.pid)
    return started.group.charged()
