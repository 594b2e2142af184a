"""What a whole fleet of entrypoints costs, and what it asks of the API server: N of them on N scratch nodes, here.

All share this machine's processors and disk, so its reaction times are those of N nodes on one machine: on N machines
each is that of `bench.py`. What adds up in a cluster is what they ask of the one API server, and that is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from node import ENVIRONMENT, PROGRAM, Node, activity, machine, make_binary, memory, reap, wait_for

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fake_api import FakeCluster, authority, pem, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NODES = 200
BINARY = 1  # MiB: N nodes share this disk, and a copy of the real 64 MiB costs what bench.py says
INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
SPARE_INSTANCES = 64  # for what else this user runs
QUIET = 0.5  # seconds in which no process of the fleet may run before something is measured
LOOK = 0.05  # seconds between two looks for results, which takes 1 % of a CPU
TAINT = "multus-cni.io/not-ready:NoSchedule"
FIRST_TOKEN, SECOND_TOKEN = "token-0", "token-1"
"""What a node is made with, and what it may be given."""


class Counting(FakeCluster):
    """The API server of the tests, which also counts connections and notes what was answered."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = {FIRST_TOKEN, SECOND_TOKEN}
        self.connections = 0
        self.calls: list[str] = []
        """Verb, path and status; the names of nodes, and what a list is asked for, are left out."""

    def environment(self, name: str) -> dict[str, str]:
        """Return what leads the program on a node to this server."""
        host, _, port = self.url.removeprefix("https://").rpartition(":")
        return {**ENVIRONMENT, "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "NODE_NAME": name}

    def admit(self) -> bool:
        with self.arrived:
            self.connections += 1
        return True

    def answer(self, method, path, headers, body):
        answer = super().answer(method, path, headers, body)
        kind = "/api/v1/nodes/NAME" if path.startswith("/api/v1/nodes/") else path.partition("?")[0]
        with self.arrived:
            self.calls.append(f"{method} {kind}: {answer[0]}")
        return answer


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", metavar="N", type=int, default=NODES, help=f"how many (default: {NODES})")
    parser.add_argument("--idle", metavar="SECONDS", type=float, default=20.0, help="how long to watch it do nothing")
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="how often to change token and master")
    parser.add_argument("--calls", action="store_true", help="count what each command asks of the API server")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what was measured there")
    options = parser.parse_args()
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is not there: run `make fleet`, which installs it")
    print(f"{machine()}; binary of {BINARY} MiB\n")
    # Not in /tmp: every file that comes or goes in a directory on the way to a watched one is an event.
    with tempfile.TemporaryDirectory(prefix="fleet-", dir=sys.prefix) as scratch, serving(Counting()) as api:
        multus = make_binary(Path(scratch) / "multus", BINARY)
        if options.calls:
            measured = commands(api, Path(scratch), multus)
        else:
            with limits_for(options.nodes):
                fleet = Fleet(Path(scratch), multus, options.nodes, api)
                measured = measure(fleet, api, options.rounds, options.idle)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n")


# ---- a fleet ----


class Reaction(NamedTuple):
    """How the fleet followed a change of all its nodes at once."""

    milliseconds: list[float]
    cpu: float
    """Milliseconds of CPU a node."""
    within: float
    """Milliseconds from the first node's change to the last's: as much as "at once" means here."""


