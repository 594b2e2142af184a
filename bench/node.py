"""A scratch node with the real program on it, and looking at processes: what they hold, take, and when they rest."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PROGRAM = Path(sys.executable).parent / "multus-entrypoint"
ENVIRONMENT = {
    # Nothing of the caller's: variables such as PYTHONDONTWRITEBYTECODE would change what is measured.
    "PATH": "/usr/bin:/bin",
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
}
PATIENCE = 120.0  # seconds; far more than anything here takes
REST = 0.15  # seconds without any CPU time: the process is asleep
_NO_AUTHORITY = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


# ---- a node ----


class Node:
    """The directories of one node below `root`, and the service account as kubelet mounts it."""

    def __init__(
        self,
        root: Path,
        multus: Path,
        *flags: str,
        environment: Mapping[str, str] = ENVIRONMENT,
        authority: str = _NO_AUTHORITY,
    ) -> None:
        """Make an empty node; `multus` is the binary that the program shall install, `authority` the cluster's CA."""
        self.root, self.environment, self._authority = root, environment, authority
        self.conf_dir, self.bin_dir = root / "etc/cni/net.d", root / "opt/cni/bin"
        self.account_dir, self.ready = root / "serviceaccount", root / "run/ready"
        self.kubeconfig = self.conf_dir / "multus.d/multus.kubeconfig"
        self.output = self.conf_dir / "00-multus.conf"
        self.master = self.conf_dir / "10-flannel.conflist"
        for directory in (self.conf_dir, self.bin_dir, self.account_dir, self.ready.parent):
            directory.mkdir(parents=True)
        self.flags = [
            "--multus-conf-file=auto",
            "--cleanup-config-on-exit",
            f"--cni-conf-dir={self.conf_dir}",
            f"--cni-bin-dir={self.bin_dir}",
            f"--multus-bin-file={multus}",
            f"--service-account-dir={self.account_dir}",
            f"--ready-file={self.ready}",
            *flags,
        ]
        self.command = [str(PROGRAM), *self.flags]
        self._rotations = 0
        for name in ("token", "ca.crt"):
            (self.account_dir / name).symlink_to(f"..data/{name}")
        self.rotate(self.next_token("token-0"))
        self.prepare_master("first").rename(self.master)

    def path(self, on_host: str) -> Path:
        """Return where a path of the node is on this machine."""
        return self.root / on_host.lstrip("/")

    def next_token(self, token: str) -> Path:
        """Prepare the next rotation as kubelet does: a new directory, and a new link beside `..data`."""
        self._rotations += 1
        directory = self.account_dir / f"..{self._rotations}"
        directory.mkdir()
        (directory / "token").write_text(token)
        (directory / "ca.crt").write_text(self._authority)
        link = self.account_dir / "..data_tmp"
        link.symlink_to(directory.name)
        return link

    def rotate(self, link: Path) -> None:
        """Swap `..data`: from this moment on the new token is there."""
        link.rename(self.account_dir / "..data")

    def prepare_master(self, name: str) -> Path:
        """Write a default network's configuration under a name that nobody reads."""
        plugins = [
            {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ]
        prepared = self.conf_dir / "prepared.new"
        prepared.write_text(json.dumps({"name": name, "cniVersion": "0.3.1", "plugins": plugins}, indent=2))
        return prepared

    def wraps(self, name: str) -> bool:
        """Say whether the configuration that is in place wraps the master of this name."""
        return f'"{name}"'.encode() in content(self.output)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the program."""
        self.ready.unlink(missing_ok=True)
        return spawn(self.command, self.environment)


def spawn(command: list[str], environment: Mapping[str, str] = ENVIRONMENT) -> subprocess.Popen[bytes]:
    """Start a process that says nothing, in the small environment that every process here gets."""
    null = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdin=null, stdout=null, stderr=null)


def content(path: Path) -> bytes:
    """Return what is in a file, nothing when it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def wait_for(condition: Callable[[], object], since: float | None = None, step: float = 0.0001) -> float:
    """Look again and again until `condition` holds; return the milliseconds since `since` (perf_counter)."""
    since = time.perf_counter() if since is None else since
    while not condition():
        if time.perf_counter() - since > PATIENCE:
            raise TimeoutError(f"not within {PATIENCE:g} s: {condition}")
        time.sleep(step)
    return (time.perf_counter() - since) * 1e3


def make_binary(path: Path, mebibytes: int = 64) -> Path:
    """Make something as big as the real multus binary."""
    path.write_bytes(os.urandom(1 << 20) * mebibytes)
    path.chmod(0o755)
    return path


# ---- processes ----


class Activity(NamedTuple):
    """What a process and its children have done so far: context switches, and milliseconds of CPU."""

    switches: int
    cpu: float


def machine() -> str:
    """Say what machine this is, for the line above a table."""
    python = platform.python_version()
    return f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {python}"


def memory(pid: int, kind: str = "Rss") -> float:
    """Return the resident memory of a process in MiB, or with `Pss` that which counts shared pages in parts."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(rf"^{kind}: +(\d+) kB", told, re.MULTILINE)[1]) / 1024


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


def _threads(pid: int) -> Iterator[Path]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        yield thread
        for child in (thread / "children").read_text().split():
            yield from _threads(int(child))


def wait_until_asleep(pid: int) -> None:
    """Wait until a process has done nothing at all for `REST` seconds."""
    deadline = time.perf_counter() + PATIENCE
    before, since = activity(pid), time.perf_counter()
    while (now := time.perf_counter()) - since < REST:
        if now > deadline:
            raise TimeoutError(f"process {pid} did not come to rest within {PATIENCE:g} s")
        time.sleep(0.01)
        if (found := activity(pid)) != before:
            before, since = found, time.perf_counter()


def reap(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end; return the milliseconds of CPU of the process and of the children that it has waited for."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return (usage.ru_utime + usage.ru_stime) * 1e3
