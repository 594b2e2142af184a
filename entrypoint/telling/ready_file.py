"""The ready file: it exists exactly while the node is as it must be, and the DaemonSet's readiness probe reads it."""

from __future__ import annotations

import os
from pathlib import Path

from entrypoint.disk import files
from entrypoint.telling.pace import Pace

_INTERVAL = 1.0
"""Seconds between two repairs."""


class ReadyFile:
    """The file of `--ready-file`, if there is one, and how it should be.

    What somebody else does to it is undone once a second at most.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._ready: bool | None = None
        self._pace = Pace(1, _INTERVAL)
        self.complaints: list[str] = []
        """What keeps it from being as it should be."""

    def told(self, *, ready: bool, now: float) -> float | None:
        """Write or remove the file; return when to go on (monotonic seconds), None when it is as it should be."""
        path = self._path
        if path is None:
            return None
        if os.path.exists(path) is ready:
            self._ready = ready
            self.complaints = (
                [f"--ready-file={path} is a directory: name a file in it, to the probe too"]
                if os.path.isdir(path)
                else []
            )
            return None
        not_before = self._pace.free_at(now)
        if ready is self._ready and not_before is not None:
            return not_before
        self._ready, self.complaints = ready, []
        self._pace.took(now)
        try:
            if ready:
                files.mark(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            failed = f"cannot {'write' if ready else 'remove'} --ready-file={path}: {error.strerror}"
            self.complaints = [f"{failed}; is a writable volume, such as an emptyDir, mounted there?"]
        return None if os.path.exists(path) is ready else self._pace.free_at(now)
