"""The default network's configuration (master): which file it is, and what it looks like wrapped in Multus."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from entrypoint.cni import runtime, wrap
from entrypoint.cni.document import (
    META_PLUGINS,
    RETIRED_SUFFIX,
    SUFFIXES,
    Master,
    Multus,
    NoFile,
    Unread,
    Unusable,
    Verdict,
    examine,
    is_candidate_name,
)
from entrypoint.disk.looks import NO_FILE, Absent, File, Signature, listing, read, reason, signature
from entrypoint.node import renaming
from entrypoint.node.ledger import Ledger, Put
from entrypoint.node.part import Before, Draft, Fault, Interest, LookFailedError, Wish, told
from entrypoint.node.steps import Step
from entrypoint.settings import Settings

GRACE = 5.0
"""Seconds for which an unusable candidate is taken for a file that is still being written."""
_CLOCK_TICK = 100_000_000
"""Nanoseconds within which two changes of a file may carry one timestamp: kernels before 6.13 tick every 1 to 10 ms."""


class Candidate(NamedTuple):
    """A file of the autoconfig directory that may be the master."""

    name: str
    verdict: Verdict
    since: float
    """Since when its content is what it is (monotonic seconds)."""
    broken_since: float | None = None
    """Since when it has been unusable, whatever was written meanwhile."""
    digest: str | None = None
    """SHA-256 of its content; None for what is no file, or could not be read."""


class Seen(NamedTuple):
    """The autoconfig directory."""

    now: float
    """Monotonic seconds."""
    candidates: tuple[Candidate, ...] = ()
    """In byte order of their names; with `--rename-conf-file`, those too that the flags do not name."""
    olds: Mapping[str, Candidate] = {}
    """What stands as NAME.old beside candidates, and of the renamed master; by NAME."""
    names: tuple[str, ...] | None = ()
    """All names of files in it, in byte order; None when there is no such directory."""
    patch: Mapping[str, Any] = {}
    """Merge patch for Multus's part: the last good one."""
    patch_fault: str | None = None
    """What is wrong with the present one."""


@dataclass
class Choice:
    """The outcome of looking for a master."""

    candidate: Candidate | None = None
    live: bool = True
    """It stands under its own name, not under NAME.old."""
    settled_at: float | None = None
    """An earlier candidate is being written: choose again then (monotonic seconds)."""
    refused: list[str] = field(default_factory=list)
    """One line for each file that was passed over."""
    skipped: list[str] = field(default_factory=list)
    """Those of them that an operator should hear of even though another file was chosen."""
    damaged: list[str] = field(default_factory=list)
    """Those of them that could be a master once they are whole."""


