"""What the entrypoint costs a node, as figures and as ratios to a bare Python interpreter.

Both are started from the same virtual environment, in turn, so that the noise of the machine hits both alike; on this
host, and in the container as the DaemonSet runs it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from node import PROGRAM, activity, content, machine, make_binary, memory, wait_for, wait_until_asleep
from places import PASS, WAITING, Container, Host, Limits, Usage, unless_spoilt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from node import Node
    from places import Started

    Place = Host | Container
    Measured = dict[str, list[float]]  # the samples of each row, by its name; one that could not be measured is missing

SLOW = Limits(cpus=0.1, memory=50 << 20)
"""What upstream's own manifests set."""
BETWEEN = 0.02
"""Seconds between two changes, so that the program is asleep when the next one comes."""


class Effort(NamedTuple):
    """How much to measure in each place."""

    starts: int
    slow_starts: int
    """Under a tenth of a CPU, of which each takes a second or two."""
    samples: int
    """Of each change to the node, and of the end."""
    idle: float
    """Seconds."""


FULL = Effort(starts=12, slow_starts=7, samples=50, idle=60)
QUICK = Effort(starts=1, slow_starts=1, samples=2, idle=2)

# ---- the table ----

BARE_CPU = "bare interpreter: CPU"
BARE_WALL = "bare interpreter: wall time"
BARE_SLOW = "bare interpreter: upstream's limits"
BARE_RESIDENT = "bare interpreter: resident memory"
CPU = "empty node: CPU to configured"
WALL = "empty node: wall time"
RESTART_CPU = "restart: CPU to configured"
RESTART_WALL = "restart: wall time"
SLOW_WALL = "empty node, upstream's limits: wall"
RESTART_SLOW = "restart, upstream's limits: wall"
RESIDENT = "asleep: resident memory"
SWITCHES = "idle: context switches"
IDLE_CPU = "idle: CPU"
TOKEN = "token rotated, new kubeconfig"
CHANGED = "master changed, new configuration"
REMOVED = "master removed, none left"
FIRST = "new first candidate, switched"
EXIT = "SIGTERM, process ended"


class Row(NamedTuple):
    """One line of the table: its unit, the row that it is divided by, and what is asked for."""

    unit: str
    bare: str | None
    median_below: float | None = None
    p99_below: float | None = None
    most: float | None = None

    @property
    def aim(self) -> str:
        """Say what is asked for."""
        if self.most is not None:
            return f"<= {self.most:g} {self.unit}".rstrip()
        both = [f"{limit:g}" for limit in (self.median_below, self.p99_below) if limit is not None]
        return f"< {', '.join(both)} {self.unit}" if both else ""


ROWS = {
    BARE_CPU: Row("ms", BARE_CPU),
    BARE_WALL: Row("ms", BARE_WALL),
    BARE_SLOW: Row("ms", BARE_SLOW),
    BARE_RESIDENT: Row("MiB", BARE_RESIDENT),
    CPU: Row("ms", BARE_CPU),
    WALL: Row("ms", BARE_WALL, median_below=300),
    RESTART_CPU: Row("ms", BARE_CPU),
    RESTART_WALL: Row("ms", BARE_WALL, median_below=250),
    SLOW_WALL: Row("ms", BARE_SLOW, median_below=2500),
    RESTART_SLOW: Row("ms", BARE_SLOW, median_below=2500),
    RESIDENT: Row("MiB", BARE_RESIDENT, median_below=28),
    SWITCHES: Row("", None, most=0),
    IDLE_CPU: Row("ms", None, most=1),
    **dict.fromkeys((TOKEN, CHANGED, REMOVED, FIRST), Row("ms", BARE_WALL, median_below=5, p99_below=25)),
    EXIT: Row("ms", BARE_WALL, median_below=50),
}


class Figures(NamedTuple):
    """What was found in one place."""

    median: float
    p99: float
    samples: int
    ratio: float | None
    met: bool | None


def figures(name: str, measured: Measured) -> Figures | None:
    """Return what a row shows of what was measured in one place; None when it was not measured there."""
    row, samples = ROWS[name], measured.get(name)
    if not samples:
        return None
    median = statistics.median(samples)
    p99 = statistics.quantiles(samples, n=100, method="inclusive")[98] if len(samples) > 1 else median
    bare = statistics.median(measured[row.bare]) if row.bare else 0
    verdicts = [
        *([median < row.median_below] if row.median_below is not None else []),
        *([p99 < row.p99_below] if row.p99_below is not None else []),
        *([max(samples) <= row.most] if row.most is not None else []),
    ]
    return Figures(median, p99, len(samples), median / bare if bare else None, all(verdicts) if verdicts else None)


def lines(found: dict[str, Measured]) -> Iterator[str]:
    """Yield the lines of the table: a block of columns for each place, then the aim and whether it was met there."""
    yield f"{'':37}{''.join(f' {place:-^31}' for place in found)}".rstrip()
    titles = f" {'median':>8}{'99th %':>9}{'x bare':>8}{'n':>6}" * len(found)
    yield f"{'':37}{titles}      aim         {'  '.join(f'{place:9}' for place in found)}".rstrip()
    for name, row in ROWS.items():
        each = [figures(name, measured) for measured in found.values()]
        numbers, verdicts = "", []
        for one in each:
            verdicts.append("" if one is None or one.met is None else "met" if one.met else "MISSED")
            if one is None:
                numbers += f" {'-':>8}{'':23}"
                continue
            ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
            numbers += f" {one.median:8.2f}{one.p99:9.2f}{ratio:>8}{one.samples:6}"
        yield f"{name:37}{numbers} {row.unit:4} {row.aim:11} {'  '.join(f'{each:9}' for each in verdicts)}".rstrip()


