"""What the entrypoint costs a node, as figures and as ratios to a bare Python interpreter.

Both are started from the same virtual environment, in turn, so that the noise of the machine hits both alike; on this
host, and in the container as the DaemonSet runs it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import table
from cgroups import Limits
from node import PROGRAM, content, make_binary, wait_for
from places import PASS, WAITING, WATCHING, Host, unless_spoilt
from processes import Usage, activity, machine, memory, wait_until_asleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from node import Node
    from places import Place, Started
    from processes import Memory
    from table import Measured

SLOW = Limits(cpus=0.1, memory=50 << 20)
"""What upstream's own manifests set."""
SMALL = Limits(memory=50 << 20)


class Effort(NamedTuple):
    """How much to measure in each place."""

    starts: int
    slow_starts: int
    """Under a tenth of a CPU, of which each takes a second or two."""
    peaks: int
    samples: int
    """Of each change to the node."""
    exits: int
    idle: float
    """Seconds."""


FULL = Effort(starts=12, slow_starts=7, peaks=6, samples=50, exits=50, idle=60)
QUICK = Effort(starts=1, slow_starts=1, peaks=1, samples=2, exits=1, idle=2)


def main() -> None:
    """Measure, print the table, and write it as JSON when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few samples: to see that it works, not to quote")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the table there")
    parser.add_argument("--only", choices=("host", "container"), help="measure in this place and leave the other out")
    parser.add_argument("--image", help="measure this image in the container instead of building one of this tree")
    options = parser.parse_args()
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is not there: run `make bench`, which installs it")
    effort = QUICK if options.quick else FULL
    # Not in /tmp: every file that comes or goes in a directory on the way to a watched one is an event.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=sys.prefix) as scratch:
        places, left_out = find_places(Path(scratch), options.only, options.image)
        if not places:
            sys.exit("\n".join(left_out))
        os.sync()  # pages that are not written yet cannot be taken out of the page cache
        found = {place.name: measure(place, effort) for place in places}
        for name, idle in unless_spoilt(lambda: idleness(places, effort.idle)).items():
            found[name] |= idle
    rows = table.rows(effort.idle)
    print(f"{machine()}; binary of 64 MiB; ratios to `python -c pass`\n")
    print("\n".join([*table.lines(rows, found), *(f"\n{each}" for each in left_out)]))
    if options.json:
        document = {
            "machine": machine(),
            "effort": effort._asdict(),
            "left out": left_out,
            "rows": as_json(rows, found),
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def find_places(scratch: Path, only: str | None, image: str | None) -> tuple[list[Place], list[str]]:
    """Return the places to measure in, and what of the table is left out and why."""
    places: list[Place] = []
    left_out = [] if only is None else [f"Left out, all but the {only}: --only={only}."]
    if only != "container":
        host = Host(scratch, make_binary(scratch / "multus"))
        places.append(host)
        if host.without_limits:
            left_out.append(f"Left out on the host, under 0.1 CPU and in 50 MiB: {host.without_limits}.")
    if only != "host":
        import container  # needs the tests' requirements

        obstacle = container.obstacle()
        if obstacle:
            left_out.append(f"Left out, the container: {obstacle}.")
        else:
            places.append(container.Container(scratch, image or container.build()))
    return places, left_out


def as_json(rows: Sequence[table.Row], found: dict[str, Measured]) -> list[dict[str, object]]:
    """Return the table for machines: the same figures by row and place, and every sample."""
    return [
        {
            "name": row.name.strip(),
            "unit": row.unit,
            "aim": row.aim.text,
            **{
                place: {**each._asdict(), "all": measured[row.name]}
                for place, measured in found.items()
                if (each := table.figures(row, measured)) is not None
            },
        }
        for row in rows
    ]


# ---- one place ----


def measure(place: Place, effort: Effort) -> Measured:
    """Return the samples of all rows but those about idleness."""
    measured: Measured = {}
    add_starts(place, effort.starts, measured)
    if place.without_limits is None:
        add_slow_starts(place, effort.slow_starts, measured)
        add_peaks(place, effort.peaks, measured)
    add_memory_and_exits(place, effort.exits, measured)
    measured |= unless_spoilt(lambda: reactions(place, effort.samples))
    return measured


def add(measured: Measured, name: str, sample: float) -> None:
    """Add one sample to a row."""
    measured.setdefault(name, []).append(sample)


def add_starts(place: Place, count: int, measured: Measured) -> None:
    """Start the bare interpreter, the program on an empty node and the program once more, in turn.

    And once more on an empty node, for what comes after the node is configured: the watch, for example.
    """

    def until_asleep() -> float:
        node = place.new_node()
        with place.start(node, Limits()) as program:
            return program.cpu_until_asleep(node.ready)

    names = (
        (table.BARE_CPU, table.BARE_WALL),
        (table.CPU, table.WALL),
        (table.BARE_CPU, table.BARE_WALL),
        (table.RESTART_CPU, table.RESTART_WALL),
    )
    if count > 1:
        one_round(place, Limits())  # only warms the page cache
    for _ in range(count):
        for (cpu, wall), usage in zip(names, one_round(place, Limits()), strict=True):
            add(measured, cpu, usage.cpu)
            add(measured, wall, usage.wall)
        add(measured, table.WHOLE_CPU, unless_spoilt(until_asleep))


def add_slow_starts(place: Place, count: int, measured: Measured) -> None:
    """Do the same under the limits of upstream's manifests; of interest is how long it takes."""
    names = (table.BARE_SLOW, table.SLOW, table.BARE_SLOW, table.RESTART_SLOW)
    for _ in range(count):
        for name, usage in zip(names, one_round(place, SLOW), strict=True):
            add(measured, name, usage.wall)


