"""Looking at the host's directories, and doing to them what a plan says."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from entrypoint.cni import runtime
from entrypoint.cni.document import is_candidate_name
from entrypoint.disk import files, mounts, moving, programs
from entrypoint.disk.looks import (
    Absent,
    File,
    Look,
    Signature,
    leads_away,
    listing,
    own,
    program_fault,
    read,
    reason,
    signature,
)
from entrypoint.node import places
from entrypoint.node.candidates import Candidates
from entrypoint.node.values import Binary, Copy, Remove, Rename, Seen, Step, Write
from entrypoint.settings import Settings


class StepError(Exception):
    """A step could not be done; the message names the file, the reason and what to do."""


class Host:
    """The node as this container sees it, with what was learned in earlier looks."""

    def __init__(self, settings: Settings, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Look at the node of these settings; `cancelled` tells a long copy or comparison to stop."""
        self._settings = settings
        self._cancelled = cancelled
        self._candidates = Candidates(settings)
        self._outputs: dict[str, tuple[bytes | Absent, float]] = {}
        """The content that stands under each output's name, and since when."""
        self._compared: tuple[tuple[Signature, Signature], bool] | None = None

        self._mounted_from = _mounted_from(settings.cni_conf_dir)

    # ---- looking ----

    def observe(self, *, binary: bool = True) -> Seen:
        """Look at everything that a decision needs; without `binary`, take the installed binary for right.

        Nothing is written. Raises `programs.CancelledError`.
        """
        settings = self._settings
        now = time.monotonic()
        auto = settings.static_conf_file is None
        entries, unlisted = listing(settings.autoconfig_dir) if auto else ([], None)
        live, retired = self._candidates.look(entries, now)
        standing, failed = entries, unlisted
        if not auto or settings.autoconfig_dir != settings.cni_conf_dir:
            standing, failed = listing(settings.cni_conf_dir)
        names = _files(standing)
        outputs = {path.name: _output(path) for path in settings.output_files}
        return Seen(
            now=now,
            missing_dirs=tuple((flag, path) for flag, path in places.required(settings) if not os.path.isdir(path)),
            token=read(settings.token_file),
            certificate_authority=read(settings.ca_file),
            kubeconfig=own(settings.kubeconfig_file),
            binary=self._binary(compare=binary),
            static=read(settings.static_conf_file) if settings.static_conf_file else None,
            patch=read(settings.conf_patch_file) if settings.conf_patch_file else None,
            readiness=_missing(settings.readiness_gate),
            outputs=outputs,
            since=self._dated(outputs, now),
            candidates=tuple(live),
            retired=tuple(retired),
            record=own(settings.record_file) if auto and settings.rename_master else Absent(),
            unlisted=unlisted,
            beside=_beside(settings.autoconfig_dir, entries),
            directories=_plugin_directories(entries),
            names=names,
            beside_ours=_files(listing(settings.kubeconfig_file.parent)[0]),
            first=_foreign_first(settings, names),
            failed=f"the directory {settings.cni_conf_dir} {failed}" if failed else None,
            mounted_from=self._mounted_from,
        )

    def _dated(self, outputs: dict[str, Look], now: float) -> dict[str, float]:
        """Return since when each of these has stood there as it does."""
        known, self._outputs = self._outputs, {}
        for name, look in outputs.items():
            content = look.content if isinstance(look, File) else look
            before = known.get(name)
            self._outputs[name] = before if before is not None and before[0] == content else (content, now)
        return {name: since for name, (_, since) in self._outputs.items()}

    def _binary(self, *, compare: bool) -> Binary:
        """Look at both binaries; without `compare` take the installed one for the image's."""
        settings = self._settings
        fault = leads_away(settings.binary_file) or program_fault(settings.binary_file)
        if settings.skip_binary_copy or not compare:
            return Binary(None, installed=True, fault=fault)
        try:
            source = settings.multus_bin_file.stat()
        except OSError as error:
            return Binary(Absent(reason(error)), installed=False, fault=fault)
        if not stat.S_ISREG(source.st_mode):
            return Binary(Absent("is not a regular file"), installed=False, fault=fault)
        source_fault = program_fault(settings.multus_bin_file)
        try:
            target = settings.binary_file.lstat()
        except OSError:
            return Binary(None, installed=False, source_fault=source_fault, fault=fault)
        alike = stat.S_ISREG(target.st_mode) and source.st_size == target.st_size and source.st_mode == target.st_mode
        return Binary(None, alike and self._same_binary(source, target), source_fault, fault)

    def _same_binary(self, source: os.stat_result, target: os.stat_result) -> bool:
        """Compare the two files, once for each state of theirs."""
        pair = signature(source), signature(target)
        if self._compared is None or self._compared[0] != pair:
            try:
                same = programs.same_content(
                    self._settings.multus_bin_file, self._settings.binary_file, self._cancelled
                )
            except OSError:
                return False
            self._compared = pair, same
        return self._compared[1]

    # ---- writing ----

    def apply(self, step: Step) -> None:
        """Do one step.

        Raises `StepError` when the step could not be done, `programs.CancelledError` when it was given up and
        `files.ReplacedError` when somebody else was faster.
        """
        try:
            match step:
                case Write():
                    if step.path.parent == self._settings.kubeconfig_file.parent:
                        files.make_directory(step.path.parent)
                    files.write(step.path, step.content, step.mode, step.over)
                    if step.path.name in self._outputs:
                        # It may be gone again before the next look, and has not been gone for all that time.
                        self._outputs[step.path.name] = step.content, time.monotonic()
                case Copy():
                    self._copy_binary(step)
                case Remove():
                    files.remove(step.path)
                case Rename():
                    moving.rename(step.path, step.to, over=step.over)
        except OSError as error:
            raise StepError(_failure(step, error)) from error

    def _copy_binary(self, step: Copy) -> None:
        source = step.source.stat()
        target = programs.copy(step.source, step.path, self._cancelled)
        if signature(source) == signature(step.source.stat()) and source.st_size == target.st_size:
            self._compared = (signature(source), signature(target)), True


