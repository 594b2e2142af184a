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
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from entrypoint.cluster import client as cluster
from entrypoint.cluster import pods as podnetworks
from entrypoint.cluster.pods import Pod, controller_of, part, shown
from entrypoint.cni.document import InvalidJsonError, parse, plugin_types, size_fault
from entrypoint.disk.looks import leads_away, program_fault
from entrypoint.errands import child, patience
from entrypoint.errands.patience import TIMEOUT, GivenUpError, NotYetError, Pause, Say, missing_right, refusal

REPORTED, SETTLED = 5.0, 15.0
"""Seconds that kubelet has to report what it has just set up: more than it takes, and far more than it takes.

At worst the first look misses a pod; the second would evict one that is well.
"""
MOST = 20
"""The most pods that one run evicts: more at once is a matter for people."""
_NAMESPACES = 3
"""In so many namespaces no new pod may have become Ready before nothing more is evicted at all."""
_POLL, _LONGEST = 5.0, 300.0
"""Seconds between two looks for the new pod, and for how long it is waited for."""
_HELD = 600.0
"""Seconds for which an eviction is tried again that is refused: the process takes memory meanwhile."""
_SPREAD = 10.0
"""Seconds within which the nodes look at a controller's other pods, so that they do not all see them well at once."""
_SHOWN = 20
"""How many pods are named in one message."""

EVENTS_RULE = '{apiGroups: [""], resources: [events], verbs: [create]}'
EVICTIONS_RULE = '{apiGroups: [""], resources: [pods/eviction], verbs: [create]}'
NETWORKS_RULE = "{apiGroups: [k8s.cni.cncf.io], resources: [network-attachment-definitions], verbs: [get]}"

_MAKES_AGAIN = frozenset({"ReplicaSet.apps", "StatefulSet.apps", "DaemonSet.apps", "ReplicationController"})
"""Controllers that make a pod again whenever one is gone.

A Job may count it as a failure and end, and of others, such as a virtual machine's, nobody here knows.
"""


@dataclass(frozen=True, slots=True)
class Order(patience.Order):
    """On which node to look for such pods, and what to do about them."""

    mode: str
    bin_dirs: list[str]
    """The directories of this container in which the node's plugins are."""


class _Sibling(NamedTuple):
    """A pod of the same controller."""

    name: str
    ready: bool
    lacks: bool
    """It lacks networks for good itself, which may be why it is not Ready."""

    @classmethod
    def of(cls, document: dict[str, Any]) -> _Sibling:
        """Read it from what the API server says of a pod."""
        metadata, conditions = part(document, "metadata"), part(document, "status").get("conditions")
        ready = any(
            isinstance(each, dict) and (each.get("type"), each.get("status")) == ("Ready", "True")
            for each in (conditions if isinstance(conditions, list) else ())
        )
        going = bool(metadata.get("deletionTimestamp"))
        return cls(str(metadata.get("name")), ready and not going, podnetworks.examine(document) is not None)


def run(order: Order, say: Say, pause: Pause) -> bool:
    """Try until all was done that can be; return False when it was given up, or nobody waits for it any more."""
    repair = _Repair(order, say, pause)
    return patience.until_done(repair.attempt, f"--repair-pods={order.mode} is not done", say, pause)


