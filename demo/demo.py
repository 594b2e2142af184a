"""Five moments in the life of a node, shown on a scratch host: every step is real, or the demo fails.

The program runs with the flags of deployments/multus-daemonset.yml. Only the `multus` that it installs is a stand-in.
A shell runs the lines that start with `$`; lines with `|` are what the program logs. A step whose result does not come
ends the demo with exit code 1.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.waiting import until  # noqa: E402 - its patience is that of the tests

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = Path(sys.executable).parent / "multus-entrypoint"
FLANNEL = ROOT / "demo/10-flannel.conflist"
MANIFEST = ROOT / "deployments/multus-daemonset.yml"
TERMINAL = sys.stdout.isatty()
BREATH = 0.8 if TERMINAL else 0.0  # seconds for a person to read a step
COLOURS = bool(TERMINAL or os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")
PLACES = ("host", "serviceaccount", "image", "run", "old")
"""The directories of the scratch host, which the shell has as variables."""
BOLD, DIM, RED, GREEN, CYAN = "1", "2", "31", "32", "36"


def main() -> int:
    """Run the demo; return its exit code."""
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is not there: run `make demo`, which installs it")
    with tempfile.TemporaryDirectory(prefix="multus-demo-") as scratch:
        node = Node(Path(scratch))
        try:
            show(node)
        except AssertionError as error:
            node.print_log()
            write(RED, "\n", f"DEMO FAILED: {error}")
            return 1
        finally:
            os.killpg(node.shell.pid, signal.SIGKILL)  # nothing is left running
    return 0


def show(node: Node) -> None:
    """Go through the life of a node."""
    say("""
        Multus gives pods more than one network interface. It is a CNI plugin: a program on every node, which the
        container runtime calls for each pod. Its configuration wraps that of the cluster's default network. Somebody
        has to install all of that on every node, and to keep it right. That is what multus-entrypoint does.""")
    say("""
        Here it runs for real, with the flags of deployments/multus-daemonset.yml, on a scratch host whose directories
        are called $HOST. The `multus` that it installs is a stand-in, because nothing here calls it.""")
    the_network_arrives_late(node)
    the_token_is_rotated(node)
    the_network_changes(node)
    the_configuration_is_damaged(node)
    multus_is_taken_off(node)
    title(
        "Next: README.md#install puts it on a cluster; docs/install.md#look-first only says what it would write there"
    )


# ---- the steps ----


def the_network_arrives_late(node: Node) -> None:
    title("1. A new node: the pod starts before the default network, Flannel, has written its configuration")
    node.does("set -- " + " \\\n      ".join(node.flags))
    node.does('multus-entrypoint "$@" &', said="waiting")
    assert node.kubeconfig.exists() and node.binary.exists(), "the kubeconfig or the binary is not there"
    assert not node.output.exists(), "there is a Multus configuration, but nothing to wrap"
    took = node.does(f"cp demo/{FLANNEL.name} $HOST/etc/cni/net.d/", node.output.exists, "is configured")
    write(GREEN, "  => ", f"configured within {took:.1f} ms; it waited without polling")
    node.does("cat $HOST/etc/cni/net.d/00-multus.conf")
    assert node.wrapped() == json.loads(FLANNEL.read_text()), "the delegate is not Flannel's configuration, unchanged"
    say("It sorts first, so it is the one that the container runtime reads. Flannel's file stays as it is.")


def the_token_is_rotated(node: Node) -> None:
    title("2. Kubelet renews the service account's token; with the manifest's token of a day, after 19 hours")
    node.prepare_token("eyJhbGciOi.the-second-token.of-this-node")
    took = node.does(
        "mv -T $SERVICEACCOUNT/..data_tmp $SERVICEACCOUNT/..data    # kubelet's way: all files change at once",
        lambda: "second" in node.kubeconfig.read_text(),
        "kubeconfig",
    )
    write(GREEN, "  => ", f"the kubeconfig has the new token within {took:.1f} ms, before the old one runs out")
    node.does("diff $OLD/multus.kubeconfig $HOST/etc/cni/net.d/multus.d/multus.kubeconfig", code=1)
    assert stat.S_IMODE(node.kubeconfig.stat().st_mode) == 0o600, "others can read the kubeconfig"


def the_network_changes(node: Node) -> None:
    title("3. Somebody changes the default network's configuration")
    took = node.does(
        f'sed -i \'s/"hairpinMode": true/"hairpinMode": false/\' $HOST/etc/cni/net.d/{FLANNEL.name}',
        lambda: node.wrapped()["plugins"][0]["delegate"]["hairpinMode"] is False,
        "00-multus.conf",
    )
    write(GREEN, "  => ", f"the wrapped copy follows within {took:.1f} ms")
    node.does("diff $OLD/00-multus.conf $HOST/etc/cni/net.d/00-multus.conf", code=1)


def the_configuration_is_damaged(node: Node) -> None:
    title("4. Somebody overwrites Multus's configuration")
    before = node.output.stat().st_ino  # what the program writes is a new file
    took = node.does(
        "echo oops >$HOST/etc/cni/net.d/00-multus.conf",
        lambda: node.output.stat().st_ino != before,
        "00-multus.conf: it was changed",
    )
    write(GREEN, "  => ", f"put right within {took:.1f} ms")
    assert node.wrapped(), "the configuration is not right again"


def multus_is_taken_off(node: Node) -> None:
    title("5. The pod is deleted, and Multus is taken off the node: a manifest does this on every node")
    node.does("kill -TERM $!; wait $!")
    assert node.output.exists(), "the configuration has gone, which pods still need"
    say("Everything stays, so that pods go on starting with Multus while the next version comes up. Unless:")
    node.does('multus-entrypoint uninstall "$@" --multus-data-dir=$HOST/var/lib/cni/multus')
    left = [path for path in (node.root / "host").rglob("*") if path.is_file()]
    assert left == [node.master], f"left: {left}"
    write(GREEN, "  => ", "the node is as it was before")


# ---- the scratch host and the program on it ----


class Node:
    """The directories of a node, the service account as kubelet mounts it, and a shell that has them as variables."""

    def __init__(self, root: Path) -> None:
        self.root, self._log, self._code = root, root / "log", root / "run/code"
        for name in (*PLACES, "host/etc/cni/net.d", "host/opt/cni/bin", "host/var/lib/cni/multus"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "image/multus").write_text("#!/bin/sh\necho this stands for the multus binary\n")
        (root / "image/multus").chmod(0o755)
        self._account = root / "serviceaccount"
        (self._account / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
        (self._account / "token").symlink_to("..data/token")
        self.prepare_token("eyJhbGciOi.the-first-token.of-this-node").rename(self._account / "..data")
        conf_dir, self.binary = root / "host/etc/cni/net.d", root / "host/opt/cni/bin/multus"
        self.master, self.output = conf_dir / FLANNEL.name, conf_dir / "00-multus.conf"
        self.kubeconfig = conf_dir / "multus.d/multus.kubeconfig"
        (daemon_set,) = (each for each in yaml.safe_load_all(MANIFEST.read_text()) if each["kind"] == "DaemonSet")
        flags = daemon_set["spec"]["template"]["spec"]["containers"][0]["args"]
        self.flags = [
            *(each.replace("=/host/", "=$HOST/").replace("=/run/multus-entrypoint/", "=$RUN/") for each in flags),
            "--multus-bin-file=$IMAGE/multus",  # these two have defaults that are right in the image
            "--service-account-dir=$SERVICEACCOUNT",
        ]
        self._printed = 0
        path = {"PATH": f"{PROGRAM.parent}:{os.defpath}"}
        server = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        self._places = {f"${name.upper()}": str(root / name) for name in PLACES}
        environment = {**path, **server, **{name[1:]: place for name, place in self._places.items()}}
        with self._log.open("ab") as log:
            streams = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log}
            self.shell = subprocess.Popen(["sh"], env=environment, cwd=ROOT, start_new_session=True, **streams)
        self._enter("IFS=")  # a temporary directory may have a space in its name

    def prepare_token(self, token: str) -> Path:
        """Do as kubelet before it swaps the link `..data`; return the link that will replace it."""
        directory = Path(tempfile.mkdtemp(prefix="..2026_", dir=self._account))
        (directory / "token").write_text(token)
        link = self._account / "..data_tmp"
        link.symlink_to(directory.name)
        return link

    def wrapped(self) -> dict[str, object]:
        """Return the configuration that Multus delegates to."""
        return json.loads(self.output.read_text())["delegates"][0]

    def does(self, line: str, seen: Callable[[], bool] | None = None, said: str = "", code: int = 0) -> float:
        """Show a command and run it, wait until its result is on disk and in the log, and print what was said.

        Return the milliseconds from the command's begin until the result was on disk.
        """
        write(BOLD, "  $ ", line)
        if seen and self.output.exists():
            for path in (self.kubeconfig, self.output):
                shutil.copy(path, self.root / "old")  # for `diff`
        started = time.perf_counter()
        self._enter(f"{line}\necho $? >$RUN/code.new; mv $RUN/code.new $RUN/code")
        until(seen or (lambda: True), "the program to follow")
        took = (time.perf_counter() - started) * 1000
        until(lambda: said in self._log.read_text()[self._printed :], f"the program to log {said!r}")
        until(self._code.exists, "the end of the command")
        assert int(self._code.read_text()) == code, f"exit code {self._code.read_text()}, expected {code}"
        self._code.unlink()
        self.print_log()
        return took

    def _enter(self, line: str) -> None:
        self.shell.stdin.write(f"{line}\n".encode())
        self.shell.stdin.flush()

    def print_log(self) -> None:
        """Print what the program and the commands have said since the last time."""
        text = self._log.read_text()
        for line in text[self._printed :].splitlines():
            colour = CYAN if line[:4].isdigit() else {"<": RED, ">": GREEN}.get(line[:1], DIM)
            for name, place in self._places.items():
                line = line.replace(place, name)  # noqa: PLW2901
            write(colour, "    | " if colour == CYAN else "      ", line)
        self._printed = len(text)


# ---- how it looks ----


def title(text: str) -> None:
    """Begin a step."""
    time.sleep(BREATH)
    write(BOLD, "\n", text)


def say(text: str) -> None:
    """Explain something."""
    for line in textwrap.wrap(" ".join(text.split()), 106, break_on_hyphens=False):
        print(f"  {line}", flush=True)


def write(colour: str, margin: str, text: str) -> None:
    """Print one line, in colour where colours are wanted."""
    print(f"{margin}\033[{colour}m{text}\033[0m" if COLOURS else margin + text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
