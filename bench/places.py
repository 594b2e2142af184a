"""Where the program is measured: on this host as an ordinary process, or in a container as the DaemonSet says."""

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

from node import PATIENCE, Node, reap, spawn, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.container.lab import Cgroup

T = TypeVar("T")
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


# ---- a start ----


class Started:
    """A process from its exec on, of the program or of the bare interpreter."""

    def __init__(self, pid: int, group: Cgroup | None = None) -> None:
        """Make it while the process is there; with the control group of its container, if it has one."""
        self.pid, self._group = pid, group
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
        self.check()
        return took

    def check(self) -> None:
        """Raise `SpoiltError` when the process is not in its container's group any more, and so runs without limits."""
        if self._group and not self._group.holds(self.pid):
            raise SpoiltError(f"process {self.pid} was put into another control group")

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
    """This machine, without any limit, with the virtual environment of this interpreter."""

    name = "host"
    limits = Limits()
    can_limit = False

    def __init__(self, scratch: Path, multus: Path) -> None:
        self._root, self._multus = scratch / "host", multus

    def new_node(self) -> Node:
        """Make an empty node where the last one was."""
        shutil.rmtree(self._root, ignore_errors=True)
        return Node(self._root, self._multus)

    @contextlib.contextmanager
    def start(self, node: Node, limits: Limits, bare: str | None = None) -> Iterator[Started]:
        """Start the program, or the bare interpreter with this code, in which `{ready!r}` is the ready file."""
        command = node.command if bare is None else [sys.executable, "-c", bare.format(ready=str(node.ready))]
        node.ready.unlink(missing_ok=True)
        moment = time.perf_counter()
        process = spawn(command)
        started = Started(process.pid)
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


class Container:
    """The container that podman starts as the DaemonSet says, under its limits unless others are asked for."""

    name = "container"
    can_limit = True

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
    def start(self, node: Node, limits: Limits, bare: str | None = None) -> Iterator[Started]:
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
            yield self._seen_to_start(running, stack)

    def _seen_to_start(self, running, stack: contextlib.ExitStack) -> Started:
        """Start it, and catch the moment when the runtime's process becomes ours: its name is another one then.

        Its CPU time until then is the runtime's, and is taken off.
        """
        self._lab.podman("init", running.identifier)  # all is set up, and the runtime's process waits for the start
        pid, group = running.inspect()["State"]["Pid"], running.cgroup
        started = Started(pid, group)
        stack.callback(started.close)
        runtime, charged, clock = _name(pid), group.cpu_seconds() * 1e3, _cpu_clock(pid)
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
            started.check()
        except OSError as error:
            raise SpoiltError(f"the start of a process was not seen: {error}") from None
        finally:
            os.setpriority(os.PRIO_PROCESS, 0, own)

        def cpu_after_end() -> float:
            try:
                return group.cpu_seconds() * 1e3 - (charged + last - clock)
            except OSError as error:
                raise SpoiltError(f"who clears up after a container was faster: {error}") from None

        started.cpu_after_end = cpu_after_end
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
