"""`--repair-pods`: what is done about pods of this node without networks that they ask for, in a process of its own.

They started before Multus was there, or while it was away (upstream issues 1387, 1468), and only a new pod gets the
rest. `report` writes an Event on each. `delete` evicts those that a controller makes again and that can come back with
their networks, one after the other, and waits each time until the new pod is Ready. What goes wrong with a pod is that
pod's matter or its namespace's, so that no tenant keeps the others from their networks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from entrypoint.cluster import client as cluster
from entrypoint.cluster import pods as podnetworks
from entrypoint.cluster.client import part, parts
from entrypoint.cluster.pods import Pod, controller_of, shown
from entrypoint.cni.document import InvalidJsonError, parse, plugin_types, size_fault
from entrypoint.disk.looks import leads_away, program_fault
from entrypoint.errands import child, patience
from entrypoint.errands.patience import GivenUpError, NotYetError, Order

REPORTED, SETTLED = 5.0, 15.0
"""Seconds that kubelet has to report what it has just set up: more than it takes, and far more than it takes.

At worst the first look misses a pod; the second would evict one that is well.
"""
MOST = 20
"""The most pods that one run evicts: more at once is a matter for people."""
_NAMESPACES = 3
"""In so many namespaces no new pod may have become Ready before nothing more is evicted at all."""
_POLL, _LOOKS = 5.0, 60
"""Seconds between two looks for the new pod, and how many there are."""
_HELD = 600.0
"""Seconds for which an eviction is tried again that is refused: the process takes memory meanwhile."""
_SPREAD = 10.0
"""Seconds within which the nodes look at a controller's other pods, so that they do not all see them well at once."""
_SHOWN = 20
"""How many pods are named in one message."""

NETWORKS_RULE = "{apiGroups: [k8s.cni.cncf.io], resources: [network-attachment-definitions], verbs: [get]}"

_MAKES_AGAIN = frozenset({"ReplicaSet.apps", "StatefulSet.apps", "DaemonSet.apps", "ReplicationController"})
"""Controllers that make a pod again whenever one is gone.

A Job may count it as a failure and end, and of others, such as a virtual machine's, nobody here knows.
"""


class _Sibling(NamedTuple):
    """A pod of the same controller."""

    name: str
    ready: bool
    lacks: bool
    """It lacks networks for good itself, which may be why it is not Ready."""

    @classmethod
    def of(cls, document: dict[str, Any]) -> _Sibling:
        """Read it from what the API server says of a pod."""
        metadata, conditions = part(document, "metadata"), parts(part(document, "status"), "conditions")
        ready = any((each.get("type"), each.get("status")) == ("Ready", "True") for each in conditions)
        going = bool(metadata.get("deletionTimestamp"))
        return cls(str(metadata.get("name")), ready and not going, podnetworks.examine(document) is not None)


def run(order: Order) -> bool:
    """Try until all was done that can be; return False when it was given up, or the parent has gone."""
    return patience.until_done(order, _Repair(order).attempt, f"--repair-pods={order.repair_pods} is not done")


