"""The owner's part of `check`: in a rolling update two instances run on a node, and only the newest keeps it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from entrypoint.check.findings import Finding, Status, passed, skipped, warned
from entrypoint.owner import Instance

IDENTIFIER = "node.owner"
_THE_OWNERS = frozenset({"binary.current", "configuration.current", "kubeconfig.current", "kubeconfig.mode"})
"""Findings that compare the node with what the instance of this container would have there."""


def judged(findings: Iterable[Finding], instances: Sequence[Instance] | None, resident: int | None) -> list[Finding]:
    """Say who owns the node, and take a newer instance's work for no fault of this one.

    `instances` are those that live on the node, the newest last; None where nobody can. `resident` is the process of
    this container that was taken for the entrypoint; None when there is none, so that nobody stands by.
    """
    if instances is None:
        return [skipped(IDENTIFIER, "see node.directories"), *findings]
    if not instances:
        return [passed(IDENTIFIER, "no other entrypoint keeps this node"), *findings]
    if resident is None:
        return [passed(IDENTIFIER, "an entrypoint keeps this node, in another container"), *findings]
    if instances[-1].pid == resident:
        return [passed(IDENTIFIER, "the entrypoint of this container keeps this node"), *findings]
    if all(instance.pid != resident for instance in instances):
        found = "another entrypoint keeps this node, and that of this container cannot do its work yet"
        return [warned(IDENTIFIER, found, "see this pod's log for what it waits for"), *findings]
    found = "a newer entrypoint keeps this node, as in an update; that of this container stands by"
    advice = "run check in the newest pod of this node"
    return [warned(IDENTIFIER, found, advice), *map(_excused, findings)]


def _excused(finding: Finding) -> Finding:
    if finding.identifier not in _THE_OWNERS or finding.status is not Status.FAIL:
        return finding
    return finding._replace(status=Status.WARN, advice=f"it is the newer entrypoint's: see {IDENTIFIER}")
