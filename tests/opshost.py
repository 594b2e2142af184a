"""A scratch host for the tests of the subcommands: one of a cluster, on which they run to their end in this process."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from entrypoint.disk.wakeup import ENDING
from tests import forking
from tests.fake_api import authority, pem
from tests.process.scratch import FLANNEL, ScratchHost
from tests.waiting import BOUND

__all__ = ("BEYOND", "FLANNEL", "NOBODY", "OpsHost", "jwt", "run_here")

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
    if any(word in {"check", "uninstall", "install"} or word.startswith("--dry-run") for word in arguments):
        return run_here(arguments, environ)
    return forking.run(arguments, env=environ, cwd="/")


def run_here(arguments, environ, *, name="multus-entrypoint"):
    """Run the program in this process as if in one of its own, to its end; return what `subprocess.run` would.

    Importing takes most of the time of a short start, and is done here already. What the program changes of the process
    is put back.
    """
    from entrypoint.cli import commands

    handlers = {number: signal.getsignal(number) for number in ENDING}
    root = logging.getLogger()
    logged, level = root.handlers[:], root.level
    with _captured(1) as stdout, _captured(2) as stderr:
        texts = [io.TextIOWrapper(os.fdopen(os.dup(number), "wb"), "utf-8", errors) for number, errors in STREAMS]
        try:
            with (
                mock.patch.multiple(sys, argv=[name, *map(os.fsdecode, arguments)], stdout=texts[0], stderr=texts[1]),
                mock.patch.dict(os.environ, environ, clear=True),
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


class OpsHost(ScratchHost):
    """A scratch host of a cluster, with pods on it, for the subcommands."""

    def __init__(self, root: Path, conf_dir="host/etc/cni/net.d"):
        super().__init__(root, conf_dir)
        self.generated, self.binary = self.conf, self.installed
        self.data_dir = root / "host/var/lib/cni/multus"
        self.server = NOBODY
        self.rotate(jwt(time.time() + 3600))
        self.flags = ["--multus-conf-file=auto"]
        """What each run is told beside the paths of this host."""
        self.environment = {}
        """And beside the address of the API server."""

    # ---- what is on it ----

    def program(self, path, content=b"#!/bin/true\n"):
        path.write_bytes(content)
        path.chmod(0o755)

    def plugins(self, *names):
        for name in names or ("flannel", "portmap"):
            self.program(self.bin_dir / name)

    def rotate(self, token):
        """As kubelet does; the CA is that of the API server of the tests."""
        self.token = token
        super().rotate(token, pem(authority()))

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
        return super().snapshot(self.root, exact=True)

    # ---- the program ----

    def arguments(self, *words, flags=None):
        """Return the command line of the program; a subcommand may stand in any place."""
        return super().arguments(*(self.flags if flags is None else flags), *words)

    def environ(self, **more):
        host, _, port = self.server.removeprefix("https://").rpartition(":")
        server = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        return super().environ(**{**server, **self.environment, **more})

    def run(self, *words, flags=None, execed=False, **more):
        """Run the program to its end, in this process if it is a subcommand or a dry run."""
        arguments, environ = self.arguments(*words, flags=flags), self.environ(**more)
        if execed:
            options = {"capture_output": True, "text": True, "errors": "surrogateescape", "timeout": BOUND}
            return subprocess.run([*self.command()[:3], *arguments], env=environ, **options)
        return run(arguments, environ)

    @contextmanager
    def running(self, flags=None, *, executed=False, **more):
        """Have the resident program run meanwhile, and end it in good order."""
        with ExitStack() as stack:
            with mock.patch.object(self, "flags", self.flags if flags is None else flags):
                program = stack.enter_context(self.start(env=more, execed=executed))
            yield program
            if program.running():
                program.stop()

    def configure(self, flags=None):
        """Bring the node into the state in which the program leaves it."""
        with self.running(flags) as program:
            self.until_ready(program)
        assert program.returncode == 0, program.log

    def outcome(self, *words, flags=None, **more):
        """Run `check` and return its findings by identifier."""
        ran = self.run("check", "--output=json", *words, flags=flags, **more)
        assert ran.returncode in (0, 1), ran.stderr
        document = json.loads(ran.stdout)
        assert ran.returncode == (0 if document["ok"] else 1)
        return {each["id"]: each for each in document["findings"]}

    def node_outcome(self, flags=None):
        """Return the findings on the node alone."""
        return {name: each for name, each in self.outcome(flags=flags).items() if not name.startswith(BEYOND)}


BEYOND = ("cluster.", "networks.", "pods.")
"""How the findings begin that come from the API server."""