class Fleet:
    """N nodes and the program on each of them, told where a counting API server is."""

    def __init__(self, root: Path, multus: Path, count: int, api: Counting) -> None:
        """Make the nodes, before anything runs: what appears in a directory above a node wakes its entrypoint."""
        names, ca = [f"node-{number:04}" for number in range(count)], pem(authority())
        self.nodes = [Node(root / each, multus, environment=api.environment(each), authority=ca) for each in names]
        self.programs: list[subprocess.Popen[bytes]] = []

    def wait(self, condition: Callable[[Node], bool]) -> None:
        """Wait until a condition has held for each node once. Raises TimeoutError."""
        for node in self.nodes:
            wait_for(lambda each=node: condition(each), step=LOOK)

    def activity(self) -> tuple[int, float]:
        """Return the context switches and the milliseconds of CPU of all so far."""
        each = [activity(program.pid) for program in self.programs]
        return sum(switches for switches, _ in each), sum(cpu for _, cpu in each)

    def settle(self) -> tuple[int, float]:
        """Wait until nobody runs any more; return the activity up to then."""
        before, after = None, self.activity()
        while after != before:
            time.sleep(QUIET)
            before, after = after, self.activity()
        return after

    def react(self, change: Callable[[], object], cause: str, effect: str, follows: Callable[[Node], bool]) -> Reaction:
        """Make a prepared change, and read off the files when each node followed.

        A rename sets the change time of the file, of the cause as of the effect: nobody need look at N files all the
        time and take the processors from those that are measured. It is exact to a tick of the kernel, 1 to 4 ms.
        """
        _, cpu_before = self.settle()
        old = {node: (node.root / effect).stat().st_ino for node in self.nodes}
        with hurry():
            change()
        self.wait(lambda node: (node.root / effect).stat().st_ino != old[node] and follows(node))
        _, cpu = self.settle()
        causes, effects = ([(node.root / each).lstat().st_ctime_ns for node in self.nodes] for each in (cause, effect))
        took = [(after - before) / 1e6 for before, after in zip(causes, effects, strict=True)]
        return Reaction(took, (cpu - cpu_before) / len(self.nodes), (max(causes) - min(causes)) / 1e6)

    def rotate(self, mark: str) -> Reaction:
        """Rotate the tokens of all nodes at once."""
        links = [(node, node.next_token(mark)) for node in self.nodes]
        follows = lambda node: mark.encode() in node.kubeconfig.read_bytes()  # noqa: E731
        kubeconfig = "etc/cni/net.d/multus.d/multus.kubeconfig"
        return self.react(
            lambda: [node.rotate(link) for node, link in links], "serviceaccount/..data", kubeconfig, follows
        )

    def change(self, mark: str) -> Reaction:
        """Change the default network of all nodes at once."""
        files = [(node, node.prepare_master(mark)) for node in self.nodes]
        names = ("etc/cni/net.d/10-flannel.conflist", "etc/cni/net.d/00-multus.conf")
        return self.react(lambda: [file.rename(node.master) for node, file in files], *names, lambda n: n.wraps(mark))


def measure(fleet: Fleet, api: Counting, rounds: int, idle: float) -> dict[str, object]:
    """Run a fleet through its life: start, tokens, masters, nothing to do, death. Print and return what it took."""
    count = len(fleet.nodes)
    with ExitStack() as stack:
        began = time.perf_counter()
        for node in fleet.nodes:
            fleet.programs.append(node.start())
            stack.callback(fleet.programs[-1].kill)
        fleet.wait(lambda node: node.ready.exists())
        started = time.perf_counter() - began
        _, cpu_started = fleet.settle()
        held = {kind: sum(memory(program.pid, kind) for program in fleet.programs) for kind in ("Rss", "Pss")}
        tokens = [fleet.rotate(f"round-{number}-") for number in range(rounds)]
        masters = [fleet.change(f"round-{number}-") for number in range(rounds)]
        switches, cpu_before = fleet.settle()
        time.sleep(idle)
        switches_after, cpu = fleet.activity()
        asked = api.connections, len(api.calls)
        for program in fleet.programs:
            program.kill()
        start_cpu = (sum(map(reap, fleet.programs)) - (cpu - cpu_started)) / count
    found = {
        "nodes": count,
        "resident memory of all, MiB": held["Rss"],
        "proportional memory of each, MiB": held["Pss"] / count,
        "CPU of each until configured, ms": start_cpu,
        "all configured after, s": started,
        **reaction_rows("token", tokens),
        **reaction_rows("master", masters),
        f"CPU of all in {idle:g} s idle, ms": cpu - cpu_before,
        f"context switches of all in {idle:g} s idle": switches_after - switches,
        "API server: connections": asked[0],
        "API server: requests": asked[1],
    }
    for name, number in found.items():
        print(f"| {name} | {number:,.{0 if number >= 100 or number == int(number) else 1}f} |")
    return found


def reaction_rows(name: str, found: list[Reaction]) -> dict[str, float]:
    """Return the rows about one kind of change, of all rounds."""
    times = [each for reaction in found for each in reaction.milliseconds]
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {
        f"{name}, all at once: median, ms": cuts[49],
        f"{name}: 99th percentile, ms": cuts[98],
        f"{name}: all changed within, ms": max(reaction.within for reaction in found),
        f"{name}: CPU of each, ms": statistics.mean(reaction.cpu for reaction in found),
    }