class Auto:
    """A source of the configuration: the master, wrapped in Multus."""

    def __init__(self, settings: Settings, ledger: Ledger, *, patient: bool, clock: Callable[[], float]) -> None:
        """Take a broken file for one that is being written, at first, if it is `patient`."""
        self._settings, self._ledger, self._patient, self._clock = settings, ledger, patient, clock
        self._known: dict[str, _Known] = {}
        self._patch: dict[str, Any] = {}
        """The last good one."""

    # ---- looking ----

    def follows(self) -> Iterable[Interest]:
        """Return the directory, and what has no candidate's name."""
        settings = self._settings
        retired = (RETIRED_SUFFIX,) if settings.rename_master or self._ledger.says.renamed else ()
        yield settings.autoconfig_dir, (*SUFFIXES, *retired)
        yield from (settings.autoconfig_dir / name for name in settings.master_names if not is_candidate_name(name))
        if settings.conf_patch_file is not None:
            yield settings.conf_patch_file

    def look(self) -> Seen:
        """List the directory; read each candidate once for each state of it."""
        settings, now = self._settings, self._clock()
        entries, failure = listing(settings.autoconfig_dir)
        if failure:
            raise LookFailedError(f"the directory {settings.autoconfig_dir} {failure}")
        by_name, renamed = {entry.name: entry for entry in entries}, self._ledger.says.renamed
        known, self._known = self._known, {}
        names = runtime.in_byte_order(by_name)
        # Once the flags name none any more, what stood beside a renamed master is no newer for that.
        renames = settings.rename_master
        live = [name for name in names if settings.names_master(name) or (renames and is_candidate_name(name))]
        candidates = [self._candidate(name, by_name[name], known, now) for name in live]
        olds = {*(live if renames else ()), *([renamed.name] if renamed else ())}
        retired = [name for name in olds if name + RETIRED_SUFFIX in by_name]
        old = {name: self._candidate(name, by_name[name + RETIRED_SUFFIX], known, now) for name in retired}
        # One that is removed and made anew again and again, as a log is, is not given its time anew.
        gone = {name: each for name, each in known.items() if name not in self._known and each.candidate.broken_since}
        self._known |= {name: each for name, each in gone.items() if now < each.seen + GRACE}
        patch_fault = self._look_at_patch()
        there = entries or os.path.lexists(settings.autoconfig_dir)
        files = tuple(name for name in names if not by_name[name].is_dir(follow_symlinks=False))
        return Seen(
            now=now,
            candidates=tuple(filter(None, candidates)),
            olds={name: each for name, each in old.items() if each},
            names=files if there else None,
            patch=self._patch,
            patch_fault=patch_fault,
        )

    def _look_at_patch(self) -> str | None:
        """Take the patch unless it is bad; return what is wrong with it."""
        settings, content = self._settings, self._settings.conf_patch
        flag = f"--multus-conf-patch={settings.conf_patch_file}"
        if settings.conf_patch_file is not None:
            look = told(read(settings.conf_patch_file), settings.conf_patch_file, at_start=True)
            if isinstance(look, Absent):
                return f"{flag} {look.why}"
            content = look.content
        try:
            self._patch = wrap.read_patch(content, settings.node_name) if content is not None else {}
        except wrap.InvalidPatchError as error:
            return f"{flag}: {error}"
        return None

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
        current, before = signature(status), known.get(entry.name)
        if before is None or before.signature != current or not before.settled:
            settled = time.time_ns() - status.st_ctime_ns > _CLOCK_TICK
            found = self._examined(name, entry.path, before.candidate if before else None, now)
            if isinstance(found.verdict, Unread):
                return found  # and not remembered: the next look tries again
            before = _Known(current, settled, found, now)
        self._known[entry.name] = before._replace(seen=now)
        return before.candidate

    def _examined(self, name: str, path: str, before: Candidate | None, now: float) -> Candidate:
        """Read and judge a file. One that is merely touched is no newer than before."""
        look = read(path)
        if isinstance(look, Absent) and look.failed:
            return Candidate(name, Unread(look.why), now)
        if isinstance(look, File):
            digest: str | None = hashlib.sha256(look.content).hexdigest()
            verdict: Verdict = examine(look.content, name, any_version=self._settings.takes_any_version)
        else:
            digest, verdict = None, Unusable(look.why)
        since, broken_since = before.since if before and before.digest == digest else now, None
        if isinstance(verdict, Unusable):
            broken_since = before.broken_since if before and before.broken_since is not None else now
            broken_since = broken_since if self._patient else float("-inf")
        return Candidate(name, verdict, since, broken_since, digest)

    # ---- deciding ----

    def draft(self, seen: Seen, before: Before) -> Draft:
        """Wrap the master, and say what `--rename-conf-file` asks for behind it."""
        faults: tuple[Fault, ...] = ()
        if seen.patch_fault:
            faults = (Fault("configuration.current", seen.patch_fault, at_start=True),)
        choice = choose(self._settings, seen, before)
        wish = Wish(warnings=tuple(choice.skipped), waits=self._waits(seen, choice))
        if choice.candidate is not None and isinstance(choice.candidate.verdict, Master):
            draft = self._wrapped(seen, choice, choice.candidate, choice.candidate.verdict, before)
        elif choice.settled_at is not None:
            draft = Draft(wish=wish._replace(until=choice.settled_at))
        elif choice.damaged:
            found = f"in {self._settings.autoconfig_dir}: {', '.join(choice.damaged)}"
            todo = "what was made of it stays; have the default network write it again"
            damage = Fault("configuration.current", found, todo, bars=False)
            draft = Draft(wish=wish._replace(faults=(damage,)))
        else:
            draft = Draft(gone=True, wish=wish)
        return draft._replace(wish=draft.wish._replace(faults=(*faults, *draft.wish.faults)))

    def _wrapped(self, seen: Seen, choice: Choice, candidate: Candidate, master: Master, before: Before) -> Draft:
        settings = self._settings
        warnings = list(choice.skipped)
        if master.cni_version is None and settings.cni_version is None:
            warnings.append(
                f"{candidate.name} has no 'cniVersion': it counts as {wrap.ASSUMED_CNI_VERSION}, which its copy inside "
                "the Multus configuration gets; give it one, or set --cni-version"
            )
        wrapping = wrap.Wrapping(
            settings.multus_options,
            seen.patch,
            settings.cni_version,
            settings.force_cni_version,
            settings.override_network_name,
        )
        try:
            file_name, content = wrap.multus_configuration(master, wrapping)
            _require_no_file(settings, seen.names or (), master, file_name)
        except wrap.CannotWrapError as error:
            found = f"{settings.autoconfig_dir / candidate.name}: {error}"
            fault = Fault("configuration.current", found, fatal=not before.configured)
            return Draft(wish=Wish(faults=(fault,), warnings=tuple(warnings)))
        warnings += wrap.patch_remarks(seen.patch)
        behind: tuple[Step, ...] = ()
        if settings.rename_master and choice.live:
            step = self._renaming(seen, candidate, before)
            if isinstance(step, str):  # it is wrapped all the same
                warnings.append(f"{settings.autoconfig_dir / candidate.name} is wrapped and keeps its name: {step}")
            else:
                behind = (step,)
        wish = Wish(warnings=tuple(warnings), until=choice.settled_at)
        return Draft(Put(file_name, content, master=candidate.name), behind=behind, wish=wish, since=candidate.since)

    def _renaming(self, seen: Seen, candidate: Candidate, before: Before) -> Step | str:
        """Return the step that renames the master, or why it cannot be."""
        settings, name, old = self._settings, candidate.name, seen.olds.get(candidate.name)
        if why := renaming.obstacle(settings, before.ledger, name, old and old.digest, old_there=old is not None):
            return why
        for each in seen.candidates:
            if isinstance(each.verdict, Unread):
                return f"{each.name}, which stands beside it, {each.verdict.reason}"
        digests = {each.name: each.digest for each in seen.candidates if each.digest is not None}
        return renaming.retire(settings, before.ledger, name, digests, over=old is not None)

    def _waits(self, seen: Seen, choice: Choice) -> str:
        settings, names = self._settings, seen.names or ()
        named, there = ", ".join(settings.master_names), list(filter(is_candidate_name, names))
        wanted = f"waiting for a CNI configuration of the default network in {settings.autoconfig_dir}"
        if named:
            wanted = f"waiting for {named} to be a usable CNI configuration in {settings.autoconfig_dir}"
        found = "; ".join(choice.refused) or "no .conf or .conflist file is there"
        if seen.names is None:
            found = "the directory does not exist"
        elif named and not choice.refused:
            found = f"{named} is not there" + (f"; there are: {', '.join(there)}" if there else "")
        olds = [name for name in names if is_candidate_name(name.removesuffix(RETIRED_SUFFIX)) and name not in there]
        if settings.rename_master and olds:  # another entrypoint's renaming, or an operator's
            found += f"; not renamed by this program: {', '.join(olds)}; give the network's file its name back"
        return f"{wanted}: {found}"


