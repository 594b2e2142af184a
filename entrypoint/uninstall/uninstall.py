"""The subcommand `uninstall`: take from a node what is ours, in an order that never leaves it without a network.

A node that keeps the configuration after its DaemonSet is gone cannot start pods any more (upstream issues 1429, 1105,
461, 592). So the master gets its name back first, then the configuration goes, then what it refers to, and the ledger,
which says what is ours, goes last: a run that was killed is finished by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from entrypoint import owner
from entrypoint.cni import runtime, wrap
from entrypoint.cni.document import GENERATED, RETIRED_SUFFIX, SUFFIXES, Master, Multus, Unusable, examine
from entrypoint.disk import files, programs
from entrypoint.disk.looks import Absent, File, Look, listing, own, read
from entrypoint.disk.wakeup import Wakeup
from entrypoint.disk.watch import Watcher
from entrypoint.install import PROGRAMS
from entrypoint.node import meshes, renaming
from entrypoint.node.kubeconfig import Kubeconfig
from entrypoint.node.ledger import Book, Ledger, Put
from entrypoint.node.part import Before, LookFailedError, Wish, told
from entrypoint.node.steps import Doing, GiveBack, Remove, Step, StepError, advice, attempted
from entrypoint.settings import Settings
from entrypoint.uninstall.records import Found, Records

_INTERVAL = 30.0
"""Seconds after which it is said again what is waited for."""
_UNWATCHED_INTERVAL = 2.0
"""Seconds between looks where nothing can be watched, or the last look failed."""
_PATIENCE = 60.0
"""Seconds to wait for another uninstaller, which may be reading large programs on a slow node."""
_AT_WORK = (
    "an entrypoint is at work on this node, and would put back what is removed: delete its DaemonSet first "
    "(kubectl delete daemonset, or helm uninstall), and then uninstall"
)
_STUCK = "while this waits, no new pod can start on this node: the installer's token ended with its pod, and"
_READABLE = "may the container read there (user, SELinux type)?"
_RETIRED = tuple(each + RETIRED_SUFFIX for each in SUFFIXES)
"""How the name of a master ends that was renamed, by us or by an operator."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Keep(Step):
    """Leave this there, and say why."""

    verb, done, vital = "keep", "kept", False

    because: str
    needs_the_rest: bool = False
    """Nothing else may be taken away, or the node could start no pod."""
    forced: str | None = None
    """As what it is removed with `--force` (`Remove.what`); None: not even then."""

    @property
    def detail(self) -> str:
        """Say why."""
        return f": {self.because}" + ("" if self.forced is None else ". Remove it yourself, or with --force")

    def do(self, doing: Doing) -> None:
        """Do nothing."""


def run(settings: Settings, data_dir: Path, *, force: bool, wait: bool, say: Say) -> bool:
    """Uninstall, or with `--dry-run` say what would be done; return whether the node is as it must be then.

    While an entrypoint is at work, or pods with further networks are there, it refuses or, with `wait`, waits.
    """
    if not os.path.isdir(settings.cni_conf_dir):
        say(f"--cni-conf-dir: the directory {settings.cni_conf_dir} is not there: is the volume mounted at that path?")
        return False
    records = Records(data_dir)
    found = _clear(settings, records, force=force, wait=wait and not settings.dry_run, say=say)
    if found is None:
        return False
    with contextlib.nullcontext() if settings.dry_run else _turn(settings):
        at_work = bool(owner.living(settings.kubeconfig_file.parent))
        if at_work:
            say(f"{'would refuse' if settings.dry_run else 'refused'}: {_AT_WORK}")
        well = (settings.dry_run or not at_work) and take_away(settings, force=force, say=say) and not at_work
    if left := found.others + len(found.attached) + len(found.damaged):
        say(
            f"records of pods that stay in {data_dir}: {left}. Nobody reads them now, and nobody takes them away: "
            "remove the directory once these pods are gone"
        )
    return well


def _turn(settings: Settings) -> contextlib.AbstractContextManager[None]:
    """Wait for whoever writes to this node, and hold others back meanwhile."""
    return files.turn(settings.kubeconfig_file.with_name(owner.LOCK), _PATIENCE, lambda: False)


def take_away(settings: Settings, *, force: bool, say: Say) -> bool:
    """Look, decide and do; return whether all went well."""
    ledger = Ledger(settings.ledger_file)
    try:
        ledger.load()
        plan = decide(settings, ledger.says, force=force)
    except (LookFailedError, OSError) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        say(f"cannot look at what is there, so all of it stays: {why}; {_READABLE}")
        return False
    return _apply(settings, ledger, plan, say)


