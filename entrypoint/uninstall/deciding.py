"""Deciding what `uninstall` takes away from a node. Pure: what was seen comes in, an ordered list of acts goes out.

A node that keeps the configuration after its DaemonSet is gone cannot start pods any more (upstream issues 1429, 1105,
461, 592), so the configuration goes first and what it refers to goes after it.

What is ours: a file under a name that this program writes, if what is in it is what this program would write there.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from entrypoint.cni.document import GENERATED, RETIRED_SUFFIX, Master, Multus, Unusable, examine, parse
from entrypoint.disk.looks import Absent, File, Look
from entrypoint.node import chained, renaming
from entrypoint.node import values as node
from entrypoint.settings import Settings

_SHIM = "multus-shim"


class Kind(Enum):
    """What an act does."""

    CONFIGURATION = "remove, or leave the node as it is"
    REMOVE = "remove"
    RENAME = "rename unless the name is taken"
    FORGET = "remove once the names are given back"
    REMOVE_DIRECTORY = "remove if empty"
    KEEP = "only say why it stays"
    MISS = "only say that it is not there"


_SIGNS = frozenset({Kind.CONFIGURATION, Kind.REMOVE})
"""Before the programs: what is taken away with these shows that Multus was installed here."""


class Act(NamedTuple):
    """One thing to do, or to say, about one path."""

    kind: Kind
    path: Path
    why: str = ""
    to: Path | None = None
    """The new name, for a rename."""
    needs_the_rest: bool = False
    """A Multus configuration that stays: without kubeconfig and binary the node could start no pod."""


class Program(NamedTuple):
    """An installed binary, compared with the image's."""

    path: Path
    there: bool = True
    foreign: str | None = None
    """Why it cannot be taken for the image's; None when it is the same."""


class Seen(NamedTuple):
    """The node as uninstalling needs to know it."""

    configurations: dict[Path, Look]
    """What stands under each name that this program writes."""
    others: tuple[Path, ...]
    """Multus configurations under names that this program does not write."""
    observed: node.Seen
    """What the resident program would see, with `--rename-conf-file`."""
    doubled: frozenset[str]
    """Files NAME.old that are NAME itself under a second name: a run was killed while it gave the name back."""
    record: Look
    """What stands under the name of the record of renamed masters."""
    kubeconfig: bool
    kubeconfig_dir: bool
    programs: tuple[Program, ...]


def decide(settings: Settings, seen: Seen) -> list[Act]:
    """Say what to take away, put back and keep, in this order. Deciding again on the node that this leaves: nothing."""
    acts = [*_configurations(settings, seen), *_master(settings, seen), *_kubeconfig(settings, seen)]
    return [*acts, *_programs(settings, seen, was_installed=any(act.kind in _SIGNS for act in acts))]


# ---- the configuration ----


def _configurations(settings: Settings, seen: Seen) -> Iterator[Act]:
    for path, look in seen.configurations.items():
        if isinstance(look, File):
            why = _not_ours(settings, path, look, seen.observed.static)
            yield Act(Kind.KEEP, path, why, needs_the_rest=_runs_ours(look)) if why else Act(Kind.CONFIGURATION, path)
        elif not look.missing:
            yield Act(Kind.CONFIGURATION, path)  # it fails, and says why
    for path in seen.others:
        why = "it runs Multus too, and is not what these flags write: remove it yourself"
        yield Act(Kind.KEEP, path, why, needs_the_rest=True)


def _not_ours(settings: Settings, path: Path, look: File, source: Look | None) -> str | None:
    """Say why a file under one of our names is not ours; None when it is."""
    if isinstance(source, File) and settings.static_conf_file and path.name == settings.static_conf_file.name:
        if source.identity == look.identity:
            return "it is the file that --multus-conf-file names, not a copy of it"
        if source.content == look.content:
            return None
    verdict = examine(look.content)
    if isinstance(verdict, Multus):
        if _SHIM in _types(look.content):
            return "it belongs to the thick plugin (multus-shim), which this program does not install"
        return None
    if isinstance(verdict, Unusable) and path.name in GENERATED:
        return None  # half a file of an installer that does not write whole ones (upstream issues 1288, 1312)
    return "it does not run Multus, so this program did not write it"


def _runs_ours(look: File) -> bool:
    """Say whether a configuration runs the thin plugin: the thick one brings a binary and a kubeconfig of its own."""
    return isinstance(examine(look.content), Multus) and _SHIM not in _types(look.content)


def _types(content: bytes) -> list[object]:
    document = parse(content)
    plugins = document.get("plugins")
    listed = plugins if isinstance(plugins, list) else []
    return [document.get("type"), *(plugin.get("type") for plugin in listed if isinstance(plugin, dict))]


# ---- the master's name ----


def _master(settings: Settings, seen: Seen) -> Iterator[Act]:
    """Give the masters that were renamed their names back; an operator's own copies end in .old too."""
    live, retired = seen.observed.candidates, seen.observed.retired
    usable = {each.name: each.verdict.document for each in retired if isinstance(each.verdict, Master)}
    written = [look.content for look in seen.configurations.values() if isinstance(look, File)]
    chosen = [name for name, master in usable.items() if any(chained.wraps(content, master) for content in written)]
    if not chosen and settings.rename_master and not any(isinstance(each.verdict, Master) for each in live):
        chosen = list(usable)  # the configuration is gone already: an earlier uninstall was cut off here
    record = renaming.from_file(seen.record)
    known = {*seen.doubled, *(record.renamed if record else ())}
    for name in [each.name for each in retired if each.name in known] or chosen[:1]:
        path = settings.autoconfig_dir / (name + RETIRED_SUFFIX)
        yield Act(Kind.RENAME, path, to=path.with_name(name))
    if not (isinstance(seen.record, Absent) and seen.record.missing):
        yield Act(Kind.FORGET, settings.record_file)


# ---- what the configuration referred to ----


def _kubeconfig(settings: Settings, seen: Seen) -> Iterator[Act]:
    if seen.kubeconfig:
        yield Act(Kind.REMOVE, settings.kubeconfig_file)
    if seen.kubeconfig_dir:
        yield Act(Kind.REMOVE_DIRECTORY, settings.kubeconfig_file.parent)


def _programs(settings: Settings, seen: Seen, *, was_installed: bool) -> Iterator[Act]:
    for program in seen.programs:
        if not program.there:
            if was_installed and program.path == settings.binary_file and not settings.skip_binary_copy:
                why = "if the binary was installed elsewhere, say where with --cni-bin-dir, and run this again"
                yield Act(Kind.MISS, program.path, why)
            continue
        if settings.skip_binary_copy:
            yield Act(Kind.KEEP, program.path, "--skip-multus-binary-copy is set")
        elif program.foreign:
            yield Act(Kind.KEEP, program.path, program.foreign)
        else:
            yield Act(Kind.REMOVE, program.path)
