"""Telling of pods without their networks by an Event on each (`--repair-pods=report`)."""

from __future__ import annotations

import hashlib
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from entrypoint.cluster import client as cluster
from entrypoint.cluster.podnetworks import Pod
from entrypoint.errands.patience import TIMEOUT, is_terminating, refusal

RULE = '{apiGroups: [""], resources: [events], verbs: [create]}'


def write(api: cluster.Api, pods: list[Pod], node: str) -> str:
    """Write the Events and return what was done. Raises what `refusal` returns, and `cluster.UnreachableError`."""
    for pod in pods:
        path = f"/api/v1/namespaces/{quote(pod.namespace, safe='')}/events"
        answer = api.request("POST", path, timeout=TIMEOUT, body=event(pod, node))
        if not (answer.ok or answer.status in {HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND} or is_terminating(answer)):
            raise refusal(answer, RULE)  # a conflict: an earlier run has written it
    return f"wrote an Event on pods that lack networks which they ask for: {', '.join(map(str, pods))}"


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
        "message": f"This pod started while Multus was not there and lacks {', '.join(pod.lacks)}: "
        "it has to be made again to get them",
        "source": {"component": "multus-entrypoint", "host": node},
        "reportingComponent": "multus-entrypoint",
        "reportingInstance": node,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
