"""Which of the short-lived processes are due: CRI-O's restart, then the removal of the startup taint.

The resident process only starts them: what they need would take more memory than all the rest.
"""

from __future__ import annotations

from entrypoint.errands.child import Child
from entrypoint.settings import Settings


class Errands:
    """The short-lived processes of this run: each is started when its time has come."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._changed = False
        self._restart: Child | None = None
        self._removal: Child | None = None

    def configuration_changed(self) -> None:
        """Take note that this pass has changed what the CNI runtime reads."""
        self._changed = True

    def pass_done(self, *, configured: bool) -> None:
        """Start what is due: CRI-O's restart after a change, then, on a configured node, the taint's removal.

        Pods shall come to the node only once CRI-O, if it is being restarted, knows the configuration. When the node
        stops being configured before the taint is gone, the taint stays until it is configured again.
        """
        if self._settings.restart_crio and self._changed and self._restart is None:
            self._restart = Child("entrypoint.errands.crio", {}, "restart CRI-O")
            self._restart.start()
        if configured and self._removal is None:
            self._removal = _removal(self._settings)
            if self._removal is not None:
                self._removal.start(after=self._restart)
        elif not configured and self._removal is not None and not self._removal.ended.is_set():
            self._removal.stop()
            self._removal = None

    def stop(self) -> None:
        """Break off what is still going on."""
        for process in (self._restart, self._removal):
            if process is not None:
                process.stop()


def _removal(settings: Settings) -> Child | None:
    """Return the process that removes the startup taint; what it needs has been required of the environment."""
    taint = settings.startup_taint
    if taint is None:
        return None
    order = {
        "node": settings.node_name,
        "key": taint.key,
        "effect": taint.effect,
        "server": settings.api_server,
        "token_file": str(settings.token_file),
        "ca_file": None if settings.skip_tls_verify else str(settings.ca_file),
    }
    return Child(
        "entrypoint.errands.taint", order, f"remove the taint {taint}", persistent=True
    )  # without it: no pods here