class _Known(NamedTuple):
    """What is remembered of a candidate, so that an unchanged file is neither read nor dated again."""

    signature: Signature
    settled: bool
    """The file had not just been changed when it was read: another change would have changed its signature."""
    candidate: Candidate
    seen: float
    """When it was there last (monotonic seconds)."""


def choose(settings: Settings, seen: Seen, before: Before) -> Choice:
    """Return the first usable candidate in byte order.

    With `--rename-conf-file`, the master that was renamed stays the master against the live files that stood beside
    it at the time: CRI-O brings some of its own, and each pass would rename one more. A live file that is new since,
    or whose content is, takes its place. While a broken file that comes first may still be being written, the present
    master is followed and no other one is taken, though not beyond the end of `--wait-timeout`.
    """
    put = before.ledger.configuration
    present = put.master if put else None
    choice = Choice()
    for candidate, live in _in_order(settings, seen, before):
        verdict, name = candidate.verdict, candidate.name if live else candidate.name + RETIRED_SUFFIX
        match verdict:
            case Master():
                if why := _no_network(settings, candidate.name, verdict):
                    choice.refused.append(f"{name!r} {why}")
                elif choice.settled_at is None or candidate.name == present:
                    choice.candidate, choice.live = candidate, live
                    return choice
            case Unread():
                raise LookFailedError(f"in {settings.autoconfig_dir}: {name!r} {verdict.reason}")
            case Multus():
                choice.refused.append(f"{name!r} is itself a Multus configuration")
            case NoFile():
                choice.refused.append(f"{name!r} {verdict.reason}")
                if verdict.link:
                    told_of = f"it {verdict.reason} in this container, though perhaps on the host"
                    choice.skipped.append(f"skipping {name!r}: {told_of}")
            case Unusable():
                grace = min((candidate.broken_since or 0.0) + GRACE, before.give_up_at)
                if seen.now < grace:
                    choice.refused.append(f"{name!r} may still be being written: {verdict.reason}")
                    choice.settled_at = max(grace, choice.settled_at or grace)
                    continue
                choice.refused.append(f"{name!r} is unusable: {verdict.reason}")
                choice.skipped.append(f"skipping the unusable {name!r}: {verdict.reason}")
                if candidate.name == present:  # what was made of another one is no copy of this
                    choice.damaged.append(choice.refused[-1])
    return choice


