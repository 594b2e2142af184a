"""Which configuration should be there: a static one, or one that is wrapped around the master. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from entrypoint.cni import wrap
from entrypoint.cni.document import RETIRED_SUFFIX, InvalidJsonError, Master, parse, size_fault
from entrypoint.disk.looks import Absent, File, unknown
from entrypoint.node import renaming
from entrypoint.node.choose import Choice, choose, give_up_at
from entrypoint.node.values import Memory, Output, Problem, Record, Rename, Seen
from entrypoint.settings import Settings

GENERATED_MODE = 0o600


class Wanted(NamedTuple):
    """The configuration that should be there, and what comes with it."""

    output: Output | None
    satisfied: bool
    clean: bool = False
    """Nothing that we write may be there."""
    rename: Rename | None = None
    record: Record | None = None
    """What must be remembered of renamed masters; None for what is remembered already."""
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    waiting: str | None = None
    deadline: float | None = None
    unread: str | None = None
    """A look that failed: nothing is to change until there is news."""


def configuration(settings: Settings, seen: Seen, memory: Memory) -> Wanted:
    """Say which configuration should be there, of the one in `--multus-conf-file` or around the master."""
    return _static(settings, seen, memory) if seen.static is not None else _auto(settings, seen, memory)


def with_patch(settings: Settings, seen: Seen, memory: Memory) -> tuple[Memory, list[Problem]]:
    """Return the memory with the patch that is to be applied: the last good one when the file has turned bad."""
    content = settings.conf_patch
    if seen.patch is not None:
        if unknown(seen.patch) and not memory.first:
            return memory, []
        if isinstance(seen.patch, Absent):
            return memory, [Problem(f"--multus-conf-patch={settings.conf_patch_file} {seen.patch.why}", memory.first)]
        content = seen.patch.content
    if content is None:
        return memory, []
    try:
        return memory._replace(patch=wrap.read_patch(content, settings.node_name)), []
    except wrap.InvalidPatchError as error:
        return memory, [Problem(f"--multus-conf-patch={settings.conf_patch_file}: {error}", memory.first)]


def _static(settings: Settings, seen: Seen, memory: Memory) -> Wanted:
    source, path = seen.static, settings.static_conf_file
    assert source is not None and path is not None  # noqa: S101 - both belong to static mode
    if isinstance(source, Absent) and source.failed and not memory.first:
        return _unread(settings, memory, f"--multus-conf-file={path}: {source.why}", seen)
    fault = source.why if isinstance(source, Absent) else size_fault(len(source.content))
    if isinstance(source, File) and not fault:
        try:
            parse(source.content)
        except InvalidJsonError as error:
            fault = str(error)
        else:
            return Wanted(Output(path.name, source.content, source.mode, None), satisfied=True)
    problem = Problem(f"--multus-conf-file={path}: {fault}", memory.first)
    return Wanted(memory.output, satisfied=False, problems=(problem,))


def _auto(settings: Settings, seen: Seen, memory: Memory) -> Wanted:
    if settings.skip_config_watch and memory.output:
        return Wanted(memory.output, satisfied=True)
    if seen.unlisted:
        return _unread(settings, memory, f"the directory {settings.autoconfig_dir} {seen.unlisted}", seen)
    choice = choose(settings, seen, memory)
    if choice.unread is not None:
        return _unread(settings, memory, f"in {settings.autoconfig_dir}: {choice.unread}", seen)
    if choice.master is not None:
        wanted = _wrapped(settings, seen, choice, choice.master, memory)
        return _renamed(settings, seen, memory, choice, wanted) if settings.rename_master else wanted
    if choice.settled_at is not None:
        return _while_written(settings, seen, memory, choice, choice.settled_at)
    return _without_master(settings, seen, memory, choice)


def _unread(settings: Settings, memory: Memory, message: str, seen: Seen) -> Wanted:
    """Keep what is there: that something could not be read is no news about it."""
    return Wanted(
        memory.output,
        satisfied=False,
        problems=_gave_up(settings, seen, memory, message),
        deadline=None if memory.configured else give_up_at(settings, memory),
        unread=message,
    )


def _gave_up(settings: Settings, seen: Seen, memory: Memory, message: str) -> tuple[Problem, ...]:
    """Return the problem that ends the program once it has waited for a first configuration long enough."""
    if memory.configured or seen.now < give_up_at(settings, memory):
        return ()
    return (Problem(f"gave up after {settings.wait_timeout:g} s: {message}", fatal=True),)


def held_back(settings: Settings, seen: Seen, memory: Memory, wanted: Wanted, awaited: str) -> Wanted:
    """Hold the configuration back: one that names a program that is not there stops every pod."""
    problems = (Problem(awaited, fatal=False),) if memory.configured else ()
    return Wanted(
        memory.output,
        satisfied=False,
        problems=(*wanted.problems, *problems, *_gave_up(settings, seen, memory, awaited)),
        warnings=wanted.warnings,
        waiting=awaited,
        deadline=None if memory.configured else give_up_at(settings, memory),
    )


def wrapping(settings: Settings, patch: Mapping[str, Any], files: tuple[str, ...] = ()) -> wrap.Wrapping:
    """Return what these settings say of the configuration around the master."""
    return wrap.Wrapping(
        settings.multus_options,
        patch,
        settings.cni_version,
        settings.force_cni_version,
        settings.override_network_name,
        files,
    )


def _wrapped(settings: Settings, seen: Seen, choice: Choice, master: Master, memory: Memory) -> Wanted:
    warnings = list(choice.skipped)
    if master.cni_version is None and settings.cni_version is None:
        warnings.append(
            f"{choice.name} has no 'cniVersion': it counts as {wrap.ASSUMED_CNI_VERSION}, which its copy inside the "
            "Multus configuration gets; give it one, or set --cni-version"
        )
    try:
        file_name, content = wrap.multus_configuration(master, wrapping(settings, memory.patch or {}, seen.names))
    except wrap.CannotWrapError as error:
        problem = Problem(f"{settings.autoconfig_dir / choice.name}: {error}", fatal=not memory.configured)
        return Wanted(memory.output, satisfied=False, problems=(problem,), warnings=tuple(warnings))
    warnings += _plugins_lost(settings, seen, choice.name, master, file_name)
    warnings += wrap.patch_remarks(memory.patch or {}, settings.log_file)
    output = Output(file_name, content, GENERATED_MODE, choice.name)
    return Wanted(output, satisfied=True, warnings=tuple(warnings))


def _renamed(settings: Settings, seen: Seen, memory: Memory, choice: Choice, wanted: Wanted) -> Wanted:
    """Add what `--rename-conf-file` asks for; a master that cannot be renamed is wrapped all the same."""
    if not wanted.satisfied:
        return wanted
    record = renaming.recall(seen, memory)
    path = settings.autoconfig_dir / choice.name
    if choice.live:
        obstacle = renaming.obstacle(seen, record, choice.name, settings.record_file)
        if path == settings.in_container(settings.readiness_indicator_file):
            obstacle = "it is --readiness-indicator-file, without which Multus lets every pod wait"
        if obstacle:
            return wanted._replace(warnings=(*wanted.warnings, f"{path} is wrapped and keeps its name: {obstacle}"))
        rename, record = renaming.retire(seen, record, path)
        return wanted._replace(rename=rename, record=record)
    warnings = wanted.warnings
    others = ", ".join(repr(each.name) for each in seen.candidates if isinstance(each.verdict, Master))
    if others and renaming.is_presumed(seen, memory):
        warnings = (
            *warnings,
            f"{settings.record_file} is missing or broken: {path.name + RETIRED_SUFFIX} stays the master, and "
            f"{others} is taken for what stood beside it; to have that one wrapped, write it with another content",
        )
    return wanted._replace(record=renaming.confirm(seen, record, choice.name), warnings=warnings)


def _plugins_lost(settings: Settings, seen: Seen, name: str, master: Master, file_name: str) -> list[str]:
    """Warn of plugins that libcni loads from a directory of the list's name: Multus does not, for its delegates.

    Where our list has the name of the master, the runtime loads them behind ours.
    """
    lost = seen.directories.get(master.name, ())
    ours_has_them = (
        settings.override_network_name
        and file_name.endswith(".conflist")
        and settings.autoconfig_dir == settings.cni_conf_dir
    )
    if not lost or not name.endswith(".conflist") or master.only_inlined or ours_has_them:
        return []
    return [
        f"the plugins of {name} in the directory {settings.autoconfig_dir / master.name} do not run inside Multus: "
        f"{', '.join(lost)}; put them into its 'plugins', or set --override-network-name (from CNI 1.0.0 on)"
    ]


def _while_written(settings: Settings, seen: Seen, memory: Memory, choice: Choice, settled_at: float) -> Wanted:
    """Keep what is there until the file is whole, or has been broken for so long that it is no longer being written."""
    return Wanted(
        memory.output,
        satisfied=memory.output is not None,
        warnings=choice.skipped,
        waiting=_waiting(settings, seen, choice),
        deadline=settled_at if memory.configured else min(settled_at, give_up_at(settings, memory)),
    )


def _without_master(settings: Settings, seen: Seen, memory: Memory, choice: Choice) -> Wanted:
    waiting = _waiting(settings, seen, choice)
    if memory.configured:
        if settings.cleanup_on_exit:
            return Wanted(None, satisfied=False, clean=True, warnings=choice.skipped, waiting=waiting)
        warning = f"no usable master any more, the configuration stays as it is: {waiting}"
        return Wanted(memory.output, satisfied=False, warnings=(*choice.skipped, warning), waiting=waiting)
    return Wanted(
        None,
        satisfied=False,
        clean=settings.cleanup_on_exit,
        problems=_gave_up(settings, seen, memory, waiting),
        warnings=choice.skipped,
        waiting=waiting,
        deadline=give_up_at(settings, memory),
    )


def _waiting(settings: Settings, seen: Seen, choice: Choice) -> str:
    named = ",".join(settings.master_names)
    if named:
        wanted = f"waiting for {named} to be a usable CNI configuration in {settings.autoconfig_dir}"
    else:
        wanted = f"waiting for a CNI configuration of the default network in {settings.autoconfig_dir}"
    found = "; ".join(choice.refused) or "no .conf or .conflist file is there"
    if seen.beside is None:
        found = "the directory does not exist"
    elif named and not choice.refused:
        others = f"; there are: {', '.join(seen.beside)}" if seen.beside else ""
        found = f"{named} is not there{others}"
    return f"{wanted}: {found}"
