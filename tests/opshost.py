"""A scratch host for the tests of the subcommands, and the real program on it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from entrypoint.check import kubeconfig as kubeconfigcheck
from entrypoint.check import looking as check
from entrypoint.check import node as nodecheck
from entrypoint.cli.commands import cli
from entrypoint.cli.options import chosen
from entrypoint.settings import build
from tests.fake_api import authority, pem

FLANNEL = {
    "name": "cbr0",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def wait_until(condition, timeout=20, what="the condition"):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


def jwt(expires, **claims):
    """A token as kubelet writes it, that nobody has signed."""

    def part(document):
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    body = {**claims, **({} if expires is None else {"exp": expires})}
    return f"{part({'alg': 'RS256'})}.{part(body)}.c2lnbmVk"


class ScratchHost:
    """Directories as the DaemonSet's container sees them, below one scratch directory."""

    def __init__(self, directory: Path):
        self.root = directory
        self.conf_dir = directory / "host/etc/cni/net.d"
        self.bin_dir = directory / "host/opt/cni/bin"
        self.data_dir = directory / "host/var/lib/cni/multus"
        self.account = directory / "serviceaccount"
        self.image = directory / "image"
        for path in (self.conf_dir, self.bin_dir, self.account, self.image):
            path.mkdir(parents=True)
        self.server = "https://10.96.0.1:443"
        self.multus = self.image / "multus"
        self.program(self.multus, b"\x7fELF multus 4.3\n" * 1000)
        self.token = jwt(time.time() + 3600)
        self.rotate(self.token)
        (self.account / "ca.crt").write_text(pem(authority()))
        self.flags = ["--multus-conf-file=auto"]
        self.environment = {}

    # ---- what is on it ----

    @property
    def generated(self):
        return self.conf_dir / "00-multus.conf"

    @property
    def ready(self):
        return self.root / "ready"

    @property
    def kubeconfig(self):
        return self.conf_dir / "multus.d/multus.kubeconfig"

    @property
    def binary(self):
        return self.bin_dir / "multus"

    def program(self, path, content=b"#!/bin/true\n"):
        path.write_bytes(content)
        path.chmod(0o755)

    def master(self, name="10-flannel.conflist", document=FLANNEL):
        path = self.conf_dir / name
        path.write_text(json.dumps(document) if not isinstance(document, str) else document)
        return path

    def plugins(self, *names):
        for name in names or ("flannel", "portmap"):
            self.program(self.bin_dir / name)

    def rotate(self, token):
        """As kubelet does: a new directory, and the link swapped."""
        self.token = token
        new = self.account / f"..{time.monotonic_ns()}"
        new.mkdir()
        (new / "token").write_text(token)
        link = self.account / "..data.new"
        link.symlink_to(new.name)
        link.replace(self.account / "..data")
        if not (self.account / "token").is_symlink():
            (self.account / "token").symlink_to("..data/token")

    def attach(self, pod, *networks, netns="/var/run/netns/cni-{sandbox}", default="cbr0"):
        """Leave what a pod's set-up leaves: Multus's record, and libcni's cache of the runtime and of Multus.

        Returns the paths; the record comes first.
        """
        sandbox = hashlib.sha256(pod.encode()).hexdigest()
        delegates = [{"Conf": {"name": name.rpartition("/")[2]}, "Name": name} for name in (default, *networks)]
        record = self.data_dir / sandbox
        namespace, _, name = pod.rpartition("/")
        arguments = [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", namespace], ["K8S_POD_NAME", name]]
        cache = {"kind": "cniCacheV1", "containerId": sandbox, "cniArgs": arguments, "result": {}, "config": "e30="}
        if netns:
            cache["netns"] = netns.format(sandbox=sandbox[:12])
        results = {self.data_dir.parent / f"results/multus-cni-network-{sandbox}-eth0": "eth0"}
        for position, network in enumerate(networks, 1):
            inner = network.rpartition("/")[2]
            results[self.data_dir / f"results/{inner}-{sandbox}-net{position}"] = f"net{position}"
        (self.data_dir / "results").mkdir(parents=True, exist_ok=True)
        (self.data_dir.parent / "results").mkdir(exist_ok=True)
        record.write_text(json.dumps(delegates))
        for path, interface in results.items():
            path.write_text(json.dumps({**cache, "ifName": interface, "networkName": path.name.partition("-")[0]}))
        return [record, *results]

    def snapshot(self):
        """Everything that can be seen of the scratch directory but times of reading."""
        found = {}
        for directory, names, files in os.walk(self.root):
            for name in [".", *names, *files]:
                path = os.path.join(directory, name)
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    content = Path(path).read_bytes()
                else:
                    content = os.readlink(path) if stat.S_ISLNK(status.st_mode) else None
                found[path] = (status.st_mode, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, content)
        return found

    # ---- the program ----

    def command(self, *arguments, flags=None):
        return [
            sys.executable,
            "-m",
            "entrypoint",
            *arguments,
            f"--cni-conf-dir={self.conf_dir}",
            f"--cni-bin-dir={self.bin_dir}",
            f"--multus-bin-file={self.multus}",
            f"--service-account-dir={self.account}",
            *(self.flags if flags is None else flags),
        ]

    def environ(self, **more):
        host, _, port = self.server.removeprefix("https://").rpartition(":")
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {**kept, "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, **self.environment, **more}

    def run(self, *arguments, flags=None, **more):
        """Run the program to its end."""
        return subprocess.run(
            self.command(*arguments, flags=flags),
            env=self.environ(**more),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=60,
        )

    @contextmanager
    def running(self, flags=None, **more):
        """Run the resident program meanwhile; `log()` is what it has said, `stop()` ends it in good order."""
        log = self.root / "log"
        with log.open("wb") as stream:
            command = [*self.command(flags=flags), f"--ready-file={self.ready}"]
            process = subprocess.Popen(command, env=self.environ(**more), stderr=stream)
        process.log = lambda: log.read_text(errors="surrogateescape")
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                finally:
                    process.kill()

    def configure(self, flags=None):
        """Bring the node into the state in which the program leaves it."""
        with self.running(flags) as process:
            wait_until(self.ready.exists, what="the program to be ready")
        assert process.returncode == 0, process.log()

    def settings(self, *more, flags=None):
        """Return the settings that the program would have."""
        arguments = self.command(*more, flags=flags)[3:]
        context = cli.make_context("multus-entrypoint", arguments)
        return build(chosen(context), self.environ())

    def node_outcome(self, flags=None):
        """Return the findings of `check` on the node by identifier, without asking the cluster."""
        wanted = self.settings(flags=flags)
        view = check.look(wanted)
        found = [*nodecheck.findings(wanted, view), *kubeconfigcheck.findings(wanted, view)]
        return {each.identifier: {"status": each.status, "found": each.found, "advice": each.advice} for each in found}

    def outcome(self, *arguments, flags=None, **more):
        """Run `check` and return its findings by identifier."""
        ran = self.run("check", "--output=json", *arguments, flags=flags, **more)
        assert ran.returncode in (0, 1), ran.stderr
        document = json.loads(ran.stdout)
        assert ran.returncode == (0 if document["ok"] else 1)
        return {each["id"]: each for each in document["findings"]}