@contextmanager
def hurry() -> Iterator[None]:
    """Go before the nodes that have work by now, or the last ones would be changed when the first ones are done."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):  # not root: the table says how long the changes took
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, usual)


@contextmanager
def limits_for(count: int) -> Iterator[None]:
    """Let one user run this many entrypoints: each has an inotify instance, and the kernel allows a user 128.

    A node of a real cluster runs one. The limit is raised for as long as the fleet runs, where that is allowed.
    """
    files = 4 * count + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed, wanted = int(INSTANCES.read_text()), count + SPARE_INSTANCES
    try:
        if resource.RLIM_INFINITY != soft < files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
        if allowed < wanted:
            INSTANCES.write_text(str(allowed + wanted))
    except (OSError, ValueError) as error:
        sys.exit(
            f"{count} entrypoints of one user need {files} open files (`ulimit -Hn` says {hard}) and as many inotify "
            f"instances ({INSTANCES} says {allowed}), and that cannot be raised: {error}. As root, or fewer --nodes"
        )
    try:
        yield
    finally:
        if allowed < wanted and int(INSTANCES.read_text()) == allowed + wanted:  # else somebody has set it meanwhile
            INSTANCES.write_text(str(allowed))


# ---- one command at a time ----


def commands(api: Counting, root: Path, multus: Path) -> list[dict[str, object]]:
    """Run every command once on a node; print as a Markdown table, and return, what each asked."""
    key, _, effect = TAINT.partition(":")
    api.add_node("node", {"key": key, "effect": effect})
    flag, found = f"--startup-taint={TAINT}", []
    print("| command | connections | requests | which |\n|---|---:|---:|---|")

    def counted(what: str, act: Callable[..., object], *arguments: object) -> None:
        connections, calls = api.connections, len(api.calls)
        act(*arguments)
        asked = Counter(api.calls[calls:])
        found.append({"command": what, "connections": api.connections - connections, "requests": asked.total()})
        which = ", ".join(f"{number} `{kind}`" for kind, number in sorted(asked.items())) or "none"
        print(f"| `{what}` | {found[-1]['connections']} | {asked.total()} | {which} |")

    def node_with(name: str, *flags: str) -> Node:
        return Node(root / name, multus, *flags, environment=api.environment("node"), authority=pem(authority()))

    def resident(node: Node, until: Callable[[int], bool] = lambda calls: True) -> None:
        """Start, configure, wait for what was asked since, follow a new token and a new master, and stop."""
        calls = len(api.calls)
        program = node.start()
        try:
            wait_for(node.ready.exists)
            wait_for(lambda: until(calls))
            node.rotate(node.next_token(SECOND_TOKEN))
            node.prepare_master("second").rename(node.master)
            wait_for(lambda: node.wraps("second") and SECOND_TOKEN.encode() in node.kubeconfig.read_bytes())
            program.terminate()
            program.wait()
        finally:
            program.kill()

    def command(node: Node, *words: str) -> None:
        done = subprocess.run([PROGRAM, *words], env=node.environment, capture_output=True, text=True)
        # `check` finds that a scratch node has no CNI plugins, and that is well.
        if done.returncode and "check" not in words:
            sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def subcommand(node: Node, *words: str) -> None:
        command(node, *words[:1], *node.flags, *words[1:])

    plain, tainted = node_with("plain", "--cleanup-config-on-exit=false"), node_with("tainted", flag)
    repairing = node_with("repairing", "--repair-pods=report")
    installing = ("install", "--type=thin", f"--dest-dir={root}", f"--multus-bin-file={multus}")
    some = lambda calls: len(api.calls) > calls  # noqa: E731
    counted("run: start, new token, new master, stop", resident, plain)
    counted("run --startup-taint, node has the taint", resident, tainted, lambda _: not api.taints("node"))
    counted("run --startup-taint, taint gone already", resident, tainted, some)
    counted("run --repair-pods=report, no pod lacks networks", resident, repairing, some)
    counted("--dry-run --startup-taint", subcommand, tainted, "--dry-run")
    counted("install --type=thin", command, plain, *installing)
    counted("check", subcommand, plain, "check")
    counted("check --startup-taint", subcommand, plain, "check", flag)
    counted("uninstall --dry-run", subcommand, plain, "uninstall", "--dry-run")
    counted("uninstall", subcommand, plain, "uninstall", f"--multus-data-dir={root}")
    return found


if __name__ == "__main__":
    main()
