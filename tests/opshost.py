"""A scratch host for the tests of the subcommands. The program runs on it in a fork, or to its end in this process."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests import forking
from tests.fake_api import authority, pem
from tests.forking import Forked
from tests.waiting import BOUND, until

FLANNEL = {
    "name": "cbr0",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
NOBODY = "https://127.0.0.1:1"
"""Where no API server is, which is known at once."""


def jwt(expires, **claims):
    """A token as kubelet writes it, that nobody has signed."""

    def part(document):
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    body = {**claims, **({} if expires is None else {"exp": expires})}
    return f"{part({'alg': 'RS256'})}.{part(body)}.c2lnbmVk"


# ---- a run to its end ----


def run(arguments, environ):
    """Run the program; what may stay, as the resident one, in a fork."""
    if arguments[0].startswith("-") and not any(each.startswith("--dry-run") for each in arguments):
        return forking.run(arguments, env=environ, cwd="/")
    return run_here(arguments, environ)


def run_here(arguments, environ, *, name="multus-entrypoint"):
    """Run the program in this process as if in one of its own, to its end; return what `subprocess.run` would.

    Importing takes most of the time of a short start, and is done here already. What the program changes of the process
    is put back. Its sleep takes no time: its clock is put forward instead.
    """
    from entrypoint.cli import commands

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)
    handlers = {number: signal.getsignal(number) for number in numbers}
    root, slept, monotonic = logging.getLogger(), [0.0], time.monotonic
    logged, level = root.handlers[:], root.level

    def sleep(seconds):
        slept[0] += seconds

    with _captured(1) as stdout, _captured(2) as stderr:
        texts = [io.TextIOWrapper(os.fdopen(os.dup(number), "wb"), "utf-8", errors) for number, errors in STREAMS]
        try:
            with (
                mock.patch.multiple(sys, argv=[name, *map(os.fsdecode, arguments)], stdout=texts[0], stderr=texts[1]),
                mock.patch.dict(os.environ, environ, clear=True),
                mock.patch.multiple(time, sleep=sleep, monotonic=lambda: monotonic() + slept[0]),
            ):
                commands.main()
                code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        finally:
            for text in texts:
                text.close()
            root.handlers[:], root.level = logged, level
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    return subprocess.CompletedProcess(arguments, code, stdout.text, stderr.text)


STREAMS = ((1, "strict"), (2, "backslashreplace"))


@contextmanager
def _captured(number):
    """Have a descriptor lead into memory for a while; `text` is then what was written."""
    before, captured = os.dup(number), os.memfd_create("captured")
    os.dup2(captured, number)
    outcome = mock.Mock()
    try:
        yield outcome
    finally:
        os.dup2(before, number)
        os.close(before)
        with open(captured, "rb") as file:
            file.seek(0)
            outcome.text = file.read().decode("utf-8", "surrogateescape")


# ---- a host ----


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
        self.server = NOBODY
        self.multus = self.image / "multus"
        self.program(self.multus, b"\x7fELF multus 4.3\n" * 1000)
        self.token = jwt(time.time() + 3600)
        self._rotations = itertools.count()
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
        new = self.account / f"..{next(self._rotations)}"
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

    def arguments(self, *arguments, flags=None):
        """Return the command line of the program with the paths of this host; a subcommand comes first."""
        return [
            *arguments,
            f"--cni-conf-dir={self.conf_dir}",
            f"--cni-bin-dir={self.bin_dir}",
            f"--multus-bin-file={self.multus}",
            f"--service-account-dir={self.account}",
            *(self.flags if flags is None else flags),
        ]

    def command(self, *arguments, flags=None):
        """Return the same for a start by `exec`."""
        return [sys.executable, "-m", "entrypoint", *self.arguments(*arguments, flags=flags)]

    def environ(self, **more):
        host, _, port = self.server.removeprefix("https://").rpartition(":")
        ours = {"PATH": os.environ["PATH"], "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        return {**ours, **self.environment, **more}

    def run(self, *arguments, flags=None, **more):
        """Run the program to its end."""
        return run(self.arguments(*arguments, flags=flags), self.environ(**more))

    def really_run(self, *arguments, flags=None, **more):
        """Run the program to its end, in a process of its own."""
        command = self.command(*arguments, flags=flags)
        run = {"env": self.environ(**more), "capture_output": True, "text": True, "errors": "surrogateescape"}
        return subprocess.run(command, timeout=BOUND, **run)

    def started(self, arguments, log="log", *, executed=False, **more):
        """Start the program in a fork: `log()` is what it has said, `says()` waits for words.

        `executed`: as a runtime starts it, so that its command line and its memory are its own.
        """
        log = self.root / log
        with log.open("wb") as stream:
            options = {"env": self.environ(**more), "cwd": self.root, "stdout": stream, "stderr": stream}
            if executed:
                process = subprocess.Popen([*self.command()[:3], *arguments], **options)
            else:
                process = Forked(arguments, **options)
        process.log = lambda: log.read_text(errors="surrogateescape")

        def says(*words):
            """Wait until the log has all these words."""
            ended = process.poll() is not None  # before the log is looked at
            found = all(word in process.log() for word in words)
            assert found or not ended, f"it has ended without {words}:\n{process.log()}"
            return found

        process.says = lambda *words: until(lambda: says(*words), lambda: f"{words}: it said\n{process.log()}")
        return process

    @contextmanager
    def running(self, flags=None, **more):
        """Have the resident program run meanwhile, and end it in good order."""
        process = self.started([*self.arguments(flags=flags), f"--ready-file={self.ready}"], **more)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(BOUND)
                finally:
                    process.kill()

    def configure(self, flags=None):
        """Bring the node into the state in which the program leaves it."""
        with self.running(flags) as process:
            until(
                lambda: self.ready.exists() or process.poll() is not None,
                lambda: f"the node to be configured: the program said\n{process.log()}",
            )
        assert process.returncode == 0, process.log()

    def outcome(self, *arguments, flags=None, **more):
        """Run `check` and return its findings by identifier."""
        ran = self.run("check", "--output=json", *arguments, flags=flags, **more)
        assert ran.returncode in (0, 1), ran.stderr
        document = json.loads(ran.stdout)
        assert ran.returncode == (0 if document["ok"] else 1)
        return {each["id"]: each for each in document["findings"]}

    def node_outcome(self, flags=None):
        """Return the findings on the node alone."""
        return {name: each for name, each in self.outcome(flags=flags).items() if not name.startswith(BEYOND)}


BEYOND = ("cluster.", "networks.", "pods.")
"""How the findings begin that come from the API server."""
