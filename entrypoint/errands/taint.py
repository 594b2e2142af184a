"""Removing the startup taint from this node, in a short-lived process of its own.

A node that registers with the taint takes no pods before Multus works, which ends the race of upstream issue 1387.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from entrypoint import cluster
from entrypoint.errands import child
from entrypoint.settings import Taint, is_token

_TIMEOUT = 10.0  # seconds for one request
_FIRST_DELAY, _LONGEST_DELAY = 2.0, 30.0  # seconds
_LONGEST_ASKED = 120.0  # seconds: an API server asks for 32 at most; pods wait for us
_CONFLICTS = 5  # tries in a row on a fresh object before backing off

_NOT_FOUND, _CONFLICT, _UNAUTHORIZED, _FORBIDDEN = 404, 409, 401, 403
RULE = '{apiGroups: [""], resources: [nodes], verbs: [get, patch]}'


class NotYetError(Exception):
    """The taint could not be removed; the message says why and what to do."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the API server asks to wait."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the child process needs to know. The token stays in its file, and is read again for every try."""

    node: str
    key: str
    effect: str | None
    server: str
    token_file: str
    ca_file: str | None
    """None: do not verify the server's certificate."""


def without(taints: list[dict[str, Any]], taint: Taint) -> list[dict[str, Any]]:
    """Return the taints that stay: all but those of the key and, if one is named, the effect."""
    return [each for each in taints if each.get("key") != taint.key or taint.effect not in {None, each.get("effect")}]


def delays() -> Iterator[float]:
    """Yield how long to wait before each further try, in seconds: longer and longer, and never in step with others."""
    longest = _FIRST_DELAY
    while True:
        yield random.uniform(longest / 2, longest)  # noqa: S311 - no secret
        longest = min(2 * longest, _LONGEST_DELAY)


def remove(order: Order, say: Callable[[str, str], None], pause: Callable[[float], bool]) -> bool:
    """Try until the taint is gone; return False when `pause` says that nobody waits for it any more.

    Each reason for a failure is said once: some last until an operator comes.
    """
    said: set[str] = set()
    for delay in delays():
        try:
            say("INFO", attempt(order))
        except NotYetError as error:
            if str(error) not in said:
                said.add(str(error))
                say("ERROR", f"the taint {Taint(order.key, order.effect)} is not removed yet: {error}")
            asked = min(error.retry_after, _LONGEST_ASKED) * random.uniform(1, 1.5)  # noqa: S311 - no secret
        else:
            return True
        if pause(max(delay, asked)):
            break
    return False


def attempt(order: Order) -> str:
    """Remove the taint from the node as it is now; return what was done. Raises `NotYetError`."""
    lack = cluster.shortfall()
    if lack:
        raise NotYetError(lack)
    try:
        with contextlib.closing(cluster.Api(_access(order))) as api:
            for _ in range(_CONFLICTS):
                done = _remove_once(api, order)
                if done:
                    return done
    except cluster.UnreachableError as error:
        raise NotYetError(f"the API server does not answer: {error}") from error
    raise NotYetError(f"node {order.node} changes faster than it can be read")


def _remove_once(api: cluster.Api, order: Order) -> str | None:
    """Read the node and write it back without the taint; None when somebody else wrote it between."""
    path = f"/api/v1/nodes/{quote(order.node, safe='')}"
    taint = Taint(order.key, order.effect)
    found = api.request("GET", path, timeout=_TIMEOUT)
    _accept(found, order)
    if found.document.get("kind") != "Node":
        raise NotYetError("the API server's answer is no node: is something else at its address?")
    taints = (found.document.get("spec") or {}).get("taints") or []
    kept = without(taints, taint)
    if len(kept) == len(taints):
        return f"node {order.node} does not have the taint {taint} (any more)"
    metadata = found.document.get("metadata") or {}
    # A merge patch replaces the whole list, so it must be refused when the list is not the one that was read.
    body = {"metadata": {"resourceVersion": metadata.get("resourceVersion")}, "spec": {"taints": kept or None}}
    answer = api.request("PATCH", path, timeout=_TIMEOUT, body=body, content_type=cluster.MERGE_PATCH)
    if answer.status == _CONFLICT:
        return None
    _accept(answer, order)
    return f"removed the taint {taint} from node {order.node}"


def _accept(answer: cluster.Answer, order: Order) -> None:
    """Raise `NotYetError` for a refusal."""
    if answer.ok:
        return
    advice = {
        _UNAUTHORIZED: f"the token in {order.token_file} is not accepted; it is read again for the next try",
        _FORBIDDEN: f"add this rule to the ClusterRole of the service account: {RULE}",
        _NOT_FOUND: f"there is no node {order.node!r}: set NODE_NAME from the downward API (spec.nodeName)",
    }.get(answer.status)
    raise NotYetError(f"{answer.message}; {advice}" if advice else answer.message, answer.retry_after)


def _access(order: Order) -> cluster.Access:
    """Read the token and the CA, which kubelet rotates. Raises `NotYetError`."""
    try:
        token = Path(order.token_file).read_text("ascii").strip()
        authority = Path(order.ca_file).read_text("utf-8", "replace") if order.ca_file else None
    except (OSError, UnicodeDecodeError) as error:
        raise NotYetError(f"cannot read the service account's token or CA: {error}") from error
    if not is_token(token.encode("ascii")):
        raise NotYetError(f"{order.token_file} holds no token: it is not one printable word")
    if not token or authority == "":
        raise NotYetError(f"the token in {order.token_file} or the CA in {order.ca_file} is empty")
    return cluster.Access(order.server, token, authority)


def _work(order: dict[str, Any]) -> bool:
    return remove(Order(**order), child.say, child.pause)


if __name__ == "__main__":
    child.run(_work)