# ---- deciding: nothing is written ----

Plan = tuple[list[Step], list[Step], list[Step]]
"""Three lists of steps. When a step of one fails, or keeps what needs the rest, the next list must wait."""


def decide(settings: Settings, book: Book, *, force: bool) -> Plan:
    """Say what to give back, take away and keep. Deciding again on the node that this leaves: nothing.

    Raises `LookFailedError` and OSError: what is not seen would not be taken away, or not get its name back.
    """
    names = _listed(settings.cni_conf_dir)
    configurations = list(_configurations(settings, book, names))
    rest = [*_kubeconfig(settings), *_programs(settings, book)]
    if force:
        configurations, rest = [*map(_forced, configurations)], [*map(_forced, rest)]
    gone = {step.path.name for step in configurations if isinstance(step, Remove)}
    bare = bool(gone) and gone.issuperset(runtime.in_order(names))
    return list(_master(settings, book, force=force, bare=bare)), configurations, rest


def _listed(directory: Path) -> list[str]:
    """Return the names of what is in a directory but for directories. Raises `LookFailedError`."""
    entries, failure = listing(directory)
    if failure:
        raise LookFailedError(f"the directory {directory} {failure}")
    return [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]


def _forced(step: Step) -> Step:
    return Remove(step.path, "--force", step.forced) if isinstance(step, Keep) and step.forced is not None else step


def _master(settings: Settings, book: Book, *, force: bool, bare: bool) -> Iterator[Step]:
    """Give the renamed master its name back; `bare` says that without one the node would have no configuration."""
    old, renamed = renaming.look(settings, book), book.renamed
    olds = [name for name in _listed(settings.autoconfig_dir) if name.endswith(_RETIRED)]
    if renamed is not None and old is not None and not old.missing:
        path = settings.autoconfig_dir / renamed.name
        retired = path.with_name(path.name + RETIRED_SUFFIX)
        if old.live:
            yield Keep(retired, f"there is a {path.name} again: remove the old one if nobody needs it")
        elif old.ours:
            yield GiveBack(retired, path)
        else:
            why = f"it is not what {path.name} was renamed to. Give that name to it, or have the network write it again"
            yield Keep(retired, f"{why}; with --force it is left as it is", needs_the_rest=not force)
    elif book == Book() and olds and bare:
        why = (
            f"no other configuration is there, and no ledger says whether we renamed it. Without {RETIRED_SUFFIX} the "
            "node has its network; with --force it is left as it is"
        )
        yield Keep(settings.autoconfig_dir / min(olds), why, needs_the_rest=not force)


def _configurations(settings: Settings, book: Book, listed: list[str]) -> Iterator[Step]:
    """Take away what is ours, and keep any other that runs Multus or has a name that is ours."""
    put, static = book.configuration, settings.static_conf_file
    ours = {*GENERATED, *(path.name for path in settings.output_files)}
    if put:
        ours |= {put.name, put.name.removesuffix("list"), put.name.removesuffix("list") + "list"}
    for name in dict.fromkeys([*runtime.in_order(listed), *filter(ours.__contains__, listed)]):
        path = settings.cni_conf_dir / name
        found, source = told(own(path), path), read(static) if static and static.name == name else None
        if isinstance(found, Absent):
            if name in ours and not found.missing:
                yield Keep(path, f"it {found.why}", needs_the_rest=True, forced="configuration")
            continue
        verdict, parsed = examine(found.content), meshes.parsed(found.content)
        shim = parsed is not None and parsed.multus["type"] != PROGRAMS[0]
        if isinstance(source, File) and source.identity == found.identity:
            why = "it is the file that --multus-conf-file names, not a copy of it: remove it yourself"
            yield Keep(path, why, needs_the_rest=isinstance(verdict, Multus) and not shim)
        elif name in ours and (why := _because(put, found, source, generated=name in GENERATED)):
            yield Remove(path, why, "configuration")
        elif isinstance(verdict, Multus) and shim:
            yield Keep(path, "it belongs to the thick plugin (multus-shim): who installed that takes it away")
        elif isinstance(verdict, Multus) and name not in ours:
            yield Keep(path, "it runs Multus too, and is not what these flags write: remove it yourself", True)
        elif name in ours and isinstance(verdict, Master):
            yield Keep(path, "it does not run Multus, so this program did not write it")
        elif name in ours:
            what = f"it cannot be used: {verdict.reason}" if isinstance(verdict, Unusable) else "it runs Multus"
            why = f"{what}, and neither the ledger nor its form says that we wrote it"
            yield Keep(path, why, needs_the_rest=True, forced="configuration")


