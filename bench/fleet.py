"""What a whole fleet of entrypoints costs, and what it asks of the API server: N of them on N scratch nodes, here.

All share this machine's processors and disk, so its reaction times are those of N nodes on one machine: on N machines
each is that of `bench.py`. What adds up in a cluster is what they ask of the one API server, and that is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from apicalls import (
    FIRST_TOKEN,
    OUTAGES,
    TAINT,
    TROUBLES,
    Counting,
    by_kind,
    each_command,
    histogram,
    simulate,
    wait_untainted,
)
from node import PROGRAM, Node, make_binary
from processes import activity, machine, memory, reap

from tests.fake_api import authority, pem, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from node import Running

NODES = 200
MOST_TAINTED = 50
"""Each removal of a taint is a process of 45 to 65 MiB and half a second of CPU, and here they all come at once."""
BINARY = 1  # MiB: N nodes share this disk, and a copy of the real 64 MiB costs what bench.py says
CLUSTERS = (1_000, 5_000, 15_000)
INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
SPARE_INSTANCES = 64  # for what else this user runs
LINES = 30  # of a histogram that is easily read
QUIET = 0.5  # seconds in which no process of the fleet may run before something is measured
PATIENCE = 1.0  # seconds a node that a step of the whole fleet may take, and a minute
LOOK = 0.05  # seconds between two looks for results, which takes 1 % of a CPU


class Reaction(NamedTuple):
    """How the fleet followed a change of all its nodes at once."""

    milliseconds: list[float]
    cpu: float
    """Milliseconds of CPU a node."""
    within: float
    """Milliseconds from the first node's change to the last's: as much as "at once" means here."""


class Figures(NamedTuple):
    """One fleet."""

    nodes: int
    resident: float
    """MiB of all."""
    proportional: float
    """MiB of all."""
    started: float
    """Seconds until the last node was configured."""
    start_cpu: float
    """Milliseconds a node."""
    token: Reaction
    master: Reaction
    idle: float
    """Seconds that were watched."""
    idle_switches: int
    """Context switches of all."""
    idle_cpu: float
    """Milliseconds of all."""
    watched: float
    """Seconds from the first start to the end of the idle time, in which calls were counted."""
    connections: int
    requests: int


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", metavar="N", type=int, help=f"how many (default: {NODES})")
    parser.add_argument("--growth", metavar="N,N,...", help="one fleet after the other, as the table of docs/scale.md")
    parser.add_argument("--idle", metavar="SECONDS", type=float, default=20.0, help="how long to watch it do nothing")
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="how often to change token and master")
    parser.add_argument(
        "--startup-taint", action="store_true", help=f"all nodes remove a taint at once (at most {MOST_TAINTED})"
    )
    parser.add_argument("--outage", choices=OUTAGES, help="with --startup-taint: the API server refuses at first")
    parser.add_argument(
        "--outage-seconds", metavar="SECONDS", type=float, default=30.0, help="for how long (default: 30)"
    )
    parser.add_argument("--calls", action="store_true", help="count what each command asks of the API server")
    parser.add_argument("--simulate", action="store_true", help="reckon the tries of 1,000, 5,000 and 15,000 nodes")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what was measured there")
    options = parser.parse_args()
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is not there: run `make fleet`, which installs it")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the fleet ends too, and limits are restored
    print(f"{machine()}; binary of {BINARY} MiB\n")
    written = run(options)
    if options.json:
        options.json.write_text(json.dumps(written, indent=2) + "\n")


def run(options: argparse.Namespace) -> object:
    """Measure in the mode that was asked for and print it; return the figures for machines."""
    if options.simulate:
        return print_simulation()
    # Not in /tmp: every file that comes or goes in a directory on the way to a watched one is an event.
    with tempfile.TemporaryDirectory(prefix="fleet-", dir=sys.prefix) as scratch:
        multus = make_binary(Path(scratch) / "multus", BINARY)
        if options.calls:
            return print_commands(Path(scratch), multus)
        if options.startup_taint:
            nodes = min(options.nodes or MOST_TAINTED, MOST_TAINTED)
            api = Counting(options.outage, options.outage_seconds)
            return print_removals(Path(scratch), multus, nodes, api)
        counts = [int(each) for each in (options.growth or str(options.nodes or NODES)).split(",")]
        found = []
        for count in counts:
            found.append(measure(Path(scratch) / str(count), multus, count, options))
            print(f"{count} measured", file=sys.stderr)
        print("\n".join(growth_table(found)))
        return [each._asdict() for each in found]


# ---- a fleet ----


class Fleet:
    """N nodes and the program on each of them, told where a counting API server is."""

    def __init__(self, root: Path, multus: Path, count: int, api: Counting, *flags: str) -> None:
        """Make the nodes, before anything runs: what appears in a directory above a node wakes its entrypoint."""
        self.names = [f"node-{number:04}" for number in range(count)]
        authorities = pem(authority())
        self.nodes = [
            Node(root / name, multus, *flags, environment=api.environment(NODE_NAME=name), authority=authorities)
            for name in self.names
        ]
        self._programs: list[Running] = []
        self._patience = 60 + PATIENCE * count

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._programs:
            program.__exit__()

    def start(self) -> float:
        """Start all at once; return the seconds until the last node was configured."""
        started = time.perf_counter()
        self._programs = [node.start() for node in self.nodes]
        self.wait(lambda node: node.ready.exists())
        return time.perf_counter() - started

    def wait(self, condition: Callable[[Node], bool]) -> None:
        """Wait until a condition has held for each node once. Raises TimeoutError."""
        deadline = time.monotonic() + self._patience
        left = self.nodes
        while left := [node for node in left if not condition(node)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(left)} of {len(self.nodes)} nodes were not done in {self._patience:g} s")
            time.sleep(LOOK)

    def activity(self) -> tuple[int, float]:
        """Return the context switches and the milliseconds of CPU of all so far."""
        each = [activity(program.pid) for program in self._programs]
        return sum(switches for switches, _ in each), sum(cpu for _, cpu in each)

    def settle(self) -> tuple[int, float]:
        """Wait until nobody runs any more; return the activity up to then."""
        before = self.activity()
        while True:
            time.sleep(QUIET)
            after = self.activity()
            if after == before:
                return after
            before = after

    def memory(self) -> tuple[float, float]:
        """Return the resident and the proportional memory of all, in MiB."""
        each = [memory(program.pid) for program in self._programs]
        return sum(held.resident for held in each), sum(held.proportional for held in each)

    def kill(self) -> float:
        """End all; return the milliseconds of CPU that they and their children have used."""
        for program in self._programs:
            program.process.kill()
        return sum(reap(program.process) for program in self._programs)


def measure(root: Path, multus: Path, count: int, options: argparse.Namespace) -> Figures:
    """Run a fleet through its life: start, tokens, masters, nothing to do, death."""
    with ExitStack() as stack:
        api = stack.enter_context(serving(Counting()))
        stack.enter_context(limits_for(count))
        fleet = stack.enter_context(Fleet(root, multus, count, api))
        began = time.perf_counter()
        started = fleet.start()
        _, cpu_started = fleet.settle()
        resident, proportional = fleet.memory()
        token = several(options.rounds, lambda mark: rotate_all(fleet, mark))
        master = several(options.rounds, lambda mark: change_all(fleet, mark))
        switches, cpu_before = fleet.settle()
        time.sleep(options.idle)
        switches_after, cpu = fleet.activity()
        watched = time.perf_counter() - began
        connections, requests = len(api.connections), len(api.requests)
        cpu_in_all = fleet.kill()
        prove_counting(api)
    return Figures(
        nodes=count,
        resident=resident,
        proportional=proportional,
        started=started,
        start_cpu=(cpu_in_all - (cpu - cpu_started)) / count,
        token=token,
        master=master,
        idle=options.idle,
        idle_switches=switches_after - switches,
        idle_cpu=cpu - cpu_before,
        watched=watched,
        connections=connections,
        requests=requests,
    )


def several(rounds: int, react: Callable[[str], Reaction]) -> Reaction:
    """React several times; return all times, and the mean CPU."""
    found = [react(f"round-{number}-") for number in range(rounds)]
    return Reaction(
        [each for reaction in found for each in reaction.milliseconds],
        statistics.mean(reaction.cpu for reaction in found),
        max(reaction.within for reaction in found),
    )


def rotate_all(fleet: Fleet, mark: str) -> Reaction:
    """Rotate the tokens of all nodes at once."""
    links = [node.next_token(mark) for node in fleet.nodes]

    def change() -> None:
        for node, link in zip(fleet.nodes, links, strict=True):
            node.rotate(link)

    def followed(node: Node) -> bool:
        return mark.encode() in node.kubeconfig.read_bytes()

    return react(fleet, change, lambda node: node.account_dir / "..data", lambda node: node.kubeconfig, followed)


def change_all(fleet: Fleet, mark: str) -> Reaction:
    """Change the default network of all nodes at once."""
    prepared = [node.prepare_master(mark) for node in fleet.nodes]

    def change() -> None:
        for node, file in zip(fleet.nodes, prepared, strict=True):
            file.rename(node.master)

    return react(fleet, change, lambda node: node.master, lambda node: node.output, lambda node: node.wraps(mark))


def react(
    fleet: Fleet,
    change: Callable[[], None],
    cause: Callable[[Node], Path],
    effect: Callable[[Node], Path],
    followed: Callable[[Node], bool],
) -> Reaction:
    """Make a prepared change, and read off the files when each node followed.

    A rename sets the change time of the file, of the cause as of the effect: nobody need look at N files all the time
    and take the processors from those that are measured. It is exact to a tick of the kernel, 1 to 4 ms.
    """
    _, cpu_before = fleet.settle()
    old = {node: effect(node).stat().st_ino for node in fleet.nodes}
    with hurry():
        change()
    fleet.wait(lambda node: effect(node).stat().st_ino != old[node] and followed(node))
    _, cpu = fleet.settle()
    causes = [cause(node).lstat().st_ctime_ns for node in fleet.nodes]
    effects = [effect(node).lstat().st_ctime_ns for node in fleet.nodes]
    took = [(after - before) / 1e6 for before, after in zip(causes, effects, strict=True)]
    return Reaction(took, (cpu - cpu_before) / len(fleet.nodes), (max(causes) - min(causes)) / 1e6)


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


def prove_counting(api: Counting) -> None:
    """Ask the API server once ourselves: a counter that stays at none must be one that counts."""
    from entrypoint.cluster.client import Access, Api

    connections, requests = len(api.connections), len(api.requests)
    asking = Api(Access(api.url, FIRST_TOKEN, pem(authority())))
    answer = asking.request("GET", "/version", timeout=10)
    asking.close()
    if (answer.status, len(api.connections), len(api.requests)) != (200, connections + 1, requests + 1):
        sys.exit("the API server of this bench does not count: its figures are worth nothing")


# ---- what the machine must allow ----


@contextmanager
def limits_for(count: int) -> Iterator[None]:
    """Let one user run this many entrypoints: each has an inotify instance, and the kernel allows a user 128.

    A node of a real cluster runs one. The limit is raised for as long as the fleet runs, where that is allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 4 * count + 256
    if resource.RLIM_INFINITY not in (soft, hard) and hard < files:
        sys.exit(
            f"{count} nodes need {files} open files, the limit is {hard}: `ulimit -Hn {files}` as root, then again"
        )
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    allowed = int(INSTANCES.read_text())
    if allowed >= count + SPARE_INSTANCES:
        yield
        return
    wanted = count + allowed
    try:
        INSTANCES.write_text(str(wanted))
    except OSError as error:
        sys.exit(
            f"{count} entrypoints of one user need as many inotify instances, {allowed} are allowed and cannot be "
            f"raised ({error.strerror}): as root `sysctl fs.inotify.max_user_instances={wanted}`, or fewer --nodes"
        )
    print(f"fs.inotify.max_user_instances: {allowed} raised to {wanted} for this run", file=sys.stderr)
    try:
        yield
    finally:
        if int(INSTANCES.read_text()) == wanted:  # else somebody else has set it meanwhile
            INSTANCES.write_text(str(allowed))


