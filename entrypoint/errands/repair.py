"""`--repair-pods`: what is done about pods of this node without networks that they ask for, in a process of its own.

They started before Multus was there, or while it was away (upstream issues 1387, 1468). Only a new pod gets the rest.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from entrypoint.cluster import client as cluster
from entrypoint.cluster import lists, podnetworks
from entrypoint.cluster.podnetworks import Pod
from entrypoint.errands import child, events, patience
from entrypoint.errands.evictions import Evictions
from entrypoint.errands.patience import Pause, Say, open_api, refusal, until_done

REPORTED, SETTLED = 5.0, 15.0
"""Seconds that kubelet has to report what it has just set up: more than it takes, and far more than it takes.

At worst the first look misses a pod; the second would evict one that is well.
"""


@dataclass(frozen=True, slots=True)
class Order(patience.Order):
    """On which node to look for such pods, and what to do about them."""

    mode: str


def run(order: Order, say: Say, pause: Pause) -> bool:
    """Try until all was done that can be; return False when it was given up, or nobody waits for it any more."""
    repair = _Repair(order, say, pause)
    return until_done(repair.attempt, f"--repair-pods={order.mode} is not done", say, pause)


class _Repair:
    """One errand, over all its tries."""

    def __init__(self, order: Order, say: Say, pause: Pause) -> None:
        self._order = order
        self._pause = pause
        self._evictions = Evictions(say, pause)
        self._meant: frozenset[str] | None = None
        """The pods that it is about, by their unique identifiers."""

    def attempt(self) -> str:
        """Do what can be done now and return what was. Raises as `until_done` expects it."""
        with contextlib.closing(open_api(self._order)) as api:
            self._evictions.see_off(api)
            pods = self._lacking(api)
            if not pods and not self._evictions.made:
                return "every pod of this node has the networks that it asks for"
            if self._order.mode == "delete":
                return self._evictions.go_on(api, pods)
            return events.write(api, pods, self._order.node)

    def _lacking(self, api: cluster.Api) -> list[Pod]:
        """Return the pods that lacked networks when this was first asked, and still do.

        One that came since is not meant: were something wrong with Multus, pods would be evicted without end.
        """
        pods = self._found(api)
        if self._meant is None:
            if any(pod.outdated for pod in pods):
                pods = self._certain(api, pods)
            self._meant = frozenset(pod.uid for pod in pods)
        return [pod for pod in pods if pod.uid in self._meant]

    def _certain(self, api: cluster.Api, pods: list[Pod]) -> list[Pod]:
        """Return the pods of which it is certain: another address may also be one that kubelet has yet to report."""
        if self._pause(SETTLED):
            return [pod for pod in pods if not pod.outdated]
        before = {pod.uid for pod in pods}
        return [pod for pod in self._found(api) if pod.uid in before]

    def _found(self, api: cluster.Api) -> list[Pod]:
        def get(path: str, *, accept: str = cluster.JSON) -> cluster.Answer:
            return api.request("GET", path, timeout=patience.TIMEOUT, accept=accept)

        try:
            return list(podnetworks.find(get, self._order.node))
        except lists.RefusedError as error:
            raise refusal(error.answer, podnetworks.LIST_RULE) from error


def _work(order: dict[str, Any]) -> bool:
    # A pod that was being set up when Multus came has no address yet, or is reported with that of before a reboot.
    return not child.pause(REPORTED) and run(Order(**order), child.say, child.pause)


if __name__ == "__main__":
    child.run(_work)
