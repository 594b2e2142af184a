"""Which of the short-lived processes are due: CRI-O's restart, the startup taint's removal, the repair of pods.

The resident process only starts them: what they need would take more memory than all the rest.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from entrypoint.errands.child import FULL, RESTART_AFTER, Child
from entrypoint.settings import Settings
from entrypoint.telling.log import logger

ACCOUNT = "ERRANDS_ACCOUNT_DIR"
"""Environment variable: the directory with the token of another service account for the errands at the API server.

What only they need, such as the rights to nodes and evictions, is then not granted to the token in the kubeconfig,
which lies on the host. Kubernetes projects into a pod no token but of the pod's own service account, so that this one
comes from a Secret of the type `kubernetes.io/service-account-token`. Unset: they use the pod's own account.
"""
_AGAIN = 5.0
"""Seconds until a process that was broken off is started again."""
_WORK = {"crio": "restart CRI-O", "taint": "remove the startup taint", "pods": "repair pods without their networks"}
_LOSES_ETH0 = (
    "CRI-O is about to be restarted. From release 1.32 on it then takes eth0 from pods that were set up before Multus "
    "came, because the network in use has another name now: set --override-network-name, or make those pods again"
)


class Errands:
    """The short-lived processes of this run: each is started when its time has come."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._changed = False
        self._children: dict[str, Child] = {}
        """By the name of the module. Those that were broken off are not there any more."""
        self._not_before = float("-inf")
        """When one may be started, in monotonic seconds."""

    def configuration_changed(self) -> None:
        """Take note that this pass has changed what the CNI runtime reads."""
        self._changed = True

    def pass_done(self, *, configured: bool, now: float) -> float | None:
        """Start what is due; return when to go on with the rest, None when nothing is left (monotonic seconds).

        When the node stops being configured before the taint is gone, the taint stays until it is configured again, and
        so with the repair of pods. On a node that flips, processes are not started again and again.
        """
        if not configured:
            for name in ("taint", "pods"):
                child = self._children.get(name)
                if child is not None and not child.ended.is_set():
                    child.stop()
                    del self._children[name]
                    self._not_before = now + _AGAIN
        if now < self._not_before:
            return self._not_before
        try:
            self._start_what_is_due(configured=configured)
        except RuntimeError as error:  # no thread is left that would follow it
            logger.error("cannot start a process of our own: %s; %s. Trying again in %g s", error, FULL, RESTART_AFTER)
            self._not_before = now + RESTART_AFTER
            return self._not_before
        return None

    def _start_what_is_due(self, *, configured: bool) -> None:
        """Start CRI-O's restart after a change, then, on a configured node, what waits for that.

        Pods shall come to the node only once CRI-O, if it is being restarted, knows the configuration. One comes after
        the other: the memory limit holds one of them. Raises RuntimeError.
        """
        settings = self._settings
        due = {
            "crio": settings.restart_crio and self._changed,
            "taint": settings.startup_taint is not None and configured,
            "pods": bool(settings.repair_pods) and configured,
        }
        before: Child | None = None
        for name in [name for name, is_due in due.items() if is_due]:
            if name not in self._children:
                if name == "crio" and settings.static_conf_file is None and not settings.override_network_name:
                    logger.warning(_LOSES_ETH0)
                # Without the removal of the taint no pod comes to the node: that is tried for ever.
                child = Child(f"entrypoint.errands.{name}", _order(settings), _WORK[name], persistent=name == "taint")
                child.start(after=before)
                self._children[name] = child
            before = self._children[name]

    def stop(self) -> None:
        """Break off what is still going on."""
        for child in self._children.values():
            child.stop()


def token_file(settings: Settings) -> Path:
    """Return the file with the token for errands at the API server."""
    directory = os.environ.get(ACCOUNT)
    return Path(directory, "token") if directory else settings.token_file


def _order(settings: Settings) -> dict[str, Any]:
    """Return what an errand needs to know, a `patience.Order`: never the token itself, which is in a file."""
    more = settings.in_container(settings.additional_bin_dir) if settings.additional_bin_dir else None
    return {
        "node": settings.node_name,
        "server": settings.api_server,
        "token_file": str(token_file(settings)),
        "ca_file": None if settings.skip_tls_verify else str(settings.ca_file),
        "taint": settings.startup_taint,
        "repair_pods": settings.repair_pods,
        "bin_dirs": [str(each) for each in (settings.cni_bin_dir, more) if each],
    }
