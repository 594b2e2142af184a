"""The node's part of `check`: judging the binary and the configuration. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from entrypoint.check.findings import Finding, failed, passed, skipped, warned
from entrypoint.check.networks import Programs
from entrypoint.cni import runtime
from entrypoint.cni.document import MULTUS_TYPES, InvalidJsonError, parse, plugin_types
from entrypoint.disk.looks import Absent, File
from entrypoint.node import chained, verdict
from entrypoint.node.values import Plan, Seen
from entrypoint.settings import Settings

RUNNING = "is the entrypoint running with these flags? See its log"
"""What to ask when something is not as the entrypoint would have it."""


class View(NamedTuple):
    """What is known of the node."""

    now: float
    """Seconds since 1970."""
    seen: Seen
    plan: Plan
    """What a first pass over the node would do."""
    programs: Programs
    kubeconfig_file: Path | None
    """Where the kubeconfig that Multus uses is; None when this container cannot see it."""
    kubeconfig: File | Absent


def findings(settings: Settings, view: View) -> list[Finding]:
    """Judge the binary and the configuration."""
    return [
        *_directories(view),
        *_binary(settings, view),
        *_configuration(settings, view),
        _plugins(view),
    ]


# ---- directories and binary ----


def _directories(view: View) -> Iterator[Finding]:
    missing = ", ".join(f"{flag}={path}" for flag, path in view.seen.missing_dirs)
    if missing:
        yield failed("node.directories", f"not there: {missing}", "is the hostPath volume mounted at that path?")
    else:
        yield passed("node.directories", "all are there")


def _binary(settings: Settings, view: View) -> Iterator[Finding]:
    path = settings.binary_file
    if view.seen.binary.fault:
        advice = "who installs it? --skip-multus-binary-copy is set" if settings.skip_binary_copy else RUNNING
        yield failed("binary.executable", f"{path} {view.seen.binary.fault}", advice)
    else:
        yield passed("binary.executable", f"{path} is there")
    source = view.seen.binary.source
    if settings.skip_binary_copy:
        yield skipped("binary.current", "--skip-multus-binary-copy is set")
    elif source is not None:
        advice = "does the image carry the multus binary?"
        yield failed("binary.current", f"--multus-bin-file={settings.multus_bin_file} {source.why}", advice)
    elif view.seen.binary.fault:
        yield skipped("binary.current", "see binary.executable")
    elif view.seen.binary.installed:
        yield passed("binary.current", f"the same as {settings.multus_bin_file}")
    else:
        yield failed("binary.current", f"{path} is not the same as {settings.multus_bin_file}", RUNNING)


# ---- configuration ----


def standing(view: View) -> tuple[str, File] | None:
    """Return the configuration that the runtime would read of those that are ours, with its file name."""
    for name, look in view.seen.outputs.items():
        if isinstance(look, File):
            return name, look
    return None


def _configuration(settings: Settings, view: View) -> Iterator[Finding]:
    found = standing(view)
    if found is None:
        names = " or ".join(view.seen.outputs)
        yield failed("configuration.present", f"no {names} in {settings.cni_conf_dir}", RUNNING)
        yield from (skipped(f"configuration.{part}", "there is no configuration") for part in ("valid", "first"))
    else:
        name, look = found
        yield passed("configuration.present", f"{settings.cni_conf_dir / name} is there")
        yield _valid(settings, view, name, look)
        before = verdict.overtaken(settings.cni_conf_dir, view.seen.names, name, look.content, view.seen.first)
        if not name.endswith(runtime.SUFFIXES):
            yield skipped("configuration.first", "see configuration.valid")
        elif before:
            yield failed("configuration.first", before, "remove or rename what stands before it")
        else:
            yield passed("configuration.first", f"{name} is the first that the CNI runtime reads")
    yield _current(settings, view)


def _valid(settings: Settings, view: View, name: str, look: File) -> Finding:
    is_copy = isinstance(view.seen.static, File) and view.seen.static.content == look.content
    advice = f"correct {settings.static_conf_file}, of which it is the copy" if is_copy else "who wrote it? " + RUNNING
    if fault := runtime.fault(name, look.content):
        return failed("configuration.valid", f"{name}: {fault}", advice)
    there = chained.parsed(look.content)
    if there and MULTUS_TYPES.intersection(plugin_types(there.multus.get("delegates"))):
        return failed("configuration.valid", f"{name} wraps Multus in itself", advice)
    return passed("configuration.valid", f"{name} is a Multus configuration")


def _current(settings: Settings, view: View) -> Finding:
    identifier, plan = "configuration.current", view.plan
    output = plan.memory.output
    if output is None:
        # Of the problems, the configuration's comes last.
        fault = plan.waiting or plan.problems[-1].message
        return failed(identifier, fault, _advice(settings, view))
    wanted = f"wraps {output.master}" if output.master else f"is the copy of {settings.static_conf_file}"
    if standing(view) is None:
        return skipped(identifier, f"there is no configuration; one that {wanted} is called for")
    if plan.configuration is not None:
        report = warned if settings.skip_config_watch else failed
        fault = f"{output.file_name} differs from what the flags call for, one that {wanted}"
        return report(
            identifier, fault, RUNNING + ("; --skip-config-watch is set" if settings.skip_config_watch else "")
        )
    if plan.removals:
        names = ", ".join(removal.path.name for removal in plan.removals)
        return failed(identifier, f"{names} stands beside {output.file_name}", RUNNING)
    return passed(identifier, f"{output.file_name} {wanted}, as the flags call for")


def _advice(settings: Settings, view: View) -> str:
    """Say what to do where it cannot be said which configuration should be there."""
    if settings.static_conf_file is None:
        waiting = "is the default network's CNI plugin running on this node?"
        return waiting if view.plan.waiting else "correct the flag or the file that it names"
    if isinstance(view.seen.static, Absent):
        return "does --multus-conf-file name a file of this container, and is its volume (ConfigMap) mounted there?"
    return "correct that file: it is copied to the node once it is JSON"


def _plugins(view: View) -> Finding:
    identifier, programs = "plugins.present", view.programs
    found = standing(view)
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
        advice = "is the default network's CNI plugin installed on this node?"
        return failed(identifier, f"not in {programs.where}: {missing}", advice)
    if not faults:
        return skipped(identifier, "there is no configuration that names plugins")
    return passed(identifier, f"all are there: {', '.join(faults)}")
