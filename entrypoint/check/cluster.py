"""The cluster's part of `check`: what is asked of the API server, and what its answers mean.

It asks what Multus itself would ask, with the kubeconfig that Multus uses.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple

from entrypoint.check import networks
from entrypoint.check.findings import SERVER_TROUBLE, Finding, failed, passed, skipped, warned
from entrypoint.check.networks import ClusterNetwork, Networks, Programs
from entrypoint.cluster import client as cluster
from entrypoint.cluster import pods
from entrypoint.cluster.client import JSON, Access, Answer
from entrypoint.cni.document import InvalidJsonError, parse
from entrypoint.disk.looks import File, read
from entrypoint.errands import errands, taint
from entrypoint.errands.patience import REVIEWS, is_allowed, review
from entrypoint.settings import Settings

REACHABLE, TOKEN, ATTACHMENTS, RIGHTS, TAINT, PODS = (
    "cluster.reachable",
    "cluster.token",
    "cluster.attachments",
    "cluster.rights",
    "cluster.taint",
    "pods.networks",
)
ATTACHMENTS_NAME = "network-attachment-definitions"
_ATTACHMENTS_PATH = "/apis/k8s.cni.cncf.io/v1"
_SHOWN = 20
"""How many pods are named."""


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
    """Why no answer came that could be used, the first time."""
    fault: str | None = None
    """What an answer was that nobody foresaw, and that kept us from asking on."""
    version: Answer | None = None
    attachments: Answer | None = None
    rights: dict[Right, Answer] = field(default_factory=dict)
    node: Answer | None = None
    networks: Networks | None = None
    default: Answer | None = None
    """The definition by the name of the cluster network."""
    pods: Lacking | None = None


class Lacking(NamedTuple):
    """The pods of this node that lack networks (upstream issues 1387, 1468)."""

    pods: tuple[pods.Pod, ...] = ()
    refused: Answer | None = None
    """They could not be listed, or looked at."""


def findings(settings: Settings, access: Access | None, programs: Programs, timeout: float) -> list[Finding]:
    """Ask the API server what Multus would ask, for at most `timeout` seconds, and judge the answers.

    `access` is what the node's kubeconfig says; None when it says nothing that could be used. `programs` is what the
    node has for the cluster's networks.
    """
    if access is None:
        return _all_skipped(settings, "there is no kubeconfig with a token to ask with")
    lack = cluster.shortfall()
    if lack:
        return _all_skipped(settings, lack, "raise the container's memory limit, or run check in another pod")
    multus = standing(settings)
    return judge(settings, access, programs, multus, ask(settings, access, multus, timeout))


# ---- asking ----


def standing(settings: Settings) -> dict[str, Any]:
    """Return Multus's part of the configuration that stands; an empty one where none can be read."""
    for path in settings.output_files:
        look = read(path)
        with suppress(InvalidJsonError):
            document = parse(look.content) if isinstance(look, File) else None
            plugins = document.get("plugins") if isinstance(document, dict) else None
            first = plugins[0] if isinstance(plugins, list) and plugins else document
            if isinstance(first, dict):
                return first
    return {}


def cluster_network(multus: Mapping[str, Any]) -> ClusterNetwork | None:
    """Return the default network that a configuration names instead of holding it; None when it names none."""
    name = multus.get("clusterNetwork")
    if not isinstance(name, str) or not name:
        return None
    return ClusterNetwork(name, str(multus.get("multusNamespace") or "kube-system"), networks_dir(multus))


def networks_dir(multus: Mapping[str, Any]) -> str:
    """Return the host's directory in which Multus looks for a network by the name of its CNI configuration."""
    return str(multus.get("confDir") or "/etc/cni/multus/net.d")


def ask(settings: Settings, access: Access, multus: Mapping[str, Any], timeout: float) -> Answers:
    """Ask all questions; what has no answer after `timeout` seconds stays without."""
    answers = Answers()
    with ExitStack() as opened:
        try:
            # Not on the clock: loading the client takes its time under a CPU limit.
            api = opened.enter_context(closing(cluster.Api(access)))
            errands_access = _of_errands(settings, access)
            other = opened.enter_context(closing(cluster.Api(errands_access))) if errands_access else api
        except cluster.UnreachableError as error:
            answers.unreachable = str(error)
            return answers
        deadline = time.monotonic() + timeout
        questions = _questions(
            settings, multus, answers, _Asker(api, deadline, timeout), _Asker(other, deadline, timeout)
        )
        for question in questions:
            try:
                question()
            except cluster.UnreachableError as error:
                answers.unreachable = answers.unreachable or str(error)
                if answers.version is None:
                    break  # else every question would wait
            except Exception as error:  # else a traceback would be all that is told of it
                answers.fault = answers.fault or f"{type(error).__name__}: {error}"
    return answers


