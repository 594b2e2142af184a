"""Lists of the Kubernetes API, taken in pages: a whole cluster's would not fit into the container's memory limit."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import urlencode

from entrypoint.cluster.client import JSON, Answer

PAGE = 100
"""Objects in one answer, at most."""
_RESTARTS = 3
"""How often a list is begun anew in one go."""


class Get(Protocol):
    """Asks the API server for a path; `accept` is the media type of the answer."""

    def __call__(self, path: str, *, accept: str = JSON) -> Answer:
        """Return the answer, refusals too. Raises `cluster.UnreachableError`."""


class RefusedError(Exception):
    """The API server answered, and not with what was asked for."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


def objects(
    get: Get, path: str, *, selector: str = "", accept: str = JSON, cached: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list, with a field selector only those that it takes.

    A list of the pods of one node is to be `cached`: the API server has an index for that in its memory, and would
    else go through all pods of the cluster in its database. It may lag behind, and comes in one page.
    The server forgets after some minutes where a page ended (410 Gone). The list is then begun anew, so that an object
    may come twice. Raises `RefusedError`, and `cluster.UnreachableError`.
    """
    token, restarts = "", 0
    while True:
        version = "0" if cached and not token else ""  # a server refuses it together with a token
        query = {"limit": str(PAGE), "fieldSelector": selector, "resourceVersion": version, "continue": token}
        answer = get(f"{path}?{urlencode({name: value for name, value in query.items() if value})}", accept=accept)
        if answer.status == HTTPStatus.GONE and token and restarts < _RESTARTS:
            token, restarts = "", restarts + 1
            continue
        if not answer.ok:
            raise RefusedError(answer)
        items = answer.document.get("items")
        yield from (each for each in items if isinstance(each, dict)) if isinstance(items, list) else ()
        token = (answer.document.get("metadata") or {}).get("continue") or ""
        if not token:
            return
