"""The cluster's part of `check`: what is asked of the API server, and what its answers mean.

It asks what Multus itself would ask, with the kubeconfig that Multus uses.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

from entrypoint.check import networks
from entrypoint.check.findings import Finding, Status, failed, passed, skipped, warned
from entrypoint.check.host import Host
from entrypoint.cluster import client as cluster
from entrypoint.cluster import pods
from entrypoint.cluster.client import JSON, Access, Answer, RefusedError
from entrypoint.disk.looks import File, read
from entrypoint.errands import errands, taint
from entrypoint.errands.patience import REVIEWS, is_allowed, review
from entrypoint.settings import Settings, Taint

REACHABLE, TOKEN, ATTACHMENTS = "cluster.reachable", "cluster.token", "cluster.attachments"
RIGHTS, TAINT, PODS = "cluster.rights", "cluster.taint", "pods.networks"
ATTACHMENTS_NAME = "network-attachment-definitions"
_ATTACHMENTS_PATH = "/apis/k8s.cni.cncf.io/v1"
_SHOWN = 20
"""How many pods are named."""
_SERVER_TROUBLE = "look at the API server's log, and check again"
"""What to do about an answer that is neither what was asked for nor the want of a right."""
_NODE_NAME = "set NODE_NAME from the downward API (spec.nodeName)"
_BIND = "bind the ClusterRole {} to authenticated users, as Kubernetes does"
_FORBIDDEN = {
    ATTACHMENTS: _BIND.format("system:discovery"),
    RIGHTS: _BIND.format("system:basic-user"),
    TAINT: f"{_BIND.format('system:basic-user')}, and this rule: {taint.RULE}",
    networks.DEFAULT: f"see {RIGHTS}",
}
"""What to do where something may not be asked."""
_OPTIONAL = {networks.PLUGINS: ("networks", networks.RULE), PODS: ("pods", pods.LIST_RULE)}
"""What Multus itself never lists, and the rule that allows it."""


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


class _StopError(Exception):
    """There is nothing more to ask. The last of these findings says why."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(findings[-1].found)
        self.findings = findings


class _Asker(NamedTuple):
    """Asks, with one time-out for all questions."""

    api: cluster.Api
    server: str
    deadline: float
    timeout: float
    of_errands: bool = False
    """With the errands' own token. Otherwise with that of the kubeconfig, on which all depends."""

    def __call__(self, path: str, *, accept: str = JSON, body: dict[str, Any] | None = None) -> Answer:
        """Ask for a path, or post a question there. Raises `UnreachableError`, and `_StopError`."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise cluster.UnreachableError(f"no answer within {self.timeout:g} s")
        answer = self.api.request("POST" if body else "GET", path, timeout=left, body=body, accept=accept)
        if answer.status == HTTPStatus.UNAUTHORIZED and not self.of_errands:
            found = "the API server does not accept the token in the kubeconfig"
            advice = "does the service account still exist, and is the entrypoint running to renew the token?"
            raise _StopError(passed(REACHABLE, f"{self.server} answers"), failed(TOKEN, found, advice))
        return answer

    def denied(self, rights: Iterable[Right]) -> list[Right]:
        """Return which of the rights are not granted. Raises `RefusedError` where that may not be asked."""
        denied = []
        for right in rights:
            answer = self(REVIEWS, body=review(right._asdict()))
            if not answer.ok:
                raise RefusedError(answer)
            if not is_allowed(answer):
                denied.append(right)
        return denied


class _Question(NamedTuple):
    """Something to ask, and to judge."""

    identifiers: tuple[str, ...]
    """Of the findings that there are in any case. Where no answer comes, the first says why."""
    findings: Callable[[_Asker], Iterable[Finding]]
    """Raises `RefusedError`, `UnreachableError` and `_StopError`."""
    of_errands: bool = False
    """It is the errands' business, and asked with their token."""


