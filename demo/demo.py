"""The program's whole job on a Kubernetes node, shown on a scratch host: every step is real, or the demo fails.

It runs with the flags of deployments/multus-daemonset.yml. Only the `multus` that it installs is a stand-in.

Lines that start with `$` are what the demo does, lines with `|` are what the program logs. A step whose result does
not come within a few seconds ends the demo with exit code 1.
"""

from __future__ import annotations

import difflib
import json
import os
import queue
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PROGRAM = Path(sys.executable).parent / "multus-entrypoint"
FLANNEL = Path(__file__).parent / "10-flannel.conflist"
MANIFEST = Path(__file__).parent.parent / "deployments/multus-daemonset.yml"
CLEANUP = "--cleanup-config-on-exit"
PATIENCE = 5.0  # seconds until a step counts as failed
TERMINAL = sys.stdout.isatty()
BREATH = 0.8 if TERMINAL else 0.0  # seconds for a person to read a step
COLOURS = bool(TERMINAL or os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")
NEXT = (
    ("README.md#install", "to a cluster: an image of your own, the manifest, a first pod with two interfaces"),
    ("docs/usage.md#dry-run", "to a node of yours: what would be written there, and nothing is touched"),
    ("docs/usage.md#platforms", "k3s, RKE2, MicroK8s, GKE, Talos, OpenShift, CRI-O, and networks other than Flannel"),
    ("docs/by-hand.md", "the same work with a shell and kubectl, to see what this program does for you"),
    ("CONTRIBUTING.md", "the code, and how to change it"),
)
"""Where to go from here."""
BOLD, DIM, RED, GREEN, CYAN = "1", "2", "31", "32", "36"


class FailedError(Exception):
    """The program did not do what the demo was about to show."""


def main() -> int:
    """Run the demo; return its exit code."""
    with tempfile.TemporaryDirectory(prefix="multus-demo-") as scratch:
        host = Host(Path(scratch))
        program = Program(host)
        try:
            show(host, program)
        except FailedError as error:
            program.print_log()
            print(paint(RED, f"\nDEMO FAILED: {error}"), flush=True)
            return 1
        finally:
            program.kill()
    return 0


def show(host: Host, program: Program) -> None:
    """Go through the life of a node."""
    say(
        """
        Multus gives pods more than one network interface. It is a CNI plugin: a program on every node, which the
        container runtime calls for each pod. Its configuration is wrapped around that of the cluster's default network.
        Somebody has to install all of that on every node, and to keep it right. That is what multus-entrypoint does.
        """
    )
    say(
        """
        Here it runs for real, with the flags of deployments/multus-daemonset.yml, on a scratch host whose directories
        are called $HOST. No cluster is needed: the `multus` that it installs is a stand-in, a script of two lines,
        because nothing here calls it.
        """
    )
    a_node_without_a_network(host, program)
    the_network_arrives(host, program)
    the_token_is_rotated(host, program)
    the_master_changes(host, program)
    the_configuration_is_damaged(host, program)
    the_master_goes(host, program)
    the_master_is_back(host, program)
    the_pod_ends(host, program)
    the_pod_ends_with_cleanup(host, program)
    multus_is_taken_off(host, program)
    title("What to do next")
    for where, what in NEXT:
        write(BOLD, "  ", f"{where:<24}{what}")


# ---- the steps ----


def a_node_without_a_network(host: Host, program: Program) -> None:
    title("1. A new node: the pod starts before the default network has written its configuration")
    command("multus-entrypoint " + " \\\n      ".join(host.shortened(flag) for flag in program.flags) + " &")
    program.start()
    program.expect("waiting", host.kubeconfig.exists, "wait for the default network")
    check(not host.output.exists(), "there is a Multus configuration, but nothing to wrap")
    program.print_log()
    say("What the configuration will refer to is in place already; the configuration itself waits, without polling.")
    host.list_files()


def the_network_arrives(host: Host, program: Program) -> None:
    title("2. The default network, Flannel, writes its configuration: Multus's is wrapped around it")
    command(f"cp demo/{FLANNEL.name} $HOST/etc/cni/net.d/")
    started = time.perf_counter()
    shutil.copyfile(FLANNEL, host.master)
    took = program.expect("00-multus.conf", host.output.exists, "write the configuration", started)
    program.expect("is configured", host.ready.exists, "say that the node is configured")
    program.print_log()
    done(f"configured {took:.1f} ms later")
    command("cat $HOST/etc/cni/net.d/00-multus.conf")
    excerpt(host.output.read_text().splitlines())
    check(host.wrapped() == json.loads(FLANNEL.read_text()), "the delegate is not Flannel's configuration, unchanged")
    say("It sorts first, so it is the one that the container runtime reads. Flannel's file stays as it is.")


def the_token_is_rotated(host: Host, program: Program) -> None:
    title("3. Kubelet renews the service account's token; with the manifest's token of a day, after 19 hours")
    before = host.token_line()
    link = host.prepare_token("eyJhbGciOi.the-second-token.of-this-node")
    command(f"mv -T $SERVICEACCOUNT/{link.name} $SERVICEACCOUNT/..data    # kubelet's way: all files change at once")
    started = time.perf_counter()
    link.rename(host.account / "..data")
    took = program.expect("kubeconfig", lambda: "second" in host.token_line(), "follow the token", started)
    program.print_log()
    done(f"the kubeconfig has the new token {took:.1f} ms later, before the old one runs out")
    command("diff OLD $HOST/etc/cni/net.d/multus.d/multus.kubeconfig")
    difference([f"-{before}", f"+{host.token_line()}"])
    check(stat.S_IMODE(host.kubeconfig.stat().st_mode) == 0o600, "others can read the kubeconfig")


def the_master_changes(host: Host, program: Program) -> None:
    title("4. Somebody changes the default network's configuration")
    before = host.output.read_text()
    command(f'sed -i \'s/"hairpinMode": true/"hairpinMode": false/\' $HOST/etc/cni/net.d/{FLANNEL.name}')
    changed = host.master.with_name(".sed-demo")
    changed.write_text(host.master.read_text().replace('"hairpinMode": true', '"hairpinMode": false'))
    started = time.perf_counter()
    changed.rename(host.master)  # as sed -i does
    took = program.expect("00-multus.conf", lambda: host.output.read_text() != before, "follow the change", started)
    program.print_log()
    done(f"the wrapped copy follows {took:.1f} ms later")
    command("diff OLD $HOST/etc/cni/net.d/00-multus.conf")
    lines = difflib.unified_diff(before.splitlines(), host.output.read_text().splitlines(), lineterm="", n=1)
    difference(list(lines)[3:])
    check(host.wrapped()["plugins"][0]["delegate"]["hairpinMode"] is False, "the change has not arrived")


def the_configuration_is_damaged(host: Host, program: Program) -> None:
    title("5. Somebody overwrites Multus's configuration")
    before = host.output.read_text()
    command("echo oops >$HOST/etc/cni/net.d/00-multus.conf")
    started = time.perf_counter()
    host.output.write_text("oops\n")
    took = program.expect("00-multus.conf", lambda: host.output.read_text() == before, "put it right", started)
    program.print_log()
    done(f"put right {took:.1f} ms later")


def the_master_goes(host: Host, program: Program) -> None:
    title("6. The default network is taken away")
    before = host.output.read_text()
    command(f"rm $HOST/etc/cni/net.d/{FLANNEL.name}")
    host.master.unlink()
    program.expect("not configured", lambda: not host.ready.exists(), "say that the node is not as it must be")
    program.print_log()
    check(host.output.read_text() == before, "the configuration has changed")
    done("the configuration stays, because running pods need it to be taken down; the pod of this program is not ready")


def the_master_is_back(host: Host, program: Program) -> None:
    title("7. The default network is installed again")
    command(f"cp demo/{FLANNEL.name} $HOST/etc/cni/net.d/")
    started = time.perf_counter()
    shutil.copyfile(FLANNEL, host.master)
    wanted = json.loads(FLANNEL.read_text())
    took = program.expect("00-multus.conf", lambda: host.wrapped() == wanted, "wrap Flannel's configuration", started)
    program.expect("is configured", host.ready.exists, "say that the node is configured")
    program.print_log()
    done(f"all is well again {took:.1f} ms later")


def the_pod_ends(host: Host, program: Program) -> None:
    title("8. The pod is deleted, as in every update")
    end(program)
    check(not host.ready.exists(), "the ready file is still there")
    kept = (host.output, host.kubeconfig, host.binary, host.master)
    check(all(path.exists() for path in kept), "something on the node has gone")
    host.list_files()
    say("Everything stays, so that pods go on starting with Multus while the next version comes up.")


def the_pod_ends_with_cleanup(host: Host, program: Program) -> None:
    title(f"9. Cleaning up at the end is a flag: {CLEANUP}")
    command(f"multus-entrypoint ...the same flags {CLEANUP} &")
    program.start(CLEANUP)
    program.expect("is configured", host.ready.exists, "say that the node is configured")
    program.print_log()
    end(program)
    host.list_files()
    check(not host.output.exists(), "the configuration is still there")
    kept = (host.kubeconfig, host.binary, host.master)
    check(all(path.exists() for path in kept), "the kubeconfig, the binary or Flannel's configuration has gone")
    say(
        """
        The configuration is gone: new pods get the default network alone. The binary and the kubeconfig stay, because
        pods that run with Multus need them to be taken down.
        """
    )


def multus_is_taken_off(host: Host, program: Program) -> None:
    title("10. Multus is taken off the node: uninstall, which a manifest does on every node")
    command("multus-entrypoint uninstall ...the same flags --multus-data-dir=$HOST/var/lib/cni/multus")
    code = program.uninstall()
    program.print_log()
    host.list_files()
    check(code == 0, f"exit code {code}, expected 0")
    left = [path for path in host.files() if path != host.master]
    check(not left and host.master.exists(), f"left: {left}")
    done("the node is as it was before")


def end(program: Program) -> None:
    """Stop the program as kubelet does, and show what came of it."""
    command("kill -TERM %1; wait %1")
    started = time.perf_counter()
    code = program.terminate()
    took = (time.perf_counter() - started) * 1000
    program.print_log()
    done(f"exit code {code} after {took:.1f} ms")
    check(code == 0, f"exit code {code}, expected 0")


# ---- the scratch host and the program on it ----


class Host:
    """The directories of a node below a temporary one, and the service account as kubelet mounts it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.conf_dir = root / "host/etc/cni/net.d"
        self.bin_dir = root / "host/opt/cni/bin"
        self.account = root / "serviceaccount"
        self.source = root / "image/multus"
        self.ready = root / "run/ready"
        self.records = root / "host/var/lib/cni/multus"
        self.master = self.conf_dir / FLANNEL.name
        self.output = self.conf_dir / "00-multus.conf"
        self.kubeconfig = self.conf_dir / "multus.d/multus.kubeconfig"
        self.binary = self.bin_dir / "multus"
        for directory in (
            self.conf_dir,
            self.bin_dir,
            self.account,
            self.source.parent,
            self.ready.parent,
            self.records,
        ):
            directory.mkdir(parents=True)
        self.source.write_text("#!/bin/sh\necho this stands for the multus binary\n")
        self.source.chmod(0o755)
        for name in ("token", "ca.crt"):
            (self.account / name).symlink_to(f"..data/{name}")
        self.prepare_token("eyJhbGciOi.the-first-token.of-this-node").rename(self.account / "..data")

    def prepare_token(self, token: str) -> Path:
        """Do what kubelet does before it swaps the link `..data`; return the link that takes its place."""
        directory = Path(tempfile.mkdtemp(prefix="..2026_", dir=self.account))
        (directory / "token").write_text(token)
        (directory / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
        link = self.account / "..data_tmp"
        link.symlink_to(directory.name)
        return link

    def placed(self, flag: str) -> str:
        """Return a flag of the manifest with paths of this scratch host."""
        return flag.replace("=/host/", f"={self.root}/host/").replace(
            "=/run/multus-entrypoint/", f"={self.ready.parent}/"
        )

    def token_line(self) -> str:
        """Return the line of the kubeconfig that holds the token."""
        return next(line for line in self.kubeconfig.read_text().splitlines() if "token:" in line)

    def wrapped(self) -> dict[str, object]:
        """Return the configuration that Multus delegates to."""
        return json.loads(self.output.read_text())["delegates"][0]

    def list_files(self) -> None:
        """Show what is on the host."""
        command("find $HOST -type f ! -name '.*' -printf '%M  %p\\n' | sort -k 2")
        excerpt(f"{stat.filemode(path.stat().st_mode)}  {self.shortened(str(path))}" for path in self.files())

    def files(self) -> list[Path]:
        """Return the files on the host, but for those by which the program's instances know of each other."""
        found = (self.root / "host").rglob("*")
        return sorted(path for path in found if path.is_file() and not path.name.startswith("."))

    def shortened(self, text: str) -> str:
        """Replace the long temporary paths by names."""
        named = {"host": "$HOST", "serviceaccount": "$SERVICEACCOUNT", "image": "$IMAGE", "run": "$RUN"}
        for directory, name in named.items():
            text = text.replace(str(self.root / directory), name)
        return text


def flags_of_the_manifest() -> list[str]:
    """Return what the DaemonSet gives to the program."""
    objects = yaml.safe_load_all(MANIFEST.read_text())
    (daemon_set,) = (each for each in objects if each and each["kind"] == "DaemonSet")
    return list(daemon_set["spec"]["template"]["spec"]["containers"][0]["args"])


class Program:
    """The real program, and what it logs."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._process: subprocess.Popen[str] | None = None
        self._arrived: queue.Queue[str] = queue.Queue()
        self._unprinted: list[str] = []
        self.flags = [
            *(host.placed(flag) for flag in flags_of_the_manifest()),
            f"--multus-bin-file={host.source}",  # these two have defaults that are right in the image
            f"--service-account-dir={host.account}",
        ]

    def start(self, *more: str) -> None:
        """Start it as a pod would, with the API server's address in its environment."""
        if not PROGRAM.exists():
            raise FailedError(f"{PROGRAM} is not there: run `make demo`, which installs it")
        environment = {"PATH": os.defpath, "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        command = [PROGRAM, *self.flags, *more]
        self._process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True).start()

    def uninstall(self) -> int:
        """Run the subcommand with the same flags; return its exit code."""
        command = [PROGRAM, "uninstall", *self.flags, f"--multus-data-dir={self._host.records}"]
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
        self._unprinted += ran.stdout.splitlines()
        return ran.returncode

    def expect(self, said: str, seen: Callable[[], bool], what: str, since: float | None = None) -> float:
        """Wait until the result is seen on disk and a line with `said` is in the log.

        Return the milliseconds from `since` until it was seen on disk.
        """
        started = time.perf_counter() if since is None else since
        wait(seen, what)
        took = (time.perf_counter() - started) * 1000
        deadline = time.monotonic() + PATIENCE
        while not any(said in line for line in self._unprinted):
            try:
                self._unprinted.append(self._arrived.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                raise FailedError(f"within {PATIENCE:g} s the program did not log {said!r}") from None
        return took

    def print_log(self) -> None:
        """Print what the program has logged since the last time."""
        while not self._arrived.empty():
            self._unprinted.append(self._arrived.get())
        for line in self._unprinted:
            write(CYAN, "    | ", self._host.shortened(line))
        self._unprinted.clear()

    def terminate(self) -> int:
        """Stop it as kubelet does; return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise FailedError(f"within {PATIENCE:g} s the program did not end") from None

    def kill(self) -> None:
        """Leave nothing running behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._arrived.put(line.rstrip("\n"))


def wait(seen: Callable[[], bool], what: str) -> None:
    """Look until something is seen; not for long."""
    deadline = time.monotonic() + PATIENCE
    while not seen():
        if time.monotonic() > deadline:
            raise FailedError(f"within {PATIENCE:g} s the program did not {what}")
        time.sleep(0.0002)


def check(holds: bool, fault: str) -> None:
    """Fail unless it holds."""
    if not holds:
        raise FailedError(fault)


# ---- how it looks ----


def title(text: str) -> None:
    """Begin a step."""
    time.sleep(BREATH)
    print(f"\n{paint(BOLD, text)}", flush=True)


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


def excerpt(lines: Iterable[str]) -> None:
    """Show what is on disk."""
    for line in lines:
        write(DIM, "      ", line)


def difference(lines: Iterable[str]) -> None:
    """Show the lines of a diff in their colours."""
    for line in lines:
        write({"-": RED, "+": GREEN}.get(line[:1], DIM), "      ", line)


def write(colour: str, margin: str, text: str) -> None:
    """Print one line."""
    print(f"{margin}{paint(colour, text)}", flush=True)


def paint(colour: str, text: str) -> str:
    """Colour a text where colours are wanted."""
    return f"\033[{colour}m{text}\033[0m" if COLOURS else text


if __name__ == "__main__":
    sys.exit(main())
