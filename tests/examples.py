"""The examples of the documentation, run: `python -m tests.examples` writes what came out into the pages.

The pages have blocks of two kinds. A `diff` block starts with a line `# FLAGS` (variables of the environment may stand
among the flags) and holds how the output of `--dry-run` differs from that of `--multus-conf-file=auto` alone. A `text`
block starts with `$ multus-entrypoint FLAGS` and holds the output, or what a filter behind ` 2>&1 | ` leaves.

docs/troubleshooting.md has `text` blocks below a comment `<!-- check: SCENARIO -->`, which hold the lines of `check`
that do not pass, and below `<!-- log: SCENARIO -->`, which hold what the program says.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from tests.fake_api import FakeCluster, serving
from tests.opshost import OpsHost, jwt, run
from tests.process.scratch import MULTUS

ROOT = Path(__file__).parent.parent
PAGES, TROUBLESHOOTING = sorted(ROOT.glob("docs/*.md")), ROOT / "docs/troubleshooting.md"
MASTERS = ROOT / "tests/data/master-confs"
PATHS_ON_THE_HOST = (
    *("--multus-kubeconfig-file-host", "--multus-cni-conf-dir", "--additional-bin-dir"),
    *("--readiness-indicator-file", "--multus-log-file"),
)
K3S = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
ACCOUNT = "var/run/secrets/kubernetes.io/serviceaccount"
BLOCK = re.compile(
    r"(```diff\n# (?P<flags>.+)\n|```text\n\$ multus-entrypoint (?P<command>.+)\n)(?P<body>(?:.*\n)*?)```\n"
)
SCENARIO = re.compile(r"<!-- (?P<kind>check|log): (?P<name>[\w-]+) -->\n```text\n(?P<body>(?:.*\n)*?)```\n")


# ---- flags and what they do ----


class Node(OpsHost):
    """A node that has a default network and no Multus, below a scratch directory that no output names."""

    def __init__(self, directory, master="10-flannel.conflist"):
        super().__init__(directory)
        self.server = "https://10.96.0.1:443"
        self.account.update(**{"token": "secret", "ca.crt": "CA\n"})
        there = directory / ACCOUNT
        more = (
            "tmp/multus-conf",
            "plugins",
            "run/multus-entrypoint",
            "host/usr/libexec/cni",
            "host/var/lib/multus/net.d",
        )
        for path in (there.parent, *(directory / name for name in more)):
            path.mkdir(parents=True)
        there.symlink_to(self.account.path)
        for place in (self.conf_dir, directory / "host/var/lib/multus/net.d"):
            shutil.copy(MASTERS / master, place)
        shutil.copy(MASTERS / "10-calico.conflist", self.conf_dir / "20-calico.conflist")
        for name in ("tmp/multus", "plugins/ipvlan", "plugins/macvlan"):
            self.program(directory / name)
        for name in ("00-multus.conf", "70-multus.conf"):
            (directory / "tmp/multus-conf" / name).write_text(json.dumps(MULTUS) + "\n")

    def said(self, line):
        """Run the program with a line of flags; return its exit code and output, with the container's paths."""
        words, environ = [], {}
        for word in shlex.split(line):
            name, _, value = word.partition("=")
            if not word.startswith("-") and name.isupper():
                environ[name] = value
            else:
                inside = name not in PATHS_ON_THE_HOST and value.startswith("/")
                words.append(f"{name}={self.root}{value}" if inside else word)
        if "--skip-multus-binary-copy" in words:
            shutil.copy(self.multus, self.installed)
        if words[0] == "install":
            ran = run([*words, f"--multus-bin-file={self.multus}"], self.environ())
        else:
            ran = self.run(*words, **environ)
        return ran.returncode, in_the_container(self, ran.stdout + ran.stderr)


def in_the_container(host, said):
    """Return what the program said, with the container's paths and without times."""
    for path, inside in (
        (host.image, "/usr/src/multus-cni/bin"),
        (host.account.path, f"/{ACCOUNT}"),
        (host.root, ""),
    ):
        said = said.replace(str(path), inside)
    return re.sub(r"^\d{4}-\S+Z ", "", said, flags=re.MULTILINE)


def outcome(line, master="10-flannel.conflist"):
    with tempfile.TemporaryDirectory() as directory:
        return Node(Path(directory), master).said(line)


@functools.cache
def base():
    """Return what a dry run without further flags prints."""
    return outcome("--multus-conf-file=auto --dry-run")[1].splitlines()


def difference(flags):
    """Return what flags change in the output of a dry run."""
    chosen = flags if "--multus-conf-file" in flags else f"--multus-conf-file=auto {flags}"
    _, other = outcome(f"{chosen} --dry-run")
    lines = difflib.unified_diff(base(), other.splitlines(), lineterm="", n=0)
    return "".join(f"{line}\n" for line in lines if not line.startswith(("---", "+++", "@@")))


def actual(block):
    """Return what such a block should hold below its first line."""
    if block["flags"]:
        return difference(block["flags"])
    line, _, filtered = block["command"].partition(" 2>&1 | ")
    said = outcome(line)[1]
    return subprocess.run(["sh", "-c", filtered or "cat"], input=said, capture_output=True, text=True).stdout


# ---- docs/troubleshooting.md ----


@contextmanager
def configured():
    """Yield a node on which the program has run, and the cluster that it belongs to."""
    with tempfile.TemporaryDirectory() as directory, serving(FakeCluster()) as cluster:
        host = OpsHost(Path(directory))
        host.plugins()
        host.server = cluster.url
        host.master()
        host.configure()
        cluster.tokens = {host.token}
        yield host, cluster


def _rotated(host, cluster):
    host.rotate(jwt(time.time() + 9000))
    cluster.tokens = {host.token}