def _because(put: Put | None, found: File, source: Look | None, *, generated: bool) -> str:
    """Return what tells that we wrote a configuration; empty when nothing does."""
    if put is not None and meshes.is_ours(found.content, put.document):
        return "the ledger says that it is ours"
    if isinstance(source, File) and source.content == found.content:
        return "it is a copy of the file of --multus-conf-file"
    return "it has the form of ours" if generated and wrap.has_our_form(found.content) else ""


def _kubeconfig(settings: Settings) -> Iterator[Step]:
    path = settings.kubeconfig_file
    found = told(own(path), path)
    if _is_ours(found):
        yield Remove(path, "it begins as ours do")
    elif isinstance(found, File) or not found.missing:
        why = "it does not begin as ours do" if isinstance(found, File) else f"it {found.why}"
        yield Keep(path, f"{why}, so another program wrote it", forced="")


def _programs(settings: Settings, book: Book) -> Iterator[Step]:
    """Compare the installed programs with the ledger, and with the image's beside the multus binary."""
    for name in dict.fromkeys([*PROGRAMS, *book.programs]):
        path, binary = settings.cni_bin_dir / name, settings.multus_bin_file
        source = binary if name == PROGRAMS[0] else binary.with_name(name)
        comparable = name in PROGRAMS and os.path.isfile(source)
        if not os.path.lexists(path):
            continue
        if settings.skip_binary_copy and name in PROGRAMS:
            yield Keep(path, "--skip-multus-binary-copy is set: who installs it takes it away")
        elif os.path.islink(path) or not os.path.isfile(path):
            yield Keep(path, "it is no regular file, so it is not the one of this image", forced="programs")
        elif comparable and files.same_file(source, path):
            yield Keep(
                path, f"nothing to compare it with: --multus-bin-file={source} is that very file. Remove it yourself"
            )
        else:
            same, digest = programs.compared(path, source if comparable else path, lambda: False)
            if digest == book.programs.get(name):
                yield Remove(path, "the ledger says that it is ours", "programs")
            elif comparable and same:
                yield Remove(path, "it is the one of this image", "programs")
            else:
                why = f"it is not what the ledger has, and nothing to compare it with is at {source}"
                yield Keep(path, "it is not the one of this image" if comparable else why, forced="programs")


# ---- doing ----


def _apply(settings: Settings, ledger: Ledger, plan: Plan, say: Say) -> bool:
    """Do the steps, or with `--dry-run` say them; return whether all went well."""
    dry_run, directory = settings.dry_run, settings.kubeconfig_file.parent
    steps = [step for each in plan for step in each]
    if not steps and not os.path.lexists(ledger.path) and not _is_own_directory(directory):
        say("nothing to do: nothing of Multus is left on this node")
    takes = any(isinstance(step, Remove) and step.what != "programs" for step in steps)
    if takes and not settings.skip_binary_copy and not os.path.lexists(settings.binary_file):
        where = "if the binary was installed elsewhere, say where with --cni-bin-dir, and run this again"
        say(f"warning: there is no {settings.binary_file}: {where}")
    if not dry_run:
        for path in files.sweep((settings.cni_conf_dir, directory, settings.cni_bin_dir)):
            say(f"removed the temporary file {path}")
        owner.sweep(directory)
    for stage, stays in zip(plan, _STAYS, strict=True):
        done = [_do(step, ledger, dry_run=dry_run, say=say) for step in stage]
        well = all(done)
        if not well:
            say(f"{stays}. Put that right, and run this again")
            break
    if dry_run and well and _is_own_directory(directory):
        say(f"would remove {directory} if it is empty")
    if dry_run or well:
        return well and (dry_run or _remove_directory(settings, say))
    with contextlib.suppress(OSError):
        ledger.save()
    return False


_STAYS = (
    "everything else stays: without its own name the network has no configuration but ours",
    "the kubeconfig, the programs and the ledger stay: a configuration needs them",
    "the ledger stays, for the next run",
)
"""What is said when steps of one of a plan's lists have failed."""


def _do(step: Step, ledger: Ledger, *, dry_run: bool, say: Say) -> bool:
    """Do one step; say whether the next ones may follow."""
    if dry_run:
        say(step.would)
    else:
        try:
            attempted(step, Doing(ledger, lambda: False))
        except StepError as error:
            say(str(error))
            return False
        say(step.did)
    return not (isinstance(step, Keep) and step.needs_the_rest)


