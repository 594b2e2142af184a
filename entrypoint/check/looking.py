"""`check`: look at the node and the cluster, change nothing, and say what is well and what is not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from entrypoint import owner
from entrypoint.check import cluster, kubeconfig, node
from entrypoint.check.findings import Finding, Status, passed, skipped, warned
from entrypoint.check.networks import Programs
from entrypoint.cni.document import InvalidJsonError, parse
from entrypoint.disk import mounts
from entrypoint.disk.looks import Absent, File, leads_away, program_fault, read
from entrypoint.node.loop import decide_once
from entrypoint.owner import Instance
from entrypoint.settings import Settings

_OWNER = "node.owner"
_THE_OWNERS = frozenset({"binary.current", "configuration.current", "kubeconfig.current", "kubeconfig.mode"})
"""Findings that compare the node with what the instance of this container would have there."""


def run(settings: Settings, timeout: float, resident: int | None = None) -> list[Finding]:
    """Look at everything; wait at most `timeout` seconds for the API server.

    `resident` is the process of this container that is the entrypoint, as far as there is one.
    """
    instances = owner.living(settings.kubeconfig_file.parent) if os.path.isdir(settings.cni_conf_dir) else None
    view = node.View(
        now=time.time(),
        decision=decide_once(settings, running=not settings.skip_config_watch),
        programs=_programs(settings),
        mounted_from=mounts.of(settings.cni_conf_dir),
    )
    path = _kubeconfig_file(settings)
    look = read(path) if path else Absent()
    found = _said_once([*node.findings(settings, view), *kubeconfig.findings(settings, view, path, look)])
    return [
        *_of_the_owner(found, instances, resident),
        *cluster.findings(settings, kubeconfig.access(look), view.programs, timeout),
    ]


def _said_once(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out what the log warns of and another finding says already."""
    others = tuple(each.found for each in findings if each.identifier != "configuration.warnings")
    return [
        each for each in findings if each.identifier != "configuration.warnings" or not each.found.startswith(others)
    ]


def _of_the_owner(
    findings: Iterable[Finding], instances: Sequence[Instance] | None, resident: int | None
) -> list[Finding]:
    """Say who owns the node, and take a newer instance's work for no fault of this one.

    `instances` are those that live on the node, the newest last; None where nobody can. `resident` is the process of
    this container that was taken for the entrypoint; None when there is none, so that nobody stands by.
    """
    if instances is None:
        return [skipped(_OWNER, "see node.directories"), *findings]
    instances = [each for each in instances if each.rank[0]]  # the others cannot configure the node
    if not instances:
        return [passed(_OWNER, "no other entrypoint keeps this node"), *findings]
    if resident is None:
        return [passed(_OWNER, "an entrypoint keeps this node, in another container"), *findings]
    if instances[-1].pid == resident:
        return [passed(_OWNER, "the entrypoint of this container keeps this node"), *findings]
    if all(instance.pid != resident for instance in instances):
        found = "another entrypoint keeps this node, and that of this container cannot do its work yet"
        return [warned(_OWNER, found, "see this pod's log for what it waits for"), *findings]
    found = "a newer entrypoint keeps this node, as in an update; that of this container stands by"
    advice = "run check in the newest pod of this node"
    return [warned(_OWNER, found, advice), *map(_excused, findings)]


def _excused(finding: Finding) -> Finding:
    if finding.identifier not in _THE_OWNERS or finding.status is not Status.FAIL:
        return finding
    return finding._replace(status=Status.WARN, advice=f"it is the newer entrypoint's: see {_OWNER}")


def _programs(settings: Settings) -> Programs:
    """Return how to see which plugins the node has, in the directories in which Multus looks for them."""
    directories, unseen = [settings.cni_bin_dir], settings.additional_bin_dir
    additional = settings.in_container(unseen) if unseen else None
    if additional is not None and os.path.isdir(additional):
        directories, unseen = [*directories, additional], ""
    return Programs(
        fault=lambda name: _plugin_fault(name, directories),
        where=" or ".join(map(str, directories)),
        unseen=unseen,
        socket_there=lambda path: _there(_here(settings, path)),
        named_in=lambda directory: _names(_here(settings, directory)),
    )


def _here(settings: Settings, path_on_host: str) -> Path:
    """Return where this container sees a path of the host, if it does."""
    return settings.in_container(path_on_host) or Path("/host", path_on_host.lstrip("/"))


def _names(directory: Path) -> frozenset[str] | None:
    """Return the names of the CNI configurations in a directory; None where it cannot be seen."""
    try:
        files = [each for each in os.listdir(directory) if each.endswith((".conf", ".conflist", ".json"))]
    except OSError:
        return None
    names = set()
    for each in files:
        look = read(directory / each)
        with suppress(InvalidJsonError):
            document = parse(look.content) if isinstance(look, File) else None
            names.add(str(document.get("name")) if isinstance(document, dict) else "")
    return frozenset(names)


def _there(path: Path) -> bool | None:
    """Say whether a file of the host is there; None when the host's directory is not mounted."""
    if os.path.exists(path):
        return True
    return False if os.path.isdir(path.parent) else None


def _plugin_fault(name: str, directories: list[Path]) -> str | None:
    if os.path.basename(name) != name:
        return "is no file name"
    # k3s has links to its own directory of programs, which is not mounted here: such a link counts as there.
    paths = [directory / name for directory in directories]
    faults = [None if leads_away(path) else program_fault(path) for path in paths]
    return None if None in faults else faults[0]


def _kubeconfig_file(settings: Settings) -> Path | None:
    """Return where this container sees the kubeconfig that Multus uses; None when it does not see it."""
    if settings.kubeconfig_is_ours:
        return settings.kubeconfig_file
    path = settings.in_container(settings.kubeconfig_path_on_host)
    return path if path and os.path.exists(path) else None
