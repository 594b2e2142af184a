"""The cluster's part of `check`: judging what the API server answered. Pure, but for `findings`, which asks."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from entrypoint.check import networks, pods
from entrypoint.check.findings import SERVER_TROUBLE, Finding, failed, passed, skipped, warned
from entrypoint.check.plugins import Programs
from entrypoint.check.questions import ATTACHMENTS_NAME, NEEDED, TAINT_RIGHTS, USEFUL, Answers, Right, ask
from entrypoint.cluster import client as cluster
from entrypoint.cluster.client import Access
from entrypoint.errands import taint
from entrypoint.settings import Settings

REACHABLE, TOKEN, ATTACHMENTS, RIGHTS, TAINT = (
    "cluster.reachable",
    "cluster.token",
    "cluster.attachments",
    "cluster.rights",
    "cluster.taint",
)


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
    return judge(settings, access, programs, ask(settings, access, timeout))


# ---- judging ----


def judge(settings: Settings, access: Access, programs: Programs, answers: Answers) -> list[Finding]:
    """Say what the answers mean."""
    reachable = _reachable(access, answers)
    if answers.version is None or answers.version.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return [reachable, *_all_skipped(settings, f"see {REACHABLE}")[1:]]
    told = [answers.version, answers.attachments, *answers.rights.values()]
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
        *_networks(programs, answers),
        _pods(settings, answers),
    ]


def _all_skipped(settings: Settings, why: str, advice: str = "") -> list[Finding]:
    identifiers = [REACHABLE, TOKEN, ATTACHMENTS, RIGHTS, *([TAINT] if settings.startup_taint else [])]
    identifiers += [networks.PLUGINS, networks.DHCP, pods.IDENTIFIER]
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
        elif (answer.document.get("status") or {}).get("allowed") is not True:
            denied.append(right)
    return unasked, denied


def _taint(settings: Settings, answers: Answers) -> Iterator[Finding]:
    wanted = settings.startup_taint
    if wanted is None:
        return
    unasked, denied = _denied(TAINT, answers, TAINT_RIGHTS)
    taints = ((answers.node.document.get("spec") or {}).get("taints") or []) if answers.node else []
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


def _networks(programs: Programs, answers: Answers) -> Iterator[Finding]:
    if answers.networks is None:
        yield _unanswered(networks.PLUGINS, answers)
        yield skipped(networks.DHCP, f"see {networks.PLUGINS}")
    elif answers.networks.refused is not None and answers.networks.refused.status == HTTPStatus.NOT_FOUND:
        yield from (skipped(identifier, f"see {ATTACHMENTS}") for identifier in (networks.PLUGINS, networks.DHCP))
    else:
        yield from networks.findings(answers.networks, programs)


def _pods(settings: Settings, answers: Answers) -> Finding:
    if not settings.node_name:
        return skipped(pods.IDENTIFIER, "NODE_NAME is not set", "set it from the downward API (spec.nodeName)")
    return _unanswered(pods.IDENTIFIER, answers) if answers.pods is None else pods.finding(answers.pods)


def _bind(role: str) -> str:
    return f"bind the ClusterRole {role} to authenticated users, as Kubernetes does"


def _unanswered(identifier: str, answers: Answers) -> Finding:
    if answers.fault:
        return warned(identifier, f"not understood: {answers.fault}", "this is a fault of multus-entrypoint: report it")
    why = f"no answer: {answers.unreachable}"
    return warned(identifier, why, "check again, with a longer --timeout")


def _listed(rights: list[Right]) -> str:
    return ", ".join(map(str, rights))