def findings(
    settings: Settings, access: Access | None, host: Host, multus: Mapping[str, Any], timeout: float
) -> list[Finding]:
    """Ask the API server what Multus would ask, for at most `timeout` seconds, and judge the answers.

    `access` is what the node's kubeconfig says; None when it says nothing that could be used. `multus` is Multus's part
    of the configuration that stands.
    """
    questions = _questions(settings, host, multus)
    identifiers = [REACHABLE, TOKEN, *(each for question in questions for each in question.identifiers)]
    with ExitStack() as opened:
        try:
            asked, for_errands = _askers(opened, settings, access, timeout)
            reachable = _reachable(asked)
            found = [each for question in questions for each in _answered(question, asked, for_errands)]
        except _StopError as error:
            see = f"see {error.findings[-1].identifier}"
            return [*error.findings, *(skipped(each, see) for each in identifiers[len(error.findings) :])]
    return [reachable, passed(TOKEN, "the API server accepts the token"), *found]


def _questions(settings: Settings, host: Host, multus: Mapping[str, Any]) -> list[_Question]:
    """Return what there is to ask, in order."""
    questions = [_Question((ATTACHMENTS,), _attachments), _Question((RIGHTS,), _rights)]
    if settings.startup_taint:
        questions.append(_Question((TAINT,), partial(_taint, settings, settings.startup_taint), of_errands=True))
    if isinstance(multus.get("clusterNetwork"), str) and multus["clusterNetwork"]:
        questions.append(_Question((networks.DEFAULT,), partial(networks.default, host, multus)))
    return [
        *questions,
        _Question((networks.PLUGINS, networks.DHCP), partial(networks.findings, host, multus), of_errands=True),
        _Question((PODS,), partial(_pods, settings), of_errands=True),
    ]


def _askers(opened: ExitStack, settings: Settings, access: Access | None, timeout: float) -> tuple[_Asker, _Asker]:
    """Return who asks with the token of the kubeconfig, and with the errands': the same where they have none."""
    if access is None:
        why = "there is no kubeconfig with a token to ask with"
        raise _StopError(skipped(REACHABLE, why, "see the findings about the kubeconfig"))
    if lack := cluster.load():
        raise _StopError(skipped(REACHABLE, lack, "raise the memory limit, or run check in another pod"))
    accesses = dict.fromkeys([access, _of_errands(settings, access)])
    # Not on the clock: loading the client takes its time under a CPU limit.
    apis = [opened.enter_context(closing(cluster.Api(each))) for each in accesses]
    asked = _Asker(apis[0], access.server, time.monotonic() + timeout, timeout)
    return asked, asked._replace(api=apis[-1], of_errands=len(apis) > 1)


def _of_errands(settings: Settings, access: Access) -> Access:
    """Return how the errands are let in, where they have a token of their own.

    One that cannot be read is one that the API server does not know.
    """
    path = errands.token_file(settings)
    if path == settings.token_file:
        return access
    look = read(path)
    token = look.content.decode("ascii", "replace").strip() if isinstance(look, File) else ""
    return dataclasses.replace(access, token=token or "unreadable")


def _answered(question: _Question, asked: _Asker, for_errands: _Asker) -> list[Finding]:
    """Ask, and return the findings; where no answer came that could be used, the first says why."""
    first, *others = question.identifiers
    try:
        return list(question.findings(for_errands if question.of_errands else asked))
    except _StopError:
        raise
    except RefusedError as error:
        trouble = _refused(first, error.answer)
    except cluster.UnreachableError as error:
        trouble = warned(first, f"no answer: {error}", f"{_SERVER_TROUBLE}, with a longer --timeout")
    except Exception as error:  # else a traceback would be all that is told of it
        why = f"not understood: {type(error).__name__}: {error}"
        trouble = warned(first, why, "this is a fault of multus-entrypoint: report it")
    optional = "optional: " if trouble.status is Status.SKIPPED else ""
    return [trouble, *(skipped(each, f"{optional}see {first}") for each in others)]


def _refused(identifier: str, answer: Answer) -> Finding:
    """Say what to do about an answer that is not what was asked for."""
    found = f"the API server answers {answer.message}"
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return warned(identifier, found, f"does the account still exist whose token is in {errands.ACCOUNT}?")
    if not answer.forbidden:
        return warned(identifier, found, _SERVER_TROUBLE)
    if identifier in _OPTIONAL:
        what, rule = _OPTIONAL[identifier]
        return skipped(identifier, f"optional: not allowed to list {what}", f"see docs/checks.md for the rule: {rule}")
    return warned(identifier, found, _FORBIDDEN[identifier])


