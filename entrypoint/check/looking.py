"""`check`: look at the node and the cluster, change nothing, and say what is well and what is not."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from entrypoint import owner
from entrypoint.check import cluster as clustercheck
from entrypoint.check import kubeconfig as kubeconfigcheck
from entrypoint.check import node as nodecheck
from entrypoint.check import owner as ownercheck
from entrypoint.check.findings import Finding
from entrypoint.check.networks import Programs
from entrypoint.cni.document import InvalidJsonError, parse
from entrypoint.disk.looks import Absent, File, leads_away, program_fault, read
from entrypoint.node.host import Host
from entrypoint.node.plan import decide
from entrypoint.node.values import Memory
from entrypoint.settings import Settings


def run(settings: Settings, timeout: float, resident: int | None = None) -> list[Finding]:
    """Look at everything; wait at most `timeout` seconds for the API server.

    `resident` is the process of this container that is the entrypoint, as far as there is one.
    """
    instances = owner.living(settings.kubeconfig_file.parent) if settings.cni_conf_dir.is_dir() else None
    view = look(settings)
    found = [*nodecheck.findings(settings, view), *kubeconfigcheck.findings(settings, view)]
    return [
        *ownercheck.judged(found, instances, resident),
        *clustercheck.findings(settings, kubeconfigcheck.access(view), view.programs, timeout),
    ]


def look(settings: Settings) -> nodecheck.View:
    """Look at the node."""
    seen = Host(settings).observe().settled()
    path = _kubeconfig_file(settings)
    return nodecheck.View(
        now=time.time(),
        seen=seen,
        plan=decide(settings, seen, Memory(started=seen.now)),
        programs=_programs(settings),
        kubeconfig_file=path,
        kubeconfig=read(path) if path else Absent(),
    )


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
