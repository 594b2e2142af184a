"""`uninstall` on the disk: looking at what is there, and doing what was decided. Thin; the deciding is elsewhere."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from entrypoint import cniconf, files, moving, places, presence, programs, renaming, runtime
from entrypoint.host import Host
from entrypoint.install import PROGRAMS
from entrypoint.looks import read
from entrypoint.node import File
from entrypoint.settings import GENERATED, Settings
from entrypoint.uninstall import deciding as uninstall
from entrypoint.uninstall import waiting
from entrypoint.uninstall.deciding import Act, Kind, Program, Seen

_WATCHED = 1.5  # seconds: a running entrypoint repairs at most once a second


def run(settings: Settings, data_dir: Path, *, force: bool, wait: bool, say: Callable[[str], None]) -> bool:
    """Uninstall, or with `--dry-run` say what would be done; return whether the node is as it must be then.

    While pods with further networks are on the node, it refuses or, with `wait`, waits until they are gone.
    """
    if not settings.cni_conf_dir.is_dir():
        say(f"--cni-conf-dir: the directory {settings.cni_conf_dir} is not there: is the volume mounted at that path?")
        return False
    try:
        for directory in (settings.cni_conf_dir, settings.autoconfig_dir):
            os.listdir(directory)
    except PermissionError as error:  # a master that is not seen would not get its name back
        say(f"cannot look into {directory}: {error.strerror}; may the container read there (user, SELinux type)?")
        return False
    except OSError:
        pass  # `--multus-autoconfig-dir` need not be there any more
    if not waiting.clear(data_dir, force=force, wait=wait and not settings.dry_run, say=say):
        return False
    acts = uninstall.decide(settings, look(settings))
    if settings.dry_run:
        for line in would_do(acts):
            say(line)
        return True
    succeeded = True
    for well, line in apply(settings, acts):
        say(line)
        succeeded = succeeded and well
    if not acts:
        say("nothing to do: nothing of Multus is left on this node")
    return succeeded


def look(settings: Settings) -> Seen:
    """Look at everything that a decision needs. Nothing is written."""
    observed = Host(settings._replace(rename_master=True)).observe(binary=False)
    names = dict.fromkeys([*GENERATED, *(path.name for path in settings.output_files)])
    ours = [settings.cni_conf_dir / name for name in names]
    return Seen(
        configurations={path: read(path) for path in ours},
        static_source=observed.static,
        others=tuple(_others(settings, ours)),
        live=observed.candidates,
        retired=observed.retired,
        doubled=frozenset(_doubled(settings.autoconfig_dir, (each.name for each in observed.retired))),
        record=read(settings.record_file),
        remembered=renaming.from_file(read(settings.record_file)),
        kubeconfig=os.path.lexists(settings.kubeconfig_file),
        kubeconfig_dir=os.path.isdir(settings.kubeconfig_file.parent),  # False too where nobody may look
        programs=tuple(_program(settings, name) for name in PROGRAMS),
    )


def would_do(acts: Iterable[Act]) -> Iterator[str]:
    """Yield the lines of `--dry-run`."""
    for act in acts:
        match act.kind:
            case Kind.KEEP:
                yield f"would keep {act.path}: {act.why}"
            case Kind.MISS:
                yield _missing(act)
            case Kind.RENAME if act.to:
                yield f"would rename {act.path} to {act.to.name}"
            case Kind.REMOVE_DIRECTORY:
                yield f"would remove {act.path} if it is empty"
            case _:
                yield f"would remove {act.path}"


def apply(settings: Settings, acts: list[Act]) -> Iterator[tuple[bool, str]]:
    """Do the acts; yield for each whether it succeeded and what happened.

    As long as a Multus configuration stands, one that could not be removed or is not ours, what it refers to stays as
    well: without its kubeconfig and binary the node could not start any pod.
    """
    for path in files.sweep(places.swept(settings)):
        yield True, f"removed the temporary file {path}"
    presence.sweep(settings.kubeconfig_file.parent)
    removed: list[Path] = []
    standing = nameless = False
    for act in acts:
        if standing and act.kind in {Kind.REMOVE, Kind.REMOVE_DIRECTORY}:
            yield True, f"kept {act.path}: the configuration that needs it is still there"
            continue
        if nameless and act.kind is Kind.FORGET:
            yield True, f"kept {act.path}: it says which master has yet to get its name back"
            continue
        if act.needs_the_rest:
            standing = True
        try:
            yield not act.needs_the_rest, _do(act)
        except OSError as error:
            standing = standing or act.kind is Kind.CONFIGURATION
            nameless = nameless or act.kind is Kind.RENAME
            yield False, f"cannot {'rename' if act.kind is Kind.RENAME else 'remove'} {act.path}: {error.strerror}"
        else:
            removed += [act.path] if act.kind is Kind.CONFIGURATION else []
    for path in _back_again(removed):
        yield False, f"{path} is there again: who writes it? Delete the DaemonSet first, then uninstall"


def _do(act: Act) -> str:
    """Do one act; say what happened. Raises OSError."""
    match act.kind:
        case Kind.KEEP:
            return f"kept {act.path}: {act.why}"
        case Kind.MISS:
            return _missing(act)
        case Kind.RENAME if act.to:
            if moving.rename_unless_taken(act.path, act.to):
                return f"renamed {act.path} to {act.to.name}"
            return f"kept {act.path}: there is a {act.to.name} again"
        case Kind.REMOVE_DIRECTORY:
            return _remove_directory(act.path)
        case _:
            files.remove(act.path)
            return f"removed {act.path}"


def _missing(act: Act) -> str:
    return f"warning: there is no {act.path}: {act.why}"


def _remove_directory(path: Path) -> str:
    try:
        path.rmdir()
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        return f"kept {path}: it holds other files"
    return f"removed {path}"


def _back_again(removed: list[Path]) -> list[Path]:
    """Watch for a while whether removed files come back; return those that did."""
    deadline = time.monotonic() + (_WATCHED if removed else 0)
    while time.monotonic() < deadline:
        back = [path for path in removed if os.path.lexists(path)]
        if back:
            return back
        time.sleep(0.02)
    return []


def _doubled(directory: Path, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        with suppress(OSError):
            if moving.same_file(directory / (name + cniconf.RETIRED_SUFFIX), directory / name):
                yield name


def _others(settings: Settings, ours: list[Path]) -> Iterator[Path]:
    names: list[str] = []
    with suppress(OSError):
        names = runtime.in_byte_order(os.listdir(settings.cni_conf_dir))
    for name in names:
        path = settings.cni_conf_dir / name
        if name.endswith(runtime.SUFFIXES) and path not in ours:
            found = read(path)
            if isinstance(found, File) and isinstance(cniconf.examine(found.content), cniconf.Multus):
                yield path


def _program(settings: Settings, name: str) -> Program:
    """Compare an installed program with the image's, which stands beside the multus binary."""
    path = settings.cni_bin_dir / name
    source = settings.multus_bin_file if name == PROGRAMS[0] else settings.multus_bin_file.with_name(name)
    if not os.path.lexists(path):
        return Program(path, there=False, same=False)
    try:
        os.stat(source)
    except OSError as error:
        return Program(path, there=True, same=False, source_fault=f"{source}: {error.strerror}")
    same = False
    with suppress(OSError):
        same = not path.is_symlink() and programs.same_content(source, path, lambda: False)
    return Program(path, there=True, same=same)