class _Repair:
    """One errand, over all its tries."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._meant: set[str] | None = None
        """The pods that it is about, by their unique identifiers."""
        self._done: set[str] = set()
        """Those of them about which nothing more is to be done."""
        self._evicted = 0
        self._troubled: set[str] = set()
        """Namespaces in which an evicted pod was not replaced: nothing more is evicted there."""
        self._held_since: float | None = None

    def attempt(self) -> str:
        """Do what can be done now and return what was. Raises as `until_done` expects it."""
        with contextlib.closing(self._order.open_api()) as self._api:
            pods = self._lacking()
            if not pods and not self._evicted:
                return "every pod of this node has the networks that it asks for"
            return self._evict_all(pods) if self._order.repair_pods == "delete" else self._report(pods)

    def _create(self, pod: Pod, resource: str, path: str, body: dict[str, Any]) -> cluster.Answer:
        """Make an object in the pod's namespace; return the answer, refusals too.

        A webhook or a quota refuses with 403 too, and means one object: the API server is asked whether the right is
        there. Raises `cluster.RefusedError` where it is not.
        """
        answer = self._api.request("POST", path, body=body)
        if answer.forbidden:
            kind, _, subresource = resource.partition("/")
            right = {"verb": "create", "resource": kind, "subresource": subresource, "namespace": pod.namespace}
            if not patience.is_allowed(self._api.request("POST", patience.REVIEWS, body=patience.review(right))):
                raise cluster.RefusedError(answer, f'{{apiGroups: [""], resources: [{resource}], verbs: [create]}}')
        return answer

    # ---- which pods ----

    def _lacking(self) -> list[Pod]:
        """Return the pods that lacked networks when this was first asked, and still do.

        One that came since is not meant: were something wrong with Multus, pods would be evicted without end.
        """
        pods = self._found()
        if self._meant is None:
            before = {pod.uid for pod in pods}
            if any(pod.outdated for pod in pods):
                self._wait(SETTLED)  # another address may also be one that kubelet has yet to report
                pods = self._found()
            self._meant = before & {pod.uid for pod in pods}
        return [pod for pod in pods if pod.uid in self._meant - self._done]

    def _found(self) -> list[Pod]:
        return list(podnetworks.find(self._api.get, self._order.node))

    # ---- report ----

    def _report(self, pods: list[Pod]) -> str:
        """Write the Events and return what was done; one that is refused holds up no other."""
        written, refused = [], []
        for pod in pods:
            path = cluster.path_to("api", "v1", "namespaces", pod.namespace, "events")
            answer = self._create(pod, "events", path, event(pod, self._order.node))
            if answer.ok or answer.status in {HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}:
                written.append(str(pod))  # a conflict: an earlier run has written it
            elif answer.forbidden:
                refused.append(f"{pod}: {answer.message}")
            else:
                raise cluster.RefusedError(answer, "")
        if refused:
            told = "; ".join(refused[:_SHOWN])
            child.say("WARNING", f"no Event on pods that lack networks: {told}; make these pods again yourself")
        return f"wrote an Event on pods that lack networks which they ask for: {shown(written, _SHOWN) or 'none'}"

    # ---- delete ----

    def _evict_all(self, pods: list[Pod]) -> str:
        """Evict what may be evicted of these pods; return what was done. Raises as `until_done` expects it."""
        held: list[str] = []
        retry_after = 0.0
        for pod in pods:
            try:
                left = self._why_left(pod) or self._evict(pod)
            except cluster.TooLargeError:
                left = "the pods of its namespace are too large to be looked at"
            except NotYetError as error:
                held.append(f"{pod}: {error}")
                retry_after = max(retry_after, error.retry_after)
                continue
            self._done.add(pod.uid)
            if left:
                advice = "make it again yourself, once it can have them"
                child.say("WARNING", f"pod {pod} lacks networks and is left as it is: {left}; {advice}")
        if not held:
            return f"evicted {self._evicted} pods that lacked networks"
        now, named = time.monotonic(), "; ".join(held[:_SHOWN])
        self._held_since = now if self._held_since is None else self._held_since
        if now - self._held_since >= _HELD:
            raise GivenUpError(f"still not evicted: {named}; delete them yourself")
        raise NotYetError(f"not evicted yet: {named}", retry_after)

    def _why_left(self, pod: Pod) -> str | None:
        """Say why a pod is not evicted; None when it may be."""
        troubled = ", ".join(sorted(self._troubled))
        reasons = {
            "it is a static pod": pod.controller == "Node",
            "nothing would make it again": pod.controller is None,
            f"it is not known that its {cluster.quoted(pod.controller or '')} would make it again": (
                pod.controller not in _MAKES_AGAIN
            ),
            f"in {_NAMESPACES} namespaces ({troubled}) no new pod has become Ready": len(self._troubled) >= _NAMESPACES,
            "in its namespace an evicted pod was not replaced by one that is Ready": pod.namespace in self._troubled,
            f"a run evicts no more than {MOST}": self._evicted >= MOST,
        }
        faults = map(self._fault, dict.fromkeys(pod.lacks))
        return next((why for why, holds in reasons.items() if holds), None) or next(filter(None, faults), None)

    def _fault(self, network: str) -> str | None:
        """Say why a new pod could not have a network; None when it can, as far as this container sees."""
        namespace, _, name = network.partition("/")
        try:
            answer = self._api.get(cluster.attachment_path(namespace, name))
        except cluster.TooLargeError:
            return f"the network {network} is too large to be looked at"
        if answer.status == HTTPStatus.NOT_FOUND:
            return f"the network {network} does not exist, and a new pod would not start at all"
        if not answer.ok:
            raise cluster.RefusedError(answer, NETWORKS_RULE)
        config = part(answer.document, "spec").get("config")
        if not config:
            return f"the network {network} has no configuration of its own but a file on each node"
        content = str(config).encode("utf-8", "replace")
        try:
            fault = size_fault(len(content))
            types = [] if fault else plugin_types(parse(content))
        except InvalidJsonError as error:
            fault, types = str(error), []
        missing = [cluster.quoted(kind) for kind in types if not self._is_installed(kind)]
        fault = fault or (f"its plugins are not on this node: {shown(missing, _SHOWN)}" if missing else None)
        return f"a new pod could not have the network {network}: {fault}" if fault else None

    def _is_installed(self, kind: str) -> bool:
        paths = [Path(directory, kind) for directory in self._order.bin_dirs]
        # k3s has links to its own directory of programs, which is not mounted here: such a link counts as there.
        return os.path.basename(kind) == kind and any(leads_away(path) or not program_fault(path) for path in paths)

    def _evict(self, pod: Pod) -> str | None:
        """Evict a pod and see that it is replaced; return why it is left, None when it is not.

        Raises `NotYetError` where that has to wait, as disruption budgets make it.
        """
        before = self._siblings(pod)
        if len(before) > 1:
            self._wait(random.uniform(0, _SPREAD))  # noqa: S311 - no secret
            before = self._siblings(pod)
        unwell = [each.name for uid, each in before.items() if uid != pod.uid and not (each.ready or each.lacks)]
        if unwell:
            raise NotYetError(f"other pods of its {pod.controller} are not Ready: {shown(unwell, _SHOWN)}")
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": pod.namespace, "name": pod.name},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},  # not one of the same name that came since
        }
        answer = self._create(pod, "pods/eviction", f"{pod.path}/eviction", body)
        if answer.ok:
            self._evicted += 1
            child.say("INFO", f"evicted pod {pod}, which lacked networks")
            self._see_replaced(pod, set(before))
        elif answer.forbidden:
            return f"its eviction is refused: {answer.message}"
        elif answer.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
            raise NotYetError(answer.message, answer.retry_after)
        return None

    def _wait(self, seconds: float) -> None:
        """Raise `GivenUpError` when nobody waits for it any more."""
        if child.pause(seconds):
            raise GivenUpError("nobody waits for it any more")

    def _see_replaced(self, pod: Pod, before: set[str]) -> None:
        """Wait until the pod is gone and a new one of its controller is Ready, or say that none is."""
        for _ in range(_LOOKS):
            now = self._siblings(pod)
            new = {uid: each for uid, each in now.items() if uid not in before}
            if pod.uid not in now and any(each.ready for each in new.values()):
                return
            self._wait(_POLL)
        found = "it is still there" if pod.uid in now else "nothing came in its place"
        if new:
            found = f"{shown((each.name for each in new.values()), _SHOWN)} came in its place and is not Ready"
        self._troubled.add(pod.namespace)
        advice = "look at the events of its namespace, in which nothing more is evicted"
        child.say("WARNING", f"pod {pod} was evicted, and {found}: {advice}")

    def _siblings(self, pod: Pod) -> dict[str, _Sibling]:
        """Return the living pods of the same controller, this one too, by uid; of a DaemonSet those of this node.

        Each node has its own pod of a DaemonSet, and in a large cluster some node is always down.
        """
        selectors = {"fieldSelector": podnetworks.ALIVE, "labelSelector": pod.template}
        if pod.controller == "DaemonSet.apps":
            selectors["fieldSelector"] += f",spec.nodeName={self._order.node}"
        path = cluster.path_to("api", "v1", "namespaces", pod.namespace, "pods")
        found: dict[str, _Sibling] = {}
        for each in cluster.objects(self._api.get, path, rule=podnetworks.LIST_RULE, cached=True, **selectors):
            metadata = part(each, "metadata")
            if controller_of(metadata).get("uid") == pod.controller_uid:
                found[str(metadata.get("uid"))] = _Sibling.of(each)
        return found


def event(pod: Pod, node: str) -> dict[str, Any]:
    """Return an Event; its name is the same in every run, so that a restart of ours writes no second one."""
    digest = hashlib.sha256(f"{pod.uid} {pod.lacks}".encode()).hexdigest()[:16]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": pod.namespace, "name": f"{pod.name[:230].rstrip('-.')}.{digest}"},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        },
        "type": "Warning",
        "reason": "NetworksMissing",
        "message": f"This pod started while Multus was not there and lacks {pod.lacking}: "
        "it has to be made again to get them",
        "source": {"component": "multus-entrypoint", "host": node},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _work(order: dict[str, Any]) -> bool:
    # A pod that was being set up when Multus came has no address yet, or is reported with that of before a reboot.
    return not child.pause(REPORTED) and run(Order(**order))


if __name__ == "__main__":
    child.run(_work)
