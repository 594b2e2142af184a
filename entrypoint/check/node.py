"""The node's part of `check`: what the parts of the node find wrong, by identifier, and what stands there. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from entrypoint.check.findings import Finding, failed, passed, skipped, warned
from entrypoint.check.networks import Programs
from entrypoint.cni import runtime
from entrypoint.cni.document import MULTUS_TYPES, InvalidJsonError, parse, plugin_types
from entrypoint.disk import mounts
from entrypoint.disk.looks import Absent, File
from entrypoint.node import binary, configuration, kubeconfig, meshes
from entrypoint.node.loop import Decision
from entrypoint.node.part import Fault, Wish
from entrypoint.node.steps import Copy, Note, Remove, Write
from entrypoint.settings import Settings

RUNNING = "is the entrypoint running with these flags? See its log"
"""What to ask when something is not as the entrypoint would have it."""


class View(NamedTuple):
    """What is known of the node."""

    now: float
    """Seconds since 1970."""
    decision: Decision
    """What a pass over the node would do."""
    programs: Programs
    mounted_from: str | None
    """Where on its file system the configuration directory is; None when nothing tells."""

    @property
    def kubeconfig(self) -> kubeconfig.Seen | None:
        """Return what that part saw; None when it could not look."""
        return next((each for each in self.decision.seen if isinstance(each, kubeconfig.Seen)), None)

    @property
    def binary(self) -> binary.Seen | None:
        """Return what that part saw; None when it could not look."""
        return next((each for each in self.decision.seen if isinstance(each, binary.Seen)), None)

    @property
    def configuration(self) -> configuration.Seen | None:
        """Return what that part saw; None when it could not look."""
        return next((each for each in self.decision.seen if isinstance(each, configuration.Seen)), None)

    @property
    def wish(self) -> Wish:
        """Return what the configuration's part wishes, which is the last."""
        return self.decision.wishes[-1]

    def faults(self, identifier: str) -> list[Fault]:
        """Return what the parts find wrong under this identifier."""
        found = [fault for wish in self.decision.wishes for fault in wish.faults if fault.identifier == identifier]
        return list(dict.fromkeys(found))


def findings(settings: Settings, view: View) -> list[Finding]:
    """Judge the directories, the binary and the configuration."""
    return [
        *_directories(settings, view),
        *_binary(settings, view),
        *_configuration(settings, view),
        _plugins(settings, view),
    ]


def standing(settings: Settings, view: View) -> tuple[str, File] | None:
    """Return the configuration that the runtime would read of those that are ours, with its file name."""
    seen = view.configuration
    for path in settings.output_files if seen is not None else ():
        look = seen.outputs.get(path.name) if seen else None
        if isinstance(look, File):
            return path.name, look
    return None


# ---- directories and binary ----


def _directories(settings: Settings, view: View) -> Iterator[Finding]:
    missing, unread = view.faults("node.directories"), [str(each) for each in view.decision.failed]
    if missing:
        yield failed("node.directories", "; ".join(each.found for each in missing), missing[0].todo)
    elif unread:
        yield failed("node.directories", "; ".join(unread), "may the container read there (user, SELinux type)?")
    else:
        yield passed("node.directories", "all are there")
    if revision := mounts.revision(view.mounted_from):
        found = f"{settings.cni_conf_dir} is mounted from {view.mounted_from}, the directory of revision {revision}"
        yield warned("node.mounts", found, "after an upgrade the runtime reads another: mount the directory above it")


def _binary(settings: Settings, view: View) -> Iterator[Finding]:
    seen, path = view.binary, settings.binary_file
    if seen is None:
        yield from (skipped(f"binary.{part}", "see node.directories") for part in ("executable", "current"))
        return
    if seen.multus.fault:
        advice = "who installs it? --skip-multus-binary-copy is set" if settings.skip_binary_copy else RUNNING
        yield failed("binary.executable", f"{path} {seen.multus.fault}", advice)
    else:
        yield passed("binary.executable", f"{path} is there")
    faults = view.faults("binary.current")
    if settings.skip_binary_copy:
        yield skipped("binary.current", "--skip-multus-binary-copy is set")
    elif faults:
        yield failed("binary.current", faults[0].found, faults[0].todo)
    elif seen.multus.fault:
        yield skipped("binary.current", "see binary.executable")
    elif any(isinstance(step, Copy) and step.path == path for wish in view.decision.wishes for step in wish.steps):
        yield failed("binary.current", f"{path} is not the same as {settings.multus_bin_file}", RUNNING)
    else:
        yield passed("binary.current", f"the same as {settings.multus_bin_file}")


# ---- configuration ----


def _configuration(settings: Settings, view: View) -> Iterator[Finding]:
    found, seen = standing(settings, view), view.configuration
    if found is None or seen is None:
        names = " or ".join(path.name for path in settings.output_files)
        yield failed("configuration.present", f"no {names} in {settings.cni_conf_dir}", RUNNING)
        yield from (skipped(f"configuration.{part}", "there is no configuration") for part in ("valid", "first"))
    else:
        name, look = found
        yield passed("configuration.present", f"{settings.cni_conf_dir / name} is there")
        if look.mode & 0o022:
            advice = "make it 600, as CIS asks; a static one has the mode of its source (defaultMode of the volume)"
            yield warned("configuration.mode", f"{name} has mode {look.mode:o}: others may write to it", advice)
        yield _valid(settings, seen, name, look)
        before = configuration.overtaken(settings.cni_conf_dir, seen.names, name, look.content, seen.first)
        if not name.endswith(runtime.SUFFIXES):
            yield skipped("configuration.first", "see configuration.valid")
        elif before:
            yield failed("configuration.first", before, "remove or rename what stands before it")
        else:
            yield passed("configuration.first", f"{name} is the first that the CNI runtime reads")
        yield from _readiness(view, seen, look)
    yield _current(settings, view)
    for warning in view.wish.warnings:
        yield warned("configuration.warnings", warning, "see the entrypoint's log, which says the same")


