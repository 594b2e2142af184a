"""How much memory may still be taken before the kernel kills the container: it kills without a word.

The kubernetes client is by far the largest thing that this program ever loads, so what loads it asks here first.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60  # bytes: cgroup v1 writes a number near 2**63 for "no limit"


class Room(NamedTuple):
    """What a memory limit leaves, in bytes."""

    limit: int
    available: int
    """The limit less what is in use and cannot be taken back. May be negative."""


def room(control_groups: Path = _CONTROL_GROUPS, own_groups: Path = _OWN_GROUPS) -> Room | None:
    """Return what the tightest limit on this process leaves; None when there is no limit, or none can be seen.

    cgroup v1 and v2, with and without a cgroup namespace: the limit may be set on the group itself or on any above.
    """
    if (control_groups / "cgroup.controllers").exists():
        top, names = control_groups, ("memory.max", "memory.current", "")
    else:
        top, names = control_groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    rooms = [found for group in _groups(top, own_groups) if (found := _room_in(group, *names))]
    return min(rooms, key=lambda each: each.available, default=None)


def shortfall(need: int, found: Room | None) -> str | None:
    """Say what is lacking for `need` more bytes; None when nothing is."""
    if found is None or need <= found.available:
        return None
    return (
        f"the memory limit of {_mebibytes(found.limit)} MiB leaves {max(0, found.available >> 20)} MiB, and the "
        f"kubernetes client needs {_mebibytes(need)} MiB: set a limit of at least "
        f"{_mebibytes(found.limit + need - found.available)} MiB"
    )


def _groups(top: Path, own_groups: Path) -> list[Path]:
    """Return the directories of this process's group and of all above it, as far as they can be seen.

    Without a cgroup namespace the path is the host's, of which the container may see nothing but its own group,
    mounted at the top.
    """
    try:
        lines = own_groups.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return [top]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            below = top.joinpath(path.strip("/"))
            if ".." not in below.parts and below.is_dir() and (controllers or (top / "cgroup.controllers").exists()):
                return [below, *(parent for parent in below.parents if parent.is_relative_to(top))]
    return [top]


def _room_in(group: Path, limit_name: str, usage_name: str, prefix: str) -> Room | None:
    limit, used = _number(group / limit_name), _number(group / usage_name)
    if limit is None or used is None or limit >= _UNLIMITED:
        return None
    return Room(limit, limit - used + _reclaimable(group, prefix))


def _reclaimable(group: Path, prefix: str) -> int:
    """Return how many bytes of page cache the kernel takes back before it kills anyone.

    That is the inactive part, as kubelet counts it, and what else no process has mapped: reading the multus binary
    twice makes its 64 MiB active, which would look like a full container.
    """
    statistics = {}
    try:
        for line in (group / "memory.stat").read_text("ascii").splitlines():
            name, _, value = line.partition(" ")
            statistics[name] = int(value)
    except (OSError, ValueError):
        return 0
    inactive, active, mapped = (
        statistics.get(prefix + name, 0)
        for name in ("inactive_file", "active_file", "mapped_file" if prefix else "file_mapped")
    )
    return max(inactive, inactive + active - mapped)


def _number(path: Path) -> int | None:
    """Return the number in a file; None for `max` and for what cannot be read."""
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _mebibytes(size: int) -> int:
    """Round up: half a MiB too little is too little."""
    return -(-size >> 20)
