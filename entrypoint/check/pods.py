"""The node's pods in `check`: whether one lacks networks that it asks for (upstream issues 1387, 1468)."""

from __future__ import annotations

from typing import NamedTuple

from entrypoint.check.findings import SERVER_TROUBLE, Finding, failed, passed, skipped, warned
from entrypoint.cluster import lists, podnetworks
from entrypoint.cluster.client import Answer
from entrypoint.cluster.lists import Get
from entrypoint.cluster.podnetworks import Pod

IDENTIFIER = "pods.networks"
_SHOWN = 20


class Lacking(NamedTuple):
    """The pods that lack networks."""

    pods: tuple[Pod, ...] = ()
    refused: Answer | None = None
    """They could not be listed, or looked at."""


def ask(get: Get, node: str) -> Lacking:
    """Look for them among the pods of a node. Raises `cluster.UnreachableError`."""
    try:
        return Lacking(tuple(podnetworks.find(get, node)))
    except lists.RefusedError as error:
        return Lacking(refused=error.answer)


def finding(lacking: Lacking) -> Finding:
    """Say which pods lack which networks."""
    if lacking.refused is not None:
        why = f"cannot look at this node's pods: {lacking.refused.message}"
        if not lacking.refused.forbidden:
            return warned(IDENTIFIER, why, SERVER_TROUBLE)
        return skipped(IDENTIFIER, why, f"add this rule to the ClusterRole: {podnetworks.LIST_RULE}")
    if not lacking.pods:
        return passed(IDENTIFIER, "every pod of this node has the networks that it asks for")
    named = ", ".join(map(str, lacking.pods[:_SHOWN]))
    more = f" and {len(lacking.pods) - _SHOWN} more" if len(lacking.pods) > _SHOWN else ""
    return failed(
        IDENTIFIER,
        f"without networks that they ask for: {named}{more}",
        "they started while Multus was not there: delete them, so that they are made again, or see --repair-pods",
    )
