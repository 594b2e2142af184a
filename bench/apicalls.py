"""What a fleet asks of the API server: counted on a server of our own, and reckoned for clusters too large to run."""

from __future__ import annotations

import heapq
import random
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from node import ENVIRONMENT, PROGRAM, Node, wait_for

from entrypoint.errands import patience
from tests.fake_api import FakeCluster, authority, pem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

TAINT = "multus-cni.io/not-ready:NoSchedule"
OUTAGES = ("429", "500", "reset")
FIRST_TOKEN, SECOND_TOKEN = "token-0", "token-1"
"""What a node is made with, and what it may be given."""
BAR = 60  # characters of the longest bar of a histogram


class Call(NamedTuple):
    """One request that arrived."""

    since: float
    """Monotonic seconds."""
    verb: str
    path: str
    status: int


class Counting(FakeCluster):
    """The API server of the tests, which also notes when what came, and can be overloaded for a while."""

    def __init__(self, outage: str | None = None, seconds: float = 0.0) -> None:
        """From the first connection on, for so many seconds, answer every request with `outage`, or reset it."""
        super().__init__()
        self.tokens = {FIRST_TOKEN, SECOND_TOKEN}
        self.connections: list[float] = []
        """When they came, in monotonic seconds; those that were reset too."""
        self.calls: list[Call] = []
        self._outage = outage
        self._seconds = seconds

    def environment(self, **more: str) -> dict[str, str]:
        """Return what leads a program to this server."""
        host, _, port = self.url.removeprefix("https://").rpartition(":")
        return {**ENVIRONMENT, "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, **more}

    def join(self, name: str) -> None:
        """Let a node register with the startup taint."""
        key, _, effect = TAINT.partition(":")
        self.add_node(name, {"key": key, "effect": effect})

    @property
    def overloaded(self) -> bool:
        """The outage is not over yet."""
        return self._outage is not None and time.monotonic() < self.connections[0] + self._seconds

    def admit(self) -> bool:
        with self.arrived:
            self.connections.append(time.monotonic())
        return not (self._outage == "reset" and self.overloaded)

    def answer(self, method, path, headers, body):
        since = time.monotonic()
        if self.overloaded:
            status = int(self._outage)
            answer = status, {"kind": "Status", "code": status, "message": "too many requests, or an internal error"}
        else:
            answer = super().answer(method, path, headers, body)
        with self.arrived:
            self.calls.append(Call(since, method, path, answer[0]))
        return answer


def by_kind(calls: Iterable[Call]) -> dict[str, int]:
    """Count requests by verb, path and status; the names of nodes, and what a list is asked for, are left out."""

    def named(path: str) -> str:
        path = path.partition("?")[0]
        return "/api/v1/nodes/NAME" if path.startswith("/api/v1/nodes/") else path

    kinds = Counter(f"{call.verb} {named(call.path)}: {call.status}" for call in calls)
    return dict(sorted(kinds.items()))


def histogram(times: Iterable[float], width: int) -> Iterator[str]:
    """Yield a line for each `width` seconds since the first of these times (in seconds): how many, and a bar."""
    times = sorted(times)
    counts = Counter(int(each - times[0]) // width for each in times)
    longest = max(counts.values(), default=0)
    for number in range(max(counts, default=-1) + 1):
        count = counts[number]
        yield f"{number * width:5} s {count:6} {'#' * -(-count * BAR // longest)}".rstrip()


# ---- a rollout on which every node loses its startup taint ----


def wait_untainted(api: Counting, names: Iterable[str], timeout: float) -> None:
    """Wait until no node has the taint any more. Raises TimeoutError."""
    deadline = time.monotonic() + timeout
    for name in names:
        while api.taints(name):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the taint of {name} is still there after {timeout:g} s")
            time.sleep(0.02)


# ---- one command at a time ----


class Asked(NamedTuple):
    """What one command asked of the API server."""

    command: str
    connections: int
    calls: list[Call]


def each_command(api: Counting, root: Path, multus: Path) -> Iterator[Asked]:
    """Run every command once on a node and yield what each asked."""
    api.join("node")
    environment = api.environment(NODE_NAME="node")
    flag = f"--startup-taint={TAINT}"

    def counted(what: str, act: Callable[[], object]) -> Asked:
        connections, calls = len(api.connections), len(api.calls)
        act()
        return Asked(what, len(api.connections) - connections, api.calls[calls:])

    def node_with(name: str, *flags: str) -> Node:
        return Node(root / name, multus, *flags, environment=environment, authority=pem(authority()))

    def resident(node: Node, until: Callable[[], bool] = lambda: True) -> None:
        """Start, configure, follow a new token and a new master, and stop."""
        with node.start() as program:
            started = time.perf_counter()
            program.wait_ready()
            wait_for(until, started)
            link = node.next_token(SECOND_TOKEN)
            node.rotate(link)
            node.write_master(node.master, "second")
            wait_for(
                lambda: node.wraps("second") and SECOND_TOKEN.encode() in node.kubeconfig.read_bytes(),
                time.perf_counter(),
            )
            program.process.terminate()
            program.process.wait()

    def command(node: Node, *words: str) -> None:
        done = subprocess.run([PROGRAM, *words], env=node.environment, capture_output=True, text=True)
        # `check` finds that a scratch node has no CNI plugins, and that is well.
        if done.returncode and "check" not in words:
            sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def subcommand(node: Node, *words: str) -> None:
        command(node, *words[:1], *node.command[1:], *words[1:])

    source = f"--multus-bin-file={multus}"
    plain, tainted = node_with("plain", "--cleanup-config-on-exit=false"), node_with("tainted", flag)
    yield counted("run: start, new token, new master, stop", lambda: resident(plain))
    yield counted(
        "run --startup-taint, node has the taint", lambda: resident(tainted, until=lambda: not api.taints("node"))
    )
    calls = len(api.calls)
    yield counted(
        "run --startup-taint, taint gone already", lambda: resident(tainted, until=lambda: len(api.calls) > calls)
    )
    repairing, asked = node_with("repairing", "--repair-pods=report"), len(api.calls)
    yield counted(
        "run --repair-pods=report, no pod lacks networks",
        lambda: resident(repairing, until=lambda: len(api.calls) > asked),
    )
    yield counted("--dry-run --startup-taint", lambda: subcommand(tainted, "--dry-run"))
    yield counted("install --type=thin", lambda: command(plain, "install", "--type=thin", f"--dest-dir={root}", source))
    yield counted("check", lambda: subcommand(plain, "check"))
    yield counted("check --startup-taint", lambda: subcommand(plain, "check", flag))
    yield counted("uninstall --dry-run", lambda: subcommand(plain, "uninstall", "--dry-run"))
    yield counted("uninstall", lambda: subcommand(plain, "uninstall", f"--multus-data-dir={root}"))


# ---- clusters too large to run ----


class Trouble(NamedTuple):
    """What a cluster goes through in which all nodes want to lose their taint."""

    name: str
    starts_within: float = 0.0
    """Seconds over which the nodes first try."""
    outage: float = 60.0
    """Seconds without a good answer."""
    try_takes: float = 0.0
    """Seconds until a try fails: none when the answer is a refusal, the time-out when there is none."""
    capacity: int | None = None
    """Tries a second that are served after the outage, the others are refused; None: all are served."""


class Load(NamedTuple):
    """What came."""

    tries: int
    peak: int
    """Tries in the busiest second of all."""
    settled: int
    """Tries in the busiest second of the outage's second half."""
    served: int
    """Successful tries in the busiest second: each is a GET and a PATCH."""
    done: float
    """Seconds from the outage's end until the last node's taint was gone."""


TROUBLES = (
    Trouble("refuses for 60 s, all nodes start at one instant"),
    Trouble("refuses for 60 s, nodes start over 60 s", starts_within=60.0),
    Trouble("silent for 60 s, all nodes start at one instant", try_takes=patience.TIMEOUT),
    Trouble("serves 500 tries a second, refuses the rest, all nodes start at one instant", outage=0.0, capacity=500),
)


def simulate(nodes: int, trouble: Trouble, seed: int = 1) -> Load:
    """Let every node try as `taint.remove` does: at once, and again after each of the real `patience.delays`."""
    random.seed(seed)
    delays = [patience.delays() for _ in range(nodes)]
    pending = [(random.uniform(0.0, trouble.starts_within), node) for node in range(nodes)]
    heapq.heapify(pending)
    tries: Counter[int] = Counter()
    served: Counter[int] = Counter()
    clock = 0.0
    while pending:
        clock, node = heapq.heappop(pending)
        second = int(clock)
        tries[second] += 1
        if clock >= trouble.outage and (trouble.capacity is None or served[second] < trouble.capacity):
            served[second] += 1
        else:
            heapq.heappush(pending, (clock + trouble.try_takes + next(delays[node]), node))
    return Load(
        tries=tries.total(),
        peak=max(tries.values()),
        settled=max(tries[second] for second in range(int(trouble.outage) // 2, int(trouble.outage) + 1)),
        served=max(served.values()),
        done=clock - trouble.outage,
    )
