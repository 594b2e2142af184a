"""Pods that ask for networks which they do not have, because they started while Multus was not there.

Upstream issues 1387 and 1468. Multus writes what a pod got into an annotation before the pod runs, so that a running
pod without it will never get the rest: only a new pod does.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, NamedTuple

from entrypoint.cluster.client import Get, RefusedError, TooLargeError, objects, part, parts, path_to
from entrypoint.cni.document import InvalidJsonError, parse

ASKED = "k8s.v1.cni.cncf.io/networks"
GOT = "k8s.v1.cni.cncf.io/network-status"
_GOT_ONCE = "k8s.v1.cni.cncf.io/networks-status"
"""Its name until Multus 3.8."""
_MIRROR = "kubernetes.io/config.mirror"
_TEMPLATE = "pod-template-hash"

_LABEL = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_ITEM = re.compile(rf"(?:(?P<namespace>{_LABEL})?\s*/\s*)?(?P<name>{_LABEL})(?:\s*@\s*[^\s/@]{{0,15}})?")
"""What Multus takes between two commas: [NAMESPACE/]NAME[@INTERFACE]."""
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""What an object in Kubernetes may be called."""
_LONGEST, _MOST = 64 << 10, 100
"""The most bytes of an annotation that is read, and the most networks that a pod can be meant to have.

Who makes a pod may write 256 KiB there, which would become some MiB for each of 110 pods.
"""
_SHOWN = 5
"""How many of the networks that a pod lacks are named."""

METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
"""Media type of a list without what the objects specify and report: annotations are all that is needed of most pods."""

ALIVE = "status.phase!=Succeeded,status.phase!=Failed"
"""Field selector of the pods that have not come to their end."""
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
    """Kind of what made it, with its API group; `Node` for a static pod, None for a bare one."""
    outdated: bool = False
    """What Multus told of it is of an earlier sandbox; or kubelet has yet to report the new one's address."""
    controller_uid: str = ""
    template: str = ""
    """The label selector of the pods that a ReplicaSet makes; empty where no such label tells them apart."""

    def __str__(self) -> str:
        """Return it as messages name it."""
        return f"{self.namespace}/{self.name} ({self.lacking})"

    @property
    def lacking(self) -> str:
        """The networks that it lacks, as messages name them."""
        return shown(self.lacks, _SHOWN)

    @property
    def path(self) -> str:
        """Where the API has it."""
        return path_of(self.namespace, self.name)


def shown(names: Iterable[str], most: int) -> str:
    """Return some names as a message lists them: the first `most`, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def path_of(namespace: str, name: str) -> str:
    """Return where the API has a pod."""
    return path_to("api", "v1", "namespaces", namespace, "pods", name)


def find(get: Get, node: str) -> Iterator[Pod]:
    """Yield the pods of a node that lack networks.

    Of all pods only the metadata is taken, and all of those that look as if, or whose address is to be compared, as
    they are now. One that is larger than any answer may be is passed over: that is its maker's doing, and the others
    shall not wait for it. Raises `RefusedError`, and `UnreachableError`.
    """
    suspects: dict[tuple[str, str], None] = {}
    selector = f"spec.nodeName={node},{ALIVE}"
    for each in objects(get, "/api/v1/pods", rule=LIST_RULE, fieldSelector=selector, accept=METADATA, cached=True):
        metadata = part(each, "metadata")
        if lacking(metadata) or (_wanted(metadata) and _told(metadata)):
            suspects[str(metadata.get("namespace")), str(metadata.get("name"))] = None
    for namespace, name in suspects:
        try:
            answer = get(path_of(namespace, name))
        except TooLargeError:
            continue
        if answer.status == HTTPStatus.NOT_FOUND:
            continue  # gone since
        if not answer.ok:
            raise RefusedError(answer, LIST_RULE)
        found = examine(answer.document)
        if found is not None:
            yield found


def examine(document: Mapping[str, Any]) -> Pod | None:
    """Return what a pod lacks for good; None when nothing, or when it may still get it, or is going.

    A pod with an address has been set up. One on the node's network never is, whatever it asks for.
    """
    metadata, spec, status = (part(document, name) for name in ("metadata", "spec", "status"))
    lacks = lacking(metadata)
    outdated = not lacks and _outdated(metadata, status)
    if outdated:
        lacks = _wanted(metadata)
    if not lacks or spec.get("hostNetwork") or metadata.get("deletionTimestamp") or not status.get("podIP"):
        return None
    owner = controller_of(metadata)
    group, _, _ = str(owner.get("apiVersion")).rpartition("/")
    controller = f"{owner.get('kind')}{'.' if group else ''}{group}" if owner else None
    template = part(metadata, "labels").get(_TEMPLATE)
    return Pod(
        namespace=str(metadata.get("namespace")),
        name=str(metadata.get("name")),
        uid=str(metadata.get("uid")),
        lacks=tuple(lacks),
        controller="Node" if _MIRROR in part(metadata, "annotations") else controller,
        outdated=outdated,
        controller_uid=str(owner.get("uid", "")),
        template=f"{_TEMPLATE}={template}" if template else "",
    )


def controller_of(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the owner reference of what made an object; an empty one where nothing did."""
    owners = parts(metadata, "ownerReferences")
    return next((owner for owner in owners if owner.get("controller") is True), {})


