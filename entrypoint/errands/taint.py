"""Removing the startup taint from this node, in a short-lived process of its own.

A node that registers with the taint takes no pods before Multus works, which ends the race of upstream issue 1387.
It is removed once in a run of the entrypoint, when the node is configured. Whoever puts it on the node again after that
means it (to keep pods off while he looks at the node), and it stays until this pod starts again. A node that registers
anew gets a new pod, because Kubernetes deletes the pods of a node that is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from entrypoint.cluster import client as cluster
from entrypoint.cluster.client import part, parts
from entrypoint.errands import child, patience
from entrypoint.errands.patience import NotYetError, Order
from entrypoint.settings import Taint

_CONFLICTS = 5  # tries in a row on a fresh object before backing off

RULE = '{apiGroups: [""], resources: [nodes], verbs: [get, patch]}'


def without(taints: list[dict[str, Any]], taint: Taint) -> list[dict[str, Any]]:
    """Return the taints that stay: all but those of the key and, if one is named, the effect."""
    return [each for each in taints if each.get("key") != taint.key or taint.effect not in (None, each.get("effect"))]


def of(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the taints of a node."""
    return parts(part(node, "spec"), "taints")


def remove(order: Order) -> bool:
    """Try until the taint is gone; return False when the parent has gone."""
    failure = f"the taint {Taint(*order.taint)} is not removed yet, and keeps pods off this node"
    return patience.until_done(order, lambda: _attempt(order), failure, persistent=True)


def _attempt(order: Order) -> str:
    """Remove the taint from the node as it is now; return what was done. Raises as `until_done` expects it."""
    path, taint = cluster.path_to("api", "v1", "nodes", order.node), Taint(*order.taint)
    with contextlib.closing(order.open_api()) as api:
        for _ in range(_CONFLICTS):
            found = api.get(path)
            if not found.ok:
                raise cluster.RefusedError(found, RULE)
            if found.document.get("kind") != "Node":
                raise NotYetError("the API server's answer is no node: is something else at its address?")
            taints = of(found.document)
            kept = without(taints, taint)
            if len(kept) == len(taints):
                return f"node {order.node} does not have the taint {taint} (any more)"
            # A merge patch replaces the whole list, so it must be refused when the list is not the one that was read.
            version = part(found.document, "metadata").get("resourceVersion")
            body = {"metadata": {"resourceVersion": version}, "spec": {"taints": kept or None}}
            answer = api.request("PATCH", path, body=body)
            if answer.ok:
                return f"removed the taint {taint} from node {order.node}"
            if answer.status != HTTPStatus.CONFLICT:
                raise cluster.RefusedError(answer, RULE)
    raise NotYetError(f"node {order.node} changes faster than it can be read: look who changes it")


if __name__ == "__main__":
    child.run(lambda order: remove(Order(**order)))