# ---- the questions ----


def _reachable(asked: _Asker) -> Finding:
    try:
        answer = asked("/version")
    except cluster.UnreachableError as error:
        found = f"the API server does not answer: {error}"
        advice = "is the address in the kubeconfig right, can this node reach it, and is the CA the cluster's?"
        raise _StopError(failed(REACHABLE, found, advice)) from error
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        found = f"{asked.server} answers {answer.message}"
        raise _StopError(failed(REACHABLE, found, _SERVER_TROUBLE))
    version = answer.document.get("gitVersion")  # not told to whom the server does not know
    return passed(REACHABLE, f"{asked.server} answers" + (f", Kubernetes {version}" if version else ""))


def _attachments(asked: _Asker) -> Iterator[Finding]:
    answer = asked(_ATTACHMENTS_PATH)
    resources = answer.document.get("resources")
    names = [each.get("name") for each in resources if isinstance(each, dict)] if isinstance(resources, list) else []
    if answer.ok and ATTACHMENTS_NAME in names:
        yield passed(ATTACHMENTS, "NetworkAttachmentDefinition is served")
    elif answer.ok or answer.status == HTTPStatus.NOT_FOUND:
        yield failed(
            ATTACHMENTS,
            "the cluster does not serve NetworkAttachmentDefinition (k8s.cni.cncf.io/v1)",
            "apply its CustomResourceDefinition, which comes with the DaemonSet's manifest",
        )
    else:
        raise RefusedError(answer)


def _rights(asked: _Asker) -> Iterator[Finding]:
    denied = asked.denied([*NEEDED, *USEFUL])
    if not denied:
        yield passed(RIGHTS, f"allowed: {_listed([*NEEDED, *USEFUL])}")
    elif set(denied) & set(NEEDED):
        yield failed(RIGHTS, f"not allowed: {_listed(denied)}", "apply the ClusterRole and its binding of the manifest")
    else:
        yield warned(RIGHTS, f"not allowed: {_listed(denied)}", "add them to the ClusterRole, for events of pods")


def _taint(settings: Settings, wanted: Taint, asked: _Asker) -> Iterator[Finding]:
    if not settings.node_name:
        yield failed(TAINT, "NODE_NAME is not set", _NODE_NAME)
        return
    if denied := asked.denied(TAINT_RIGHTS):
        yield failed(TAINT, f"not allowed: {_listed(denied)}", f"add this rule to the ClusterRole: {taint.RULE}")
        return
    answer = asked(cluster.path_to("api", "v1", "nodes", settings.node_name))
    taints = taint.of(answer.document)
    if answer.status == HTTPStatus.NOT_FOUND:
        yield failed(TAINT, answer.message, "is NODE_NAME the name of this node (spec.nodeName)?")
    elif not answer.ok:
        raise RefusedError(answer)
    elif len(taint.without(taints, wanted)) < len(taints):
        advice = "it goes once the node is configured; if it does not, look at the entrypoint's log"
        yield warned(TAINT, f"node {settings.node_name} has the taint {wanted}", advice)
    else:
        yield passed(TAINT, f"node {settings.node_name} does not have the taint {wanted}")


def _pods(settings: Settings, asked: _Asker) -> Iterator[Finding]:
    """Name the pods of this node that lack networks (upstream issues 1387, 1468)."""
    if not settings.node_name:
        yield skipped(PODS, "NODE_NAME is not set", _NODE_NAME)
        return
    found = list(map(str, pods.find(asked, settings.node_name)))
    if found:
        advice = (
            "they started while Multus was not there: delete them, so that they are made again, or see --repair-pods"
        )
        yield failed(PODS, f"without networks that they ask for: {pods.shown(found, _SHOWN)}", advice)
    else:
        yield passed(PODS, "every pod of this node has the networks that it asks for")


def _listed(rights: list[Right]) -> str:
    return ", ".join(map(str, rights))