def _remove_directory(settings: Settings, say: Say) -> bool:
    """Take away the ledger, which is not needed any more, the lock, and their directory when it is empty then."""
    directory = settings.kubeconfig_file.parent
    try:
        files.remove(settings.ledger_file)
        files.remove(directory / owner.LOCK)
        if _is_own_directory(directory):
            directory.rmdir()
            say(f"removed {directory}")
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            say(f"cannot remove {error.filename}: {error.strerror}{advice(error)}")
            return False
        say(f"kept {directory}: it holds other files. Remove it if nobody needs them")
    return True


def _is_own_directory(path: Path) -> bool:
    """Say whether a directory is there, and no link to one, which somebody else has made."""
    return os.path.isdir(path) and not os.path.islink(path)


# ---- who is in the way ----


def _clear(settings: Settings, records: Records, *, force: bool, wait: bool, say: Say) -> Found | None:
    """Return the records once nobody is in the way, None when somebody is."""
    try:
        found = records.look()
    except OSError as error:
        say(
            "cannot look for pods that Multus has attached: --multus-data-dir="
            f"{error.filename}: {error.strerror}; is the hostPath volume mounted there?"
        )
        found = Found()
    if wait:
        found = _wait(settings, records, found, force=force, say=say)
    if not force and (found.attached or (found.damaged and not wait)):
        say(f"refused: {found.in_the_way()}")
        return None
    if found.attached:
        say(
            f"going on (--force); the addresses of these pods' networks stay reserved (by host-local in "
            f"/var/lib/cni/networks): {found.named()}"
        )
    for each in found.about_damaged():
        say(f"going on: {each}")
    return found


def _wait(settings: Settings, records: Records, found: Found, *, force: bool, say: Say) -> Found:
    """Wait until nobody is in the way; say now and then who is, and let new pods start meanwhile."""
    directory, part = settings.kubeconfig_file.parent, Kubeconfig(settings)
    wakeup = Wakeup()
    watcher = Watcher(wakeup)
    followed = settings.token_file, settings.ca_file, settings.kubeconfig_file
    say_at, said = time.monotonic(), set[str]()

    def obstacles() -> list[str]:
        at_work = [_AT_WORK] if owner.living(directory) else []
        return [*at_work, *([found.in_the_way()] if found.attached and not force else [])]

    while in_the_way := obstacles():
        if time.monotonic() >= say_at:
            for each in in_the_way:
                say(f"waiting: {each}")
            say_at = time.monotonic() + _INTERVAL
        wakeup.clear()  # clear, then watch, then look: nothing is missed between
        look_at = say_at
        listings = [(each, ("",)) for each in records.places()]
        try:
            watcher.follow([*followed, *listings, (directory, owner.SUFFIXES)])
        except (OSError, RuntimeError):  # no inotify watch or thread left on this node
            look_at = time.monotonic() + _UNWATCHED_INTERVAL
        for message in sorted(set(_renewed(settings, part)) - said):
            said.add(message)
            say(message)
        try:
            found = records.look()
        except OSError:  # a look that failed is no news
            look_at = time.monotonic() + _UNWATCHED_INTERVAL
        if obstacles():
            wakeup.wait(until=min(look_at, say_at))
    watcher.stop()
    return found


def _renewed(settings: Settings, part: Kubeconfig) -> Iterator[str]:
    """Write our kubeconfig anew where it is not made from this pod's service account, unless an installer does.

    Until Multus is off the node every new pod needs a valid one, and the installer's token ended with its pod. Yields
    what was done, or why it could not be.
    """
    path = settings.kubeconfig_file
    if owner.living(path.parent) or not os.path.lexists(path):
        return  # without one Multus, if it is there, uses another one
    with _turn(settings):
        try:
            seen = part.look()
            wish = part.wish(seen, Before()) if _is_ours(seen.kubeconfig) else Wish()
            yield from (f"{_STUCK} {each}" for each in (*wish.faults, *wish.warnings))
            for step in wish.steps:
                attempted(step, Doing(Ledger(settings.ledger_file), lambda: False))
                yield f"wrote {step.path} with the token of this pod, so that new pods can start meanwhile"
        except (LookFailedError, StepError) as error:
            yield f"{_STUCK} {error}"


def _is_ours(kubeconfig: Look) -> bool:
    return isinstance(kubeconfig, File) and wrap.is_our_kubeconfig(kubeconfig.content)