def _no_master(host, _cluster):
    (host.conf_dir / "10-flannel.conflist").unlink()
    host.generated.unlink()
    (host.kubeconfig.parent / "ledger.json").unlink(missing_ok=True)  # or what it remembers would come back


def _cut_off(host, _cluster):
    _no_master(host, _cluster)
    host.master(document='{\n  "name": "cbr0",\n  "type": ')


def _nested(host, _cluster):
    inner = json.loads(host.generated.read_text())
    host.generated.write_text(json.dumps({**inner, "delegates": [inner]}))


def _meta_only(host, _cluster):
    _no_master(host, _cluster)
    host.master(document={"cniVersion": "0.3.1", "name": "lo", "type": "loopback"})


def _list_in_a_conf(host, _cluster):
    plugin = json.loads(host.generated.read_text())
    host.generated.write_text(json.dumps({"cniVersion": "0.3.1", "name": "k8s-pod-network", "plugins": [plugin]}))


def _no_own_kubeconfig(host, _cluster):
    own = "/etc/cni/net.d/own.kubeconfig"
    host.flags.append(f"--multus-kubeconfig-file-host={own}")
    host.generated.write_text(host.generated.read_text().replace("/etc/cni/net.d/multus.d/multus.kubeconfig", own))


def _lost_record(host, _cluster):
    (host.conf_dir / "10-flannel.conflist").rename(host.conf_dir / "10-flannel.conflist.old")
    shutil.rmtree(host.conf_dir / "multus.d")


def _only_multus(host, _cluster):
    (host.conf_dir / "05-multus.conf").write_text(host.generated.read_text())
    _no_master(host, _cluster)


def _on_k3s(host, _cluster):
    there = host.root / K3S.lstrip("/")
    there.parent.mkdir(parents=True)
    host.conf_dir.rename(there)
    host.conf_dir.symlink_to(there)


def _attached(host, _cluster):
    namespaces = host.root / "host/var/run/netns"
    namespaces.mkdir(parents=True)
    for each in (("default/web-0", "default/lan"), ("shop/db-0", "shop/lan", "infra/san"), ("default/plain",)):
        record, *_ = host.attach(*each)
        (namespaces / f"cni-{record.name[:12]}").touch()


def _no_net1(host, cluster):
    host.environment["NODE_NAME"] = "worker-1"
    cluster.add_network("lan", {"type": "macvlan", "ipam": {"type": "host-local"}})
    host.plugins("host-local")
    cluster.add_pod("web-0", "lan", node="worker-1")


SCENARIOS = {
    "all-well": lambda _host, _cluster: None,
    "rotated": _rotated,
    "no-master": _no_master,
    "cut-off": _cut_off,
    "nested": _nested,
    "only-multus": _only_multus,
    "meta-only": _meta_only,
    "list-in-a-conf": _list_in_a_conf,
    "no-own-kubeconfig": _no_own_kubeconfig,
    "rival": lambda host, _cluster: host.master("00-calico.conflist"),
    "own-old": lambda host, _cluster: host.master("10-flannel.conflist.old"),
    "lost-record": _lost_record,
    "no-directory": lambda host, _cluster: shutil.rmtree(host.conf_dir),
    "other-binary": lambda host, _cluster: host.program(host.binary, b"another installer's"),
    "no-binary": lambda host, _cluster: host.binary.unlink(),
    "no-plugin": lambda host, _cluster: (host.bin_dir / "portmap").unlink(),
    "master-gone": lambda host, _cluster: (host.conf_dir / "10-flannel.conflist").unlink(),
    "no-net1": _no_net1,
    "no-rights": lambda _host, cluster: cluster.denied.update({("get", "pods"), ("patch", "events")}),
    "no-resource": lambda _host, cluster: setattr(cluster, "served", False),
    "records": _attached,
    "on-k3s": _on_k3s,
}
COMMANDS = {
    "own-old": ["--dry-run", "--rename-conf-file"],
    "lost-record": ["--wait-timeout=0", "--rename-conf-file"],
    "records": ["uninstall"],
}
"""How the program is called where a page shows what it says, and it is not given up at once."""


def printed(kind, name):
    """Return what a block of docs/troubleshooting.md should hold."""
    with configured() as (host, cluster):
        SCENARIOS[name](host, cluster)
        arguments = ["check"] if kind == "check" else COMMANDS.get(name, ["--wait-timeout=0"])
        if arguments == ["uninstall"]:
            arguments = ["uninstall", f"--multus-data-dir={host.data_dir}"]
        ran = host.run(*arguments)
        lines = (ran.stdout + ran.stderr).splitlines()
        if kind == "check":
            lines = [each for each in lines[1:] if not each.startswith(("pass", "skipped"))] or [
                f"exit {ran.returncode}"
            ]
        said = "".join(f"{line}\n" for line in lines)
        parts = host.root.parts[1:]
        for start in range(len(parts)):  # as far as the kernel says where the scratch host is
            said = said.replace(f"/{'/'.join(parts[start:])}{K3S}", K3S)
        said = in_the_container(host, said).replace(cluster.url, "https://10.96.0.1:443")
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "2026-11-23T21:26:52Z", said)


# ---- writing ----


def main():
    for page, pattern, renew in (
        *((page, BLOCK, actual) for page in PAGES),
        (TROUBLESHOOTING, SCENARIO, lambda block: printed(block["kind"], block["name"])),
    ):
        text = page.read_text("utf-8")
        parts, end = [], 0
        for block in pattern.finditer(text):
            parts += [text[end : block.start("body")], renew(block)]
            end = block.end("body")
        page.write_text("".join(parts) + text[end:], "utf-8")


if __name__ == "__main__":
    main()