class _Asker(NamedTuple):
    """Asks, with one time-out for all questions."""

    api: cluster.Api
    deadline: float
    timeout: float

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None, accept: str = JSON) -> Answer:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise cluster.UnreachableError(f"no answer within {self.timeout:g} s")
        return self.api.request(method, path, timeout=left, body=body, accept=accept)

    def get(self, path: str, *, accept: str = JSON) -> Answer:
        return self("GET", path, accept=accept)


def _questions(
    settings: Settings, multus: Mapping[str, Any], answers: Answers, asked: _Asker, errands_asked: _Asker
) -> Iterator[Callable[[], None]]:
    """Yield what there is to ask, in order, each noting its answer; the last ones are the errands' business."""

    def version() -> None:
        answers.version = asked.get("/version")

    def attachments() -> None:
        answers.attachments = asked.get(_ATTACHMENTS_PATH)

    def rights() -> None:
        for right in (*NEEDED, *USEFUL):
            answers.rights[right] = asked("POST", REVIEWS, review(right._asdict()))

    def default() -> None:
        network = cluster_network(multus)
        if network and not network.is_path:
            answers.default = asked.get(cluster.attachment_path(network.namespace, network.name))

    def node() -> None:
        for right in TAINT_RIGHTS:
            answers.rights[right] = errands_asked("POST", REVIEWS, review(right._asdict()))
        if settings.node_name:
            answers.node = errands_asked.get(cluster.path_to("api", "v1", "nodes", settings.node_name))

    def all_networks() -> None:
        answers.networks = networks.ask(errands_asked.get)

    def lacking() -> None:
        try:
            answers.pods = Lacking(tuple(pods.find(errands_asked.get, settings.node_name or "")))
        except cluster.RefusedError as error:
            answers.pods = Lacking(refused=error.answer)

    yield from (version, attachments, rights, default)
    if settings.startup_taint:
        yield node
    yield all_networks
    if settings.node_name:
        yield lacking


def _of_errands(settings: Settings, access: Access) -> Access | None:
    """Return how the errands are let in, where they have a token of their own.

    One that cannot be read is one that the API server does not know.
    """
    path = errands.token_file(settings)
    if path == settings.token_file:
        return None
    look = read(path)
    token = look.content.decode("ascii", "replace").strip() if isinstance(look, File) else ""
    return dataclasses.replace(access, token=token or "unreadable")


# ---- judging ----


def judge(
    settings: Settings, access: Access, programs: Programs, multus: Mapping[str, Any], answers: Answers
) -> list[Finding]:
    """Say what the answers mean."""
    reachable = _reachable(access, answers)
    if answers.version is None or answers.version.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return [reachable, *_all_skipped(settings, f"see {REACHABLE}")[1:]]
    told = [answers.version, answers.attachments, *map(answers.rights.get, (*NEEDED, *USEFUL))]
    if any(answer is not None and answer.status == HTTPStatus.UNAUTHORIZED for answer in told):
        refused = failed(
            TOKEN,
            "the API server does not accept the token in the kubeconfig",
            "does the service account still exist, and is the entrypoint running to renew the token?",
        )
        return [reachable, refused, *_all_skipped(settings, f"see {TOKEN}")[2:]]
    accepted = passed(TOKEN, "the API server accepts the token")
    return [
        *(reachable, accepted, _attachments(answers), _rights(answers), *_taint(settings, answers)),
        *_networks(programs, multus, answers),
        _pods(settings, answers),
    ]


def _all_skipped(settings: Settings, why: str, advice: str = "") -> list[Finding]:
    identifiers = [REACHABLE, TOKEN, ATTACHMENTS, RIGHTS, *([TAINT] if settings.startup_taint else [])]
    identifiers += [networks.PLUGINS, networks.DHCP, PODS]
    return [skipped(identifier, why, advice) for identifier in identifiers]


def _reachable(access: Access, answers: Answers) -> Finding:
    if answers.version is None:
        return failed(
            REACHABLE,
            f"the API server does not answer: {answers.unreachable}",
            "is the address in the kubeconfig right, can this node reach it, and is the CA the cluster's?",
        )
    if answers.version.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return failed(REACHABLE, f"{access.server} answers {answers.version.message}", "look at the API server's log")
    version = answers.version.document.get("gitVersion")  # not told to whom the server does not know
    return passed(REACHABLE, f"{access.server} answers" + (f", Kubernetes {version}" if version else ""))


def _attachments(answers: Answers) -> Finding:
    answer = answers.attachments
    if answer is None:
        return _unanswered(ATTACHMENTS, answers)
    resources = answer.document.get("resources")
    names = [each.get("name") for each in resources if isinstance(each, dict)] if isinstance(resources, list) else []
    if answer.ok and ATTACHMENTS_NAME in names:
        return passed(ATTACHMENTS, "NetworkAttachmentDefinition is served")
    if answer.ok or answer.status == HTTPStatus.NOT_FOUND:
        return failed(
            ATTACHMENTS,
            "the cluster does not serve NetworkAttachmentDefinition (k8s.cni.cncf.io/v1)",
            "apply its CustomResourceDefinition, which comes with the DaemonSet's manifest",
        )
    advice = _bind("system:discovery") if answer.forbidden else SERVER_TROUBLE
    return warned(ATTACHMENTS, f"cannot say whether it is served: {answer.message}", advice)


