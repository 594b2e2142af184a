"""`check`: look at the node and the cluster, change nothing, and say what is well and what is not."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from entrypoint import cniconf, gojson
from entrypoint.check import node as nodecheck
from entrypoint.check.findings import Finding
from entrypoint.check.networks import Programs
from entrypoint.host import Host
from entrypoint.looks import program_fault, read
from entrypoint.node import Absent, File, Memory
from entrypoint.plan import decide
from entrypoint.settings import Settings


def run(settings: Settings, timeout: float) -> list[Finding]:
    """Look at everything; wait at most `timeout` seconds for the API server."""
    from entrypoint.check import cluster as clustercheck
    from entrypoint.check import kubeconfig as kubeconfigcheck

    view = look(settings)
    return [
        *nodecheck.findings(settings, view),
        *kubeconfigcheck.findings(settings, view),
        *clustercheck.findings(settings, kubeconfigcheck.access(view), _programs(settings), timeout),
    ]


def look(settings: Settings) -> nodecheck.View:
    """Look at the node."""
    seen = Host(settings).observe().settled()
    path = _kubeconfig_file(settings)
    view = nodecheck.View(
        now=time.time(),
        seen=seen,
        plan=decide(settings, seen, Memory(started=seen.now)),
        binary=seen.binary.fault,
        plugins={},
        unseen_bin_dir=False,
        kubeconfig_file=path,
        kubeconfig=read(path) if path else Absent(),
    )
    found = nodecheck.standing(view)
    directories, unseen = _bin_dirs(settings)
    return replace(view, plugins=_plugins(directories, found[1]) if found else {}, unseen_bin_dir=unseen)


def _bin_dirs(settings: Settings) -> tuple[list[Path], bool]:
    """Return where Multus looks for plugins, and whether it also looks where this container cannot see."""
    if not settings.additional_bin_dir:
        return [settings.cni_bin_dir], False
    additional = settings.in_container(settings.additional_bin_dir)
    if additional is None or not additional.is_dir():
        return [settings.cni_bin_dir], True
    return [settings.cni_bin_dir, additional], False


def _programs(settings: Settings) -> Programs:
    """Return how to see what the node has for the cluster's networks."""
    directories, unseen = _bin_dirs(settings)
    return Programs(
        fault=lambda name: _plugin_fault(name, directories),
        where=" or ".join(map(str, directories)),
        unseen=settings.additional_bin_dir if unseen else "",
        socket_there=lambda path: _there(settings.in_container(path) or Path("/host", path.lstrip("/"))),
    )


def _there(path: Path) -> bool | None:
    """Say whether a file of the host is there; None when the host's directory is not mounted."""
    if path.exists():
        return True
    return False if path.parent.is_dir() else None


def _plugins(directories: list[Path], configuration: File) -> dict[str, str | None]:
    """Return for each plugin type that the configuration names what is wrong with its program."""
    try:
        # Of Multus itself there are findings of their own.
        types = [
            kind
            for kind in nodecheck.plugin_types(gojson.parse(configuration.content))
            if kind not in cniconf.MULTUS_TYPES
        ]
    except gojson.InvalidJsonError:
        return {}
    return {name: _plugin_fault(name, directories) for name in types}


def _plugin_fault(name: str, directories: list[Path]) -> str | None:
    if os.path.basename(name) != name:
        return "is no file name"
    faults = [program_fault(directory / name) for directory in directories]
    return None if None in faults else faults[0]


def _kubeconfig_file(settings: Settings) -> Path | None:
    """Return where this container sees the kubeconfig that Multus uses; None when it does not see it."""
    if settings.kubeconfig_is_ours:
        return settings.kubeconfig_file
    path = settings.in_container(settings.kubeconfig_path_on_host)
    return path if path and path.exists() else None
