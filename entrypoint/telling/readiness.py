"""The ready file: it exists exactly while the node is as it must be, and the DaemonSet's readiness probe reads it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from entrypoint.disk import files

_INTERVAL = 1.0
"""Seconds between two repairs."""


class ReadyFile:
    """The file of `--ready-file`, if there is one, and how it should be.

    What somebody else does to it is undone once a second at most.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._ready: bool | None = None
        self._not_before = 0.0
        self._complaints: list[str] = []

    def set(self, *, ready: bool) -> list[str]:
        """Write or remove the file; return what to complain of when that is not possible."""
        path = self._path
        if path is None:
            return []
        if _is_right(path, ready=ready):
            self._ready = ready
            return [f"--ready-file={path} is a directory"] if os.path.isdir(path) else []
        now = time.monotonic()
        if ready is self._ready and now < self._not_before:
            return self._complaints
        self._ready, self._not_before, self._complaints = ready, now + _INTERVAL, []
        try:
            if ready:
                if path.is_symlink():
                    path.unlink()
                files.mark(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            self._complaints = [f"cannot {'write' if ready else 'remove'} --ready-file={path}: {error.strerror}"]
        return self._complaints

    def held_until(self) -> float | None:
        """Return when to put it right (monotonic seconds); None when it is as it should be."""
        if self._path is None or self._ready is None or _is_right(self._path, ready=self._ready):
            return None
        return self._not_before


def _is_right(path: Path, *, ready: bool) -> bool:
    """Say whether a file is there or not, as it should be; a link may lead nowhere, where a probe finds nothing."""
    return os.path.lexists(path) == ready and not (ready and path.is_symlink())