class _Repair:
    """One errand, over all its tries."""

    def __init__(self, order: Order, say: Say, pause: Pause) -> None:
        self._order, self._say, self._pause = order, say, pause
        self._meant: frozenset[str] | None = None
        """The pods that it is about, by their unique identifiers."""
        self._done: set[str] = set()
        """Those of them about which nothing more is to be done."""
        self._evicted = 0
        self._troubled: set[str] = set()
        """Namespaces in which an evicted pod was not replaced: nothing more is evicted there."""
        self._held_since: float | None = None

    def attempt(self) -> str:
        """Do what can be done now and return what was. Raises as `until_done` expects it."""
        with contextlib.closing(patience.open_api(self._order)) as self._api:
            pods = self._lacking()
            if not pods and not self._evicted:
                return "every pod of this node has the networks that it asks for"
            return self._evict_all(pods) if self._order.mode == "delete" else self._report(pods)

    # ---- which pods ----

    def _lacking(self) -> list[Pod]:
        """Return the pods that lacked networks when this was first asked, and still do.

        One that came since is not meant: were something wrong with Multus, pods would be evicted without end.
        """
        pods = self._found()
        if self._meant is None:
            if any(pod.outdated for pod in pods):
                pods = self._certain(pods)
            self._meant = frozenset(pod.uid for pod in pods)
        return [pod for pod in pods if pod.uid in self._meant]

    def _certain(self, pods: list[Pod]) -> list[Pod]:
        """Return the pods of which it is certain: another address may also be one that kubelet has yet to report."""
        if self._pause(SETTLED):
            return [pod for pod in pods if not pod.outdated]
        before = {pod.uid for pod in pods}
        return [pod for pod in self._found() if pod.uid in before]

    def _found(self) -> list[Pod]:
        try:
            return list(podnetworks.find(self._get, self._order.node))
        except cluster.RefusedError as error:
            raise refusal(error.answer, podnetworks.LIST_RULE) from error

    def _get(self, path: str, *, accept: str = cluster.JSON) -> cluster.Answer:
        return self._api.get(path, timeout=TIMEOUT, accept=accept)

    # ---- report ----

    def _report(self, pods: list[Pod]) -> str:
        """Write the Events and return what was done; one that is refused holds up no other."""
        written, refused = [], []
        for pod in pods:
            path = cluster.path_to("api", "v1", "namespaces", pod.namespace, "events")
            answer = self._api.request("POST", path, timeout=TIMEOUT, body=event(pod, self._order.node))
            if answer.ok or answer.status in {HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}:
                written.append(str(pod))  # a conflict: an earlier run has written it
            elif self._lacks_right(answer, pod, "events", ""):
                raise refusal(answer, EVENTS_RULE)
            elif answer.forbidden:
                refused.append(f"{pod}: {answer.message}")
            else:
                raise NotYetError(answer.message, answer.retry_after)
        if refused:
            self._say("WARNING", f"no Event on pods that lack networks: {'; '.join(refused[:_SHOWN])}")
        if not written:
            return "wrote no Event on pods that lack networks which they ask for"
        return f"wrote an Event on pods that lack networks which they ask for: {shown(written, _SHOWN)}"

    def _lacks_right(self, answer: cluster.Answer, pod: Pod, resource: str, subresource: str) -> bool:
        """Say whether an object could not be made in the pod's namespace for want of a right."""
        right = {"verb": "create", "resource": resource, "subresource": subresource, "namespace": pod.namespace}
        return missing_right(self._api, answer, right)

    # ---- delete ----

    def _evict_all(self, pods: list[Pod]) -> str:
        """Evict what may be evicted of these pods; return what was done.

        Raises `NotYetError`, `GivenUpError` and `cluster.UnreachableError`.
        """
        held: list[str] = []
        retry_after = 0.0
        for pod in pods:
            if pod.uid in self._done:
                continue
            if why := self._why_left(pod):
                self._leave(pod, why)
                continue
            try:
                why, asked = self._evict(pod)
            except cluster.TooLargeError:
                self._leave(pod, "the pods of its namespace are too large to be looked at")
                continue
            if why:
                held.append(f"{pod}: {why}")
                retry_after = max(retry_after, asked)
        if held:
            raise self._held(held, retry_after)
        if self._evicted:
            return f"evicted {self._evicted} pods that lacked networks"
        return "no pod that lacks networks may be evicted"

    def _leave(self, pod: Pod, why: str) -> None:
        self._done.add(pod.uid)
        self._say("WARNING", f"pod {pod} lacks networks and is left as it is: {why}")

    def _why_left(self, pod: Pod) -> str | None:
        """Say why a pod is not evicted; None when it may be."""
        if pod.static or pod.controller == "Node":
            return "it is a static pod"
        if pod.controller is None:
            return "nothing would make it again"
        if pod.controller not in _MAKES_AGAIN:
            return f"it is not known that its {cluster.quoted(pod.controller)} would make it again"
        if len(self._troubled) >= _NAMESPACES:
            return f"in {_NAMESPACES} namespaces ({', '.join(sorted(self._troubled))}) no new pod has become Ready"
        if pod.namespace in self._troubled:
            return "in its namespace an evicted pod was not replaced by one that is Ready"
        if self._evicted >= MOST:
            return f"a run evicts no more than {MOST}; start this pod again to go on"
        return next(filter(None, map(self._fault, dict.fromkeys(pod.lacks))), None)

    def _fault(self, network: str) -> str | None:
        """Say why a new pod could not have a network; None when it can, as far as this container sees."""
        namespace, _, name = network.partition("/")
        try:
            answer = self._get(cluster.attachment_path(namespace, name))
        except cluster.TooLargeError:
            return f"the network {network} is too large to be looked at"
        if answer.status == HTTPStatus.NOT_FOUND:
            return f"the network {network} does not exist, and a new pod would not start at all"
        if not answer.ok:
            raise refusal(answer, NETWORKS_RULE)
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

    def _evict(self, pod: Pod) -> tuple[str | None, float]:
        """Evict a pod and see that it is replaced.

        Returns why that has to wait, as disruption budgets make it, and the seconds that the API server asks for.
        """
        before = self._siblings(pod)
        if len(before) > 1:
            if self._pause(random.uniform(0, _SPREAD)):  # noqa: S311 - no secret
                raise GivenUpError("nobody waits for it any more")
            before = self._siblings(pod)
        unwell = [each.name for uid, each in before.items() if uid != pod.uid and not (each.ready or each.lacks)]
        if unwell:
            return f"other pods of its {pod.controller} are not Ready: {shown(unwell, _SHOWN)}", 0.0
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": pod.namespace, "name": pod.name},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},  # not one of the same name that came since
        }
        answer = self._api.request("POST", f"{pod.path}/eviction", timeout=TIMEOUT, body=body)
        if answer.ok:
            self._done.add(pod.uid)
            self._evicted += 1
            self._say("INFO", f"evicted pod {pod}, which lacked networks")
            self._see_replaced(pod, set(before))
        elif self._lacks_right(answer, pod, "pods", "eviction"):
            raise refusal(answer, EVICTIONS_RULE)
        elif answer.forbidden:
            self._leave(pod, f"its eviction is refused: {answer.message}")
        elif answer.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
            return answer.message, answer.retry_after
        return None, 0.0

    def _see_replaced(self, pod: Pod, before: set[str]) -> None:
        """Wait until the pod is gone and a new one of its controller is Ready, or say that none is."""
        waited, new = 0.0, {}
        while waited < _LONGEST:
            now = self._siblings(pod)
            new = {uid: each for uid, each in now.items() if uid not in before}
            if pod.uid not in now and any(each.ready for each in new.values()):
                return
            if self._pause(_POLL):
                raise GivenUpError("nobody waits for it any more")
            waited += _POLL
        found = "it is still there" if pod.uid in now else "nothing came in its place"
        if new:
            found = f"{shown((each.name for each in new.values()), _SHOWN)} came in its place and is not Ready"
        self._troubled.add(pod.namespace)
        self._say(
            "WARNING", f"pod {pod} was evicted, and {found}: look at it; nothing more is evicted in its namespace"
        )

    def _siblings(self, pod: Pod) -> dict[str, _Sibling]:
        """Return the living pods of the same controller, this one too, by uid; of a DaemonSet those of this node.

        Each node has its own pod of a DaemonSet, and in a large cluster some node is always down.
        """
        selector = f"spec.nodeName={self._order.node}," * (pod.controller == "DaemonSet.apps") + podnetworks.ALIVE
        path = cluster.path_to("api", "v1", "namespaces", pod.namespace, "pods")
        found: dict[str, _Sibling] = {}
        try:
            for each in cluster.objects(self._get, path, selector=selector, labels=pod.template, cached=True):
                metadata = part(each, "metadata")
                if controller_of(metadata).get("uid") == pod.controller_uid:
                    found[str(metadata.get("uid"))] = _Sibling.of(each)
        except cluster.RefusedError as error:
            raise refusal(error.answer, podnetworks.LIST_RULE) from error
        return found

    def _held(self, held: list[str], retry_after: float) -> Exception:
        """Return what to raise over pods whose eviction has to wait."""
        now, named = time.monotonic(), "; ".join(held[:_SHOWN])
        self._held_since = now if self._held_since is None else self._held_since
        if now - self._held_since >= _HELD:
            return GivenUpError(f"still not evicted: {named}. Delete them yourself, or start this pod again")
        return NotYetError(f"not evicted yet: {named}", retry_after)


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
        "reportingComponent": "multus-entrypoint",
        "reportingInstance": node,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _work(order: dict[str, Any]) -> bool:
    # A pod that was being set up when Multus came has no address yet, or is reported with that of before a reboot.
    return not child.pause(REPORTED) and run(Order(**order), child.say, child.pause)


if __name__ == "__main__":
    child.run(_work)
