"""Looking at the files that may be the master: each is read once for each state of it."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import NamedTuple

from entrypoint.cni import runtime
from entrypoint.cni.document import RETIRED_SUFFIX, NoFile, Unread, Unusable, Verdict, examine
from entrypoint.disk.looks import NO_FILE, Absent, File, Signature, read, reason, signature
from entrypoint.node.values import Candidate
from entrypoint.settings import Settings

_CLOCK_TICK = 100_000_000
"""Nanoseconds within which two changes of a file may carry one timestamp: kernels before 6.13 tick every 1 to 10 ms."""


class _Known(NamedTuple):
    """What is remembered of a candidate, so that an unchanged file is neither read nor dated again."""

    signature: Signature
    settled: bool
    """The file had not just been changed when it was read: another change would have changed its signature."""
    content: str | None
    """Digest of the content, or why it could not be read: a file that is merely touched is no newer than before."""
    candidate: Candidate


def _examined(name: str, path: str, before: _Known | None, now: float, *, any_version: bool) -> _Known:
    look = read(path)
    digest = None if isinstance(look, Absent) else hashlib.sha256(look.content).hexdigest()
    content = look.why if isinstance(look, Absent) else digest
    if before is not None and before.content == content:
        return before
    verdict: Verdict
    if isinstance(look, File):
        verdict = examine(look.content, name, any_version=any_version)
    else:
        verdict = Unread(look.why) if look.failed else Unusable(look.why)
    return _Known((), settled=False, content=content, candidate=Candidate(name, verdict, now, digest))


class Candidates:
    """The candidates of the autoconfig directory, with what was learned of them in earlier looks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, _Known] = {}

    def look(self, entries: list[os.DirEntry[str]], now: float) -> tuple[list[Candidate], list[Candidate]]:
        """Return the candidates among the entries of the autoconfig directory, and the renamed masters."""
        wanted, suffix = self._settings.names_master, RETIRED_SUFFIX
        live = {entry.name: entry for entry in entries if wanted(entry.name)}
        retired = [entry for entry in entries if entry.name.endswith(suffix)] if self._settings.rename_master else []
        old = {name: entry for entry in retired if wanted(name := entry.name.removesuffix(suffix))}
        known = self._known
        self._known = {}
        return (
            [found for name in runtime.in_byte_order(live) if (found := self._candidate(name, live[name], known, now))],
            [found for name in runtime.in_byte_order(old) if (found := self._candidate(name, old[name], known, now))],
        )

    def _candidate(self, name: str, entry: os.DirEntry[str], known: dict[str, _Known], now: float) -> Candidate | None:
        try:
            link = entry.stat(follow_symlinks=False)
            status = os.stat(entry.path) if stat.S_ISLNK(link.st_mode) else link
        except OSError as error:
            if error.errno not in NO_FILE:
                return Candidate(name, Unread(reason(error)), now)
            if not os.path.islink(entry.path):
                return None  # gone again
            return Candidate(name, NoFile(f"is a link to what {reason(error)}", link=True), now)
        if not stat.S_ISREG(status.st_mode):
            return Candidate(name, NoFile("is not a regular file"), now)
        current = signature(status)
        before = known.get(entry.name)
        if before is None or before.signature != current or not before.settled:
            settled = time.time_ns() - status.st_ctime_ns > _CLOCK_TICK
            known_now = _examined(name, entry.path, before, now, any_version=self._settings.takes_any_version)
            if isinstance(known_now.candidate.verdict, Unread):
                return known_now.candidate  # and not remembered: the next look tries again
            before = known_now._replace(signature=current, settled=settled)
        self._known[entry.name] = before
        return before.candidate
