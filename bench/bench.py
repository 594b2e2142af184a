"""What the entrypoint costs a node, as figures and as ratios to a bare Python interpreter.

Both are started from the same virtual environment, in turn, so that the noise of the machine hits both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from node import ENVIRONMENT, PROGRAM, Node, content, make_binary, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

IDLE_SETTLE = 1.0  # seconds until nothing is left to do
BETWEEN_SAMPLES = 0.02  # seconds, so that the program is asleep when the next change comes


class Effort(NamedTuple):
    """How much to measure."""

    runs: int
    samples: int
    exits: int
    idle: float
    """Seconds."""


FULL = Effort(runs=15, samples=100, exits=30, idle=20.0)
QUICK = Effort(runs=3, samples=5, exits=3, idle=2.0)


class Usage(NamedTuple):
    """What one start took, in milliseconds of CPU and wall time."""

    cpu: float
    wall: float


class Memory(NamedTuple):
    """What a process holds, in MiB."""

    resident: float
    proportional: float


class Starts(NamedTuple):
    """All starts of one bench, in turn."""

    bare: list[Usage]
    bare_memory: list[Memory]
    fresh: list[Usage]
    restarted: list[Usage]
    memory: list[Memory]


class Idle(NamedTuple):
    """What happened while nothing was to be done."""

    seconds: float
    switches: int
    cpu: float
    """Milliseconds."""


class Row(NamedTuple):
    """One line of the table."""

    name: str
    unit: str
    median: float
    p99: float | None
    samples: int
    ratio: float | None
    """To the bare interpreter."""
    target: str
    met: bool | None


def main() -> None:
    """Measure, print the table, and write it as JSON when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few samples: to see that it works, not to quote")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the table there")
    options = parser.parse_args()
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is not there: run `make bench`, which installs it")
    effort = QUICK if options.quick else FULL
    # Not in /tmp: every file that comes or goes in a directory on the way to a watched one is an event.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=sys.prefix) as scratch:
        rows = list(measure(Path(scratch), effort))
    machine = (
        f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}"
    )
    print(f"{machine}; binary of 64 MiB; ratios to `python -c pass`\n")
    print("\n".join(table(rows)))
    if options.json:
        document = {"machine": machine, "effort": effort._asdict(), "rows": [row._asdict() for row in rows]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


# ---- measuring ----


def measure(scratch: Path, effort: Effort) -> Iterator[Row]:
    """Yield all rows."""
    multus = make_binary(scratch / "multus")
    started = starts(scratch, multus, effort.runs)
    node = new_node(scratch, multus)
    with node.start() as program:
        program.wait_ready()
        idle = idleness(program.pid, effort.idle)
        reactions = dict(latencies(node, effort.samples))
    exits = [exit_time(node) for _ in range(effort.exits)]

    cpu = [each.cpu for each in started.bare]
    wall = [each.wall for each in started.bare]
    resident = [each.resident for each in started.bare_memory]
    proportional = [each.proportional for each in started.bare_memory]
    yield row("bare interpreter: CPU", "ms", cpu, cpu)
    yield row("bare interpreter: wall time", "ms", wall, wall)
    yield row("bare interpreter: resident memory", "MiB", resident, resident)
    yield row("bare interpreter: proportional memory", "MiB", proportional, proportional)
    yield row("start to configured: CPU", "ms", [each.cpu for each in started.fresh], cpu, ratio_at_most=11)
    yield row("start to configured: wall time", "ms", [each.wall for each in started.fresh], wall)
    yield row("restart, already configured: CPU", "ms", [each.cpu for each in started.restarted], cpu)
    yield row("restart, already configured: wall time", "ms", [each.wall for each in started.restarted], wall)
    held = [each.resident for each in started.memory]
    yield row("configured: resident memory", "MiB", held, resident, ratio_at_most=2.3)
    yield row("configured: proportional memory", "MiB", [each.proportional for each in started.memory], proportional)
    period = f"in {idle.seconds:g} s"
    yield Row(f"idle: context switches {period}", "", idle.switches, None, 1, None, "none", idle.switches == 0)
    yield Row(f"idle: CPU {period}", "ms", idle.cpu, None, 1, None, "", None)
    for name, samples in reactions.items():
        yield row(name, "ms", samples, wall, median_below=20)
    yield row("SIGTERM to exit", "ms", exits, wall, median_below=100)


def row(
    name: str,
    unit: str,
    samples: Sequence[float],
    bare: Sequence[float],
    *,
    ratio_at_most: float | None = None,
    median_below: float | None = None,
) -> Row:
    """Make a row of the samples and of the bare interpreter's, with the target that issue 2 set, if it set one."""
    median = statistics.median(samples)
    ratio = median / statistics.median(bare)
    p99 = statistics.quantiles(samples, n=100, method="inclusive")[98]
    target, met = "", None
    if ratio_at_most is not None:
        target, met = f"<= {ratio_at_most:g} x", ratio <= ratio_at_most
    if median_below is not None:
        target, met = f"< {median_below:g} ms", median < median_below
    return Row(name, unit, median, p99, len(samples), ratio, target, met)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield f"{'':42}{'median':>10}{'99th %':>10}     {'samples':>8}{'x bare':>8}   target"
    for each in rows:
        p99 = "" if each.p99 is None else f"{each.p99:.2f}"
        ratio = "" if each.ratio is None else f"{each.ratio:.2f}"
        verdict = "" if each.met is None else "met" if each.met else "MISSED"
        line = f"{each.name:42}{each.median:10.2f}{p99:>10} {each.unit:4}{each.samples:8}{ratio:>8}   {each.target:10}"
        yield f"{line}{verdict}".rstrip()


# ---- starting and looking at processes ----


def new_node(scratch: Path, multus: Path) -> Node:
    """Make an empty node where the last one was."""
    shutil.rmtree(scratch / "node", ignore_errors=True)
    return Node(scratch / "node", multus)


def starts(scratch: Path, multus: Path, runs: int) -> Starts:
    """Start the bare interpreter, the program on a fresh node and the program once more, in turn."""
    result = Starts([], [], [], [], [])
    for run in range(runs + 1):
        found = Starts([], [], [], [], [])
        node = new_node(scratch, multus)
        found.bare.append(bare_start())
        found.fresh.append(configuring_start(node))
        found.bare.append(bare_start())
        found.restarted.append(configuring_start(node))
        found.bare_memory.append(bare_memory())
        found.memory.append(configured_memory(new_node(scratch, multus)))
        if run > 0:  # the first round only warms the page cache
            for all_runs, this_run in zip(result, found, strict=True):
                all_runs.extend(this_run)
    return result


def bare_start() -> Usage:
    """Run `python -c pass`."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", "pass"], env=ENVIRONMENT)
    cpu = cpu_when_reaped(process)
    return Usage(cpu, (time.perf_counter() - started) * 1e3)


def configuring_start(node: Node) -> Usage:
    """Run the program until the node is configured.

    CPU time is known to the microsecond only after the end, so the end comes at once and without warning.
    """
    with node.start() as program:
        wall = program.wait_ready()
        program.process.kill()
        return Usage(cpu_when_reaped(program.process), wall * 1e3)


def bare_memory() -> Memory:
    """Return what an interpreter holds that has as little to do as `pass`, but waits so that it can be looked at.

    The peak that wait4 tells of a finished process is of no use: the kernel counts this process's memory into it.
    """
    waiting = "import os; os.write(1, b'.'); os.read(0, 1)"  # every interpreter has os
    command = [sys.executable, "-c", waiting]
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.read(1)
        held = memory(process.pid)
        process.stdin.close()
    return held


def configured_memory(node: Node) -> Memory:
    """Return what the program holds once it has configured the node and has gone to sleep."""
    with node.start() as program:
        program.wait_ready()
        time.sleep(0.3)
        return memory(program.pid)


def cpu_when_reaped(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end; return the milliseconds of CPU of the process and of the children that it has waited for."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return (usage.ru_utime + usage.ru_stime) * 1e3


def memory(pid: int) -> Memory:
    """Return the resident and the proportional memory of a process."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kibibytes = dict(re.findall(r"^(\w+): +(\d+) kB", told, re.MULTILINE))
    return Memory(int(kibibytes["Rss"]) / 1024, int(kibibytes["Pss"]) / 1024)


# ---- what happens once the node is configured ----


def idleness(pid: int, seconds: float) -> Idle:
    """Count what a process does while nothing happens to its node."""
    time.sleep(IDLE_SETTLE)
    switches, cpu = activity(pid)
    time.sleep(seconds)
    switches_after, cpu_after = activity(pid)
    return Idle(seconds, switches_after - switches, cpu_after - cpu)


def activity(pid: int) -> tuple[int, float]:
    """Return the context switches and the milliseconds of CPU of all threads so far."""
    switches, cpu = 0, 0.0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        counts = re.findall(r"ctxt_switches:\s+(\d+)", (thread / "status").read_text())
        switches += sum(int(count) for count in counts)
        cpu += int((thread / "schedstat").read_text().split()[0]) / 1e6
    return switches, cpu


def latencies(node: Node, count: int) -> Iterator[tuple[str, list[float]]]:
    """Yield each kind of change, and the milliseconds from the change to its result."""
    names = (
        "token rotated to new kubeconfig",
        "master changed to new configuration",
        "new first candidate to configuration",
        "master removed to configuration removed",
    )
    rounds = [one_of_each(node, f"sample-{sample}-") for sample in range(count)]
    yield from zip(names, map(list, zip(*rounds, strict=True)), strict=True)


def one_of_each(node: Node, mark: str) -> tuple[float, float, float, float]:
    """Make each kind of change once, with a `mark` never used before; return the milliseconds that each took."""
    earlier = node.conf_dir / "05-earlier.conflist"

    def appear(path: Path, name: str) -> float:
        prepared = node.prepare_master(name)
        return reaction(lambda: prepared.rename(path), lambda: node.wraps(name))

    link = node.next_token(mark)
    rotated = reaction(lambda: node.rotate(link), lambda: mark.encode() in content(node.kubeconfig))
    changed = appear(node.master, mark)
    overtaken = appear(earlier, f"{mark}earlier")
    reaction(earlier.unlink, lambda: node.wraps(mark))
    removed = reaction(node.master.unlink, lambda: not node.output.exists())
    appear(node.master, mark)
    return rotated, changed, overtaken, removed


def reaction(change: Callable[[], object], seen: Callable[[], bool]) -> float:
    """Make a change; return the milliseconds until its result is seen."""
    time.sleep(BETWEEN_SAMPLES)
    started = time.perf_counter()
    change()
    return wait_for(seen, started) * 1e3


def exit_time(node: Node) -> float:
    """Start the program, let it configure the node, and return the milliseconds from SIGTERM to its end."""
    with node.start() as program:
        program.wait_ready()
        time.sleep(BETWEEN_SAMPLES)
        started = time.perf_counter()
        program.process.send_signal(signal.SIGTERM)
        code = program.process.wait()
        took = time.perf_counter() - started
    if code != 0:
        sys.exit(f"the program ended with exit code {code}")
    return took * 1e3


if __name__ == "__main__":
    main()
