"""What `check` asks the API server: what Multus itself would ask, with the kubeconfig that Multus uses."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

from entrypoint.check import networks, pods
from entrypoint.check.networks import Networks
from entrypoint.check.pods import Lacking
from entrypoint.cluster import client as cluster
from entrypoint.cluster.client import JSON, Access, Answer
from entrypoint.settings import Settings

ATTACHMENTS_NAME = "network-attachment-definitions"
_ATTACHMENTS_PATH = "/apis/k8s.cni.cncf.io/v1"
_REVIEWS_PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Right(NamedTuple):
    """Something to be allowed to do."""

    verb: str
    group: str
    resource: str
    subresource: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{'/' + self.subresource if self.subresource else ''}"


NEEDED = (
    Right("get", "", "pods"),
    Right("update", "", "pods", "status"),
    Right("get", "k8s.cni.cncf.io", ATTACHMENTS_NAME),
)
"""Without one of these Multus cannot set up a pod's networks or report them."""

USEFUL = (Right("create", "", "events"), Right("patch", "", "events"))
"""Without these pods are set up all the same, but their events do not tell of it."""

TAINT_RIGHTS = (Right("get", "", "nodes"), Right("patch", "", "nodes"))


@dataclass(slots=True)
class Answers:
    """What the API server answered until now."""

    unreachable: str | None = None
    """Why no (further) answer came."""
    fault: str | None = None
    """What an answer was that nobody foresaw, and that kept us from asking on."""
    version: Answer | None = None
    attachments: Answer | None = None
    rights: dict[Right, Answer] = field(default_factory=dict)
    node: Answer | None = None
    networks: Networks | None = None
    pods: Lacking | None = None


def ask(settings: Settings, access: Access, timeout: float) -> Answers:
    """Ask all questions; what has no answer after `timeout` seconds stays without."""
    answers = Answers()
    try:
        api = cluster.Api(access)  # not on the clock: loading the client takes its time under a CPU limit
    except cluster.UnreachableError as error:
        answers.unreachable = str(error)
        return answers
    # A thread, because neither a name server nor an API server that sends a byte now and then keeps to a time-out.
    asking = threading.Thread(target=_ask, args=(settings, api, time.monotonic() + timeout, answers), daemon=True)
    asking.start()
    asking.join(timeout)
    if asking.is_alive():
        answers.unreachable = f"{access.server}: no answer within {timeout:g} s"
    return answers


def _ask(settings: Settings, api: cluster.Api, deadline: float, answers: Answers) -> None:
    def request(method: str, path: str, body: dict[str, Any] | None = None, accept: str = JSON) -> Answer:
        left = max(0.001, deadline - time.monotonic())
        return api.request(method, path, timeout=left, body=body, accept=accept)

    def get(path: str, *, accept: str = JSON) -> Answer:
        return request("GET", path, accept=accept)

    with contextlib.closing(api):
        try:
            answers.version = get("/version")
            answers.attachments = get(_ATTACHMENTS_PATH)
            rights = [*NEEDED, *USEFUL, *(TAINT_RIGHTS if settings.startup_taint else ())]
            for right in rights:
                answers.rights[right] = request("POST", _REVIEWS_PATH, _review(right))
            if settings.startup_taint and settings.node_name:
                answers.node = get(f"/api/v1/nodes/{quote(settings.node_name, safe='')}")
            answers.networks = networks.ask(get)
            if settings.node_name:
                answers.pods = pods.ask(get, settings.node_name)
        except cluster.UnreachableError as error:
            answers.unreachable = answers.unreachable or str(error)
        except Exception as error:  # else a thread's traceback would be all that is told of it
            answers.fault = f"{type(error).__name__}: {error}"


def _review(right: Right) -> dict[str, Any]:
    attributes = {"verb": right.verb, "group": right.group, "resource": right.resource}
    if right.subresource:
        attributes["subresource"] = right.subresource
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
