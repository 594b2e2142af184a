"""Whether pods are in the way of `uninstall`: those with further networks; and waiting for them to go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from entrypoint.disk.wakeup import Wakeup
from entrypoint.disk.watch import Watcher
from entrypoint.uninstall import records
from entrypoint.uninstall.access import Access
from entrypoint.uninstall.records import Attached, Found

_INTERVAL = 30.0
"""Seconds after which it is said again what is waited for."""
_UNWATCHED_INTERVAL = 2.0
"""Seconds between looks where nothing can be watched, or the last look failed."""
_NAMED = 20
"""How many pods are named in one message."""


def clear(data_dir: Path, access: Access, *, force: bool, wait: bool, say: Callable[[str], None]) -> bool:
    """Say whether no pod is in the way; with `wait`, wait until none is, and let new pods start meanwhile."""
    try:
        found = records.look(data_dir)
    except OSError as error:
        say(
            f"cannot look for pods that Multus has attached: --multus-data-dir={data_dir}: {error.strerror}; "
            "is the hostPath volume mounted there?"
        )
        return True
    if wait and not force:
        found = _wait(data_dir, access, found, say)
    if found.left_over:
        number = f"{found.left_over} record{'s' if found.left_over > 1 else ''}"
        say(f"passed over in {data_dir}, left over from pods that are no more: {number}")
    if not found.attached:
        return True
    if force:
        say(f"going on (--force); the addresses of these pods' networks stay reserved: {_named(found.attached)}")
    else:
        say(f"refused: {_in_the_way(found.attached)}")
    return force


def _wait(data_dir: Path, access: Access, found: Found, say: Callable[[str], None]) -> Found:
    """Wait until no pod is in the way, and say now and then which ones are."""
    wakeup = Wakeup()
    watcher = Watcher(wakeup)
    say_at = time.monotonic()
    while found.attached:
        if time.monotonic() >= say_at:
            say(f"waiting: {_in_the_way(found.attached)}")
            say_at = time.monotonic() + _INTERVAL
        wakeup.clear()  # clear, then watch, then look: nothing is missed between
        look_at = say_at
        try:
            watcher.follow(access.files(), (*_listings(data_dir), *access.listings()))
        except (OSError, RuntimeError):  # no inotify watch or thread left on this node
            look_at = time.monotonic() + _UNWATCHED_INTERVAL
        access.keep()
        try:
            found = records.look(data_dir)
        except OSError:  # a look that failed is no news
            look_at = time.monotonic() + _UNWATCHED_INTERVAL
        if found.attached:
            wakeup.wait(until=min(look_at, say_at))
    watcher.stop()
    return found


def _listings(data_dir: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield the directories in which whatever comes and goes is a reason to look again."""
    for directory in (data_dir, *records.namespace_directories(data_dir)):
        yield directory, ("",)


def _in_the_way(pods: Sequence[Attached]) -> str:
    """Say what keeps `uninstall` from going on, and what to do about it."""
    one = "1 pod of this node has networks beside its"
    number = one if len(pods) == 1 else f"{len(pods)} pods of this node have networks beside their"
    return (
        f"{number} default network: {_named(pods)}. Once the "
        "configuration is gone nobody gives the addresses of these networks back: delete these pods, or drain the "
        "node; with --force it goes on and the addresses stay reserved"
    )


def _named(pods: Iterable[Attached]) -> str:
    names = [str(pod) for pod in pods]
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
