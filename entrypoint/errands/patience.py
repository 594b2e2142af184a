"""What the errands at the API server share: the way in, and trying until it is done."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from entrypoint.cluster import client as cluster
from entrypoint.cluster.client import part
from entrypoint.errands import child
from entrypoint.settings import is_token

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_FIRST_DELAY, _LONGEST_DELAY = 2.0, 30.0  # seconds
_LONGEST_ASKED = 120.0  # seconds: an API server asks for 32 at most; pods wait for us


class NotYetError(Exception):
    """It could not be done; the message says why and what to do."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the API server asks to wait."""


class GivenUpError(Exception):
    """It could not be done, and trying again would not help; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Order:
    """What an errand's process needs to know. The token stays in its file, and is read again for every try."""

    node: str
    server: str
    token_file: str
    ca_file: str | None
    """None: do not verify the server's certificate."""
    taint: tuple[str, str | None] = ("", None)
    """Key and effect of the startup taint."""
    repair_pods: str = ""
    """What to do about pods without their networks."""
    bin_dirs: tuple[str, ...] = ()
    """The directories of this container in which the node's plugins are."""

    def open_api(self) -> cluster.Api:
        """Load the client, where there is room for it. Raises `NotYetError`, and `cluster.UnreachableError`."""
        if lack := cluster.load():
            raise NotYetError(lack)
        try:
            token = Path(self.token_file).read_bytes().strip()
            authority = Path(self.ca_file).read_text("utf-8", "replace") if self.ca_file else None
        except OSError as error:
            advice = "is the service account's volume, or the Secret of ERRANDS_ACCOUNT_DIR, mounted there?"
            raise NotYetError(f"cannot read the service account's token or CA: {error}; {advice}") from error
        if not token or not is_token(token):
            raise NotYetError(f"{self.token_file} must hold a token, one printable word: look at what is mounted there")
        if authority == "":
            raise NotYetError(f"{self.ca_file} must hold the cluster's CA: look at what is mounted there")
        return cluster.Api(cluster.Access(self.server, token.decode("ascii"), authority))


def review(right: Mapping[str, str]) -> dict[str, Any]:
    """Return the question whether this token has a right."""
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {name: value for name, value in right.items() if value}},
    }


def is_allowed(answer: cluster.Answer) -> bool:
    """Say whether the answer to a `review` is yes."""
    return answer.ok and part(answer.document, "status").get("allowed") is True


def until_done(order: Order, attempt: Callable[[], str], failure: str, *, persistent: bool = False) -> bool:
    """Try until it is done and say what was; return False when it is given up, or the parent has gone.

    Each reason for a failure is said once, behind `failure`: some last until an operator comes. A right that is missing
    is missing until then too, which only a `persistent` errand waits for. The nodes of a cluster try again after longer
    and longer, and never in step with others.
    """
    said: set[str] = set()
    longest = _FIRST_DELAY
    while True:
        asked, given_up = 0.0, False
        try:
            child.say("INFO", attempt())
        except NotYetError as error:
            message, asked = str(error), error.retry_after
        except GivenUpError as error:
            message, given_up = str(error), True
        except cluster.UnreachableError as error:
            advice = "can this node reach it, and is the CA the cluster's?"
            message = f"no answer of the API server that can be used: {error}; {advice}"
        except cluster.RefusedError as error:
            message, asked = f"{error}; {_advice(order, error)}", error.answer.retry_after
            given_up = error.answer.forbidden and not persistent
        else:
            return True
        if message not in said:
            said.add(message)
            outlook = "restart the entrypoint's pod to have it tried again" if given_up else "it is tried again"
            child.say("ERROR", f"{failure}: {message}; {outlook}")
        delay = random.uniform(longest / 2, longest)  # noqa: S311 - no secret
        asked = min(asked, _LONGEST_ASKED) * random.uniform(1, 1.5)  # noqa: S311
        if given_up or child.pause(max(delay, asked)):
            return False
        longest = min(2 * longest, _LONGEST_DELAY)


def _advice(order: Order, refused: cluster.RefusedError) -> str:
    """Say what to do about a refusal."""
    by_status: dict[int, str] = {
        HTTPStatus.UNAUTHORIZED: f"the token in {order.token_file} is not accepted: is its service account there?",
        HTTPStatus.FORBIDDEN: f"add this rule to the ClusterRole of the service account: {refused.rule}",
        HTTPStatus.NOT_FOUND: "is NODE_NAME the name of this node? Set it from the downward API (spec.nodeName)",
    }
    return by_status.get(refused.answer.status, "look at the API server's log if it does not end")
