"""Pods that ask for networks which they do not have, because they started while Multus was not there.

Upstream issues 1387 and 1468. Multus writes what a pod got into an annotation before the pod runs, so that a running
pod without it will never get the rest: only a new pod does.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

from entrypoint.cluster import lists
from entrypoint.cluster.lists import Get
from entrypoint.cni.document import InvalidJsonError, parse

ASKED = "k8s.v1.cni.cncf.io/networks"
GOT = "k8s.v1.cni.cncf.io/network-status"
_GOT_ONCE = "k8s.v1.cni.cncf.io/networks-status"
"""Its name until Multus 3.8."""
_MIRROR = "kubernetes.io/config.mirror"

_LABEL = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_ITEM = re.compile(rf"(?:(?P<namespace>{_LABEL})?\s*/\s*)?(?P<name>{_LABEL})(?:\s*@\s*[^\s/@]{{0,15}})?")
"""What Multus takes between two commas: [NAMESPACE/]NAME[@INTERFACE]."""

METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
"""Media type of a list without what the objects specify and report: annotations are all that is needed of most pods."""

LIST_RULE = '{apiGroups: [""], resources: [pods], verbs: [get, list]}'

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Pod(NamedTuple):
    """A pod of this node that lacks networks."""

    namespace: str
    name: str
    uid: str
    lacks: tuple[str, ...]
    """NAMESPACE/NAME of each network."""
    controller: str | None
    """Kind of what made it, with its API group; None for a bare pod."""
    static: bool
    """It is kubelet's, from a file on the node."""
    outdated: bool = False
    """What Multus told of it is of an earlier sandbox; or kubelet has yet to report the new one's address."""

    def __str__(self) -> str:
        """Return it as messages name it."""
        return f"{self.namespace}/{self.name} ({', '.join(self.lacks)})"

    @property
    def path(self) -> str:
        """Where the API has it."""
        return path_of(self.namespace, self.name)


def path_of(namespace: str, name: str) -> str:
    """Return where the API has a pod."""
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"


def find(get: Get, node: str) -> Iterator[Pod]:
    """Yield the pods of a node that lack networks.

    Of all pods only the metadata is taken, and all of those that look as if, or whose address is to be compared, as
    they are now. Raises `lists.RefusedError`, and `cluster.UnreachableError`.
    """
    alive = f"spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed"
    suspects: dict[tuple[str, str], None] = {}
    for each in lists.objects(get, "/api/v1/pods", selector=alive, accept=METADATA, cached=True):
        metadata = each.get("metadata") or {}
        if lacking(metadata) or (_wanted(metadata) and _told(metadata)):
            suspects[str(metadata.get("namespace")), str(metadata.get("name"))] = None
    for namespace, name in suspects:
        answer = get(path_of(namespace, name))
        if answer.status == HTTPStatus.NOT_FOUND:
            continue  # gone since
        if not answer.ok:
            raise lists.RefusedError(answer)
        found = examine(answer.document)
        if found is not None:
            yield found


def examine(document: Mapping[str, Any]) -> Pod | None:
    """Return what a pod lacks for good; None when nothing, or when it may still get it, or is going.

    A pod with an address has been set up. One on the node's network never is, whatever it asks for.
    """
    metadata, spec, status = (document.get(part) or {} for part in ("metadata", "spec", "status"))
    lacks = lacking(metadata)
    outdated = not lacks and _outdated(metadata, status)
    if outdated:
        lacks = _wanted(metadata)
    if not lacks or spec.get("hostNetwork") or metadata.get("deletionTimestamp") or not status.get("podIP"):
        return None
    return Pod(
        namespace=str(metadata.get("namespace")),
        name=str(metadata.get("name")),
        uid=str(metadata.get("uid")),
        lacks=tuple(lacks),
        controller=_controller(metadata),
        static=_MIRROR in (metadata.get("annotations") or {}),
        outdated=outdated,
    )


def lacking(metadata: Mapping[str, Any]) -> list[str]:
    """Return the networks that a pod's annotation asks for and that it did not get, as NAMESPACE/NAME."""
    wanted = _wanted(metadata)
    if not wanted:
        return []
    missing = Counter(wanted) - Counter(str(each.get("name")) for each in _status(metadata) if not each.get("default"))
    return list(missing.elements())


def _outdated(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Say whether the pod has none of the addresses that its default network gave it when Multus set it up."""
    told = _told(metadata)
    has = {_address(each.get("ip")) for each in [{"ip": status.get("podIP")}, *(status.get("podIPs") or ())]} - {None}
    return bool(told and has) and not told & has


def _told(metadata: Mapping[str, Any]) -> set[Address]:
    """Return the addresses of the default network that Multus told of; none where it did not tell."""
    told = [each.get("ips") for each in _status(metadata) if each.get("default")]
    addresses = {_address(ip) for ips in told if isinstance(ips, list) for ip in ips}
    return {address for address in addresses if address is not None}


def _address(text: object) -> Address | None:
    try:
        return ipaddress.ip_address(str(text))
    except ValueError:
        return None


def _wanted(metadata: Mapping[str, Any]) -> list[str]:
    return _asked((metadata.get("annotations") or {}).get(ASKED, ""), str(metadata.get("namespace")))


def _status(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what Multus told of a pod's networks, the default one too; each as often as the pod has it."""
    annotations = metadata.get("annotations") or {}
    return _objects(annotations.get(GOT) or annotations.get(_GOT_ONCE) or "")


def _asked(annotation: str, namespace: str) -> list[str]:
    """Read the annotation as Multus does: JSON, or a list with commas.

    One that Multus would refuse asks for nothing: a new pod with it would not start at all.
    """
    if any(character in annotation for character in '[{"'):
        named = [(each.get("namespace") or "", each.get("name")) for each in _objects(annotation)]
    else:
        items = [_ITEM.fullmatch(item.strip()) for item in annotation.split(",")]
        named = [(item["namespace"] or "", item["name"]) if item else ("", None) for item in items]
    if not all(isinstance(where, str) and isinstance(name, str) and name for where, name in named):
        return []
    return [f"{where or namespace}/{name}" for where, name in named]


def _objects(annotation: str) -> list[dict[str, Any]]:
    """Return a list of objects; none for what is anything else. Who makes a pod may write whatever he likes there."""
    try:
        document = parse(annotation.encode("utf-8", "replace"))
    except InvalidJsonError:
        return []
    return document if isinstance(document, list) and all(isinstance(each, dict) for each in document) else []


def _controller(metadata: Mapping[str, Any]) -> str | None:
    owners: Iterable[Mapping[str, Any]] = metadata.get("ownerReferences") or ()
    for owner in owners:
        if owner.get("controller") is True:
            group = str(owner.get("apiVersion")).rpartition("/")[0]
            return f"{owner.get('kind')}{'.' if group else ''}{group}"
    return None
