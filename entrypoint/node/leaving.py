"""What is taken away at the end, when no other instance is there to need it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from entrypoint.disk import files, moving
from entrypoint.disk.files import Identity
from entrypoint.disk.ways import Inode, identity_of
from entrypoint.node.host import Host
from entrypoint.node.plan import decide_removal
from entrypoint.node.values import Copy, Memory, Remove, Step, Write
from entrypoint.settings import Settings
from entrypoint.telling.logs import logger
from entrypoint.telling.report import done

REMOVAL_COUNTS = 30.0
"""Seconds before the end within which a removal by somebody else is taken for a preStop hook's."""
_BECAUSE = "somebody removed it just before the end, as preStop hooks do, and it had been put back"


class PutBack:
    """The files that this run put back after somebody had removed them.

    That is right as long as the program goes on: a pod that starts without Multus for a second never gets its networks.
    But preStop hooks of other charts remove our files just before SIGTERM, and mean it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[Path, Inode | None] = {}
        """What was there after an earlier pass, and the mounted directory in which it was."""
        self._returned: dict[Path, tuple[float, Identity]] = {}
        """When a file was put back (monotonic seconds), and which one."""

    def removed(self, step: Step) -> bool:
        """Say whether the step, which is about to be done, puts back a file that somebody has removed."""
        if not isinstance(step, Write | Copy) or step.path not in self._known or os.path.lexists(step.path):
            return False
        if self._known[step.path] == _directory(self._settings, step.path):
            return True
        self._returned.pop(step.path, None)  # the whole directory is another now: nobody has removed the file from it
        return False

    def done(self, step: Step, *, removed: bool) -> None:
        """Note a step that was done."""
        if isinstance(step, Remove):
            self._known.pop(step.path, None)
            self._returned.pop(step.path, None)
            return
        now = time.monotonic()
        since = now if removed else self._returned.get(step.path, (None,))[0]
        with contextlib.suppress(FileNotFoundError):
            if since is not None:
                self._returned[step.path] = since, files.identity(step.path.lstat())

    def passed(self) -> None:
        """Note what is there after a pass."""
        settings = self._settings
        outputs = (settings.kubeconfig_file, settings.binary_file, *settings.output_files)
        self._known |= {path: _directory(settings, path) for path in outputs if os.path.lexists(path)}

    def recent(self) -> set[Path]:
        """Return what is to be taken away again, if it still is what was put back."""
        earliest = time.monotonic() - REMOVAL_COUNTS
        return {path for path, (since, identity) in self._returned.items() if since >= earliest and _is(path, identity)}


def clean_up(settings: Settings, host: Host, memory: Memory, ours: bytes | None, put_back: PutBack) -> None:
    """Take away what `--cleanup-config-on-exit` and preStop hooks call for; try everything, and say what failed.

    The configuration first. As long as one stands, what it refers to stays as well.
    """
    hooked = put_back.recent()
    if settings.cleanup_on_exit or not hooked.isdisjoint(settings.output_files):
        _remove_configuration(settings, host, memory, ours)
    if any(os.path.lexists(path) for path in settings.output_files):
        return
    for path in (settings.kubeconfig_file, settings.binary_file):
        if path in hooked:
            with _failure_logged():
                files.remove(path)
                logger.info("%s", done(Remove(path, _BECAUSE)))


def _remove_configuration(settings: Settings, host: Host, memory: Memory, ours: bytes | None) -> None:
    seen = host.observe(binary=False)  # a comparison of binaries would take too long here
    renames, removals = decide_removal(settings, seen, memory, ours)
    restored = 0
    for rename in renames:
        with _failure_logged():
            if moving.rename_unless_taken(rename.path, rename.to):
                logger.info("%s", done(rename))
            restored += 1
    if restored < len(renames):
        # On a disk without a free inode, or where there are no hard links.
        logger.error("the configuration stays: the master does not have its name back, and there is no other")
        return
    for removal in removals:
        with _failure_logged():
            files.remove(removal.path)
            logger.info("%s", done(removal if settings.cleanup_on_exit else removal._replace(because=_BECAUSE)))


def _directory(settings: Settings, path: Path) -> Inode | None:
    """Return which directory a file's mounted one is."""
    return identity_of(settings.cni_bin_dir if path == settings.binary_file else settings.cni_conf_dir)


def _is(path: Path, identity: Identity) -> bool:
    try:
        return files.identity(path.lstat()) == identity
    except OSError:
        return False


@contextlib.contextmanager
def _failure_logged() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.error("cannot clean up %s: %s", error.filename, error.strerror)
