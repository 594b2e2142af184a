"""Pods that would lose something if Multus went now: those with networks beside their default network.

Multus records for each pod sandbox which networks it has; who calls Multus, and Multus itself, note in libcni's cache
which pod that is and where its network namespace is.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from entrypoint.cni.document import InvalidJsonError, parse
from entrypoint.disk.looks import File, listing, read

_RECORD = re.compile(r"[0-9a-f]{64}")
"""Multus keeps one record a sandbox, named by the runtime's identifier of it, beside a directory `results`."""
_RESULTS = "results"
_CACHE = "cniCacheV1"
_DATA_DIR = "/var/lib/cni/multus"
_NAMESPACES = ("run/netns", "var/run/netns")
"""Where runtimes keep network namespaces: often, but not on Talos, two names of one directory."""
_UNREAD = "its record cannot be read"
_SHOWN = 12
"""Digits of a sandbox's identifier that tools of the runtimes show."""
_NAMED = 20
"""How many pods are named in one message."""
_UNSEEN = "Whether they are gone cannot be seen, because no network namespace is visible there"
_RESERVED = (
    "Once the configuration is gone nobody gives the addresses of these networks back: delete these pods, or drain the "
    "node; with --force it goes on and the addresses stay reserved"
)
_FROM_A_CONTROLLER = (
    "A controller (`kubectl describe pod`: Controlled By) makes its pods again, with their networks: scale it to 0, "
    "take the annotation k8s.v1.cni.cncf.io/networks out of its template, or cordon the node first"
)


class Attached(NamedTuple):
    """A pod that Multus has attached to further networks."""

    sandbox: str
    networks: tuple[str, ...]
    pod: str | None
    """NAMESPACE/NAME, where the cache knows it."""
    unseen: str | None = None
    """What to mount where, if no network namespace at all can be seen where its own should be."""

    def __str__(self) -> str:
        """Return it as messages name it."""
        name = self.pod or f"the pod of sandbox {self.sandbox[:_SHOWN]}"
        return f"{name} ({', '.join(self.networks)})"


@dataclass(slots=True)
class Found:
    """What the records say."""

    attached: list[Attached] = field(default_factory=list)
    damaged: dict[Path, str | None] = field(default_factory=dict)
    """Records that are empty or cut off, of pods that are not known to be gone, and NAMESPACE/NAME of these."""
    others: int = 0
    """Records of pods that have their default network alone, or are no more."""

    def in_the_way(self) -> str:
        """Say what keeps `uninstall` from going on, and what to do about it."""
        said = list(self.about_damaged())
        if self.attached:
            mounts = sorted({pod.unseen for pod in self.attached if pod.unseen})
            said = [
                f"pods of this node have networks beside their default network ({len(self.attached)}): {self.named()}",
                *(f"{_UNSEEN}: mount {mount}" for mount in mounts),
                _RESERVED,
                _FROM_A_CONTROLLER,
                *said,
            ]
        return ". ".join(said)

    def about_damaged(self) -> Iterable[str]:
        """Name the damaged records, and say what to do about each."""
        for path, pod in self.damaged.items():
            yield (
                f"The record {path}{f' of {pod}' if pod else ''} is empty or cut off, as after a power cut, and Multus "
                f"cannot give back what it stood for either: see whether the pod lives (crictl pods --id {path.name}), "
                "and remove the record if it does not"
            )

    def named(self) -> str:
        """Name the pods, or some of them."""
        names = [str(pod) for pod in self.attached]
        return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


class Records:
    """The records of a node. It remembers in which directories it has seen network namespaces."""

    def __init__(self, data_dir: Path) -> None:
        """Say where they are; nothing is read yet."""
        self._data_dir = data_dir
        directory = str(data_dir)
        self._host = Path((directory.removesuffix(_DATA_DIR) or "/") if directory.endswith(_DATA_DIR) else "/host")
        self._visible: set[Path] = set()

    def places(self) -> list[Path]:
        """Return the directories in which whatever comes and goes is a reason to look again."""
        return [self._data_dir, *(self._host / each for each in _NAMESPACES)]

    def look(self) -> Found:
        """Read the records. Raises OSError when they cannot be seen.

        Multus makes the directory with its first record, so none is there when only the directory above is.
        """
        try:
            with os.scandir(self._data_dir) as listed:
                files = [entry.name for entry in listed if entry.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            if os.path.isdir(self._data_dir.parent):
                return Found()
            raise
        self._visible |= {each for each in map(self._host.joinpath, _NAMESPACES) if listing(each)[0]}
        caches, found = _caches(self._data_dir), Found()
        for sandbox in sorted(filter(_RECORD.fullmatch, files)):
            record = read(self._data_dir / sandbox)
            if not isinstance(record, File) and record.missing:
                continue  # gone meanwhile
            networks = further_networks(record.content) if isinstance(record, File) else (_UNREAD,)
            if networks == ():
                found.others += 1
                continue
            entries = [entry for path in caches.get(sandbox, []) if (entry := _entry(path, sandbox))]
            pod = next(filter(None, map(_pod, entries)), None)
            namespaces = {str(entry["netns"]) for entry in entries if entry.get("netns")}
            if any(self._is_gone(each) for each in namespaces):
                found.others += 1
            elif networks is None:
                found.damaged[self._data_dir / sandbox] = pod
            else:
                unseen = next(filter(None, map(self._out_of_sight, namespaces)), None)
                found.attached.append(Attached(sandbox, networks, pod, unseen))
        return found

    def _is_gone(self, namespace: str) -> bool:
        """Say whether a network namespace is no more: others can be seen where it should be, now or earlier.

        A directory in which none ever was may be a mount of the wrong one. `/proc/PID/ns/net`, as Docker has it, says
        nothing: this container sees no process of the host.
        """
        place = self._place(namespace)
        return place is not None and place.parent in self._visible and not os.path.lexists(place)

    def _out_of_sight(self, namespace: str) -> str | None:
        place = self._place(namespace)
        if place is None or place.parent in self._visible:
            return None
        return f"{os.path.dirname(namespace)} of the host at {place.parent}"

    def _place(self, namespace: str) -> Path | None:
        """Return where this container sees a network namespace; None where runtimes keep none."""
        path = Path(namespace)
        return self._host / str(path).lstrip("/") if str(path.parent) in {f"/{each}" for each in _NAMESPACES} else None


def further_networks(record: bytes) -> tuple[str, ...] | None:
    """Return the networks of a record beside the node's default network; None when it is damaged.

    A record is a list of delegates, the first of them the default network. A pod may have chosen another one by an
    annotation: then its name is that of a NetworkAttachmentDefinition, NAMESPACE/NAME, and nobody else would free it.
    """
    try:
        document = parse(record)
    except InvalidJsonError:
        return None
    if not isinstance(document, list) or not document:
        return None
    names = [str(each.get("Name")) if isinstance(each, dict) else "?" for each in document]
    return tuple(name for position, name in enumerate(names) if position > 0 or "/" in name)


def _caches(data_dir: Path) -> dict[str, list[Path]]:
    """Return what libcni's cache has of each sandbox, in the runtime's directory and in Multus's own.

    There is one file a network and interface of a sandbox.
    """
    paths = defaultdict[str, list[Path]](list)
    for directory in (data_dir.parent / _RESULTS, data_dir / _RESULTS):
        with suppress(OSError):
            for name in os.listdir(directory):
                for part in filter(_RECORD.fullmatch, name.split("-")):
                    paths[part].append(directory / name)
    return paths


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