# ---- printing ----


def growth_table(found: Sequence[Figures]) -> Iterator[str]:
    """Yield a Markdown table, a column for each fleet."""
    yield f"| nodes | {' | '.join(f'{each.nodes:,}' for each in found)} |"
    yield f"|---|{'---:|' * len(found)}"
    rounds = len(found[0].token.milliseconds) // found[0].nodes
    idle = f"{found[0].idle:g} s idle"
    rows: list[tuple[str, Callable[[Figures], str]]] = [
        ("resident memory of all, MiB", lambda each: f"{each.resident:,.0f}"),
        ("proportional memory of all, MiB", lambda each: f"{each.proportional:,.0f}"),
        ("proportional memory of each, MiB", lambda each: f"{each.proportional / each.nodes:.1f}"),
        ("CPU of each until configured, ms", lambda each: f"{each.start_cpu:.0f}"),
        ("all configured after, s", lambda each: f"{each.started:.1f}"),
        *reaction_rows("token", rounds, lambda each: each.token),
        *reaction_rows("master", rounds, lambda each: each.master),
        (f"CPU of all in {idle}, ms", lambda each: f"{each.idle_cpu:.1f}"),
        (f"context switches of all in {idle}", lambda each: f"{each.idle_switches:,}"),
        ("API server: counted for, s", lambda each: f"{each.watched:.0f}"),
        ("API server: connections", lambda each: f"{each.connections:,}"),
        ("API server: requests", lambda each: f"{each.requests:,}"),
    ]
    for name, figure in rows:
        yield f"| {name} | {' | '.join(map(figure, found))} |"


