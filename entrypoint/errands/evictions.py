"""Evicting pods without their networks, one at a time (`--repair-pods=delete`)."""

from __future__ import annotations

import time
from http import HTTPStatus

from entrypoint.cluster import client as cluster
from entrypoint.cluster import podnetworks
from entrypoint.cluster.podnetworks import Pod
from entrypoint.errands.patience import TIMEOUT, GivenUpError, NotYetError, Pause, Say, is_terminating, refusal

RULE = '{apiGroups: [""], resources: [pods/eviction], verbs: [create]}'

_POLL = 2.0  # seconds between two looks at a pod that is going
_LONGEST = 600.0
"""Seconds for which an eviction is tried that is refused: the process takes memory meanwhile."""

_MAKES_AGAIN = frozenset({"ReplicaSet.apps", "StatefulSet.apps", "DaemonSet.apps", "ReplicationController"})
"""Controllers that make a pod again whenever one is gone.

A Job may count it as a failure and end, and of others, such as a virtual machine's, nobody here knows.
"""


def why_left(pod: Pod) -> str | None:
    """Say why a pod is not evicted; None when it may be."""
    if pod.static or pod.controller == "Node":
        return "it is a static pod"
    if pod.controller is None:
        return "nothing would make it again"
    if pod.controller not in _MAKES_AGAIN:
        return f"it is not known that its {pod.controller} would make it again"
    return None


class Evictions:
    """The evictions of one errand, over all its tries."""

    def __init__(self, say: Say, pause: Pause) -> None:
        self._say, self._pause = say, pause
        self._left: set[str] = set()
        """Pods of which it has been said that they are left as they are."""
        self._going: Pod | None = None
        """The pod that was evicted and is not gone yet: there is never more than one."""
        self.made = 0
        """How many pods were evicted."""
        self._held_since: float | None = None

    def see_off(self, api: cluster.Api) -> None:
        """Wait until the pod that was evicted is gone: one at a time."""
        until = time.monotonic() + _LONGEST
        while self._going is not None:
            answer = api.request("GET", self._going.path, timeout=TIMEOUT)
            uid = (answer.document.get("metadata") or {}).get("uid")
            if answer.status == HTTPStatus.NOT_FOUND or (answer.ok and uid != self._going.uid):
                self._going = None
            elif not answer.ok:
                raise refusal(answer, podnetworks.LIST_RULE)
            elif self._pause(_POLL) or time.monotonic() > until:
                raise GivenUpError(f"pod {self._going} was evicted and is still there")

    def go_on(self, api: cluster.Api, pods: list[Pod]) -> str:
        """Evict what may be evicted of these pods; return what was done.

        Raises `NotYetError`, `GivenUpError` and `cluster.UnreachableError`.
        """
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
        if self.made:
            return f"evicted {self.made} pods that lacked networks"
        return "no pod that lacks networks may be evicted"

    def _evict(self, api: cluster.Api, pod: Pod) -> cluster.Answer | None:
        """Evict a pod and wait until it is gone; return the answer when that is refused, as disruption budgets do."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": pod.namespace, "name": pod.name},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},  # not one of the same name that came since
        }
        answer = api.request("POST", f"{pod.path}/eviction", timeout=TIMEOUT, body=body)
        if answer.ok:
            self.made += 1
            self._going = pod
            self._say("INFO", f"evicted pod {pod}, which lacked networks")
            self.see_off(api)
        elif answer.forbidden and not is_terminating(answer):
            raise refusal(answer, RULE)
        elif not answer.forbidden and answer.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
            return answer
        return None

    def _held(self, held: list[str], retry_after: float) -> Exception:
        """Return what to raise over pods whose eviction is refused."""
        now = time.monotonic()
        self._held_since = now if self._held_since is None else self._held_since
        if now - self._held_since >= _LONGEST:
            return GivenUpError(f"still not evicted: {'; '.join(held)}. Delete them yourself, or start this pod again")
        return NotYetError(f"not evicted yet: {'; '.join(held)}", retry_after)
