"""The table: which rows there are, what each is compared with, what is aimed at, and how it is printed."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Measured = dict[str, list[float]]
"""The samples of each row, by the row's name; a row that could not be measured is not there."""

BARE_CPU = "bare interpreter: CPU"
BARE_WALL = "bare interpreter: wall time"
BARE_SLOW = "bare interpreter: upstream's limits"
BARE_RESIDENT = "bare interpreter: resident memory"
BARE_PROPORTIONAL = "bare interpreter: proportional"
BARE_PEAK = "bare interpreter, 50 MiB: peak"
BARE_PEAK_OWN = "bare interpreter, 50 MiB: its own"
BARE_PEAK_CACHE = "bare interpreter, 50 MiB: page cache"
BARE_EXIT = "bare interpreter, 10 watches: killed"
CPU = "empty node: CPU to configured"
WALL = "empty node: wall time"
WHOLE_CPU = "empty node: CPU until asleep"
RESTART_CPU = "restart: CPU to configured"
RESTART_WALL = "restart: wall time"
SLOW = "empty node, upstream's limits: wall"
RESTART_SLOW = "restart, upstream's limits: wall"
RESIDENT = "asleep: resident memory"
PROPORTIONAL = "asleep: proportional memory"
PEAK = "empty node, 50 MiB: peak"
PEAK_OWN = "empty node, 50 MiB: its own"
PEAK_CACHE = "empty node, 50 MiB: page cache"
HITS = "empty node, 50 MiB: limit hit"
SWITCHES = "idle for {} s: context switches"
IDLE_CPU = "idle for {} s: CPU"
TOKEN = "token rotated, new kubeconfig"
CHANGED = "master changed, new configuration"
REMOVED = "master removed, none left"
FIRST = "new first candidate, switched"
EXIT = "SIGTERM, process ended"


class Aim(NamedTuple):
    """What is asked for: whatever is not None."""

    text: str = ""
    ratio_at_most: float | None = None
    median_below: float | None = None
    p99_below: float | None = None
    most: float | None = None


REACTION = Aim("< 5, 25 ms", median_below=5, p99_below=25)


class Row(NamedTuple):
    """One line of the table."""

    name: str
    unit: str
    bare: str | None
    """The row that it is divided by."""
    aim: Aim = Aim()


class Figures(NamedTuple):
    """What was found in one place."""

    median: float
    p99: float | None
    """None for a single sample, which is then judged for it."""
    samples: int
    ratio: float | None
    met: bool | None


def rows(idle: float) -> list[Row]:
    """Return the rows, for so many seconds of idleness: what was not watched for a minute is not judged."""
    minute = idle >= 60
    seconds = f"{idle:g}"
    return [
        Row(BARE_CPU, "ms", BARE_CPU),
        Row(BARE_WALL, "ms", BARE_WALL),
        Row(BARE_SLOW, "ms", BARE_SLOW),
        Row(BARE_RESIDENT, "MiB", BARE_RESIDENT),
        Row(BARE_PROPORTIONAL, "MiB", BARE_PROPORTIONAL),
        Row(BARE_PEAK, "MiB", BARE_PEAK),
        Row(BARE_PEAK_OWN, "MiB", BARE_PEAK_OWN),
        Row(BARE_PEAK_CACHE, "MiB", None),
        Row(BARE_EXIT, "ms", BARE_WALL),
        Row(CPU, "ms", BARE_CPU),
        Row(WALL, "ms", BARE_WALL, Aim("< 300 ms", median_below=300)),
        Row(WHOLE_CPU, "ms", BARE_CPU),
        Row(RESTART_CPU, "ms", BARE_CPU),
        Row(RESTART_WALL, "ms", BARE_WALL, Aim("< 250 ms", median_below=250)),
        Row(SLOW, "ms", BARE_SLOW, Aim("< 2500 ms", median_below=2500)),
        Row(RESTART_SLOW, "ms", BARE_SLOW, Aim("< 2500 ms", median_below=2500)),
        Row(RESIDENT, "MiB", BARE_RESIDENT, Aim("< 28 MiB", median_below=28)),
        Row(PROPORTIONAL, "MiB", BARE_PROPORTIONAL),
        Row(PEAK, "MiB", BARE_PEAK),
        Row(PEAK_OWN, "MiB", BARE_PEAK_OWN),
        Row(PEAK_CACHE, "MiB", None),
        Row(HITS, "x", None, Aim("never", most=0)),
        Row(SWITCHES.format(seconds), "", None, Aim("none", most=0) if minute else Aim("not judged")),
        Row(IDLE_CPU.format(seconds), "ms", None, Aim("< 1 ms", most=1) if minute else Aim("not judged")),
        Row(TOKEN, "ms", BARE_WALL, REACTION),
        Row(CHANGED, "ms", BARE_WALL, REACTION),
        Row(REMOVED, "ms", BARE_WALL, REACTION),
        Row(FIRST, "ms", BARE_WALL, REACTION),
        Row(EXIT, "ms", BARE_WALL, Aim("< 50 ms", median_below=50)),
    ]


def figures(row: Row, measured: Measured) -> Figures | None:
    """Return what a row shows of what was measured in one place; None when it was not measured there."""
    samples = measured.get(row.name)
    if not samples:
        return None
    median = statistics.median(samples)
    p99 = statistics.quantiles(samples, n=100, method="inclusive")[98] if len(samples) > 1 else None
    bare = statistics.median(measured[row.bare]) if row.bare else 0
    ratio = median / bare if bare else None
    return Figures(median, p99, len(samples), ratio, _met(row.aim, samples, median, p99, ratio))


def _met(aim: Aim, samples: Sequence[float], median: float, p99: float | None, ratio: float | None) -> bool | None:
    tests = [
        (aim.ratio_at_most, lambda most: ratio is not None and ratio <= most),
        (aim.median_below, lambda most: median < most),
        (aim.p99_below, lambda most: (median if p99 is None else p99) < most),
        (aim.most, lambda most: max(samples) <= most),
    ]
    verdicts = [test(limit) for limit, test in tests if limit is not None]
    return all(verdicts) if verdicts else None


def lines(table: Sequence[Row], found: Mapping[str, Measured]) -> Iterator[str]:
    """Yield the lines of the table: a block of columns for each place, then the aim and whether it was met there."""
    head, titles = f"{'':37}", f"{'':37}"
    for place in found:
        head += f" {place:-^31}"
        titles += f" {'median':>8}{'99th %':>9}{'x bare':>8}{'n':>6}"
    yield head.rstrip()
    yield f"{titles}      aim         {'  '.join(f'{place:9}' for place in found)}".rstrip()
    for row in table:
        line, verdicts = f"{row.name:37}", []
        for measured in found.values():
            each = figures(row, measured)
            if each is None:
                line += f" {'-':>8}{'':>9}{'':>8}{'':>6}"
                verdicts.append("")
                continue
            p99 = "" if each.p99 is None else f"{each.p99:.2f}"
            ratio = "" if each.ratio is None else f"{each.ratio:.2f}"
            line += f" {each.median:8.2f}{p99:>9}{ratio:>8}{each.samples:6}"
            verdicts.append("" if each.met is None else "met" if each.met else "MISSED")
        yield f"{line} {row.unit:4} {row.aim.text:11} {'  '.join(f'{verdict:9}' for verdict in verdicts)}".rstrip()