# ---- measuring ----


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
    print(f"{machine()}; binary of 64 MiB; idle for {effort.idle:g} s; ratios to `python -c pass`\n")
    print("\n".join([*lines(found), *(f"\n{each}" for each in left_out)]))
    if options.json:
        rows = {
            name: {
                place: {**one._asdict(), "all": measured[name]}
                for place, measured in found.items()
                if (one := figures(name, measured)) is not None
            }
            for name in ROWS
        }
        document = {"machine": machine(), "effort": effort._asdict(), "left out": left_out, "rows": rows}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def find_places(scratch: Path, only: str | None, image: str | None) -> tuple[list[Place], list[str]]:
    """Return the places to measure in, and what of the table is left out and why."""
    places: list[Place] = []
    left_out = [] if only is None else [f"Left out, all but the {only}: --only={only}."]
    if only != "container":
        places.append(Host(scratch, make_binary(scratch / "multus")))
    if only != "host":
        container = Container(scratch, image)
        if container.obstacle:
            left_out.append(f"Left out, the container: {container.obstacle}.")
        else:
            places.append(container)
    return places, left_out


def measure(place: Place, effort: Effort) -> Measured:
    """Return the samples of all rows but those about idleness."""
    measured: Measured = {}

    def add(name: str, sample: float) -> None:
        measured.setdefault(name, []).append(sample)

    if effort.starts > 1:
        one_round(place, Limits())  # only warms the page cache
    for _ in range(effort.starts):
        names = ((BARE_CPU, BARE_WALL), (CPU, WALL), (BARE_CPU, BARE_WALL), (RESTART_CPU, RESTART_WALL))
        for (cpu, wall), usage in zip(names, one_round(place, Limits()), strict=True):
            add(cpu, usage.cpu)
            add(wall, usage.wall)
    if place.can_limit:
        for _ in range(effort.slow_starts):
            slow_names = (BARE_SLOW, SLOW_WALL, BARE_SLOW, RESTART_SLOW)
            for name, usage in zip(slow_names, one_round(place, SLOW), strict=True):
                add(name, usage.wall)
    for sample in range(effort.samples):
        if sample % 3 == 0:  # in turn, yet not as often: only what the program does is aimed at
            add(BARE_RESIDENT, unless_spoilt(lambda: held(place, WAITING)))
        for name, took in unless_spoilt(lambda each=sample: one_of_each(place, f"sample-{each}-")).items():
            add(name, took)
    return measured


def one_round(place: Place, limits: Limits) -> tuple[Usage, ...]:
    """Return what the bare interpreter, the empty node, the bare interpreter and the restart took."""

    def bare() -> Usage:
        with place.start(node, limits, PASS) as started:
            return started.usage()

    def configuring() -> Usage:
        with place.start(node, limits) as started:
            return started.usage(node.ready)

    def on_an_empty_node() -> Usage:
        nonlocal node
        node = place.new_node()
        return configuring()

    node = place.new_node()
    return tuple(unless_spoilt(start) for start in (bare, on_an_empty_node, bare, configuring))


def held(place: Place, bare: str) -> float:
    """Return the MiB that an interpreter holds while it sleeps."""
    with asleep(place, bare) as (_, started):
        return memory(started.pid)


@contextlib.contextmanager
def asleep(place: Place, bare: str | None = None) -> Iterator[tuple[Node, Started]]:
    """Configure a node and yield it with the program that sleeps on it."""
    node = place.new_node()
    with place.start(node, place.limits, bare) as started:
        started.wait_ready(node.ready)
        wait_until_asleep(started.pid)
        yield node, started


def idleness(places: Sequence[Place], seconds: float) -> dict[str, Measured]:
    """Count what the program does in each place while nothing happens to its node; in all places at once."""
    with contextlib.ExitStack() as stack:
        pids = {place.name: stack.enter_context(asleep(place))[1].pid for place in places}
        for pid in pids.values():
            wait_until_asleep(pid)  # making the nodes was an event to the others
        before = {name: activity(pid) for name, pid in pids.items()}
        time.sleep(seconds)
        after = {name: activity(pid) for name, pid in pids.items()}
    return {
        name: {
            SWITCHES: [after[name].switches - before[name].switches],
            IDLE_CPU: [after[name].cpu - before[name].cpu],
        }
        for name in pids
    }


def one_of_each(place: Place, mark: str) -> dict[str, float]:
    """Make each kind of change once, with a `mark` never used before, and end; return the milliseconds of each.

    With a new process, because one makes no more than five writes of a file in five seconds. What it holds is looked at
    before.
    """
    with asleep(place) as (node, started):
        resident = memory(started.pid)
        earlier = node.conf_dir / "05-earlier.conflist"

        def reaction(change: Callable[[], object], seen: Callable[[], bool]) -> float:
            time.sleep(BETWEEN)
            before = time.perf_counter()
            change()
            return wait_for(seen, before)

        def appear(path: Path, name: str) -> float:
            prepared = node.prepare_master(name)
            return reaction(lambda: prepared.rename(path), lambda: node.wraps(name))

        link = node.next_token(mark)
        took = {
            TOKEN: reaction(lambda: node.rotate(link), lambda: mark.encode() in content(node.kubeconfig)),
            CHANGED: appear(node.master, mark),
            FIRST: appear(earlier, f"{mark}earlier"),
        }
        reaction(earlier.unlink, lambda: node.wraps(mark))
        took[REMOVED] = reaction(node.master.unlink, lambda: not node.output.exists())
        wait_until_asleep(started.pid)
        started.check()
        return {**took, RESIDENT: resident, EXIT: started.exit_time()}


if __name__ == "__main__":
    main()
