"""`check`: look at the node and the cluster, change nothing, and say what is well and what is not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from entrypoint import owner
from entrypoint.check import cluster, kubeconfig, node
from entrypoint.check.findings import Finding, Status, passed, skipped, warned
from entrypoint.check.host import Host
from entrypoint.cluster.client import Access
from entrypoint.disk import mounts
from entrypoint.disk.looks import Absent, read
from entrypoint.node import meshes
from entrypoint.node.decision import decide_once
from entrypoint.owner import Instance
from entrypoint.settings import Settings

_OWNER = "node.owner"
_THE_OWNERS = frozenset({"binary.current", "configuration.current", "kubeconfig.current", "kubeconfig.mode"})
"""Findings that compare the node with what the instance of this container would have there."""


def run(settings: Settings, timeout: float, resident: int | None = None) -> list[Finding]:
    """Look at everything; wait at most `timeout` seconds for the API server.

    `resident` is the process of this container that is the entrypoint, as far as there is one.
    """
    instances = owner.living(settings.kubeconfig_file.parent) if os.path.isdir(settings.cni_conf_dir) else None
    decision = decide_once(settings, running=not settings.skip_config_watch)
    view = node.View(settings, decision, Host(settings), mounts.of(settings.cni_conf_dir))
    path = _kubeconfig_file(settings)
    look = read(path) if path else Absent()
    leads = "it is not there" if isinstance(look, Absent) else kubeconfig.read_back(look.content)
    found = [*node.findings(view), *kubeconfig.findings(view, path, look, leads, time.time())]
    access = leads if isinstance(leads, Access) and leads.token else None
    multus = meshes.parsed(view.standing[1].content) if view.standing else None
    return [
        *_of_the_owner(_said_once(found), instances, resident),
        *cluster.findings(settings, access, view.host, multus.multus if multus else {}, timeout),
    ]


def _said_once(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out what the log warns of and another finding says already."""
    warnings = [each for each in findings if each.identifier == "configuration.warnings"]
    others = tuple(each.found for each in findings if each not in warnings)
    return [each for each in findings if each not in warnings or not each.found.startswith(others)]


def _of_the_owner(
    findings: Iterable[Finding], instances: Sequence[Instance] | None, resident: int | None
) -> list[Finding]:
    """Say who owns the node, and take a newer instance's work for no fault of this one.

    `instances` are those that live on the node, the newest last; None where nobody can. `resident` is the process of
    this container that was taken for the entrypoint; None when there is none, so that nobody stands by.
    """
    if instances is None:
        return [skipped(_OWNER, "see node.directories"), *findings]
    instances = [each for each in instances if each.rank[0]]  # the others cannot configure the node
    if not instances:
        return [passed(_OWNER, "no other entrypoint keeps this node"), *findings]
    if resident is None:
        return [passed(_OWNER, "an entrypoint keeps this node, in another container"), *findings]
    if instances[-1].pid == resident:
        return [passed(_OWNER, "the entrypoint of this container keeps this node"), *findings]
    if all(instance.pid != resident for instance in instances):
        found = "another entrypoint keeps this node, and that of this container cannot do its work yet"
        return [warned(_OWNER, found, "see this pod's log for what it waits for"), *findings]
    found = "a newer entrypoint keeps this node, as in an update; that of this container stands by"
    advice = "run check in the newest pod of this node"
    return [warned(_OWNER, found, advice), *map(_excused, findings)]


def _excused(finding: Finding) -> Finding:
    if finding.identifier not in _THE_OWNERS or finding.status is not Status.FAIL:
        return finding
    return finding._replace(status=Status.WARN, advice=f"it is the newer entrypoint's: see {_OWNER}")


def _kubeconfig_file(settings: Settings) -> Path | None:
    """Return where this container sees the kubeconfig that Multus uses; None when it does not see it."""
    if settings.kubeconfig_is_ours:
        return settings.kubeconfig_file
    path = settings.in_container(settings.kubeconfig_path_on_host)
    return path if path and os.path.exists(path) else None