def lacking(metadata: Mapping[str, Any]) -> list[str]:
    """Return the networks that a pod's annotation asks for and that it did not get, as NAMESPACE/NAME.

    None where what it got cannot be read for its length: nothing is known of such a pod.
    """
    wanted = _wanted(metadata)
    if not wanted or len(_told_of(metadata)) > _LONGEST:
        return []
    missing = Counter(wanted) - Counter(str(each.get("name")) for each in _status(metadata) if not each.get("default"))
    return list(missing.elements())


def _outdated(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Say whether the pod has none of the addresses that its default network gave it when Multus set it up."""
    told = _told(metadata)
    has = _addresses([status.get("podIP"), *(each.get("ip") for each in parts(status, "podIPs"))])
    return bool(told and has) and not told & has


def _told(metadata: Mapping[str, Any]) -> set[Address]:
    """Return the addresses of the default network that Multus told of; none where it did not tell."""
    told = [each.get("ips") for each in _status(metadata) if each.get("default")]
    return _addresses(ip for ips in told if isinstance(ips, list) for ip in ips)


def _addresses(texts: Iterable[object]) -> set[Address]:
    """Return those that are addresses."""
    found: set[Address] = set()
    for text in texts:
        with suppress(ValueError):
            found.add(ipaddress.ip_address(str(text)))
    return found


def _wanted(metadata: Mapping[str, Any]) -> list[str]:
    return _asked(str(part(metadata, "annotations").get(ASKED, "")), str(metadata.get("namespace")))


def _status(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what Multus told of a pod's networks, the default one too; each as often as the pod has it."""
    return _objects(_told_of(metadata))


def _told_of(metadata: Mapping[str, Any]) -> str:
    annotations = part(metadata, "annotations")
    return str(annotations.get(GOT) or annotations.get(_GOT_ONCE) or "")


def _asked(annotation: str, namespace: str) -> list[str]:
    """Read the annotation as Multus does: JSON, or a list with commas.

    One that Multus would refuse asks for nothing: a new pod with it would not start at all. So does one with more
    networks than a pod can have, or with a name that no object has.
    """
    if any(character in annotation for character in '[{"'):
        named = [(each.get("namespace") or "", each.get("name")) for each in _objects(annotation)]
    elif annotation.count(",") >= _MOST:
        return []
    else:
        items = [_ITEM.fullmatch(item.strip()) for item in annotation.split(",")]
        named = [(item["namespace"] or "", item["name"]) if item else ("", None) for item in items]
    if len(named) > _MOST or not all(_is_name(where or namespace) and _is_name(name) for where, name in named):
        return []
    return [f"{where or namespace}/{name}" for where, name in named]


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _OBJECT.fullmatch(name) is not None


def _objects(annotation: str) -> list[dict[str, Any]]:
    """Return a list of objects; none for what is anything else. Who makes a pod may write whatever he likes there."""
    if len(annotation) > _LONGEST:
        return []
    try:
        document = parse(annotation.encode("utf-8", "replace"))
    except InvalidJsonError:
        return []
    return document if isinstance(document, list) and all(isinstance(each, dict) for each in document) else []
