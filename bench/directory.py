"""What a directory with many files costs: a pass and an event with 10, 1,000 and 10,000 files beside the master."""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from node import PROGRAM, make_binary, wait_for
from places import Host
from processes import cpu_clock, memory, wait_until_asleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from places import Started

COUNTS = (10, 1_000, 10_000)
KINDS = {
    "no candidates (.bak)": "{:05}-copy.conflist.bak",
    "later masters (.conflist)": "50-{:05}.conflist",
}


class Cost(NamedTuple):
    """What one change took, in the median: milliseconds, and files; None where that is not to be seen."""

    cpu: float
    wall: float | None
    opened: float | None
    looked_at: float | None


class Line(NamedTuple):
    """One line of the table."""

    kind: str
    count: int
    start_cpu: float
    start_wall: float
    resident: float
    touched: Cost
    """One of the files was written anew: a pass at most, that finds nothing to do."""
    changed: Cost
    """The master was changed."""


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few files and samples: to see that it works")
    options = parser.parse_args()
    counts, samples = (COUNTS[:1], 2) if options.quick else (COUNTS, 9)
    print(f"{'':34}{'start':-^23} {'another file written':-^23} {'master changed':-^31}")
    print(
        f"{'files beside the master':33}{'CPU ms':>8}{'wall':>8}{'MiB':>8}"
        f"{'CPU ms':>8}{'opened':>8}{'status':>8}{'CPU ms':>8}{'wall':>8}{'opened':>8}{'status':>8}"
    )
    with tempfile.TemporaryDirectory(prefix="bench-", dir=sys.prefix) as scratch:
        host = Host(Path(scratch), make_binary(Path(scratch, "multus")))
        for kind in KINDS:
            for count in counts:
                print(printed(measure(host, kind, count, samples)), flush=True)
    if shutil.which("strace") is None:
        print("\nOpened files and status calls need strace, which is not installed.")


def printed(line: Line) -> str:
    """Return a line of the table."""
    touched, changed = line.touched, line.changed
    numbers = (
        (line.start_cpu, 0),
        (line.start_wall, 0),
        (line.resident, 1),
        (touched.cpu, 2),
        (touched.opened, 0),
        (touched.looked_at, 0),
        (changed.cpu, 2),
        (changed.wall, 2),
        (changed.opened, 0),
        (changed.looked_at, 0),
    )
    text = f"{line.count:6} {line.kind:26}"
    for number, digits in numbers:
        text += f"{'-':>8}" if number is None else f"{number:8.{digits}f}"
    return text


def measure(host: Host, kind: str, count: int, samples: int) -> Line:
    """Return the costs with so many files of this kind."""
    node = host.new_node()
    content = node.prepare_master("another").read_text()
    names = [KINDS[kind].format(number) for number in range(count)]
    for name in names:
        (node.conf_dir / name).write_text(content)
    another = node.conf_dir / names[count // 2]
    with host.start(node, host.limits) as program:
        start = program.usage_until_ready(node.ready)
    numbers = iter(range(1_000_000))

    def write_another() -> None:
        prepared = node.prepare_master(f"another-{next(numbers)}")
        prepared.rename(another)

    def change_master() -> float:
        name = f"master-{next(numbers)}"
        prepared = node.prepare_master(name)
        before = time.perf_counter()
        prepared.rename(node.master)
        return wait_for(lambda: node.wraps(name), before) * 1e3

    with host.start(node, host.limits) as program:
        program.wait_ready(node.ready)
        wait_until_asleep(program.pid)
        return Line(
            kind,
            count,
            start.cpu,
            start.wall,
            memory(program.pid).resident,
            cost(program, write_another, samples),
            cost(program, change_master, samples),
        )


def cost(program: Started, change: Callable[[], float | None], samples: int) -> Cost:
    """Make a change again and again, and let the program come to rest after each."""
    cpu, wall = [], []
    for _ in range(samples):
        before = cpu_clock(program.pid)
        took = change()
        wait_until_asleep(program.pid)
        cpu.append(cpu_clock(program.pid) - before)
        wall += [] if took is None else [took]
    opened, looked_at = calls(program, change, samples)
    return Cost(statistics.median(cpu), statistics.median(wall) if wall else None, opened, looked_at)


def calls(program: Started, change: Callable[[], object], samples: int) -> tuple[float | None, float | None]:
    """Return how many files are opened, and how many are asked for their status, for one such change."""
    if shutil.which("strace") is None:
        return None, None
    with tempfile.NamedTemporaryFile("r", prefix="bench-strace-") as trace:
        with traced(program.pid, trace.name):
            for _ in range(samples):
                change()
                wait_until_asleep(program.pid)
        told = trace.read()
    opened = len(re.findall(r"\bopen(?:at2?)?\(", told))
    looked_at = len(re.findall(r"\b(?:statx|newfstatat|l?stat)\(", told))
    return opened / samples, looked_at / samples


@contextlib.contextmanager
def traced(pid: int, trace: str) -> Iterator[None]:
    """Have strace write down, in the file `trace`, which files a process opens or looks at."""
    command = ["strace", "-f", "-e", "trace=open,openat,openat2,stat,lstat,newfstatat,statx", "-o", trace]
    with subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True) as strace:
        said = strace.stderr.readline()
        if "attached" not in said:
            sys.exit(f"strace cannot look at the program: {said}")
        yield
        strace.terminate()
        strace.communicate()


if __name__ == "__main__":
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is not there: run `make bench`, which installs it")
    main()
