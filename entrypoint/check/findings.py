"""What `check` found: small records, rendered once as a table for people and once as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from entrypoint.telling.log import one_line


class Status(StrEnum):
    """How a finding is to be taken."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


_COLOURS = {Status.PASS: 32, Status.WARN: 33, Status.FAIL: 31, Status.SKIPPED: 36}  # ANSI


class Finding(NamedTuple):
    """One thing that was looked at."""

    identifier: str
    """Stable; docs/checks.md explains each."""
    status: Status
    found: str
    advice: str = ""
    """What to do; empty when there is nothing to do."""


def passed(identifier: str, found: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(identifier, Status.PASS, found)


def warned(identifier: str, found: str, advice: str) -> Finding:
    """Return a finding that may be trouble."""
    return Finding(identifier, Status.WARN, found, advice)


def failed(identifier: str, found: str, advice: str) -> Finding:
    """Return a finding that is trouble."""
    return Finding(identifier, Status.FAIL, found, advice)


def skipped(identifier: str, why: str, advice: str = "") -> Finding:
    """Return a finding that something could not be looked at."""
    return Finding(identifier, Status.SKIPPED, why, advice)


def all_well(findings: Iterable[Finding]) -> bool:
    """Say whether no finding failed."""
    return all(finding.status is not Status.FAIL for finding in findings)


def as_table(findings: Sequence[Finding], *, colour: bool) -> str:
    """Render one line a finding: status, identifier, what was found, what to do."""
    width = max(len(finding.identifier) for finding in findings)
    lines = [f"{'STATUS':9}{'CHECK':{width + 2}}FOUND => WHAT TO DO"]
    for finding in findings:
        status = f"{finding.status:7}"
        if colour:
            status = f"\x1b[{_COLOURS[finding.status]}m{status}\x1b[0m"
        advice = f" => {finding.advice}" if finding.advice else ""
        lines.append(f"{status}  {finding.identifier:{width + 2}}{one_line(finding.found + advice)}")
    return "\n".join(lines)


def as_json(findings: Iterable[Finding]) -> str:
    """Render a JSON object: `ok`, and `findings` with `id`, `status`, `found`, `advice` each."""
    findings = list(findings)
    names = ("id", "status", "found", "advice")
    listed = [dict(zip(names, finding, strict=True)) for finding in findings]
    return json.dumps({"ok": all_well(findings), "findings": listed}, indent=2)
