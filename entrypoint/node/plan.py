"""Deciding what should be on the node. Pure: everything it knows comes in, everything it wants goes out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from entrypoint.cni.document import RETIRED_SUFFIX
from entrypoint.disk.looks import Absent, File, holds, unknown
from entrypoint.node import chained, handover, needed, renaming, verdict
from entrypoint.node.values import Memory, Output, Plan, Problem, Record, Remove, Rename, Seen, Write
from entrypoint.node.wanted import Wanted, held_back, with_patch
from entrypoint.node.wanted import configuration as configuration_of
from entrypoint.settings import Settings

_FIRST_RETRY, _LAST_RETRY = 1.0, 30.0
"""Seconds between looks after one that failed."""


def decide(settings: Settings, seen: Seen, memory: Memory) -> Plan:
    """Say what should be done on the node that was seen.

    Deciding again on the node that the plan leaves behind, with the plan's memory, yields a plan without steps.
    """
    problems = [
        Problem(f"{flag}: the directory {path} is not there: is the volume mounted at that path?", memory.first)
        for flag, path in seen.missing_dirs
    ]
    missing = {path for _, path in seen.missing_dirs}
    kubeconfig, kubeconfig_problems, warnings = needed.kubeconfig(settings, seen, memory)
    binary, binary_problems = needed.binary(settings, seen, memory)
    memory, patch_problems = with_patch(settings, seen, memory)
    wanted = configuration_of(settings, seen, memory)
    awaited = verdict.program_missing(settings, seen.binary.source_fault if binary else seen.binary.fault)
    if seen.readiness and memory.output is None:
        awaited = f"waiting for {seen.readiness} (--wait-for-readiness-indicator)"
    if awaited and wanted.output is not None and not binary_problems:
        wanted = held_back(settings, seen, memory, wanted, awaited)
    problems += [*kubeconfig_problems, *binary_problems, *patch_problems, *wanted.problems]
    writable = settings.cni_conf_dir not in missing
    stands = chained.standing(seen.outputs)
    output, doubled = chained.settled(wanted.output, stands) if wanted.output else (None, [])
    configuration = _write(settings, seen, output, stands) if writable and output and not awaited else None
    removals = _removals(settings, seen, wanted, output) if writable and not awaited else ()
    reads = verdict.kubeconfig_named(settings, seen.mounted_from, output.content) if output else None
    held = None
    if wanted.output and not awaited:
        held = handover.until(seen, wanted.output, memory.stood, due=configuration is not None)
    if held is not None:
        configuration, removals, wanted = None, (), wanted._replace(rename=None, record=None)
    elif output is not None and not awaited:
        there = _names_after(settings, seen, output, removals, wanted.rename)
        faults = verdict.not_in_use(settings.cni_conf_dir, there, output.file_name, output.content, seen.first)
        problems += [Problem(fault, fatal=False) for fault in faults]
        problems += _kubeconfig_missing(settings, seen, reads, kubeconfig) if reads else []
    # What is remembered as put in place is not looked at again without the config watch: not before its time has come.
    in_place = memory.output if held is not None and settings.skip_config_watch else wanted.output
    failed = list(dict.fromkeys([*_failed_looks(settings, seen), *([wanted.unread] if wanted.unread else [])]))
    record = wanted.record or renaming.from_file(seen.record) or memory.record
    retry = min(max(_FIRST_RETRY, 2 * memory.retry), _LAST_RETRY) if failed or unknown(seen.record) else 0.0
    satisfied = not failed and (wanted.satisfied and not problems if held is None else memory.satisfied)
    deadlines = [wanted.deadline, held, seen.now + retry if retry else None]
    return Plan(
        memory=Memory(
            started=memory.started,
            first=False,
            configured=memory.configured or wanted.output is not None,
            output=in_place,
            patch=memory.patch,
            record=record,
            stood=_stood(output if writable else None, memory, held),
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
        reads=reads,
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
    restored = tuple(Rename(path.with_name(path.name + RETIRED_SUFFIX), to=path) for path in paths)
    because = "the program ends (--cleanup-config-on-exit)"
    removals = [Remove(settings.cni_conf_dir / name, because) for name in written]
    live = {each.name for each in seen.candidates}
    if isinstance(seen.record, File) and not any(path.name in live for path in paths):
        removals.append(Remove(settings.record_file, because))
    return restored, tuple(removals)


# ---- from what is wanted to steps ----


def _stood(output: Output | None, memory: Memory, held: float | None) -> str:
    if output is None:
        return ""
    return output.file_name if held is None else memory.stood


def _is_there(seen: Seen, output: Output) -> bool:
    return holds(seen.outputs[output.file_name], output.content, output.mode)


def _write(settings: Settings, seen: Seen, output: Output, stands: chained.Standing | None) -> Write | None:
    if any(map(unknown, seen.outputs.values())) or _is_there(seen, output):
        return None
    over = stands.file.identity if stands and stands.file_name == output.file_name else None
    return Write(settings.cni_conf_dir / output.file_name, output.content, output.mode, over)


def _remember(settings: Settings, seen: Seen, record: Record) -> Write | None:
    """Write the record unless it is there already, or cannot be read at the moment."""
    if unknown(seen.record) or not settings.rename_master or renaming.from_file(seen.record) == record:
        return None
    return Write(settings.record_file, renaming.as_file(record), renaming.RECORD_MODE)


def _removals(settings: Settings, seen: Seen, wanted: Wanted, output: Output | None) -> tuple[Remove, ...]:
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


def _kubeconfig_missing(settings: Settings, seen: Seen, path: Path, ours: Write | None) -> list[Problem]:
    """Say that the kubeconfig that Multus is told to read is not there, unless it is `ours`, which is being written."""
    if path == settings.kubeconfig_file and (ours or unknown(seen.kubeconfig)):
        return []
    told = verdict.kubeconfig_missing(settings, seen, path)
    return [Problem("; ".join(told), fatal=False)] if told else []


def _names_after(
    settings: Settings, seen: Seen, output: Output, removals: tuple[Remove, ...], rename: Rename | None
) -> set[str]:
    """Return what the configuration directory will hold once these steps are done, as far as a runtime reads it."""
    gone = [removal.path for removal in removals] + ([rename.path] if rename else [])
    return {*seen.names} - {path.name for path in gone if path.parent == settings.cni_conf_dir} | {output.file_name}


def _failed_looks(settings: Settings, seen: Seen) -> list[str]:
    if seen.failed:
        return [seen.failed]  # of what is in the directory, nothing more is to be said
    looks = {settings.cni_conf_dir / name: look for name, look in seen.outputs.items()}
    looks[settings.kubeconfig_file] = seen.kubeconfig
    if settings.conf_patch_file is not None and seen.patch is not None:
        looks[settings.conf_patch_file] = seen.patch
    return [f"{path} {look.why}" for path, look in looks.items() if isinstance(look, Absent) and look.failed]


def _astray(settings: Settings, seen: Seen, output: Output | None) -> Iterator[str]:
    if output is not None and (told := verdict.kubeconfig_astray(settings, seen.mounted_from, output.content)):
        yield "; ".join(told)
