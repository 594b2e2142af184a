"""The image in a container, started by podman as the DaemonSet says (tests/container/lab.py reads the manifest)."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cgroups import Group, Limits, SpoiltError
from node import Node
from places import PASS, Place, Started, evict
from processes import End, cpu_clock

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.container import images, lab
from tests.manifests import DEPLOYMENTS, documents, memory, only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAIN = "kube-multus"
IMAGE = "localhost/multus-entrypoint:bench"
_PYTHON = "/opt/multus-entrypoint/bin/python3"
_READ_AT_START = ("opt", "usr/lib", "usr/bin", "usr/src")
"""Below the image's root: all that is not configuration."""


class Contained(Started):
    """The first process of a container, from the moment when the runtime has become our program."""

    def __init__(self, running: lab.Running, *, cold: bool) -> None:
        self._running = running
        lab.podman("init", running.identifier)  # all is set up, and the runtime's own process waits for the start
        found = running.cgroup
        self.group = Group(cpu=found.cpu, memory=found.memory)
        self.pid = self.group.only_process()
        self.end = End(self.pid)
        if cold:
            evict([Path(f"/proc/{self.pid}/root", name) for name in _READ_AT_START])
        runtime = _name(self.pid)
        charged, clock = self.group.cpu(), cpu_clock(self.pid)
        self._starting = subprocess.Popen(["podman", "start", running.identifier], stdout=subprocess.DEVNULL)
        try:
            self.moment, self.late, clock_then = _last_look_before_exec(self.pid, runtime)
            self.group.reset()
            self.check()
        except (OSError, SpoiltError) as error:
            self._starting.wait()
            raise SpoiltError(f"the start of a process was not seen: {error}") from None
        # The same process was the runtime's until then: its CPU time in the group, to be taken off.
        self._runtime_cpu = charged + clock_then - clock

    def cpu_after_end(self) -> float:
        """From the container's group, which counts every process that ever was in it, less the runtime's own part.

        Raises `SpoiltError` when podman, which clears up after a container, was faster.
        """
        try:
            return self.group.cpu() - self._runtime_cpu
        except OSError as error:
            raise SpoiltError(f"the control group is gone: {error}") from None

    def exit_code(self) -> int:
        return self._running.wait(30)

    def close(self) -> None:
        """Give back what was taken for looking at it; the container stays."""
        self._starting.wait()
        self.end.close()


class Container(Place):
    """The container, under the limits of the DaemonSet unless others are asked for."""

    name = "container"
    between = 0.02

    def __init__(self, scratch: Path, image: str) -> None:
        self._scratch = scratch / "container"
        self._image = image
        self._numbers = itertools.count()
        self._daemon_set = only(documents(DEPLOYMENTS / "multus-daemonset.yml"), "DaemonSet")
        (self._manifest,) = self._daemon_set["spec"]["template"]["spec"]["containers"]
        limits = self._manifest["resources"]["limits"]
        if "cpu" in limits:
            sys.exit(f"the DaemonSet has a CPU limit, which the bench does not know of: {limits['cpu']}")
        self.limits = Limits(memory=memory(limits["memory"]))

    def new_node(self) -> Node:
        shutil.rmtree(self._scratch, ignore_errors=True)
        return Node(self._scratch / "node", Path("in the image"))

    @contextlib.contextmanager
    def start(self, node: Node, limits: Limits, *, cold: bool = False) -> Iterator[Contained]:
        def removing(container: dict) -> None:
            # Off in the manifest; without it a master that is gone has no consequence to measure.
            container["args"].append("--cleanup-config-on-exit")

        with self._started(node, limits, removing, cold=cold) as contained:
            yield contained

    @contextlib.contextmanager
    def start_bare(self, node: Node, limits: Limits, code: str = PASS, *, cold: bool = False) -> Iterator[Contained]:
        def bare(container: dict) -> None:
            ready = next(flag for flag in container["args"] if flag.startswith("--ready-file=")).partition("=")[2]
            container["command"] = [_PYTHON, "-c", code.replace("{ready!r}", repr(ready))]
            container["args"] = []

        with self._started(node, limits, bare, cold=cold) as contained:
            yield contained

    @contextlib.contextmanager
    def _started(
        self, node: Node, limits: Limits, change: Callable[[dict], None], *, cold: bool
    ) -> Iterator[Contained]:
        node.ready.unlink(missing_ok=True)
        daemon_set = copy.deepcopy(self._daemon_set)
        (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
        change(container)
        container["resources"]["limits"] = {  # one of the CPU is only ever the bench's own
            **({"cpu": limits.cpus} if limits.cpus else {}),
            **({"memory": limits.memory} if limits.memory else {}),
        }
        directory = self._scratch / f"pod-{next(self._numbers)}"
        directory.mkdir()
        pod = lab.Pod(daemon_set, node, self._image, directory)
        pod.replace_volume("service-account", node.account_dir)
        pod.replace_volume("ready", node.ready.parent)
        running = pod.create(MAIN)
        with contextlib.ExitStack() as stack:
            stack.callback(_remove, running.identifier)
            contained = Contained(running, cold=cold)
            stack.callback(contained.close)
            yield contained


def _remove(identifier: str) -> None:
    for _ in range(5):  # podman's own cleaning up after the end may be in the way
        if lab.podman("rm", "--force", "--time", "0", "--ignore", identifier, check=False).returncode == 0:
            return


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text()


def _last_look_before_exec(pid: int, runtime: str) -> tuple[float, float, float]:
    """Wait until the runtime's process has become ours: its name is not the runtime's any more then.

    Return the moment of the last look before that (perf_counter), the milliseconds from there to the next look,
    and the process's CPU clock at that moment.
    """
    own = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, -20)  # before podman, which keeps both processors of a small machine busy
    try:
        moment, clock = time.perf_counter(), cpu_clock(pid)
        while _name(pid) == runtime:
            moment, clock = time.perf_counter(), cpu_clock(pid)
            time.sleep(0.0001)
        return moment, (time.perf_counter() - moment) * 1e3, clock
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, own)


def obstacle() -> str | None:
    """Say why no container can be started here; None when one can."""
    return images.reason_to_skip()


def build() -> str:
    """Build the image of this tree around a stand-in for multus of 64 MiB; return its identifier.

    Not its name, which a bench in another tree may give to another image meanwhile.
    """
    images.stand_in_as_big_as_multus()
    images.build(IMAGE, images.STAND_IN, quiet=True)
    return lab.podman("image", "inspect", "--format={{.Id}}", IMAGE).stdout.strip()
