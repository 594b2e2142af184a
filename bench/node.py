"""A scratch node: the host's directories, the service account as kubelet mounts it, and the real program on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = Path(sys.executable).parent / "multus-entrypoint"
ENVIRONMENT = {
    # Nothing of the caller's: variables such as PYTHONDONTWRITEBYTECODE would change what is measured.
    "PATH": "/usr/bin:/bin",
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
}
_PATIENCE = 30.0  # seconds; far more than anything here takes
_NO_AUTHORITY = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


class Node:
    """The directories of one node below `root`."""

    def __init__(
        self,
        root: Path,
        multus: Path,
        *flags: str,
        environment: Mapping[str, str] = ENVIRONMENT,
        authority: str = _NO_AUTHORITY,
    ) -> None:
        """Make an empty node; `multus` is the binary that the program shall install, `authority` the cluster's CA."""
        self.environment = environment
        self._authority = authority
        self.conf_dir = root / "etc/cni/net.d"
        self.bin_dir = root / "opt/cni/bin"
        self.account_dir = root / "serviceaccount"
        self.root = root
        self.ready = root / "run/ready"
        self.kubeconfig = self.conf_dir / "multus.d/multus.kubeconfig"
        self.output = self.conf_dir / "00-multus.conf"
        self.master = self.conf_dir / "10-flannel.conflist"
        for directory in (self.conf_dir, self.bin_dir, self.account_dir, self.ready.parent):
            directory.mkdir(parents=True)
        self.command = [
            str(PROGRAM),
            "--multus-conf-file=auto",
            "--cleanup-config-on-exit",
            f"--cni-conf-dir={self.conf_dir}",
            f"--cni-bin-dir={self.bin_dir}",
            f"--multus-bin-file={multus}",
            f"--service-account-dir={self.account_dir}",
            f"--ready-file={self.ready}",
            *flags,
        ]
        self._rotations = 0
        for name in ("token", "ca.crt"):
            (self.account_dir / name).symlink_to(f"..data/{name}")
        self.rotate(self.next_token("token-0"))
        self.write_master(self.master, "first")

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

    def write_master(self, path: Path, name: str) -> None:
        """Write a default network's configuration, whole and at once."""
        self.prepare_master(name).rename(path)

    def prepare_master(self, name: str) -> Path:
        """Write the configuration under a name that nobody reads."""
        document = {
            "name": name,
            "cniVersion": "0.3.1",
            "plugins": [
                {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        prepared = self.conf_dir / "prepared.new"
        prepared.write_text(json.dumps(document, indent=2))
        return prepared

    def wraps(self, name: str) -> bool:
        """Say whether the configuration that is in place wraps the master of this name."""
        return f'"{name}"'.encode() in content(self.output)

    def start(self) -> Running:
        """Start the program."""
        self.ready.unlink(missing_ok=True)
        return Running(self)


class Running:
    """The program while it runs."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._started = time.perf_counter()
        null = subprocess.DEVNULL
        self.process = subprocess.Popen(node.command, env=node.environment, stdin=null, stdout=null, stderr=null)
        self.pid = self.process.pid

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()

    def wait_ready(self) -> float:
        """Wait until the node is configured; return the seconds since the start."""
        return wait_for(self._node.ready.exists, self._started, step=0.0005)


def content(path: Path) -> bytes:
    """Return what is in a file, nothing when it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def wait_for(condition, since: float, step: float = 0.0001) -> float:
    """Look again and again until `condition` holds; return the seconds since `since`."""
    while not condition():
        if time.perf_counter() - since > _PATIENCE:
            raise TimeoutError(f"not within {_PATIENCE:g} s: {condition}")
        time.sleep(step)
    return time.perf_counter() - since


def make_binary(path: Path, mebibytes: int = 64) -> Path:
    """Make something as big as the real multus binary."""
    path.write_bytes(os.urandom(1 << 20) * mebibytes)
    path.chmod(0o755)
    return path
