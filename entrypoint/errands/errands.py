"""Which of the short-lived processes are due: CRI-O's restart, the startup taint's removal, the repair of pods.

The resident process only starts them: what they need would take more memory than all the rest.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from entrypoint.errands.child import RESTART_AFTER, Child
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
_LOSES_ETH0 = (
    "CRI-O is about to be restarted. From release 1.32 on it then takes eth0 from pods that were set up before Multus "
    "came, because the network in use has another name now: set --override-network-name, or make those pods again"
)


class Errands:
    """The short-lived processes of this run: each is started when its time has come."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._changed = False
        self._restart: Child | None = None
        self._removal: Child | None = None
        self._repair: Child | None = None
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
            before = self._removal, self._repair
            self._removal, self._repair = _stopped(self._removal), _stopped(self._repair)
            if (self._removal, self._repair) != before:
                self._not_before = now + _AGAIN
        if now < self._not_before:
            return self._not_before
        try:
            self._start_what_is_due(configured=configured)
        except RuntimeError as error:  # no thread is left that would follow it
            logger.error("cannot start a process of our own: %s; trying again in %g s", error, RESTART_AFTER)
            self._not_before = now + RESTART_AFTER
            return self._not_before
        return None

    def _start_what_is_due(self, *, configured: bool) -> None:
        """Start CRI-O's restart after a change, then, on a configured node, what waits for that.

        Pods shall come to the node only once CRI-O, if it is being restarted, knows the configuration. One comes after
        the other: the memory limit holds one of them. Raises RuntimeError.
        """
        if self._settings.restart_crio and self._changed and self._restart is None:
            if self._settings.static_conf_file is None and not self._settings.override_network_name:
                logger.warning(_LOSES_ETH0)
            self._restart = _started(Child("entrypoint.errands.crio", {}, "restart CRI-O"))
        if configured and self._removal is None:
            self._removal = _started(_removal(self._settings), after=self._restart)
        if configured and self._repair is None:
            self._repair = _started(_repair(self._settings), after=self._removal or self._restart)

    def stop(self) -> None:
        """Break off what is still going on."""
        for process in (self._repair, self._removal, self._restart):
            if process is not None:
                process.stop()


def _started(process: Child | None, after: Child | None = None) -> Child | None:
    """Start a process, if there is one to start. Raises RuntimeError."""
    if process is not None:
        process.start(after=after)
    return process


def _stopped(process: Child | None) -> Child | None:
    """Stop a process that is not done yet, and forget it; return one that is."""
    if process is None or process.ended.is_set():
        return process
    process.stop()
    return None


def _removal(settings: Settings) -> Child | None:
    """Return the process that removes the startup taint; what it needs has been required of the environment."""
    if settings.startup_taint is None:
        return None
    order = {**_order(settings), **settings.startup_taint._asdict()}
    work = f"remove the taint {settings.startup_taint}"
    return Child("entrypoint.errands.taint", order, work, persistent=True)  # without it: no pods here


def _repair(settings: Settings) -> Child | None:
    """Return the process that looks after pods without their networks; as above."""
    if not settings.repair_pods:
        return None
    order = {**_order(settings), "mode": settings.repair_pods, "bin_dirs": _plugin_dirs(settings)}
    return Child("entrypoint.errands.pods", order, "repair pods without their networks")


def _plugin_dirs(settings: Settings) -> list[str]:
    """Return where this container sees the node's plugins."""
    more = settings.in_container(settings.additional_bin_dir) if settings.additional_bin_dir else None
    return [str(settings.cni_bin_dir), *([str(more)] if more else [])]


def token_file(settings: Settings) -> Path:
    """Return the file with the token for errands at the API server."""
    directory = os.environ.get(ACCOUNT)
    return Path(directory, "token") if directory else settings.token_file


def _order(settings: Settings) -> dict[str, Any]:
    """Return what every errand at the API server needs to know: never the token itself, which is in a file."""
    return {
        "node": settings.node_name,
        "server": settings.api_server,
        "token_file": str(token_file(settings)),
        "ca_file": None if settings.skip_tls_verify else str(settings.ca_file),
    }