def _valid(settings: Settings, seen: configuration.Seen, name: str, look: File) -> Finding:
    is_copy = isinstance(seen.source, File) and seen.source.content == look.content
    advice = f"correct {settings.static_conf_file}, of which it is the copy" if is_copy else "who wrote it? " + RUNNING
    if fault := runtime.fault(name, look.content):
        return failed("configuration.valid", f"{name}: {fault}", advice)
    there = meshes.parsed(look.content)
    if there and MULTUS_TYPES.intersection(plugin_types(there.multus.get("delegates"))):
        return failed("configuration.valid", f"{name} wraps Multus in itself", advice)
    return passed("configuration.valid", f"{name} is a Multus configuration")


def _readiness(view: View, seen: configuration.Seen, look: File) -> Iterator[Finding]:
    indicator = meshes.named_in(look.content, "readinessindicatorfile")
    faults = view.faults("configuration.readiness")
    if faults:
        yield failed("configuration.readiness", faults[0].found, faults[0].todo)
    elif indicator and seen.indicators.get(indicator):
        yield passed("configuration.readiness", f"{indicator} is there")
    elif indicator:
        found = f"Multus lets every pod wait for {indicator}, which this container cannot see"
        yield warned("configuration.readiness", found, "mount its directory below /host to have it looked at")


def _current(settings: Settings, view: View) -> Finding:
    identifier, wish = "configuration.current", view.wish
    faults = view.faults(identifier)
    # What is damaged or waited for, while what was made of it works, is as the log has it: an error, and still in use.
    report = warned if wish.in_use or settings.skip_config_watch else failed
    if wish.waits:
        return report(identifier, wish.waits, _advice(settings, view))
    if faults:
        return report(identifier, faults[0].found, faults[0].todo or _advice(settings, view))
    write = next((step for step in wish.steps if isinstance(step, Write)), None)
    notes = [step.changes.get("configuration") for step in wish.steps if isinstance(step, Note)]
    put = write.put if write else next(filter(None, notes), view.decision.ledger.configuration)
    wanted = f"wraps {put.master}" if put and put.master else f"is the copy of {settings.static_conf_file}"
    if standing(settings, view) is None:
        return skipped(identifier, f"there is no configuration; one that {wanted} is called for")
    if write is not None:
        report = warned if settings.skip_config_watch else failed
        advice = RUNNING + ("; --skip-config-watch is set" if settings.skip_config_watch else "")
        fault = f"{write.path.name} differs from what the flags call for, one that {wanted}"
        return report(identifier, fault, advice)
    removals = ", ".join(step.path.name for step in wish.steps if isinstance(step, Remove))
    if removals:
        return failed(identifier, f"{removals} stands beside {put.name if put else 'ours'}", RUNNING)
    if not wish.in_use and not wish.faults:
        why = "; ".join(wish.warnings) or "; ".join(map(str, view.decision.failed)) or "it is not in use"
        return failed(identifier, why, _advice(settings, view))
    return passed(identifier, f"{put.name if put else 'it'} {wanted}, as the flags call for")


def _advice(settings: Settings, view: View) -> str:
    """Say what to do where it cannot be said which configuration should be there."""
    if settings.static_conf_file is None:
        waiting = "is the default network's CNI plugin running on this node?"
        return waiting if view.wish.waits or not view.wish.faults else "correct the flag or the file that it names"
    if view.configuration is None or isinstance(view.configuration.source, Absent):
        return "does --multus-conf-file name a file of this container, and is its volume (ConfigMap) mounted there?"
    return "correct that file: it is copied to the node once it is JSON"


def _plugins(settings: Settings, view: View) -> Finding:
    identifier, programs = "plugins.present", view.programs
    found = standing(settings, view)
    try:
        types = plugin_types(parse(found[1].content)) if found else []
    except InvalidJsonError:
        types = []
    # Of Multus itself there are findings of their own.
    faults = {kind: programs.fault(kind) for kind in types if kind not in MULTUS_TYPES}
    missing = ", ".join(f"{kind} ({fault})" for kind, fault in faults.items() if fault)
    if missing and programs.unseen:
        return warned(identifier, f"not in {programs.where}: {missing}", f"are they in {programs.unseen} on the host?")
    if missing:
        advice = (
            "is the default network's CNI plugin installed on this node, and is --cni-bin-dir the runtime's directory "
            "of plugins (plugin_dirs in CRI-O's configuration)? Reference plugins: --plugin-bin-dir"
        )
        return failed(identifier, f"not in {programs.where}: {missing}", advice)
    if not faults:
        return skipped(identifier, "there is no configuration that names plugins")
    return passed(identifier, f"all are there: {', '.join(faults)}")
