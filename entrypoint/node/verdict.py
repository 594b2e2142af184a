"""The one verdict: would the CNI runtime use Multus now, and would that work? Pure.

The ready file, the startup taint, the log, `check` and `--dry-run` all follow it. What it cannot see from this
container, such as the plugins of the delegates, is left to `check`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from entrypoint.cni import runtime
from entrypoint.disk import mounts
from entrypoint.disk.looks import File, Look
from entrypoint.node import chained
from entrypoint.node.values import Seen
from entrypoint.settings import Settings


def overtaken(
    directory: Path, names: Collection[str], name: str, content: bytes, first: tuple[str, Look] | None
) -> str | None:
    """Say what the runtime reads before our file `name` and with what effect; None when pods get our Multus.

    Whatever is in it: containerd 2.3 stops at one that it cannot load, and every pod waits. But pods get our Multus
    too when the first file is a list of a mesh's own that begins with ours (`istioOwnedCNIConfig`).
    `first` is the file that was found to be the first, when it is none of ours.
    """
    if not name.endswith(runtime.SUFFIXES):
        return None  # no runtime reads it: others say so
    order = runtime.in_order(names)
    before = order[: order.index(name)] if name in order else order
    if not before:
        return None  # or ours is not there yet: others say so
    listed = f"{', '.join(map(repr, before))} in {directory} sort{'s' if len(before) == 1 else ''}"
    said = f"{listed} before {name}: the CNI runtime reads the first file and will not use Multus"
    if first is None or first[0] != before[0] or not first[0].endswith(".conflist") or not isinstance(first[1], File):
        return said
    copy, ours = chained.parsed(first[1].content), chained.parsed(content)
    if copy is None or ours is None or not copy.listed:
        return said
    if chained.same_multus(ours, copy):
        return None
    return f"{said}, or only in the older form of which {first[0]} is a copy: whoever made it must make it anew"


def not_in_use(
    directory: Path, names: Collection[str], name: str, content: bytes, first: tuple[str, Look] | None
) -> Iterator[str]:
    """Yield why the runtime would not use our configuration, with these names in the configuration directory."""
    if before := overtaken(directory, names, name, content, first):
        yield f"{before}; remove or rename what stands before it"
    if fault := runtime.fault(name, content):
        yield f"the CNI runtime will not use Multus with {directory / name}: {fault}"


def program_missing(settings: Settings, fault: str | None) -> str | None:
    """Say what is awaited of the multus binary, given what is wrong with it as a program; None when nothing is."""
    if fault is None:
        return None
    who = "; who installs it? --skip-multus-binary-copy is set" if settings.skip_binary_copy else ""
    return f"waiting for an executable file {settings.binary_file}, which {fault}{who}"


def kubeconfig_named(settings: Settings, source: str | None, configuration: bytes) -> Path | None:
    """Return where this container sees the kubeconfig that Multus is told to read; None where it does not see.

    It sees what is in the configuration directory and in the directory of our kubeconfig, if `source`, where on the
    host's disk the former is from, is the usual place.
    """
    named = chained.kubeconfig_of(configuration)
    path = settings.in_container(named) if named and mounts.is_usual(source) else None
    return path if path and path.parent in {settings.cni_conf_dir, settings.kubeconfig_file.parent} else None


def kubeconfig_missing(settings: Settings, seen: Seen, path: Path) -> tuple[str, str] | None:
    """Say that this kubeconfig, one that `kubeconfig_named` returned, is not there, and what to do; None when it is."""
    if path.name in (seen.names if path.parent == settings.cni_conf_dir else seen.beside_ours):
        return None
    return (
        f"Multus is told to read a kubeconfig that is not there, and every pod will fail: {path} does not exist",
        "who writes it? The entrypoint writes multus.d/multus.kubeconfig",
    )


def kubeconfig_astray(settings: Settings, source: str | None, configuration: bytes) -> tuple[str, str] | None:
    """Say that Multus is told a path at which the host does not have the kubeconfig, and what to do.

    `source` is where on the host's disk the configuration directory is from. None when nothing tells that.
    """
    named = chained.kubeconfig_of(configuration)
    usual = mounts.astray(source, named)
    if usual is None:
        return None
    where = "--multus-kubeconfig-file-host=" if settings.static_conf_file is None else "its 'kubeconfig' to "
    found = f"Multus is told to read {named}, and {settings.cni_conf_dir} is mounted from {source}, another directory"
    return found, f"set {where}{usual}, if that is its place on the host"
