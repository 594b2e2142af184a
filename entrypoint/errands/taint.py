"""Removing the startup taint from this node, in a short-lived process of its own.

A node that registers with the taint takes no pods before Multus works, which ends the race of upstream issue 1387.
It is removed once in a run of the entrypoint, when the node is configured. Whoever puts it on the node again after that
means it (to keep pods off while he looks at the node), and it stays until this pod starts again. A node that registers
anew gets a new pod, because Kubernetes deletes the pods of a node that is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from entrypoint.cluster import client as cluster
from entrypoint.errands import child, patience
from entrypoint.errands.patience import TIMEOUT, NotYetError, Pause, Say, open_api, until_done
from entrypoint.settings import Taint

_CONFLICTS = 5  # tries in a row on a fresh object before backing off

RULE = '{apiGroups: [""], resources: [nodes], verbs: [get, patch]}'


@dataclass(frozen=True, slots=True)
class Order(patience.Order):
    """Which taint is to go from which node."""

    key: str
    effect: str | None


def without(taints: list[dict[str, Any]], taint: Taint) -> list[dict[str, Any]]:
    """Return the taints that stay: all but those of the key and, if one is named, the effect."""
    return [each for each in taints if each.get("key") != taint.key or taint.effect not in (None, each.get("effect"))]


def of(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the taints of a node."""
    spec = node.get("spec")
    taints = spec.get("taints") if isinstance(spec, dict) else None
    return [each for each in taints if isinstance(each, dict)] if isinstance(taints, list) else []


def remove(order: Order, say: Say, pause: Pause) -> bool:
    """Try until the taint is gone; return False when `pause` says that nobody waits for it any more."""
    failure = f"the taint {Taint(order.key, order.effect)} is not removed yet"
    return until_done(lambda: attempt(order), failure, say, pause)


def attempt(order: Order) -> str:
    """Remove the taint from the node as it is now; return what was done.

    Raises `NotYetError`, and `cluster.UnreachableError`.
    """
    with contextlib.closing(open_api(order)) as api:
        for _ in range(_CONFLICTS):
            done = _remove_once(api, order)
            if done:
                return done
    raise NotYetError(f"node {order.node} changes faster than it can be read")


def _remove_once(api: cluster.Api, order: Order) -> str | None:
    """Read the node and write it back without the taint; None when somebody else wrote it between."""
    path = cluster.path_to("api", "v1", "nodes", order.node)
    taint = Taint(order.key, order.effect)
    found = api.request("GET", path, timeout=TIMEOUT)
    _accept(found, order)
    if found.document.get("kind") != "Node":
        raise NotYetError("the API server's answer is no node: is something else at its address?")
    metadata, taints = found.document.get("metadata"), of(found.document)
    kept = without(taints, taint)
    if len(kept) == len(taints):
        return f"node {order.node} does not have the taint {taint} (any more)"
    # A merge patch replaces the whole list, so it must be refused when the list is not the one that was read.
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    body = {"metadata": {"resourceVersion": version}, "spec": {"taints": kept or None}}
    answer = api.request("PATCH", path, timeout=TIMEOUT, body=body, content_type=cluster.MERGE_PATCH)
    if answer.status == HTTPStatus.CONFLICT:
        return None
    _accept(answer, order)
    return f"removed the taint {taint} from node {order.node}"


def _accept(answer: cluster.Answer, order: Order) -> None:
    """Raise `NotYetError` for a refusal."""
    if answer.ok:
        return
    by_status: dict[int, str] = {
        HTTPStatus.UNAUTHORIZED: f"the token in {order.token_file} is not accepted; it is read again for the next try",
        HTTPStatus.FORBIDDEN: f"add this rule to the ClusterRole of the service account: {RULE}",
        HTTPStatus.NOT_FOUND: f"there is no node {order.node!r}: set NODE_NAME from the downward API (spec.nodeName)",
    }
    advice = by_status.get(answer.status)
    raise NotYetError(f"{answer.message}; {advice}" if advice else answer.message, answer.retry_after)


def _work(order: dict[str, Any]) -> bool:
    return remove(Order(**order), child.say, child.pause)


if __name__ == "__main__":
    child.run(_work)
