"""The node's part of `check`: what the parts of the node find wrong, by identifier, and what stands there. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from entrypoint.check.findings import Finding, Status, failed, passed, skipped, warned
from entrypoint.check.host import Host, missed
from entrypoint.cni import runtime
from entrypoint.cni.document import MULTUS_TYPES, InvalidJsonError, parse, plugin_types
from entrypoint.disk import mounts
from entrypoint.disk.looks import File
from entrypoint.node import binary, configuration, meshes
from entrypoint.node.decision import Decision
from entrypoint.node.steps import Copy, Note, Remove, Write
from entrypoint.settings import Settings

RUNNING = "is the entrypoint running with these flags? See its log"
"""What to ask when something is not as the entrypoint would have it."""

_Seen = TypeVar("_Seen")


class View(NamedTuple):
    """What is known of the node."""

    settings: Settings
    decision: Decision
    """What a pass over the node would do."""
    host: Host
    mounted_from: str | None
    """Where on its file system the configuration directory is; None when nothing tells."""

    def seen(self, kind: type[_Seen]) -> _Seen | None:
        """Return what a part saw, which has a type of its own; None when it could not look."""
        return next((each for each in self.decision.seen if isinstance(each, kind)), None)

    def fault(self, identifier: str, advice: str = RUNNING) -> Finding | None:
        """Return what the parts find wrong under this identifier; `advice` is for what has none of its own."""
        faults = [fault for wish in self.decision.wishes for fault in wish.faults if fault.identifier == identifier]
        found = "; ".join(dict.fromkeys(fault.found for fault in faults))
        return failed(identifier, found, faults[0].todo or advice) if faults else None

    @property
    def standing(self) -> tuple[str, File] | None:
        """Return the configuration that the runtime would read of those that are ours, with its file name."""
        seen = self.seen(configuration.Seen)
        there = [seen.outputs.get(path.name) for path in self.settings.output_files] if seen else []
        return next(((each.name, each.look) for each in there if each and isinstance(each.look, File)), None)


def findings(view: View) -> Iterator[Finding]:
    """Judge the directories, the binary and the configuration."""
    yield from _directories(view)
    yield from _binary(view)
    yield from _configuration(view)
    yield _plugins(view)


# ---- directories and binary ----


def _directories(view: View) -> Iterator[Finding]:
    identifier = "node.directories"
    yield view.fault(identifier) or passed(identifier, "all are there")
    if revision := mounts.revision(view.mounted_from):
        directory = view.settings.cni_conf_dir
        found = f"{directory} is mounted from {view.mounted_from}, the directory of revision {revision}"
        yield warned("node.mounts", found, "after an upgrade the runtime reads another: mount the directory above it")


def _binary(view: View) -> Iterator[Finding]:
    seen, settings, path = view.seen(binary.Seen), view.settings, view.settings.binary_file
    if seen is None:
        yield from (skipped(f"binary.{each}", "see node.directories") for each in ("executable", "current"))
        return
    if seen.multus.fault:
        advice = "who installs it? --skip-multus-binary-copy is set" if settings.skip_binary_copy else RUNNING
        yield failed("binary.executable", f"{path} {seen.multus.fault}", advice)
    else:
        yield passed("binary.executable", f"{path} is there")
    if settings.skip_binary_copy:
        yield skipped("binary.current", "--skip-multus-binary-copy is set")
    elif fault := view.fault("binary.current"):
        yield fault
    elif seen.multus.fault:
        yield skipped("binary.current", "see binary.executable")
    elif any(isinstance(step, Copy) and step.path == path for wish in view.decision.wishes for step in wish.steps):
        yield failed("binary.current", f"{path} is not the same as {settings.multus_bin_file}", RUNNING)
    else:
        yield passed("binary.current", f"the same as {settings.multus_bin_file}")


# ---- configuration ----


def _configuration(view: View) -> Iterator[Finding]:
    found, seen, settings = view.standing, view.seen(configuration.Seen), view.settings
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
    yield _current(view)
    for warning in view.decision.wishes[-1].warnings:
        yield warned("configuration.warnings", warning, "put it right if it is not meant; the entrypoint's log has it")


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
    identifier, indicator = "configuration.readiness", meshes.named_in(look.content, "readinessindicatorfile")
    if fault := view.fault(identifier):
        yield fault
    elif indicator and seen.named.get(indicator):
        yield passed(identifier, f"{indicator} is there")
    elif indicator:
        found = f"Multus lets every pod wait for {indicator}, which this container cannot see"
        yield warned(identifier, found, "look on the node whether it is there, or mount its directory below /host")


def _current(view: View) -> Finding:
    identifier, settings, wish = "configuration.current", view.settings, view.decision.wishes[-1]
    # What is damaged or waited for, while what was made of it works, is as the log has it: an error, and still in use.
    status = Status.WARN if wish.in_use or settings.skip_config_watch else Status.FAIL
    if wish.waits:
        return Finding(identifier, status, wish.waits, _advice(view))
    if fault := view.fault(identifier, _advice(view)):
        return fault._replace(status=status)
    changes = [step for step in wish.steps if isinstance(step, Write | Remove)]
    puts = [step.put for step in changes if isinstance(step, Write)]
    puts += [step.changes.get("configuration") for step in wish.steps if isinstance(step, Note)]
    put = next(filter(None, puts), view.decision.ledger.configuration)
    wanted = (
        f"is the copy of {settings.static_conf_file}" if settings.static_conf_file else "wraps the default network's"
    )
    if put and put.master:
        wanted = f"wraps {put.master}"
    if view.standing is None:
        return skipped(identifier, f"there is no configuration; one that {wanted} is called for")
    if changes:
        status = Status.WARN if settings.skip_config_watch else Status.FAIL
        would = ", ".join(f"{step.verb} {step.path.name}" for step in changes)
        advice = RUNNING + ("; --skip-config-watch is set" if settings.skip_config_watch else "")
        found = f"the flags call for a configuration that {wanted}: the entrypoint would {would}"
        return Finding(identifier, status, found, advice)
    if unread := "; ".join(fault.found for fault in view.decision.failed):
        return failed(identifier, unread, "see node.directories")
    if not wish.in_use and not wish.faults:
        return failed(identifier, "; ".join(wish.warnings) or "it is not in use", _advice(view))
    return passed(identifier, f"{put.name if put else 'it'} {wanted}, as the flags call for")


def _advice(view: View) -> str:
    """Say what to do where it cannot be said which configuration should be there."""
    wish = view.decision.wishes[-1]
    if view.settings.static_conf_file is not None:
        return (
            "correct that file, or mount the volume (ConfigMap) that has it: it is copied to the node once it is JSON"
        )
    if wish.faults and not wish.waits:
        return "correct the flag or the file that it names"
    return "is the default network's CNI plugin running on this node?"


def _plugins(view: View) -> Finding:
    identifier, found = "plugins.present", view.standing
    try:
        types = plugin_types(parse(found[1].content)) if found else []
    except InvalidJsonError:
        types = []
    # Of Multus itself there are findings of their own.
    faults = {kind: view.host.fault(kind) for kind in types if kind not in MULTUS_TYPES}
    if not faults:
        return skipped(identifier, "there is no configuration that names plugins")
    if missing := ", ".join(f"{kind} ({fault})" for kind, fault in faults.items() if fault):
        advice = (
            "is the default network's CNI plugin installed on this node, and is --cni-bin-dir the runtime's directory "
            "of plugins (plugin_dirs in CRI-O's configuration)? Reference plugins: --plugin-bin-dir"
        )
        return missed(identifier, view.host, missing, advice)
    return passed(identifier, f"all are there: {', '.join(faults)}")
