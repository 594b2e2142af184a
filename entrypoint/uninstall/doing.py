"""`uninstall` on the disk: looking at what is there, and doing what was decided. Thin; the deciding is elsewhere."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from entrypoint import owner
from entrypoint.cni import runtime
from entrypoint.cni.document import GENERATED, RETIRED_SUFFIX, Multus, examine
from entrypoint.disk import files, moving, programs
from entrypoint.disk.looks import File, read
from entrypoint.install import PROGRAMS
from entrypoint.node import places
from entrypoint.node.host import Host
from entrypoint.settings import Settings
from entrypoint.uninstall import deciding as uninstall
from entrypoint.uninstall import waiting
from entrypoint.uninstall.access import Access
from entrypoint.uninstall.deciding import Act, Kind, Program, Seen

_WATCHED = 1.5  # seconds: a running entrypoint repairs at most once a second
_VERBS = {"keep": "kept", "remove": "removed", "rename": "renamed"}


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
    access = Access(settings, say)
    if not waiting.clear(data_dir, access, force=force, wait=wait and not settings.dry_run, say=say):
        return False
    acts = uninstall.decide(settings, look(settings))
    succeeded = True
    for well, line in apply(settings, acts):
        say(line)
        succeeded = succeeded and (well or settings.dry_run)
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
        others=tuple(_others(settings, ours)),
        observed=observed,
        doubled=frozenset(_doubled(settings.autoconfig_dir, (each.name for each in observed.retired))),
        record=read(settings.record_file),
        kubeconfig=os.path.lexists(settings.kubeconfig_file),
        kubeconfig_dir=_own_directory(settings.kubeconfig_file.parent),
        programs=tuple(_program(settings, name) for name in PROGRAMS),
    )


def _own_directory(path: Path) -> bool:
    """Say whether a directory is there, and no link to one, which somebody else has made; not so if nobody may look."""
    return os.path.isdir(path) and not path.is_symlink()


def apply(settings: Settings, acts: list[Act]) -> Iterator[tuple[bool, str]]:
    """Do the acts; yield for each whether it succeeded and what happened, or with `--dry-run` what would.

    As long as a Multus configuration stands, one that could not be removed or is not ours, what it refers to stays as
    well: without its kubeconfig and binary the node could not start any pod.
    """
    if not settings.dry_run:
        for path in files.sweep(places.swept(settings)):
            yield True, f"removed the temporary file {path}"
        owner.sweep(settings.kubeconfig_file.parent)
    removed: list[Path] = []
    standing = nameless = False
    for act in acts:
        needed = ""
        if standing and act.kind in {Kind.REMOVE, Kind.REMOVE_DIRECTORY}:
            needed = "the configuration that needs it is still there"
        elif nameless and act.kind is Kind.FORGET:
            needed = "it says which master has yet to get its name back"
        standing = standing or act.needs_the_rest
        doing = act._replace(kind=Kind.KEEP, why=needed) if needed else act
        try:
            yield not act.needs_the_rest, _do(doing, dry_run=settings.dry_run)
        except OSError as error:
            standing = standing or act.kind is Kind.CONFIGURATION
            nameless = nameless or act.kind is Kind.RENAME
            yield False, f"cannot {'rename' if act.kind is Kind.RENAME else 'remove'} {act.path}: {error.strerror}"
        else:
            removed += [act.path] if act.kind is Kind.CONFIGURATION and not settings.dry_run else []
    for path in _back_again(removed):
        yield False, f"{path} is there again: who writes it? Delete the DaemonSet first, then uninstall"


def _do(act: Act, *, dry_run: bool) -> str:
    """Do one act, or nothing in a dry run; say what happened, or would. Raises OSError."""
    kept, removed, renamed = [f"would {verb}" if dry_run else past for verb, past in _VERBS.items()]
    match act.kind:
        case Kind.KEEP:
            return f"{kept} {act.path}: {act.why}"
        case Kind.MISS:
            return f"warning: there is no {act.path}: {act.why}"
        case Kind.RENAME if act.to:
            if dry_run or moving.rename_unless_taken(act.path, act.to):
                return f"{renamed} {act.path} to {act.to.name}"
            return f"kept {act.path}: there is a {act.to.name} again"
        case Kind.REMOVE_DIRECTORY if dry_run:
            return f"{removed} {act.path} if it is empty"
        case Kind.REMOVE_DIRECTORY:
            try:
                act.path.rmdir()
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                return f"{kept} {act.path}: it holds other files"
        case _ if not dry_run:
            files.remove(act.path)
    return f"{removed} {act.path}"


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
            if moving.same_file(directory / (name + RETIRED_SUFFIX), directory / name):
                yield name


def _others(settings: Settings, ours: list[Path]) -> Iterator[Path]:
    names: list[str] = []
    with suppress(OSError):
        names = runtime.in_byte_order(os.listdir(settings.cni_conf_dir))
    for name in names:
        path = settings.cni_conf_dir / name
        if name.endswith(runtime.SUFFIXES) and path not in ours:
            found = read(path)
            if isinstance(found, File) and isinstance(examine(found.content), Multus):
                yield path


def _program(settings: Settings, name: str) -> Program:
    """Compare an installed program with the image's, which stands beside the multus binary."""
    path = settings.cni_bin_dir / name
    source = settings.multus_bin_file if name == PROGRAMS[0] else settings.multus_bin_file.with_name(name)
    if not os.path.lexists(path):
        return Program(path, there=False)
    try:
        os.stat(source)
    except OSError as error:
        return Program(path, foreign=f"nothing to compare it with: {source}: {error.strerror}")
    with suppress(OSError):
        if moving.same_file(source, path):
            same = f"--multus-bin-file={source} is that very file"
            return Program(path, foreign=f"nothing to compare it with: {same}")
        if not path.is_symlink() and programs.same_content(source, path, lambda: False):
            return Program(path)
    return Program(path, foreign="it is not the one of this image")
