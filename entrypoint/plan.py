"""Deciding what should be on the node. Pure: everything it knows comes in, everything it wants goes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from entrypoint import chained, cniconf, mergepatch, renaming, render, verdict
from entrypoint.choose import Choice, choose, give_up_at
from entrypoint.cniconf import Master
from entrypoint.node import (
    Absent,
    Copy,
    File,
    Look,
    Memory,
    Output,
    Plan,
    Problem,
    Record,
    Remove,
    Rename,
    Seen,
    Write,
)
from entrypoint.settings import Settings, is_token

GENERATED_MODE = 0o600
_FIRST_RETRY, _LAST_RETRY = 1.0, 30.0
"""Seconds between looks after one that failed."""


class _Configuration(NamedTuple):
    """The part of a plan that concerns the configuration file."""

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


def decide(settings: Settings, seen: Seen, memory: Memory) -> Plan:
    """Say what should be done on the node that was seen.

    Deciding again on the node that the plan leaves behind, with the plan's memory, yields a plan without steps.
    """
    problems = [
        Problem(f"{flag}: the directory {path} is not there: is the volume mounted at that path?", memory.first)
        for flag, path in seen.missing_dirs
    ]
    missing = {path for _, path in seen.missing_dirs}
    kubeconfig, kubeconfig_problems, warnings = _kubeconfig(settings, seen, memory)
    binary, binary_problems = _binary(settings, seen, memory)
    memory, patch_problems = _with_patch(settings, seen, memory)
    wanted = _static(settings, seen, memory) if seen.static is not None else _auto(settings, seen, memory)
    awaited = verdict.program_missing(settings, seen.binary.source_fault if binary else seen.binary.fault)
    if seen.readiness and memory.output is None:
        awaited = f"waiting for {seen.readiness} (--wait-for-readiness-indicator)"
    if awaited and wanted.output is not None and not binary_problems:
        wanted = _held_back(settings, seen, memory, wanted, awaited)
    problems += [*kubeconfig_problems, *binary_problems, *patch_problems, *wanted.problems]
    writable = settings.cni_conf_dir not in missing
    stands = chained.standing(seen.outputs)
    output, doubled = chained.settled(wanted.output, stands) if wanted.output else (None, [])
    configuration = _write(settings, seen, output) if writable and output and not awaited else None
    removals = _removals(settings, seen, wanted, output) if writable and not awaited else ()
    held = None
    if wanted.output and not awaited:
        due = configuration is not None
        held = chained.handover(seen, wanted.output, due=due, was_listed=memory.listed)
    if held is not None:
        configuration, removals, wanted = None, (), wanted._replace(rename=None, record=None)
    elif output is not None and not awaited:
        problems += _not_in_use(settings, seen, output, _names_after(settings, seen, output, removals, wanted.rename))
    failed = [*seen.failed, *_failed_looks(settings, seen), *([wanted.unread] if wanted.unread else [])]
    record = wanted.record or renaming.from_file(seen.record) or memory.record
    retry = min(max(_FIRST_RETRY, 2 * memory.retry), _LAST_RETRY) if failed or _unknown(seen.record) else 0.0
    satisfied = memory.satisfied if failed or held is not None else wanted.satisfied and not problems
    deadlines = [wanted.deadline, held, seen.now + retry if retry else None]
    return Plan(
        memory=Memory(
            started=memory.started,
            first=False,
            configured=memory.configured or wanted.output is not None,
            output=wanted.output,
            patch=memory.patch,
            record=record,
            listed=output is not None and (output.is_list or (held is not None and memory.listed)),
            satisfied=satisfied,
            retry=retry,
        ),
        kubeconfig=kubeconfig if writable else None,
        binary=binary if settings.cni_bin_dir not in missing else None,
        configuration=configuration,
        accepted=output.content if output and _is_there(seen, output) else None,
        removals=removals,
        record=_remember(settings, seen, record) if writable and record else None,
        rename=wanted.rename,
        problems=(*problems, *(Problem(message, fatal=False) for message in failed)),
        warnings=(
            *warnings,
            *wanted.warnings,
            *_left_out(wanted.output, doubled),
            *_astray(settings, seen, output),
        ),
        waiting=wanted.waiting,
        satisfied=satisfied,
        deadline=min((deadline for deadline in deadlines if deadline is not None), default=None),
    )


def decide_removal(
    settings: Settings, seen: Seen, memory: Memory, ours: bytes | None
) -> tuple[tuple[Rename, ...], tuple[Remove, ...]]:
    """Say what to rename back and then what to take away on the way out, with `--cleanup-config-on-exit`.

    Only a configuration that still is what this run wrote, the content `ours`, is taken away: any other is a
    successor's, to whom the renamed master is left as well. Names are given back first, so that the node is never
    without a configuration; they are given back too when somebody has just taken the configuration away. Where a live
    file has taken the name, NAME.old stays, and with it the record that it is ours.
    """
    if memory.output is None:
        return (), ()
    # Not what was wanted last counts, but what was written last: the disk may have been full in between.
    standing = {name: look for name, look in seen.outputs.items() if isinstance(look, File)}
    written = [name for name, look in standing.items() if chained.is_ours(look.content, ours)]
    if standing and not written:
        return (), ()
    if isinstance(seen.static, File) and seen.static.identity in {look.identity for look in standing.values()}:
        return (), ()  # --multus-conf-file names the very file that the runtime reads: the operator's, not a copy
    record = renaming.recall(seen, memory)
    paths = [settings.autoconfig_dir / each.name for each in renaming.masters(seen, record)]
    restored = tuple(Rename(path.with_name(path.name + cniconf.RETIRED_SUFFIX), to=path) for path in paths)
    because = "the program ends (--cleanup-config-on-exit)"
    removals = [Remove(settings.cni_conf_dir / name, because) for name in written]
    live = {each.name for each in seen.candidates}
    if isinstance(seen.record, File) and not any(path.name in live for path in paths):
        removals.append(Remove(settings.record_file, because))
    return restored, tuple(removals)


# ---- kubeconfig and binary ----


def _kubeconfig(settings: Settings, seen: Seen, memory: Memory) -> tuple[Write | None, list[Problem], list[str]]:
    if isinstance(seen.token, Absent) and seen.token.missing:
        message = f"no service account token at {settings.token_file}"
        if isinstance(seen.kubeconfig, File):
            return None, [], [f"{message}: {settings.kubeconfig_file} stays as it is"]
        if settings.kubeconfig_path_given:
            # Whether it is there can be said of the path that this program writes, and of no other.
            if settings.kubeconfig_is_ours:
                return None, [Problem(f"{message}, and no {settings.kubeconfig_file} as it says", fatal=False)], []
            return None, [], [f"{message}: Multus will use {settings.kubeconfig_path_on_host} as it finds it"]
        advice = "set automountServiceAccountToken and a serviceAccountName, or --multus-kubeconfig-file-host"
        return None, [Problem(f"{message}: {advice}", memory.first)], []
    faults = _fault(settings.token_file, "service account token", seen.token)
    if not settings.skip_tls_verify:
        faults += _fault(settings.ca_file, "CA certificate", seen.certificate_authority)
    if isinstance(seen.token, File) and not is_token(seen.token.content):
        faults.append(f"the service account token at {settings.token_file} is no token: it is not one printable word")
    if settings.api_server is None:
        faults.append("KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set: does this run in a pod?")
    if faults or settings.api_server is None or not isinstance(seen.token, File):
        return None, [Problem(fault, memory.first) for fault in faults], []
    authority = seen.certificate_authority
    content = render.kubeconfig(
        settings.api_server,
        seen.token.content.decode("ascii").strip(),
        authority.content if isinstance(authority, File) and not settings.skip_tls_verify else None,
    )
    if _unknown(seen.kubeconfig) or _is(seen.kubeconfig, content, settings.kubeconfig_mode):
        return None, [], []
    return Write(settings.kubeconfig_file, content, settings.kubeconfig_mode), [], []


def _fault(path: object, what: str, look: File | Absent) -> list[str]:
    if isinstance(look, Absent):
        return [f"the {what} at {path} {look.why}"]
    if not look.content.strip():
        return [f"the {what} at {path} is empty"]
    return []


def _binary(settings: Settings, seen: Seen, memory: Memory) -> tuple[Copy | None, list[Problem]]:
    if settings.skip_binary_copy:
        return None, []
    if seen.binary.source is not None:
        message = f"--multus-bin-file={settings.multus_bin_file} {seen.binary.source.why}"
        return None, [Problem(f"{message}: does the image carry the multus binary?", memory.first)]
    if seen.binary.installed:
        return None, []
    return Copy(settings.binary_file, settings.multus_bin_file), []


# ---- the configuration ----


def _with_patch(settings: Settings, seen: Seen, memory: Memory) -> tuple[Memory, list[Problem]]:
    """Return the memory with the patch that is to be applied: the last good one when the file has turned bad."""
    content = settings.conf_patch
    if seen.patch is not None:
        if _unknown(seen.patch) and not memory.first:
            return memory, []
        if isinstance(seen.patch, Absent):
            return memory, [Problem(f"--multus-conf-patch={settings.conf_patch_file} {seen.patch.why}", memory.first)]
        content = seen.patch.content
    if content is None:
        return memory, []
    try:
        return memory._replace(patch=mergepatch.read(content, settings.node_name)), []
    except mergepatch.InvalidPatchError as error:
        return memory, [Problem(f"--multus-conf-patch={settings.conf_patch_file}: {error}", memory.first)]


def _static(settings: Settings, seen: Seen, memory: Memory) -> _Configuration:
    source, path = seen.static, settings.static_conf_file
    assert source is not None and path is not None  # noqa: S101 - both belong to static mode
    if isinstance(source, Absent) and source.failed and not memory.first:
        return _unread(settings, memory, f"--multus-conf-file={path}: {source.why}", seen)
    fault = source.why if isinstance(source, Absent) else cniconf.size_fault(len(source.content))
    if isinstance(source, File) and not fault:
        try:
            cniconf.parse(source.content)
        except cniconf.InvalidJsonError as error:
            fault = str(error)
        else:
            return _Configuration(Output(path.name, source.content, source.mode, None), satisfied=True)
    problem = Problem(f"--multus-conf-file={path}: {fault}", memory.first)
    return _Configuration(memory.output, satisfied=False, problems=(problem,))


def _auto(settings: Settings, seen: Seen, memory: Memory) -> _Configuration:
    if settings.skip_config_watch and memory.output:
        return _Configuration(memory.output, satisfied=True)
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


def _unread(settings: Settings, memory: Memory, message: str, seen: Seen) -> _Configuration:
    """Keep what is there: that something could not be read is no news about it."""
    return _Configuration(
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


def _held_back(settings: Settings, seen: Seen, memory: Memory, wanted: _Configuration, awaited: str) -> _Configuration:
    """Hold the configuration back: one that names a program that is not there stops every pod."""
    problems = (Problem(awaited, fatal=False),) if memory.configured else ()
    return _Configuration(
        memory.output,
        satisfied=False,
        problems=(*wanted.problems, *problems, *_gave_up(settings, seen, memory, awaited)),
        warnings=wanted.warnings,
        waiting=awaited,
        deadline=None if memory.configured else give_up_at(settings, memory),
    )


def _wrapped(settings: Settings, seen: Seen, choice: Choice, master: Master, memory: Memory) -> _Configuration:
    warnings = list(choice.skipped)
    if master.cni_version is None and settings.cni_version is None:
        warnings.append(
            f"{choice.name} has no 'cniVersion': it counts as {render.ASSUMED_CNI_VERSION}, which its copy inside the "
            "Multus configuration gets; give it one, or set --cni-version"
        )
    try:
        file_name, content = render.multus_configuration(settings, master, memory.patch or {})
    except render.CannotWrapError as error:
        problem = Problem(f"{settings.autoconfig_dir / choice.name}: {error}", fatal=not memory.configured)
        return _Configuration(memory.output, satisfied=False, problems=(problem,), warnings=tuple(warnings))
    warnings += _plugins_lost(settings, seen, choice.name, master, file_name)
    warnings += mergepatch.remarks(memory.patch or {}, settings.log_file)
    output = Output(file_name, content, GENERATED_MODE, choice.name)
    return _Configuration(output, satisfied=True, warnings=tuple(warnings))


def _renamed(settings: Settings, seen: Seen, memory: Memory, choice: Choice, wanted: _Configuration) -> _Configuration:
    """Add what `--rename-conf-file` asks for; a master that cannot be renamed is wrapped all the same."""
    if not wanted.satisfied:
        return wanted
    record = renaming.recall(seen, memory)
    path = settings.autoconfig_dir / choice.name
    if choice.live:
        obstacle = renaming.obstacle(seen, record, choice.name, settings.record_file)
        if obstacle:
            return wanted._replace(warnings=(*wanted.warnings, f"{path} is wrapped and keeps its name: {obstacle}"))
        rename, record = renaming.retire(seen, record, path)
        return wanted._replace(rename=rename, record=record)
    warnings = wanted.warnings
    others = ", ".join(repr(each.name) for each in seen.candidates if isinstance(each.verdict, Master))
    if others and renaming.is_presumed(seen, memory):
        warnings = (
            *warnings,
            f"{settings.record_file} is missing or broken: {path.name + cniconf.RETIRED_SUFFIX} stays the master, and "
            f"{others} is taken for what stood beside it; to have that one wrapped, write it with another content",
        )
    return wanted._replace(record=renaming.confirm(seen, record, choice.name), warnings=warnings)


def _plugins_lost(settings: Settings, seen: Seen, name: str, master: Master, file_name: str) -> list[str]:
    """Warn of plugins that libcni loads from a directory of the list's name: Multus does not, for its delegates.

    Where our list has the name of the master, the runtime loads them behind ours.
    """
    lost = seen.directories.get(master.name, ())
    inlined_only = cniconf.for_multus(master.document).get("loadOnlyInlinedPlugins") is True
    ours_has_them = (
        settings.override_network_name
        and file_name.endswith(".conflist")
        and settings.autoconfig_dir == settings.cni_conf_dir
    )
    if not lost or not name.endswith(".conflist") or inlined_only or ours_has_them:
        return []
    return [
        f"the plugins of {name} in the directory {settings.autoconfig_dir / master.name} do not run inside Multus: "
        f"{', '.join(lost)}; put them into its 'plugins', or set --override-network-name (from CNI 1.0.0 on)"
    ]


def _while_written(settings: Settings, seen: Seen, memory: Memory, choice: Choice, settled_at: float) -> _Configuration:
    """Keep what is there until the file is whole, or has been broken for so long that it is no longer being written."""
    return _Configuration(
        memory.output,
        satisfied=memory.output is not None,
        warnings=choice.skipped,
        waiting=_waiting(settings, seen, choice),
        deadline=settled_at if memory.configured else min(settled_at, give_up_at(settings, memory)),
    )


def _without_master(settings: Settings, seen: Seen, memory: Memory, choice: Choice) -> _Configuration:
    waiting = _waiting(settings, seen, choice)
    if memory.configured:
        if settings.cleanup_on_exit:
            return _Configuration(None, satisfied=False, clean=True, warnings=choice.skipped, waiting=waiting)
        warning = f"no usable master any more, the configuration stays as it is: {waiting}"
        return _Configuration(memory.output, satisfied=False, warnings=(*choice.skipped, warning), waiting=waiting)
    return _Configuration(
        None,
        satisfied=False,
        clean=settings.cleanup_on_exit,
        problems=_gave_up(settings, seen, memory, waiting),
        warnings=choice.skipped,
        waiting=waiting,
        deadline=give_up_at(settings, memory),
    )


def _waiting(settings: Settings, seen: Seen, choice: Choice) -> str:
    if settings.master_name:
        wanted = f"waiting for {settings.master_name} to be a usable CNI configuration in {settings.autoconfig_dir}"
    else:
        wanted = f"waiting for a CNI configuration of the default network in {settings.autoconfig_dir}"
    found = "; ".join(choice.refused) or "no .conf or .conflist file is there"
    if seen.beside is None:
        found = "the directory does not exist"
    elif settings.master_name and not choice.refused:
        others = f"; there are: {', '.join(seen.beside)}" if seen.beside else ""
        found = f"{settings.master_name} is not there{others}"
    return f"{wanted}: {found}"


def _astray(settings: Settings, seen: Seen, output: Output | None) -> Iterator[str]:
    if output is not None and (told := verdict.kubeconfig_astray(settings, seen.mounted_from, output.content)):
        yield "; ".join(told)


# ---- from what is wanted to steps ----


def _is(look: File | Absent, content: bytes, mode: int) -> bool:
    return isinstance(look, File) and look.content == content and look.mode == mode


def _is_there(seen: Seen, output: Output) -> bool:
    return _is(seen.outputs[output.file_name], output.content, output.mode)


def _unknown(look: Look) -> bool:
    return isinstance(look, Absent) and look.failed


def _write(settings: Settings, seen: Seen, output: Output) -> Write | None:
    if any(map(_unknown, seen.outputs.values())) or _is_there(seen, output):
        return None
    stands = chained.standing(seen.outputs)
    over = stands.file.identity if stands and stands.file_name == output.file_name else None
    return Write(settings.cni_conf_dir / output.file_name, output.content, output.mode, over)


def _remember(settings: Settings, seen: Seen, record: Record) -> Write | None:
    """Write the record unless it is there already, or cannot be read at the moment."""
    if _unknown(seen.record) or not settings.rename_master or renaming.from_file(seen.record) == record:
        return None
    return Write(settings.record_file, renaming.as_file(record), renaming.RECORD_MODE)


def _removals(settings: Settings, seen: Seen, wanted: _Configuration, output: Output | None) -> tuple[Remove, ...]:
    """Remove what must not be there beside, or without, the configuration that shall be there."""
    if output is None and not wanted.clean:
        return ()
    because = "no usable master is left (--cleanup-config-on-exit)"
    if output is not None:
        because = f"{output.file_name} takes its place"
    return tuple(
        Remove(settings.cni_conf_dir / name, because)
        for name, look in seen.outputs.items()
        if not (isinstance(look, Absent) and (look.missing or look.failed))
        and (output is None or name != output.file_name)
        # The file beside a static one is the operator's, unless it is what a mesh made of that one.
        and (seen.static is None or (isinstance(look, File) and chained.parsed(look.content)))
    )


def _left_out(wanted: Output | None, doubled: list[str]) -> list[str]:
    source = wanted.master if wanted and wanted.master else "the static configuration"
    return [f"{kind} of {source} is chained behind Multus as well: its copy goes without" for kind in doubled]


def _not_in_use(settings: Settings, seen: Seen, output: Output, there: set[str]) -> list[Problem]:
    """Say why the runtime would not use our configuration, with these names in the configuration directory."""
    found = []
    if before := chained.overtaken(settings.cni_conf_dir, there, output.file_name, output.content, seen.first):
        found.append(Problem(f"{before}; remove or rename what stands before it", fatal=False))
    if unused := verdict.not_used(settings.cni_conf_dir / output.file_name, output.content):
        found.append(Problem(unused, fatal=False))
    return found


def _names_after(
    settings: Settings, seen: Seen, output: Output, removals: tuple[Remove, ...], rename: Rename | None
) -> set[str]:
    """Return what the configuration directory will hold once these steps are done, as far as a runtime reads it."""
    gone = {removal.path for removal in removals} | ({rename.path} if rename else set())
    return {name for name in seen.names if settings.cni_conf_dir / name not in gone} | {output.file_name}


def _failed_looks(settings: Settings, seen: Seen) -> list[str]:
    looks = {settings.cni_conf_dir / name: look for name, look in seen.outputs.items()}
    looks[settings.kubeconfig_file] = seen.kubeconfig
    if settings.conf_patch_file is not None and seen.patch is not None:
        looks[settings.conf_patch_file] = seen.patch
    return [f"{path} {look.why}" for path, look in looks.items() if isinstance(look, Absent) and look.failed]
