"""Pods that would lose something if Multus went now: those with networks beside their default network.

Multus records for each pod sandbox which networks it has; who calls Multus, and Multus itself, note in libcni's cache
which pod that is and where its network namespace is.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from entrypoint.cni.document import InvalidJsonError, parse
from entrypoint.disk.looks import File, read

_RECORD = re.compile(r"[0-9a-f]{64}")
"""Multus keeps one record a sandbox, named by the runtime's identifier of it, beside a directory `results`."""
_RESULTS = "results"
_CACHE = "cniCacheV1"
_DATA_DIR = "/var/lib/cni/multus"
_SHOWN = 12
"""Digits of a sandbox's identifier that tools of the runtimes show."""


class Attached(NamedTuple):
    """A pod that Multus has attached to further networks."""

    sandbox: str
    networks: tuple[str, ...]
    """Their names; none where the record cannot be read."""
    pod: str | None
    """NAMESPACE/NAME, where the cache knows it."""

    def __str__(self) -> str:
        """Return it as messages name it."""
        name = self.pod or f"the pod of sandbox {self.sandbox[:_SHOWN]}"
        return f"{name} ({', '.join(self.networks) or 'its record cannot be read'})"


class Found(NamedTuple):
    """What the records say."""

    attached: tuple[Attached, ...] = ()
    left_over: int = 0
    """Records of such pods that are no more."""


def look(data_dir: Path) -> Found:
    """Read the records. Raises OSError when they cannot be seen.

    Multus makes the directory with its first record, so none is there when only the directory above is.
    """
    try:
        with os.scandir(data_dir) as entries:
            sandboxes = sorted(
                entry.name
                for entry in entries
                if _RECORD.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            )
    except FileNotFoundError:
        if os.path.isdir(data_dir.parent):
            return Found()
        raise
    cache = Cache(data_dir)
    attached, left_over = [], 0
    for sandbox in sandboxes:
        record = read(data_dir / sandbox)
        networks = further_networks(record.content) if isinstance(record, File) else ()
        if networks is None or (not isinstance(record, File) and record.missing):
            continue  # it has its default network alone, or has gone meanwhile
        pod, namespaces = cache.of(sandbox)
        if any(_is_gone(data_dir, path) for path in namespaces):
            left_over += 1
        else:
            attached.append(Attached(sandbox, networks, pod))
    return Found(tuple(attached), left_over)


def further_networks(record: bytes) -> tuple[str, ...] | None:
    """Return the networks of a record beside the node's default network; None when there are none.

    A record is a list of delegates, the first of them the default network. A pod may have chosen another one by an
    annotation: then its name is that of a NetworkAttachmentDefinition, NAMESPACE/NAME, and nobody else would free it.
    """
    try:
        document = parse(record)
    except InvalidJsonError:
        return ()
    if not isinstance(document, list):
        return ()
    names = [str(each.get("Name")) if isinstance(each, dict) else "?" for each in document]
    further = [name for position, name in enumerate(names) if position > 0 or "/" in name]
    return tuple(further) or None


class Cache:
    """libcni's cache, in the runtime's directory and in Multus's own: one file a network and interface of a sandbox."""

    def __init__(self, data_dir: Path) -> None:
        """Look for the entries; none is read yet."""
        self._paths: dict[str, list[Path]] = {}
        for directory in (data_dir.parent / _RESULTS, data_dir / _RESULTS):
            with suppress(OSError):
                for name in os.listdir(directory):
                    for part in name.split("-"):
                        if _RECORD.fullmatch(part):
                            self._paths.setdefault(part, []).append(directory / name)

    def of(self, sandbox: str) -> tuple[str | None, set[str]]:
        """Return which pod a sandbox is, and the path of its network namespace on the host as each entry has it."""
        entries = [entry for path in self._paths.get(sandbox, []) if (entry := _entry(path, sandbox))]
        pod = next((pod for entry in entries if (pod := _pod(entry))), None)
        return pod, {str(entry["netns"]) for entry in entries if entry.get("netns")}


def _entry(path: Path, sandbox: str) -> dict[str, Any] | None:
    found = read(path)
    try:
        document = parse(found.content) if isinstance(found, File) else None
    except InvalidJsonError:
        return None
    if not isinstance(document, dict) or document.get("kind") != _CACHE or document.get("containerId") != sandbox:
        return None
    return document


def _pod(entry: dict[str, Any]) -> str | None:
    listed = entry.get("cniArgs")
    pairs = [pair for pair in listed if isinstance(pair, list)] if isinstance(listed, list) else []
    named = {pair[0]: pair[1] for pair in pairs if [type(each) for each in pair] == [str, str]}
    namespace, name = named.get("K8S_POD_NAMESPACE"), named.get("K8S_POD_NAME")
    return f"{namespace}/{name}" if namespace and name else None


def namespace_directories(data_dir: Path) -> list[Path]:
    """Return where this container sees the directory in which runtimes keep network namespaces, if it is mounted."""
    return [_host(data_dir) / "run/netns", _host(data_dir) / "var/run/netns"]


def _is_gone(data_dir: Path, namespace: str) -> bool:
    """Say whether a sandbox's network namespace is no more: its directory can be seen, and it is not in it.

    Not so with `/proc/PID/ns/net`, as Docker has it: this container sees no process of the host.
    """
    inside = Path("/", namespace).relative_to("/")
    if not namespace.startswith("/") or ".." in inside.parts:
        return False
    host = _host(data_dir)
    places = [host / inside]
    if inside.parts[:2] == ("var", "run"):  # a link to /run on every host
        places.append(host / inside.relative_to("var"))
    seen = [place for place in places if place.parent.is_dir()]
    return bool(seen) and not any(os.path.lexists(place) for place in seen)


def _host(data_dir: Path) -> Path:
    """Return where this container sees the host's root directory."""
    directory = str(data_dir)
    return Path(directory.removesuffix(_DATA_DIR) or "/") if directory.endswith(_DATA_DIR) else Path("/host")
