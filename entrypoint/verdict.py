"""The one verdict: would the CNI runtime use Multus now, and would that work? Pure.

The ready file, the startup taint, the log, `check` and `--dry-run` all follow it. What it cannot see from this
container, such as the plugins of the delegates, is left to `check`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from entrypoint import cniconf
from entrypoint.settings import Settings


def overtaken(directory: Path, names: Iterable[str], ours: str) -> str | None:
    """Say which files of the configuration directory the runtime reads before ours; None when it reads ours first.

    Whatever is in them: containerd 2.3 stops at one that it cannot load, and every pod waits.
    """
    order = cniconf.runtime_order(names)
    if order[:1] == [ours]:
        return None
    before = order[: order.index(ours)] if ours in order else order
    if not before:
        return None  # it is not there yet, or has no name that is read: others say so
    listed = ", ".join(map(repr, before))
    return f"{listed} in {directory} sorts before {ours}: the CNI runtime reads the first file and will not use Multus"


def not_used(path: Path, content: bytes) -> str | None:
    """Say why a runtime that reads this configuration would not use Multus; None when it would."""
    fault = cniconf.runtime_fault(path.name, content)
    return f"the CNI runtime will not use Multus with {path}: {fault}" if fault else None


def program_missing(settings: Settings, fault: str | None) -> str | None:
    """Say what is awaited of the multus binary, given what is wrong with it as a program; None when nothing is."""
    if fault is None:
        return None
    who = "; who installs it? --skip-multus-binary-copy is set" if settings.skip_binary_copy else ""
    return f"waiting for an executable file {settings.binary_file}, which {fault}{who}"
