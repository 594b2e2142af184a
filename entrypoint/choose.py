"""Choosing the master: which file of the autoconfig directory is the default network's configuration. Pure."""

# No `from __future__ import annotations` here: NamedTuple would compile each annotation again at every start.

from collections.abc import Sequence
from typing import NamedTuple

from entrypoint.cniconf import Master, Multus, NoFile, without_version, wrapped_master
from entrypoint.node import Candidate, File, Memory, Seen
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
    refused: tuple[str, ...] = ()
    """One line for each file that was passed over."""
    skipped: tuple[str, ...] = ()
    """Those of them that an operator should hear of even though another file was chosen."""


def choose(settings: Settings, seen: Seen, memory: Memory) -> Choice:
    """Return the first usable candidate in byte order; with `--rename-conf-file` a renamed one if none is live.

    A broken file gets its grace before a later one is taken, though not beyond the end of `--wait-timeout`.
    """
    in_time = memory.configured or seen.now < give_up_at(settings, memory)
    patience = GRACE if in_time else 0.0
    choice = _first_usable(seen.candidates, seen.now - patience, live=True)
    if choice.master is not None or choice.settled_at is not None or not seen.retired:
        return choice
    retired = _first_usable(_most_likely_first(seen, memory), seen.now - patience, live=False)
    return retired._replace(refused=(*choice.refused, *retired.refused), skipped=(*choice.skipped, *retired.skipped))


def _first_usable(candidates: Sequence[Candidate], broken_since: float, *, live: bool) -> Choice:
    """Return the first usable candidate; one that broke after `broken_since` is taken for being written."""
    refused: list[str] = []
    skipped: list[str] = []
    for candidate in candidates:
        name = candidate.name if live else f"{candidate.name}.old"
        verdict = candidate.verdict
        if isinstance(verdict, Master):
            return Choice(verdict, candidate.name, live, None, tuple(refused), tuple(skipped))
        if isinstance(verdict, Multus):
            refused.append(f"{name!r} is itself a Multus configuration")
            continue
        if isinstance(verdict, NoFile):
            refused.append(f"{name!r} {verdict.reason}")
            continue
        if candidate.since > broken_since:
            refused.append(f"{name!r} may still be being written: {verdict.reason}")
            return Choice(None, "", live, candidate.since + GRACE, tuple(refused), tuple(skipped))
        refused.append(f"{name!r} is unusable: {verdict.reason}")
        skipped.append(f"skipping the unusable {name!r}: {verdict.reason}")
    return Choice(refused=tuple(refused), skipped=tuple(skipped))


def _most_likely_first(seen: Seen, memory: Memory) -> list[Candidate]:
    """Order the renamed masters: the wrapped one first, because an operator's own copies end in .old too."""
    wrapped = [wrapped_master(look.content) for look in seen.outputs.values() if isinstance(look, File)]

    def rank(candidate: Candidate) -> int:
        if memory.output is not None and memory.output.master == candidate.name:
            return 0
        verdict = candidate.verdict
        return 1 if isinstance(verdict, Master) and without_version(verdict.document) in wrapped else 2

    return sorted(seen.retired, key=rank)


def give_up_at(settings: Settings, memory: Memory) -> float:
    """Return when to stop waiting for a first master, in monotonic seconds."""
    return memory.started + settings.wait_timeout