def _output(path: Path) -> Look:
    """Read what stands under an output's name; a directory, which no CNI runtime reads, is as good as nothing.

    A link to one it does read.
    """
    return Absent("is a directory") if os.path.isdir(path) and not path.is_symlink() else own(path)


def _mounted_from(directory: Path) -> str | None:
    """Ask the kernel where a directory is from; a container's mounts stay what they are at its start."""
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    return mounts.source(mountinfo, os.path.realpath(directory))


def _missing(path: Path | None) -> str | None:
    return None if path is None or os.path.exists(path) else str(path)


def _files(entries: Iterable[os.DirEntry[str]]) -> tuple[str, ...]:
    return tuple(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))


def _plugin_directories(entries: Iterable[os.DirEntry[str]]) -> dict[str, tuple[str, ...]]:
    found = {entry.name: listing(Path(entry.path))[0] for entry in entries if entry.is_dir(follow_symlinks=False)}
    names = {name: runtime.in_byte_order(each.name for each in inside) for name, inside in found.items()}
    confs = {name: tuple(each for each in inside if each.endswith(".conf")) for name, inside in names.items()}
    return {name: inside for name, inside in confs.items() if inside}


def _foreign_first(settings: Settings, names: Iterable[str]) -> tuple[str, Look] | None:
    """Return the file that the runtime reads first, unless its name is one of ours."""
    first = runtime.in_order(names)[:1]
    if not first or settings.cni_conf_dir / first[0] in settings.output_files:
        return None
    return first[0], read(settings.cni_conf_dir / first[0])


def _beside(directory: Path, entries: list[os.DirEntry[str]]) -> tuple[str, ...] | None:
    if not entries and not os.path.lexists(directory):
        return None
    return tuple(runtime.in_byte_order(entry.name for entry in entries if is_candidate_name(entry.name)))


def _failure(step: Step, error: OSError) -> str:
    if isinstance(step, Copy) and error.filename == os.fspath(step.source):
        return f"cannot install {step.path}: {step.source} cannot be read: {error.strerror}"
    verb = {Write: "write", Copy: "install", Remove: "remove", Rename: "rename"}[type(step)]
    advice = {
        errno.EROFS: "is the hostPath volume mounted with readOnly?",
        errno.EACCES: "may the container write there (user, SELinux type)?",
        errno.EPERM: "may the container write there (user, SELinux type, immutable file)?",
        errno.ENOSPC: "free some space on the node's disk",
        errno.EDQUOT: "free some space on the node's disk, or raise the quota",
        errno.ENOENT: "is the hostPath volume mounted at that path?",
    }.get(error.errno or 0)
    message = f"cannot {verb} {step.path}: {error.strerror}"
    return f"{message}; {advice}" if advice else message