def reaction_rows(
    name: str, rounds: int, of: Callable[[Figures], Reaction]
) -> Iterator[tuple[str, Callable[[Figures], str]]]:
    """Yield the rows about one kind of change."""
    yield f"{name}, all at once: median, ms", lambda each: f"{quantile(of(each), 50):,.0f}"
    yield f"{name}: 90th percentile, ms", lambda each: f"{quantile(of(each), 90):,.0f}"
    yield f"{name}: 99th percentile, ms", lambda each: f"{quantile(of(each), 99):,.0f}"
    yield f"{name}: worst of {rounds} rounds, ms", lambda each: f"{max(of(each).milliseconds):,.0f}"
    yield f"{name}: all changed within, ms", lambda each: f"{of(each).within:,.0f}"
    yield f"{name}: CPU of each, ms", lambda each: f"{of(each).cpu:.1f}"


def quantile(reaction: Reaction, percent: int) -> float:
    """Return the time within which so many of the nodes followed, in milliseconds."""
    return statistics.quantiles(reaction.milliseconds, n=100, method="inclusive")[percent - 1]


def print_removals(scratch: Path, multus: Path, count: int, api: Counting) -> object:
    """Roll out a fleet with `--startup-taint`, print what it asks, and return it."""
    with ExitStack() as stack:
        stack.enter_context(serving(api))
        stack.enter_context(limits_for(count))
        fleet = stack.enter_context(Fleet(scratch / "tainted", multus, count, api, f"--startup-taint={TAINT}"))
        for name in fleet.names:
            api.join(name)
        began = time.perf_counter()
        fleet.start()
        wait_untainted(api, fleet.names, 300)
        took = time.perf_counter() - began
        fleet.settle()
        cpu = fleet.kill() / count
    kinds = by_kind(api.calls)
    print(f"{count} nodes remove their taint (at most {MOST_TAINTED}, because each removal needs 45 to 65 MiB):")
    print(f"last taint gone after {took:.1f} s; {cpu:.0f} ms of CPU a node, all processes and the exit included")
    span = api.connections[-1] - api.connections[0]
    print(f"last connection {span:.0f} s after the first")
    print(f"{len(api.connections)} connections, {len(api.calls)} requests: {len(api.calls) / count:.2f} a node")
    for kind, number in kinds.items():
        print(f"{number:6}  {kind}")
    per_second = Counter(int(each - api.connections[0]) for each in api.connections)
    width = 5 if max(per_second) > LINES else 1
    print(f"\nconnections in each {width} s, {max(per_second.values())} in the busiest second:")
    print("\n".join(histogram(api.connections, width)))
    return {
        "nodes": count,
        "connections": len(api.connections),
        "requests": kinds,
        "seconds": took,
        "per second": per_second,
    }