def _rights(answers: Answers) -> Finding:
    unasked, denied = _denied(RIGHTS, answers, (*NEEDED, *USEFUL))
    if set(denied) & set(NEEDED):
        return failed(
            RIGHTS, f"not allowed: {_listed(denied)}", "apply the ClusterRole and its binding of the manifest"
        )
    if unasked:
        return unasked
    if denied:
        return warned(RIGHTS, f"not allowed: {_listed(denied)}", "add them to the ClusterRole, for events of pods")
    return passed(RIGHTS, f"allowed: {_listed([*NEEDED, *USEFUL])}")


def _denied(identifier: str, answers: Answers, rights: tuple[Right, ...]) -> tuple[Finding | None, list[Right]]:
    """Return which of the rights are not granted, and a finding when that could not be asked for one of them."""
    unasked, denied = None, []
    for right in rights:
        answer = answers.rights.get(right)
        if answer is None:
            unasked = _unanswered(identifier, answers)
        elif not answer.ok:
            advice = _bind("system:basic-user") if answer.forbidden else SERVER_TROUBLE
            unasked = warned(identifier, f"cannot ask whether {right} is allowed: {answer.message}", advice)
        elif not is_allowed(answer):
            denied.append(right)
    return unasked, denied


def _taint(settings: Settings, answers: Answers) -> Iterator[Finding]:
    wanted = settings.startup_taint
    if wanted is None:
        return
    unasked, denied = _denied(TAINT, answers, TAINT_RIGHTS)
    taints = taint.of(answers.node.document) if answers.node else []
    if not settings.node_name:
        yield failed(TAINT, "NODE_NAME is not set", "set it from the downward API (spec.nodeName)")
    elif denied:
        yield failed(TAINT, f"not allowed: {_listed(denied)}", f"add this rule to the ClusterRole: {taint.RULE}")
    elif answers.node is None:
        yield _unanswered(TAINT, answers)
    elif answers.node.status == HTTPStatus.NOT_FOUND:
        yield failed(TAINT, answers.node.message, "is NODE_NAME the name of this node (spec.nodeName)?")
    elif not answers.node.ok:
        yield warned(TAINT, f"cannot look at node {settings.node_name}: {answers.node.message}", SERVER_TROUBLE)
    elif unasked:
        yield unasked
    elif len(taint.without(taints, wanted)) < len(taints):
        advice = "it goes once the node is configured; if it does not, look at the entrypoint's log"
        yield warned(TAINT, f"node {settings.node_name} has the taint {wanted}", advice)
    else:
        yield passed(TAINT, f"node {settings.node_name} does not have the taint {wanted}")


def _networks(programs: Programs, multus: Mapping[str, Any], answers: Answers) -> Iterator[Finding]:
    network = cluster_network(multus)
    if network and (answers.default or network.is_path):
        yield networks.default(network, answers.default, programs)
    elif network:
        yield _unanswered(networks.DEFAULT, answers)
    if answers.networks is None:
        yield _unanswered(networks.PLUGINS, answers)
        yield skipped(networks.DHCP, f"see {networks.PLUGINS}")
    elif answers.networks.refused is not None and answers.networks.refused.status == HTTPStatus.NOT_FOUND:
        yield from (skipped(identifier, f"see {ATTACHMENTS}") for identifier in (networks.PLUGINS, networks.DHCP))
    else:
        yield from networks.findings(answers.networks, programs, networks_dir(multus))


def _pods(settings: Settings, answers: Answers) -> Finding:
    if not settings.node_name:
        return skipped(PODS, "NODE_NAME is not set", "set it from the downward API (spec.nodeName)")
    if answers.pods is None:
        return _unanswered(PODS, answers)
    refused = answers.pods.refused
    if refused is not None and refused.forbidden:
        return skipped(PODS, "optional: not allowed to list pods", f"see docs/checks.md for the rule: {pods.LIST_RULE}")
    if refused is not None:
        return warned(PODS, f"cannot look at this node's pods: {refused.message}", SERVER_TROUBLE)
    if not answers.pods.pods:
        return passed(PODS, "every pod of this node has the networks that it asks for")
    return failed(
        PODS,
        f"without networks that they ask for: {pods.shown(map(str, answers.pods.pods), _SHOWN)}",
        "they started while Multus was not there: delete them, so that they are made again, or see --repair-pods",
    )


def _bind(role: str) -> str:
    return f"bind the ClusterRole {role} to authenticated users, as Kubernetes does"


def _unanswered(identifier: str, answers: Answers) -> Finding:
    if answers.fault:
        return warned(identifier, f"not understood: {answers.fault}", "this is a fault of multus-entrypoint: report it")
    why = f"no answer: {answers.unreachable}"
    return warned(identifier, why, f"{SERVER_TROUBLE}, with a longer --timeout")


def _listed(rights: list[Right]) -> str:
    return ", ".join(map(str, rights))