def one_round(place: Place, limits: Limits) -> tuple[Usage, ...]:
    """Return what the bare interpreter, the empty node, the bare interpreter and the restart took."""

    def bare() -> Usage:
        with place.start_bare(node, limits, PASS) as started:
            return started.usage_until_end()

    def configuring() -> Usage:
        with place.start(node, limits) as started:
            return started.usage_until_ready(node.ready)

    def on_an_empty_node() -> Usage:
        nonlocal node
        node = place.new_node()
        return configuring()

    node = place.new_node()
    return tuple(unless_spoilt(start) for start in (bare, on_an_empty_node, bare, configuring))


def add_peaks(place: Place, count: int, measured: Measured) -> None:
    """Add what a group of 50 MiB is charged until the node is configured and the program asleep.

    With as little as possible in the page cache before, as on a node that has just booted: a page that is there
    already is charged to whoever had it read.
    """
    bare_names = (table.BARE_PEAK, table.BARE_PEAK_OWN, table.BARE_PEAK_CACHE)
    names = (table.PEAK, table.PEAK_OWN, table.PEAK_CACHE, table.HITS)

    def bare() -> Sequence[float]:
        node = place.new_node()
        with place.start_bare(node, SMALL, WAITING, cold=True) as started:
            return started.charged(node.ready)

    def configuring() -> Sequence[float]:
        node = place.new_node()
        with place.start(node, SMALL, cold=True) as started:
            return started.charged(node.ready)

    for _ in range(count):
        for row_names, found in ((bare_names, unless_spoilt(bare)), (names, unless_spoilt(configuring))):
            for name, sample in zip(row_names, found, strict=False):
                add(measured, name, sample)


def add_memory_and_exits(place: Place, count: int, measured: Measured) -> None:
    """Add what an interpreter and the program hold while they sleep, and how long the program takes to end then."""
    node = place.new_node()

    def bare() -> Memory:
        with place.start_bare(node, place.limits, WAITING) as started:
            started.wait_ready(node.ready)
            wait_until_asleep(started.pid)
            return memory(started.pid)

    def program() -> tuple[Memory, float]:
        with place.start(node, place.limits) as started:
            started.wait_ready(node.ready)
            wait_until_asleep(started.pid)
            return memory(started.pid), started.exit_time()

    def bare_end() -> float:
        with place.start_bare(node, place.limits, WATCHING + WAITING) as started:
            started.wait_ready(node.ready)
            wait_until_asleep(started.pid)
            return started.kill_time()

    for each in range(count):
        if each % 3 == 0:  # in turn, yet not as often: only what the program does is aimed at
            add(measured, table.BARE_EXIT, unless_spoilt(bare_end))
            held = unless_spoilt(bare)
            add(measured, table.BARE_RESIDENT, held.resident)
            add(measured, table.BARE_PROPORTIONAL, held.proportional)
        held, took = unless_spoilt(program)
        add(measured, table.RESIDENT, held.resident)
        add(measured, table.PROPORTIONAL, held.proportional)
        add(measured, table.EXIT, took)


# ---- what happens once the node is configured ----


@contextlib.contextmanager
def asleep(place: Place) -> Iterator[tuple[Node, Started]]:
    """Configure a node and yield it with the program that sleeps on it."""
    node = place.new_node()
    with place.start(node, place.limits) as program:
        program.wait_ready(node.ready)
        wait_until_asleep(program.pid)
        yield node, program
        program.check()


def idleness(places: Sequence[Place], seconds: float) -> dict[str, Measured]:
    """Count what the program does in each place while nothing happens to its node; in all places at once."""
    with contextlib.ExitStack() as stack:
        programs = {place.name: stack.enter_context(asleep(place))[1] for place in places}
        for program in programs.values():
            wait_until_asleep(program.pid)  # making the nodes was an event to the others
        before = {name: activity(program.pid) for name, program in programs.items()}
        time.sleep(seconds)
        after = {name: activity(program.pid) for name, program in programs.items()}
    return {
        name: {
            table.SWITCHES.format(f"{seconds:g}"): [after[name].switches - before[name].switches],
            table.IDLE_CPU.format(f"{seconds:g}"): [after[name].cpu - before[name].cpu],
        }
        for name in programs
    }


def reactions(place: Place, count: int) -> Measured:
    """Return the milliseconds from each kind of change to its result.

    Each time with a new process, because one makes no more than five writes of a file in five seconds.
    """
    measured: Measured = {}
    for sample in range(count):
        with asleep(place) as (node, _):
            for name, took in one_of_each(node, f"sample-{sample}-", place.between).items():
                add(measured, name, took)
    return measured


def one_of_each(node: Node, mark: str, between: float) -> dict[str, float]:
    """Make each kind of change once, with a `mark` never used before; return the milliseconds that each took."""
    earlier = node.conf_dir / "05-earlier.conflist"

    def reaction(change: Callable[[], object], seen: Callable[[], bool]) -> float:
        time.sleep(between)
        started = time.perf_counter()
        change()
        return wait_for(seen, started) * 1e3

    def appear(path: Path, name: str) -> float:
        prepared = node.prepare_master(name)
        return reaction(lambda: prepared.rename(path), lambda: node.wraps(name))

    link = node.next_token(mark)
    took = {
        table.TOKEN: reaction(lambda: node.rotate(link), lambda: mark.encode() in content(node.kubeconfig)),
        table.CHANGED: appear(node.master, mark),
        table.FIRST: appear(earlier, f"{mark}earlier"),
    }
    reaction(earlier.unlink, lambda: node.wraps(mark))
    took[table.REMOVED] = reaction(node.master.unlink, lambda: not node.output.exists())
    return took


if __name__ == "__main__":
    main()
