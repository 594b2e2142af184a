"""The one verdict: would the CNI runtime use Multus now, and would that work? Pure.

The ready file, the startup taint, the log, `check` and `--dry-run` all follow it. What it cannot see from this
container, such as the plugins of the delegates, is left to `check`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from entrypoint import cniconf, mounts, runtime
from entrypoint.settings import Settings


def overtaken(directory: Path, names: Iterable[str], ours: str) -> str | None:
    """Say which files of the configuration directory the runtime reads before ours; None when it reads ours first.

    Whatever is in them: containerd 2.3 stops at one that it cannot load, and every pod waits.
    """
    order = runtime.in_order(names)
    if order[:1] == [ours]:
        return None
    before = order[: order.index(ours)] if ours in order else order
    if not before:
        return None  # it is not there yet, or has no name that is read: others say so
    listed = ", ".join(map(repr, before))
    return f"{listed} in {directory} sorts before {ours}: the CNI runtime reads the first file and will not use Multus"


def not_used(path: Path, content: bytes) -> str | None:
    """Say why a runtime that reads this configuration would not use Multus; None when it would."""
    fault = runtime.fault(path.name, content)
    return f"the CNI runtime will not use Multus with {path}: {fault}" if fault else None


def program_missing(settings: Settings, fault: str | None) -> str | None:
    """Say what is awaited of the multus binary, given what is wrong with it as a program; None when nothing is."""
    if fault is None:
        return None
    who = "; who installs it? --skip-multus-binary-copy is set" if settings.skip_binary_copy else ""
    return f"waiting for an executable file {settings.binary_file}, which {fault}{who}"


def kubeconfig_astray(settings: Settings, source: str | None, configuration: bytes) -> tuple[str, str] | None:
    """Say that Multus is told a path at which the host does not have the kubeconfig, and what to do.

    `source` is where on the host's disk the configuration directory is from. None when nothing tells that.
    """
    named = cniconf.kubeconfig_of(configuration)
    usual = mounts.astray(source, named)
    if usual is None:
        return None
    where = "--multus-kubeconfig-file-host=" if settings.static_conf_file is None else "its 'kubeconfig' to "
    found = f"Multus is told to read {named}, and {settings.cni_conf_dir} is mounted from {source}, another directory"
    return found, f"set {where}{usual}, if that is its place on the host"