def _in_order(settings: Settings, seen: Seen, before: Before) -> Iterator[tuple[Candidate, bool]]:
    """Yield the candidates, each with whether it is live, in the order in which they are to be considered."""
    renamed = before.ledger.renamed
    candidates = [each for each in seen.candidates if settings.names_master(each.name)]
    old = seen.olds.get(renamed.name) if renamed is not None else None
    live_again = renamed is not None and any(each.name == renamed.name for each in candidates)
    named = renamed is not None and settings.names_master(renamed.name)
    if renamed is None or not named or (old is None and not live_again):
        yield from ((candidate, True) for candidate in candidates)
        return
    if old is not None and old.digest != renamed.digest and isinstance(old.verdict, Master):
        why = f"is not what {renamed.name} was renamed to: its content is another. Give it that name to have it wrapped"
        old = old._replace(verdict=Unusable(why), broken_since=float("-inf"))
    retired = [] if old is None else [(old, False)]
    if not settings.rename_master:  # it gets its name back, and then is an ordinary file
        together = [*((each, True) for each in candidates), *([] if live_again else retired)]
        yield from sorted(together, key=lambda each: os.fsencode(each[0].name))
        return
    # A run that was killed just before the rename has left it live, and what stood beside it still counts as that.
    stood = {each.name for each in candidates if each.digest == renamed.beside.get(each.name, "")}
    yield from ((each, True) for each in candidates if each.name not in stood - {renamed.name})
    yield from retired
    yield from ((each, True) for each in candidates if each.name in stood - {renamed.name})


def _no_network(settings: Settings, name: str, master: Master) -> str | None:
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


def _require_no_file(settings: Settings, names: Iterable[str], master: Master, file_name: str) -> None:
    """Refuse a list with the name of a file: libcni looks for more plugins in a directory of a list's name."""
    if settings.override_network_name and file_name.endswith(SUFFIXES[1]) and master.name in (*names, file_name):
        raise wrap.CannotWrapError(
            f"--override-network-name: libcni looks for plugins in a directory {master.name}, and a file has that name "
            "here: remove it, or drop the flag"
        )
