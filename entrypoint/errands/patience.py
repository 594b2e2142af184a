"""What the errands at the API server share: the way in, and trying until it is done."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.cluster import client as cluster
from entrypoint.settings import is_token

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
TIMEOUT = 10.0  # seconds for one request
_FIRST_DELAY, _LONGEST_DELAY = 2.0, 30.0  # seconds
_LONGEST_ASKED = 120.0  # seconds: an API server asks for 32 at most; pods wait for us

Say = Callable[[str, str], None]
"""Has a message logged at a level: `child.say`."""
Pause = Callable[[float], bool]
"""Waits some seconds, and says whether nobody waits for the errand any more: `child.pause`."""


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

    def access(self) -> cluster.Access:
        """Read the token and the CA, which kubelet rotates. Raises `NotYetError`."""
        try:
            token = Path(self.token_file).read_text("ascii").strip()
            authority = Path(self.ca_file).read_text("utf-8", "replace") if self.ca_file else None
        except (OSError, UnicodeDecodeError) as error:
            raise NotYetError(f"cannot read the service account's token or CA: {error}") from error
        if not is_token(token.encode("ascii")):
            raise NotYetError(f"{self.token_file} holds no token: it is not one printable word")
        if not token or authority == "":
            raise NotYetError(f"the token in {self.token_file} or the CA in {self.ca_file} is empty")
        return cluster.Access(self.server, token, authority)


def open_api(order: Order) -> cluster.Api:
    """Load the client, where there is room for it. Raises `NotYetError`, and `cluster.UnreachableError`."""
    lack = cluster.shortfall()
    if lack:
        raise NotYetError(lack)
    return cluster.Api(order.access())


def missing_right(api: cluster.Api, answer: cluster.Answer, right: Mapping[str, str]) -> bool:
    """Say whether a refusal is for want of a right (`verb`, `group`, `resource`, `subresource`, `namespace`).

    A webhook or a quota refuses with 403 too, and means one object: the API server is asked whether the right is there.
    Raises `cluster.UnreachableError`.
    """
    return answer.forbidden and not is_allowed(api.request("POST", REVIEWS, timeout=TIMEOUT, body=review(right)))


def review(right: Mapping[str, str]) -> dict[str, Any]:
    """Return the question whether this token has a right."""
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {name: value for name, value in right.items() if value}},
    }


def is_allowed(answer: cluster.Answer) -> bool:
    """Say whether the answer to a `review` is yes."""
    status = answer.document.get("status")
    return answer.ok and isinstance(status, dict) and status.get("allowed") is True


def refusal(answer: cluster.Answer, rule: str) -> Exception:
    """Return what to raise over a refusal: a right that is missing is missing until somebody comes."""
    if answer.forbidden:
        advice = f"add this rule to the ClusterRole of the service account and start this pod again: {rule}"
        return GivenUpError(f"{answer.message}; {advice}")
    return NotYetError(answer.message, answer.retry_after)


def delays() -> Iterator[float]:
    """Yield how long to wait before each further try, in seconds: longer and longer, and never in step with others."""
    longest = _FIRST_DELAY
    while True:
        yield random.uniform(longest / 2, longest)  # noqa: S311 - no secret
        longest = min(2 * longest, _LONGEST_DELAY)


def until_done(attempt: Callable[[], str], failure: str, say: Say, pause: Pause) -> bool:
    """Try until it is done and say what was; return False when it is given up, or `pause` says that nobody waits.

    Each reason for a failure is said once, behind `failure`: some last until an operator comes.
    """
    said: set[str] = set()
    for delay in delays():
        try:
            say("INFO", attempt())
        except (NotYetError, cluster.UnreachableError) as error:
            message = str(error) if isinstance(error, NotYetError) else f"the API server does not answer: {error}"
            if message not in said:
                said.add(message)
                say("ERROR", f"{failure}: {message}")
            retry_after = error.retry_after if isinstance(error, NotYetError) else 0.0
            asked = min(retry_after, _LONGEST_ASKED) * random.uniform(1, 1.5)  # noqa: S311 - no secret
        except GivenUpError as error:
            say("ERROR", f"{failure}: {error}")
            return False
        else:
            return True
        if pause(max(delay, asked)):
            break
    return False