def print_commands(scratch: Path, multus: Path) -> object:
    """Print as a Markdown table what each command asks, and return it."""
    with serving(Counting()) as api:
        found = list(each_command(api, scratch, multus))
    print("| command | connections | requests | which |\n|---|---:|---:|---|")
    for each in found:
        kinds = ", ".join(f"{number} `{kind}`" for kind, number in by_kind(each.calls).items())
        print(f"| `{each.command}` | {each.connections} | {len(each.calls)} | {kinds or 'none'} |")
    return [{"command": each.command, "connections": each.connections, "requests": len(each.calls)} for each in found]


def print_simulation() -> object:
    """Print as a Markdown table how the back-off spreads the tries of large clusters, and return it."""
    print("| the API server | nodes | tries | in the busiest second | later | served | done after, s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    rows = []
    for trouble in TROUBLES:
        for nodes in CLUSTERS:
            load = simulate(nodes, trouble)
            rows.append({**trouble._asdict(), "nodes": nodes, **load._asdict()})
            settled = f"{load.settled:,}" if trouble.outage else ""
            figures = f"{load.tries:,} | {load.peak:,} | {settled} | {load.served:,} | {load.done:.0f}"
            print(f"| {trouble.name} | {nodes:,} | {figures} |")
    return rows


if __name__ == "__main__":
    main()
