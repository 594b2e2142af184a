"""`--repair-pods`: what is done about pods of this node without networks that they ask for, in a process of its own.

They started before Multus was there, or while it was away (upstream issues 1387, 1468). Only a new pod gets the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from entrypoint import cluster, lists, podnetworks
from entrypoint.errands import child, patience
from entrypoint.errands.patience import GivenUpError, NotYetError, Pause, Say, open_api, until_done
from entrypoint.podnetworks import Pod

REPORT, DELETE = "report", "delete"
EVICT_RULE = '{apiGroups: [""], resources: [pods/eviction], verbs: [create]}'
EVENT_RULE = '{apiGroups: [""], resources: [events], verbs: [create]}'

_TIMEOUT = 10.0  # seconds for one request
_POLL = 2.0  # seconds between two looks at a pod that is going
_LONGEST = 600.0
"""Seconds for which an eviction is tried that is refused: the process takes memory meanwhile."""

_MAKES_AGAIN = frozenset({"ReplicaSet.apps", "StatefulSet.apps", "DaemonSet.apps", "ReplicationController"})
"""Controllers that make a pod again whenever one is gone.

A Job may count it as a failure and end, and of others, such as a virtual machine's, nobody here knows.
"""


@dataclass(frozen=True, slots=True)
class Order(patience.Order):
    """On which node to look for such pods, and what to do about them."""

    mode: str


def run(order: Order, say: Say, pause: Pause) -> bool:
    """Try until all was done that can be; return False when it was given up, or nobody waits for it any more."""
    repair = _Repair(order, say, pause)
    return until_done(repair.attempt, f"--repair-pods={order.mode} is not done", say, pause)


def why_left(pod: Pod) -> str | None:
    """Say why a pod is not evicted; None when it may be."""
    if pod.static or pod.controller == "Node":
        return "it is a static pod"
    if pod.controller is None:
        return "nothing would make it again"
    if pod.controller not in _MAKES_AGAIN:
        return f"it is not known that its {pod.controller} would make it again"
    return None


class _Repair:
    """One errand, over all its tries."""

    def __init__(self, order: Order, say: Say, pause: Pause) -> None:
        self._order, self._say, self._pause = order, say, pause
        self._meant: frozenset[str] | None = None
        """The pods that it is about, by their unique identifiers."""
        self._left: set[str] = set()
        """Pods of which it has been said that they are left as they are."""
        self._going: Pod | None = None
        """The pod that was evicted and is not gone yet: there is never more than one."""
        self._evicted = 0
        self._held_since: float | None = None

    def attempt(self) -> str:
        """Do what can be done now and return what was. Raises as `until_done` expects it."""
        order = self._order
        with contextlib.closing(open_api(order)) as api:
            self._see_off(api)
            pods = self._lacking(api)
            return self._delete(api, pods) if order.mode == DELETE else self._report(api, pods)

    def _lacking(self, api: cluster.Api) -> list[Pod]:
        """Return the pods that lacked networks when this was first asked, and still do.

        One that came since is not meant: were something wrong with Multus, pods would be evicted without end.
        """

        def get(path: str, *, accept: str = cluster.JSON) -> cluster.Answer:
            return api.request("GET", path, timeout=_TIMEOUT, accept=accept)

        try:
            pods = list(podnetworks.find(get, self._order.node))
        except lists.RefusedError as error:
            raise self._failure(error.answer, podnetworks.LIST_RULE) from error
        if self._meant is None:
            self._meant = frozenset(pod.uid for pod in pods)
        return [pod for pod in pods if pod.uid in self._meant]

    # ---- report ----

    def _report(self, api: cluster.Api, pods: list[Pod]) -> str:
        for pod in pods:
            path = f"/api/v1/namespaces/{quote(pod.namespace, safe='')}/events"
            answer = api.request("POST", path, timeout=_TIMEOUT, body=_event(pod, self._order.node))
            if not (
                answer.ok or answer.status in {HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND} or _is_terminating(answer)
            ):
                raise self._failure(answer, EVENT_RULE)  # a conflict: an earlier run has written it
        if not pods:
            return _ALL_WELL
        return f"wrote an Event on pods that lack networks which they ask for: {', '.join(map(str, pods))}"

    # ---- delete ----

    def _delete(self, api: cluster.Api, pods: list[Pod]) -> str:
        held: list[str] = []
        retry_after = 0.0
        for pod in pods:
            why = why_left(pod)
            if why is None:
                refused = self._evict(api, pod)
                if refused is not None:
                    held.append(f"{pod}: {refused.message}")
                    retry_after = max(retry_after, refused.retry_after)
            elif pod.uid not in self._left:
                self._left.add(pod.uid)
                self._say("WARNING", f"pod {pod} lacks networks and is left as it is: {why}")
        if held:
            raise self._held(held, retry_after)
        if self._evicted or not pods:
            return f"evicted {self._evicted} pods that lacked networks" if self._evicted else _ALL_WELL
        return "no pod that lacks networks may be evicted"

    def _evict(self, api: cluster.Api, pod: Pod) -> cluster.Answer | None:
        """Evict a pod and wait until it is gone; return the answer when that is refused, as disruption budgets do."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": pod.namespace, "name": pod.name},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},  # not one of the same name that came since
        }
        answer = api.request("POST", f"{pod.path}/eviction", timeout=_TIMEOUT, body=body)
        if answer.ok:
            self._evicted += 1
            self._going = pod
            self._say("INFO", f"evicted pod {pod}, which lacked networks")
            self._see_off(api)
        elif answer.status == HTTPStatus.FORBIDDEN and not _is_terminating(answer):
            raise self._failure(answer, EVICT_RULE)
        elif answer.status not in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
            return answer
        return None

    def _see_off(self, api: cluster.Api) -> None:
        """Wait until the pod that was evicted is gone: one at a time."""
        until = time.monotonic() + _LONGEST
        while self._going is not None:
            answer = api.request("GET", self._going.path, timeout=_TIMEOUT)
            uid = (answer.document.get("metadata") or {}).get("uid")
            if answer.status == HTTPStatus.NOT_FOUND or (answer.ok and uid != self._going.uid):
                self._going = None
            elif not answer.ok:
                raise self._failure(answer, podnetworks.LIST_RULE)
            elif self._pause(_POLL) or time.monotonic() > until:
                raise GivenUpError(f"pod {self._going} was evicted and is still there")

    def _held(self, held: list[str], retry_after: float) -> Exception:
        """Return what to raise over pods whose eviction is refused."""
        now = time.monotonic()
        self._held_since = now if self._held_since is None else self._held_since
        if now - self._held_since >= _LONGEST:
            return GivenUpError(f"still not evicted: {'; '.join(held)}. Delete them yourself, or start this pod again")
        return NotYetError(f"not evicted yet: {'; '.join(held)}", retry_after)

    def _failure(self, answer: cluster.Answer, rule: str) -> Exception:
        """Return what to raise over a refusal: a right that is missing is missing until somebody comes."""
        if answer.status == HTTPStatus.FORBIDDEN:
            advice = f"add this rule to the ClusterRole of the service account and start this pod again: {rule}"
            return GivenUpError(f"{answer.message}; {advice}")
        return NotYetError(answer.message, answer.retry_after)


_ALL_WELL = "every pod of this node has the networks that it asks for"


def _event(pod: Pod, node: str) -> dict[str, Any]:
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
        "message": f"This pod started while Multus was not there and lacks {', '.join(pod.lacks)}: "
        "it has to be made again to get them",
        "source": {"component": "multus-entrypoint", "host": node},
        "reportingComponent": "multus-entrypoint",
        "reportingInstance": node,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _is_terminating(answer: cluster.Answer) -> bool:
    """Say whether a refusal is because the whole namespace is going."""
    causes = (answer.document.get("details") or {}).get("causes") or []
    return any(isinstance(cause, dict) and cause.get("reason") == "NamespaceTerminating" for cause in causes)


def _work(order: dict[str, Any]) -> bool:
    return run(Order(**order), child.say, child.pause)


if __name__ == "__main__":
    child.run(_work)
