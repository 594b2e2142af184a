"""Five moments in the life of a node, shown on a scratch host: every step is real, or the demo fails.

The program runs with the flags of deployments/multus-daemonset.yml. Only the `multus` that it installs is a stand-in.
Lines that start with `$` are what the demo does, lines with `|` are what the program logs. A step whose result does not
come ends the demo with exit code 1.
"""

from __future__ import annotations

import difflib
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

from tests.waiting import BOUND, until  # noqa: E402 - its patience is that of the tests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PROGRAM = Path(sys.executable).parent / "multus-entrypoint"
FLANNEL = ROOT / "demo/10-flannel.conflist"
MANIFEST = ROOT / "deployments/multus-daemonset.yml"
TERMINAL = sys.stdout.isatty()
BREATH = 0.8 if TERMINAL else 0.0  # seconds for a person to read a step
COLOURS = bool(TERMINAL or os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")
BOLD, DIM, RED, GREEN, CYAN = "1", "2", "31", "32", "36"
NEXT = (
    ("README.md#install", "to a cluster: an image of your own, the manifest, a first pod with two interfaces"),
    ("docs/install.md#look-first", "to a node of yours: what would be written there, and nothing is touched"),
    ("docs/platforms.md", "k3s, RKE2, MicroK8s, GKE, Talos, OpenShift, CRI-O, and networks other than Flannel"),
    ("docs/by-hand.md", "the same work with a shell and kubectl, to see what this program does for you"),
    ("CONTRIBUTING.md", "the code, and how to change it"),
)
"""Where to go from here."""


def main() -> int:
    """Run the demo; return its exit code."""
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is not there: run `make demo`, which installs it")
    with tempfile.TemporaryDirectory(prefix="multus-demo-") as scratch:
        node = Node(Path(scratch))
        try:
            show(node)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            node.print_log()
            write(RED, "\n", f"DEMO FAILED: {error}")
            return 1
        finally:
            if node.process:
                node.process.kill()  # nothing is left running
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
    title("What to do next")
    for where, what in NEXT:
        write(BOLD, "  ", f"{where:<28}{what}")


# ---- the steps ----


def the_network_arrives_late(node: Node) -> None:
    title("1. A new node: the pod starts before the default network, Flannel, has written its configuration")
    command("multus-entrypoint " + " \\\n      ".join(node.shortened(flag) for flag in node.flags) + " &")
    node.start()
    node.logs("waiting")
    assert node.kubeconfig.exists() and node.binary.exists(), "the kubeconfig or the binary is not there"
    assert not node.output.exists(), "there is a Multus configuration, but nothing to wrap"
    node.print_log()
    command(f"cp demo/{FLANNEL.name} $HOST/etc/cni/net.d/")
    took = node.reacts(lambda: shutil.copyfile(FLANNEL, node.master), node.output.exists, "is configured")
    done(f"configured {took:.1f} ms later; it waited without polling")
    command("cat $HOST/etc/cni/net.d/00-multus.conf")
    show_lines(node.output.read_text().splitlines())
    assert node.wrapped() == json.loads(FLANNEL.read_text()), "the delegate is not Flannel's configuration, unchanged"
    say("It sorts first, so it is the one that the container runtime reads. Flannel's file stays as it is.")


def the_token_is_rotated(node: Node) -> None:
    title("2. Kubelet renews the service account's token; with the manifest's token of a day, after 19 hours")
    before, link = node.token_line(), node.prepare_token("eyJhbGciOi.the-second-token.of-this-node")
    command(f"mv -T $SERVICEACCOUNT/{link.name} $SERVICEACCOUNT/..data    # kubelet's way: all files change at once")
    swap = lambda: link.rename(node.account / "..data")  # noqa: E731 - as short as the command above
    took = node.reacts(swap, lambda: "second" in node.token_line(), "kubeconfig")
    done(f"the kubeconfig has the new token {took:.1f} ms later, before the old one runs out")
    command("diff OLD $HOST/etc/cni/net.d/multus.d/multus.kubeconfig")
    show_lines([f"-{before}", f"+{node.token_line()}"])
    assert stat.S_IMODE(node.kubeconfig.stat().st_mode) == 0o600, "others can read the kubeconfig"


def the_network_changes(node: Node) -> None:
    title("3. Somebody changes the default network's configuration")
    before, changed = node.output.read_text(), node.master.with_name(".sed-demo")
    command(f'sed -i \'s/"hairpinMode": true/"hairpinMode": false/\' $HOST/etc/cni/net.d/{FLANNEL.name}')
    changed.write_text(node.master.read_text().replace('"hairpinMode": true', '"hairpinMode": false'))
    rename = lambda: changed.rename(node.master)  # noqa: E731 - as sed -i does
    took = node.reacts(rename, lambda: node.output.read_text() != before, "00-multus.conf")
    done(f"the wrapped copy follows {took:.1f} ms later")
    command("diff OLD $HOST/etc/cni/net.d/00-multus.conf")
    lines = difflib.unified_diff(before.splitlines(), node.output.read_text().splitlines(), lineterm="", n=1)
    show_lines(list(lines)[3:])
    assert node.wrapped()["plugins"][0]["delegate"]["hairpinMode"] is False, "the change has not arrived"


def the_configuration_is_damaged(node: Node) -> None:
    title("4. Somebody overwrites Multus's configuration")
    before = node.output.read_text()
    command("echo oops >$HOST/etc/cni/net.d/00-multus.conf")
    overwrite = lambda: node.output.write_text("oops\n")  # noqa: E731 - as short as the command above
    took = node.reacts(overwrite, lambda: node.output.read_text() == before, "00-multus.conf")
    done(f"put right {took:.1f} ms later")


def multus_is_taken_off(node: Node) -> None:
    title("5. The pod is deleted, and Multus is taken off the node: a manifest does this on every node")
    command("kill -TERM %1; wait %1")
    node.ends(signal.SIGTERM)
    assert node.output.exists(), "the configuration has gone, which pods still need"
    say("Everything stays, so that pods go on starting with Multus while the next version comes up. Unless:")
    command("multus-entrypoint uninstall ...the same flags --multus-data-dir=$HOST/var/lib/cni/multus")
    node.start("uninstall", f"--multus-data-dir={node.root}/host/var/lib/cni/multus")
    node.ends()
    left = [path for path in (node.root / "host").rglob("*") if path.is_file()]
    assert left == [node.master], f"left: {left}"
    done("the node is as it was before")


# ---- the scratch host and the program on it ----


class Node:
    """The directories of a node below a temporary one, the service account as kubelet mounts it, and the program."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.conf_dir, self.account, self._log = root / "host/etc/cni/net.d", root / "serviceaccount", root / "log"
        source = root / "image/multus"
        for name in ("host/etc/cni/net.d", "host/opt/cni/bin", "host/var/lib/cni/multus", "serviceaccount", "run"):
            (root / name).mkdir(parents=True)
        source.parent.mkdir()
        source.write_text("#!/bin/sh\necho this stands for the multus binary\n")
        source.chmod(0o755)
        for name in ("token", "ca.crt"):
            (self.account / name).symlink_to(f"..data/{name}")
        self.prepare_token("eyJhbGciOi.the-first-token.of-this-node").rename(self.account / "..data")
        self.master, self.output = self.conf_dir / FLANNEL.name, self.conf_dir / "00-multus.conf"
        self.kubeconfig, self.binary = self.conf_dir / "multus.d/multus.kubeconfig", root / "host/opt/cni/bin/multus"
        (daemon_set,) = (each for each in yaml.safe_load_all(MANIFEST.read_text()) if each["kind"] == "DaemonSet")
        self.flags = [
            *map(self._placed, daemon_set["spec"]["template"]["spec"]["containers"][0]["args"]),
            f"--multus-bin-file={source}",  # these two have defaults that are right in the image
            f"--service-account-dir={self.account}",
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self._printed = 0

    def _placed(self, flag: str) -> str:
        """Return a flag of the manifest with paths of this scratch host."""
        flag = flag.replace("=/host/", f"={self.root}/host/")
        return flag.replace("=/run/multus-entrypoint/", f"={self.root}/run/")

    def prepare_token(self, token: str) -> Path:
        """Do as kubelet before it swaps the link `..data`; return the link that will replace it."""
        directory = Path(tempfile.mkdtemp(prefix="..2026_", dir=self.account))
        (directory / "token").write_text(token)
        (directory / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
        link = self.account / "..data_tmp"
        link.symlink_to(directory.name)
        return link

    def token_line(self) -> str:
        """Return the line of the kubeconfig that holds the token."""
        return next(line for line in self.kubeconfig.read_text().splitlines() if "token:" in line)

    def wrapped(self) -> dict[str, object]:
        """Return the configuration that Multus delegates to."""
        return json.loads(self.output.read_text())["delegates"][0]

    def start(self, *arguments: str) -> None:
        """Start the program as a pod would, with the API server's address in its environment."""
        environment = {"PATH": os.defpath, "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        with self._log.open("ab") as log:
            command = [PROGRAM, *arguments, *self.flags]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def reacts(self, change: Callable[[], object], seen: Callable[[], bool], said: str) -> float:
        """Make a change, wait until the result is on disk and in the log, and print the log.

        Return the milliseconds until it was on disk.
        """
        started = time.perf_counter()
        change()
        until(seen, "the program to follow")
        took = (time.perf_counter() - started) * 1000
        self.logs(said)
        self.print_log()
        return took

    def logs(self, said: str) -> None:
        """Wait until the program has logged something that was not printed yet."""
        until(lambda: said in self._log.read_text()[self._printed :], f"the program to log {said!r}")

    def print_log(self) -> None:
        """Print what the program has logged since the last time."""
        text = self._log.read_text() if self._log.exists() else ""
        for line in text[self._printed :].splitlines():
            write(CYAN, "    | ", self.shortened(line))
        self._printed = len(text)

    def ends(self, number: int | None = None) -> None:
        """Wait for the end of what was started last, after a signal if one is given, and print the log."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(BOUND)
        self.print_log()
        assert code == 0, f"exit code {code}, expected 0"

    def shortened(self, text: str) -> str:
        """Replace the long temporary paths by names."""
        for name in ("host", "serviceaccount", "image", "run"):
            text = text.replace(str(self.root / name), f"${name.upper()}")
        return text


# ---- how it looks ----


def title(text: str) -> None:
    """Begin a step."""
    time.sleep(BREATH)
    write(BOLD, "\n", text)


def say(text: str) -> None:
    """Explain something."""
    for line in textwrap.wrap(" ".join(text.split()), 106, break_on_hyphens=False):
        print(f"  {line}", flush=True)


def command(text: str) -> None:
    """Show what the demo does, as one would type it."""
    write(BOLD, "  $ ", text)


def done(text: str) -> None:
    """Say what came out of it."""
    write(GREEN, "  => ", text)


def show_lines(lines: Iterable[str]) -> None:
    """Show what is on disk, or the lines of a diff in their colours."""
    for line in lines:
        write({"-": RED, "+": GREEN}.get(line[:1], DIM), "      ", line)


def write(colour: str, margin: str, text: str) -> None:
    """Print one line, in colour where colours are wanted."""
    print(f"{margin}\033[{colour}m{text}\033[0m" if COLOURS else margin + text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
