"""Choosing the master: which file of the autoconfig directory is the default network's configuration. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import NamedTuple

from entrypoint.cni.document import META_PLUGINS, RETIRED_SUFFIX, Master, Multus, NoFile, Unread
from entrypoint.node import renaming
from entrypoint.node.values import Candidate, Memory, Seen
from entrypoint.settings import Settings

GRACE = 5.0
"""Seconds for which an unusable candidate is taken for a file that is still being written."""


class Choice(NamedTuple):
    """The outcome of looking for a master."""

    master: Master | None = None
    name: str = ""
    live: bool = False
    """It stands under its own name, not under NAME.old."""
    settled_at: float | None = None
    """An earlier candidate is being written: choose again then (monotonic seconds)."""
    unread: str | None = None
    """Why an earlier candidate could not be read: nothing can be chosen."""
    refused: tuple[str, ...] = ()
    """One line for each file that was passed over."""
    skipped: tuple[str, ...] = ()
    """Those of them that an operator should hear of even though another file was chosen."""


def choose(settings: Settings, seen: Seen, memory: Memory) -> Choice:
    """Return the first usable candidate in byte order.

    With `--rename-conf-file`, the master that was renamed stays the master against the live files that stood beside
    it at the time: CRI-O brings some of its own, and each pass would rename one more. A live file that is new since,
    or whose content is, written by the master's owner or for another network, takes its place. Other files NAME.old,
    perhaps an operator's copies, count only when there is nothing else.

    A broken file gets its grace before a later one is taken, though not beyond the end of `--wait-timeout`.
    """
    in_time = memory.configured or seen.now < give_up_at(settings, memory)
    broken_since = seen.now - (GRACE if in_time else 0.0)
    record = renaming.recall(seen, memory)
    masters = renaming.masters(seen, record)
    news: list[Candidate] = []
    bystanders: list[Candidate] = []
    for candidate in seen.candidates:
        (bystanders if renaming.stood_beside(seen, record, candidate) else news).append(candidate)
    others = [candidate for candidate in seen.retired if candidate not in masters]
    groups = [(news, True), (masters, False), (bystanders, True), (others, False)]
    in_order = [(candidate, live) for group, live in groups for candidate in group]
    return _first_usable(settings, in_order, broken_since)


def no_network(settings: Settings, name: str, master: Master) -> str | None:
    """Say why a usable configuration is never the master unless it is named; None when it may be.

    A node's `200-loopback`, `YYY-istio-cni` and `87-podman-bridge` were wrapped before the real network came (upstream
    issues 1499 and 1237, rke2 10360).
    """
    if name in settings.master_names:
        return None
    if any(fnmatch.fnmatchcase(name, glob) for glob in settings.master_exclude):
        return "is left out (--multus-master-cni-exclude)"
    if master.first_plugin in META_PLUGINS:
        return f"is no network by itself: {master.first_plugin!r} only changes what another plugin made"
    return None


def _first_usable(settings: Settings, candidates: Sequence[tuple[Candidate, bool]], broken_since: float) -> Choice:
    """Return the first usable candidate, each given with whether it is live.

    One that broke after `broken_since` is taken for being written.
    """
    refused: list[str] = []
    skipped: list[str] = []
    for candidate, live in candidates:
        name = candidate.name if live else candidate.name + RETIRED_SUFFIX
        verdict = candidate.verdict
        if isinstance(verdict, Master):
            if why := no_network(settings, candidate.name, verdict):
                refused.append(f"{name!r} {why}")
                continue
            return Choice(verdict, candidate.name, live, refused=tuple(refused), skipped=tuple(skipped))
        if isinstance(verdict, Unread):
            return Choice(unread=f"{name!r} {verdict.reason}", refused=tuple(refused), skipped=tuple(skipped))
        if isinstance(verdict, Multus):
            refused.append(f"{name!r} is itself a Multus configuration")
            continue
        if isinstance(verdict, NoFile):
            refused.append(f"{name!r} {verdict.reason}")
            if verdict.link:
                skipped.append(f"skipping {name!r}: it {verdict.reason} in this container, though perhaps on the host")
            continue
        if candidate.since > broken_since:
            refused.append(f"{name!r} may still be being written: {verdict.reason}")
            settled_at = candidate.since + GRACE
            return Choice(live=live, settled_at=settled_at, refused=tuple(refused), skipped=tuple(skipped))
        refused.append(f"{name!r} is unusable: {verdict.reason}")
        skipped.append(f"skipping the unusable {name!r}: {verdict.reason}")
    return Choice(refused=tuple(refused), skipped=tuple(skipped))


def give_up_at(settings: Settings, memory: Memory) -> float:
    """Return when to stop waiting for a first master, in monotonic seconds."""
    return memory.started + settings.wait_timeout
