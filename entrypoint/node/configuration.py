"""The configuration that switches the node over to Multus: which one, under which name, and whether it is in use."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from entrypoint.cni import runtime
from entrypoint.cni.document import RETIRED_SUFFIX
from entrypoint.disk import mounts
from entrypoint.disk.looks import Absent, File, Look, holds, listing, output, read
from entrypoint.node import meshes, renaming
from entrypoint.node.ledger import Ledger, Put
from entrypoint.node.master import Auto
from entrypoint.node.part import (
    Before,
    Draft,
    Fault,
    Interest,
    Leaving,
    LookFailedError,
    Source,
    Wish,
    missing,
    told,
)
from entrypoint.node.static import Static
from entrypoint.node.steps import GiveBack, Note, Remove, Retire, Step, Write
from entrypoint.settings import Settings

_CILIUM = ".cilium_bak"
"""What Cilium adds to the names of other CNI configurations, unless `cni.exclusive` is false."""


class Seen(NamedTuple):
    """The configuration directory, and where the configuration comes from."""

    now: float
    """Monotonic seconds."""
    directory: bool = True
    source: Any = None
    """What the source has seen."""
    outputs: Mapping[str, Look] = {}
    """What stands under each name that this program may write, or has written by the ledger."""
    since: Mapping[str, float] = {}
    """For each of them, since when it has been so."""
    stood: str = ""
    """Under which of them a configuration stood last, while this instance looked on."""
    names: tuple[str, ...] = ()
    """What is in the directory, but for directories."""
    beside_ours: tuple[str, ...] = ()
    """What is in the directory of our kubeconfig."""
    first: tuple[str, Look] | None = None
    """What the runtime reads first, when its name is none of ours."""
    indicators: Mapping[str, bool | None] = {}
    """Whether each readiness indicator is there that a configuration names; None where this container cannot see."""
    gate: Path | None = None
    """What `--wait-for-readiness-indicator` waits for; None when it is there."""
    renamed: renaming.Old | None = None
    recalled: str | None = None
    """A master that was renamed and made way for another, and that the flags name now."""


class Configuration:
    """`00-multus.conf`, `00-multus.conflist`, or the copy of a static one."""

    def __init__(
        self, settings: Settings, ledger: Ledger, *, patient: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Give files that are being written, and meshes, the time that they need, unless it is not `patient`."""
        self._settings, self._ledger, self._patient, self._clock = settings, ledger, patient, clock
        path = settings.static_conf_file
        self._source: Source
        if path is not None:
            self._source = Static(settings, path)
        else:
            self._source = Auto(settings, ledger, patient=patient, clock=clock)
        self._mounted_from = mounts.of(settings.cni_conf_dir)
        """The path of the configuration directory within the file system that it is on; None when nothing tells."""
        self._dated: dict[str, tuple[object, int, float]] = {}
        self._stood, self._lost = "", 0
        """Where it stood last; how many were put before the directory was lost with the last of them."""
        self._refers_to: tuple[Path, ...] = ()
        """The kubeconfig and the readiness indicator that what stands names, where this container sees them."""

    # ---- looking ----

    def follows(self) -> Iterable[Interest]:
        """Return all that the runtime may read first, what the configuration names, and where it comes from."""
        settings = self._settings
        yield from settings.output_files
        yield settings.cni_conf_dir, runtime.SUFFIXES
        yield from self._refers_to
        if settings.readiness_gate is not None:
            yield settings.readiness_gate
        yield from self._source.follows()

    def look(self) -> Seen:
        """Look at the directory and at the source."""
        settings, now, put = self._settings, self._clock(), self._ledger.says.configuration
        if not os.path.isdir(settings.cni_conf_dir):
            self._stood, self._lost = "", self._ledger.puts
            return Seen(now, directory=False)
        entries, failure = listing(settings.cni_conf_dir)
        if failure:
            raise LookFailedError(f"the directory {settings.cni_conf_dir} {failure}")
        ours = [path.name for path in settings.output_files]
        paths = {name: settings.cni_conf_dir / name for name in (*ours, *([put.name] if put else []))}
        outputs = {name: told(output(path), path) for name, path in paths.items()}
        # A mesh may move what this run has just written before it is seen.
        written = put.name if put and self._ledger.puts > self._lost else ""
        self._stood = next((name for name in ours if isinstance(outputs[name], File)), self._stood or written)
        names = tuple(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
        source, gate = self._source.look(), settings.readiness_gate
        documents = [look.content for look in (*outputs.values(), source) if isinstance(look, File)]
        return Seen(
            now=now,
            source=source,
            outputs=outputs,
            since=self._date(outputs, now),
            stood=self._stood,
            names=names,
            beside_ours=tuple(entry.name for entry in listing(settings.kubeconfig_file.parent)[0]),
            first=_foreign_first(settings, names, set(outputs)),
            indicators=self._look_at_what_they_name(documents),
            gate=None if gate is None or os.path.exists(gate) else gate,
            renamed=renaming.look(settings, self._ledger.says),
            recalled=renaming.recalled(settings, self._ledger.says),
        )

    def _date(self, outputs: Mapping[str, Look], now: float) -> dict[str, float]:
        """Return since when each is as it is. One that was written and is gone before it was seen is gone anew.

        Otherwise a mesh that moves it at once would be given no time.
        """
        known, self._dated, puts = self._dated, {}, self._ledger.puts
        for name, look in outputs.items():
            content = look.content if isinstance(look, File) else look
            before = known.get(name)
            same = before is not None and before[0] == content and (isinstance(look, File) or before[1] == puts)
            self._dated[name] = before if before is not None and same else (content, puts, now)
        return {name: since for name, (_, _, since) in self._dated.items()}

    def _look_at_what_they_name(self, documents: list[bytes]) -> dict[str, bool | None]:
        """Return whether each readiness indicator is there, and remember what is to be followed."""
        settings = self._settings
        named = {meshes.named_in(content, "readinessindicatorfile") for content in documents}
        named |= {settings.readiness_indicator_file} if settings.static_conf_file is None else set()
        places = {name: self._place(name) for name in named - {""}}
        kubeconfigs = [self._kubeconfig_named(content) for content in documents]
        coming = [settings.in_container(name) for name in places]  # where the directory is yet to come, too
        self._refers_to = tuple(path for path in (*coming, *kubeconfigs) if path is not None)
        return {name: None if path is None else os.path.exists(path) for name, path in places.items()}

    def _place(self, path_on_host: str) -> Path | None:
        """Return where this container sees a file of the host; None where it does not."""
        settings = self._settings
        path = settings.in_container(path_on_host)
        if path is None or not _is_the_hosts(path.parent, settings.cni_conf_dir):
            return None
        return path if path.parent != settings.cni_conf_dir or mounts.is_usual(self._mounted_from) else None

    def _kubeconfig_named(self, content: bytes) -> Path | None:
        """Return where this container sees the kubeconfig that a configuration names; None where it does not."""
        named = meshes.named_in(content, "kubeconfig")
        path = self._settings.in_container(named) if named and mounts.is_usual(self._mounted_from) else None
        directories = {self._settings.cni_conf_dir, self._settings.kubeconfig_file.parent}
        return path if path and path.parent in directories else None

    # ---- deciding ----

    def wish(self, seen: Seen, before: Before) -> Wish:
        """Say which configuration shall stand, and whether the runtime uses it."""
        settings = self._settings
        if not seen.directory:
            return Wish(faults=(missing("--cni-conf-dir", settings.cni_conf_dir),), in_use=False)
        if seen.recalled:
            path = settings.autoconfig_dir / seen.recalled
            step = GiveBack(path.with_name(path.name + RETIRED_SUFFIX), path)
            return Wish((step,), in_use=self._in_use(seen, before))
        draft = self._draft(seen, before)
        in_use = self._in_use(seen, before) and (before.standing_by or not draft.gone)
        put = draft.put or self._kept(draft, before)
        first = self._names_back(seen, before)
        if put is None:
            steps = (*first, *(self._removals(seen, before, None) if draft.gone and settings.cleanup_on_exit else ()))
            return _of(draft, steps=steps, in_use=in_use)
        warnings = [*draft.warnings, *self._warnings(seen, put, draft)]
        draft = draft._replace(waits=None)
        awaited = before.awaited or _gate(seen, before)
        if awaited:
            return self._held_back(seen, before, draft, awaited, in_use=in_use)
        stands = meshes.standing(self._chainable(seen, before))
        output, doubled = meshes.settled(put, stands)
        due = not holds(seen.outputs.get(output.name, Absent()), output.document, output.mode)
        patience = meshes.Patience(seen.now, seen.outputs, seen.since, seen.stood, draft.since)
        held = meshes.until(patience, put, due=due) if self._patient else None
        if held is not None:  # a mesh has begun something
            until = min(held, draft.until or held)
            return _of(draft, warnings=tuple(warnings), until=until, in_use=before.in_use)
        put = put._replace(name=output.name, mode=output.mode)
        steps = (*first, *self._put(seen, before, put, output, stands, due=due), *self._removals(seen, before, output))
        steps = (*steps, *draft.behind)
        after = self._names_after(seen, steps) | {output.name}
        faults = [*draft.faults, *self._faults(seen, after, output.name, output.document)]
        source = put.master or "the static configuration"
        warnings += [f"{each} of {source} is chained behind Multus as well: its copy goes without" for each in doubled]
        return _of(
            draft,
            steps=steps,
            faults=tuple(faults),
            warnings=tuple(warnings),
            in_use=in_use,
            stands=() if due else (settings.cni_conf_dir / output.name,),
        )

    def _draft(self, seen: Seen, before: Before) -> Draft:
        """Ask the source; with `--skip-config-watch` what was put once stays, whatever becomes of the master."""
        draft, put = self._source.draft(seen.source, before), before.ledger.configuration
        frozen = self._settings.skip_config_watch and self._settings.static_conf_file is None
        if not frozen or not before.configured or put is None:
            return draft
        if draft.put is not None and draft.put.document == put.document:
            return draft
        return Draft(put)

    def _kept(self, draft: Draft, before: Before) -> Put | None:
        """Return what stays, or is put back, while there is nothing new: what the ledger has."""
        if draft.gone and (self._settings.cleanup_on_exit or not before.configured):
            return None
        return before.ledger.configuration

    def _names_back(self, seen: Seen, before: Before) -> tuple[Step, ...]:
        """Give a renamed master its name back once nothing renames any more; until then end what a killed run began."""
        settings = self._settings
        if settings.rename_master and settings.static_conf_file is None:
            return tuple(renaming.rename_noted(settings, before.ledger, seen.renamed))
        return tuple(renaming.give_back(settings, before.ledger, seen.renamed))

    def _held_back(self, seen: Seen, before: Before, draft: Draft, awaited: str, *, in_use: bool) -> Wish:
        """Hold the configuration back: one that names a program that is not there stops every pod."""
        faults = draft.faults
        if before.configured:
            return _of(draft, faults=(*faults, Fault("binary.executable", awaited)), in_use=in_use)
        return _of(draft, waits=awaited, in_use=False)

    def _chainable(self, seen: Seen, before: Before) -> dict[str, Look]:
        """Return the outputs in which a mesh may stand: beside a static configuration, only one that is ours."""
        put = before.ledger.configuration
        outputs = {path.name: seen.outputs[path.name] for path in self._settings.output_files}
        if self._settings.static_conf_file is None:
            return outputs
        own = self._settings.static_conf_file.name
        return {
            name: look
            for name, look in outputs.items()
            if name == own or (put and isinstance(look, File) and meshes.is_ours(look.content, put.document))
        }

    def _put(
        self, seen: Seen, before: Before, put: Put, output: Put, stands: meshes.Standing | None, *, due: bool
    ) -> Iterator[Step]:
        """Write it, or take what stands for ours."""
        path = self._settings.cni_conf_dir / output.name
        if due:
            over = stands.file.identity if stands and stands.file_name == output.name else None
            others = tuple(each for each in self._settings.output_files if each != path)
            yield Write(path, output.document, output.mode, over, put, others)
        elif before.ledger.configuration != put and not self._is_source(seen, output.name):
            yield Note(path, {"configuration": put})

    def _is_source(self, seen: Seen, name: str) -> bool:
        """Say whether `--multus-conf-file` names the very file that the runtime reads: the operator's, not a copy."""
        look = seen.outputs.get(name)
        return isinstance(seen.source, File) and isinstance(look, File) and seen.source.identity == look.identity

    def _removals(self, seen: Seen, before: Before, output: Put | None) -> Iterator[Step]:
        """Take away what must not be there beside, or without, the configuration that shall be there."""
        settings, put = self._settings, before.ledger.configuration
        because = f"{output.name} is there instead" if output else "no master is left (--cleanup-config-on-exit)"
        generated = {path.name for path in settings.output_files} if settings.static_conf_file is None else set()
        for name, look in seen.outputs.items():
            if (isinstance(look, Absent) and look.missing) or (output is not None and name == output.name):
                continue
            # The file beside a static one is the operator's, unless we put it there, or a mesh made it of ours.
            ours = put is not None and isinstance(look, File) and meshes.is_ours(look.content, put.document)
            if name in generated or ours:
                yield Remove(settings.cni_conf_dir / name, because, "" if output else "configuration")

    def _names_after(self, seen: Seen, steps: Iterable[Step]) -> set[str]:
        """Return what the directory will hold once these steps are done."""
        names = {*seen.names}
        for step in steps:
            if step.path.parent == self._settings.cni_conf_dir and isinstance(step, Remove | Retire | GiveBack):
                names.discard(step.path.name)
                names |= {step.to.name} if isinstance(step, GiveBack) else set()
        return names

    # ---- the verdict ----

    def _ours(self, seen: Seen, before: Before) -> tuple[str, bytes] | None:
        """Return the configuration that stands and is ours by the ledger, with its name."""
        put = before.ledger.configuration
        for name in runtime.in_byte_order(seen.outputs):
            look = seen.outputs[name]
            if isinstance(look, File) and (
                (put is not None and meshes.is_ours(look.content, put.document)) or self._is_source(seen, name)
            ):
                return name, look.content
        return None

    def _in_use(self, seen: Seen, before: Before) -> bool:
        """Say whether the runtime uses Multus now, and that would work: by what stands, not by what is wanted."""
        found = self._ours(seen, before)
        if before.standing_by:  # what a newer instance wrote counts as well, under whatever name
            order = runtime.in_order(seen.names)
            look = (seen.outputs.get(order[0]) or (seen.first or ("", None))[1]) if order else None
            found = (order[0], look.content) if isinstance(look, File) else None
        if found is None or self._lacks_kubeconfig(seen, found[1]):
            return False
        return not list(self._faults(seen, {*seen.names}, *found))

    def _lacks_kubeconfig(self, seen: Seen, content: bytes) -> Path | None:
        """Return the kubeconfig that a configuration names, if this container can see that it is not there."""
        path = self._kubeconfig_named(content)
        if path is None:
            return None
        there = seen.names if path.parent == self._settings.cni_conf_dir else seen.beside_ours
        return None if path.name in there else path

    def _faults(self, seen: Seen, names: set[str], name: str, content: bytes) -> Iterator[Fault]:
        """Yield why the runtime would not use this configuration among these names, or why that would not work."""
        settings = self._settings
        if before := overtaken(settings.cni_conf_dir, names, name, content, seen.first):
            yield Fault("configuration.first", before, "remove or rename what stands before it")
        if fault := runtime.fault(name, content):
            found = f"the CNI runtime will not use Multus with {settings.cni_conf_dir / name}: {fault}"
            yield Fault("configuration.valid", found)
        kubeconfig = self._lacks_kubeconfig(seen, content)
        # That ours is gone for a moment is no fault: its own part puts it back, or says why it cannot.
        if kubeconfig is not None and kubeconfig != settings.kubeconfig_file:
            found = "Multus is told to read a kubeconfig that is not there, and every pod will fail"
            todo = "who writes it? The entrypoint writes multus.d/multus.kubeconfig"
            yield Fault("kubeconfig.path", f"{found}: {kubeconfig} does not exist", todo)
        indicator = meshes.named_in(content, "readinessindicatorfile")
        if seen.indicators.get(indicator) is False:
            found = f"Multus lets every pod wait for its readiness indicator, and {indicator} does not exist"
            yield Fault("configuration.readiness", found, self._about_indicator(seen, indicator))

    def _about_indicator(self, seen: Seen, indicator: str) -> str:
        directory, name = os.path.split(indicator)
        stem = name.rpartition(".")[0] or name
        alike = [each for each in seen.names if each != name and each.startswith(stem + ".")]
        if alike and self._settings.in_container(directory) == self._settings.cni_conf_dir:
            return f"the network's file is called {alike[0]} now: correct --readiness-indicator-file"
        return "does the default network run on this node? It writes that file"

    def _warnings(self, seen: Seen, put: Put, draft: Draft) -> Iterator[str]:
        settings = self._settings
        if draft.gone and draft.waits:
            yield f"no usable master any more, the configuration stays as it is: {draft.waits}"
        if astray := kubeconfig_astray(settings, self._mounted_from, put.document):
            yield "; ".join(astray)
        taken = [name for name in seen.names if name.removesuffix(_CILIUM) in seen.outputs and name.endswith(_CILIUM)]
        if taken:
            yield (
                f"Cilium has renamed our configuration to {taken[0]}, as it does with all that is not its own: set "
                "cni.exclusive=false in its Helm values (cni-exclusive in its ConfigMap)"
            )

    # ---- the end ----

    def leave(self, seen: Seen, before: Before, why: Leaving) -> Iterator[Step]:
        """Give the renamed master its name back, and then take away what still is ours by the ledger.

        Names first, so that the node is never without a configuration. Raises `LookFailedError` where the renamed
        master is damaged and there is no other: then what was made of it is the last whole copy of the network.
        """
        settings, put = self._settings, before.ledger.configuration
        if not settings.cleanup_on_exit and why.hooked.isdisjoint(settings.output_files):
            return
        ours = self._ours(seen, before) if seen.directory else None
        if any(isinstance(look, File) for look in seen.outputs.values()) and ours is None:
            return  # a successor's, or somebody else's
        if ours is not None and self._is_source(seen, ours[0]):
            return
        old = seen.renamed
        if old is not None and not (old.ours or old.missing or old.live):
            name = before.ledger.renamed.name if before.ledger.renamed else ""
            raise LookFailedError(f"{name}.old is not what was renamed to it, and no {name} is there: both stay")
        yield from renaming.give_back(settings, before.ledger, old)
        for name, look in seen.outputs.items():
            if put is not None and isinstance(look, File) and meshes.is_ours(look.content, put.document):
                path = settings.cni_conf_dir / name
                yield Remove(path, why.because(path), "configuration")


def overtaken(
    directory: Path, names: Iterable[str], name: str, content: bytes, first: tuple[str, Look] | None
) -> str | None:
    """Say what the runtime reads before our file `name` and with what effect; None when pods get our Multus.

    Whatever is in it: containerd 2.3 stops at one that it cannot load, and every pod waits. But pods get our Multus
    too when the first file is a list of a mesh's own that begins with ours (`istioOwnedCNIConfig`).
    `first` is the file that was found to be the first, when it is none of ours.
    """
    if not name.endswith(runtime.SUFFIXES):
        return None  # no runtime reads it: others say so
    order = runtime.in_order(names)
    before = order[: order.index(name)] if name in order else order
    if not before:
        return None  # or ours is not there yet: others say so
    listed = f"{', '.join(map(repr, before))} in {directory} sort{'s' if len(before) == 1 else ''}"
    said = f"{listed} before {name}: the CNI runtime reads the first file and will not use Multus"
    if first is None or first[0] != before[0] or not first[0].endswith(".conflist") or not isinstance(first[1], File):
        return said
    copy, ours = meshes.parsed(first[1].content), meshes.parsed(content)
    if copy is None or ours is None or not copy.listed:
        return said
    if meshes.same_multus(ours, copy):
        return None
    return f"{said}, or only in the older form of which {first[0]} is a copy: whoever made it must make it anew"


def kubeconfig_astray(settings: Settings, source: str | None, configuration: bytes) -> tuple[str, str] | None:
    """Say that Multus is told a path at which the host does not have the kubeconfig, and what to do.

    `source` is where on the host's disk the configuration directory is from. None when nothing tells that.
    """
    named = meshes.named_in(configuration, "kubeconfig")
    usual = mounts.astray(source, named)
    if usual is None:
        return None
    where = "--multus-kubeconfig-file-host=" if settings.static_conf_file is None else "its 'kubeconfig' to "
    found = f"Multus is told to read {named}, and {settings.cni_conf_dir} is mounted from {source}, another directory"
    return found, f"set {where}{usual}, if that is its place on the host"


def _of(draft: Draft, **changes: Any) -> Wish:
    """Return a wish with what the draft says beside its steps."""
    return Wish(faults=draft.faults, warnings=draft.warnings, waits=draft.waits, until=draft.until)._replace(**changes)


def _gate(seen: Seen, before: Before) -> str | None:
    """Return what `--wait-for-readiness-indicator` waits for before this run has configured the node."""
    if seen.gate is None or before.configured:
        return None
    return f"waiting for {seen.gate} (--wait-for-readiness-indicator)"


def _is_the_hosts(directory: Path, mounted: Path) -> bool:
    """Say whether a directory is from the host, as the `mounted` one is: mounts leave empty ones of ours above them."""
    try:
        own, found = os.stat("/").st_dev, os.stat(directory)
        return stat.S_ISDIR(found.st_mode) and (found.st_dev != own or os.stat(mounted).st_dev == own)
    except OSError:
        return False


def _foreign_first(settings: Settings, names: Iterable[str], ours: set[str]) -> tuple[str, Look] | None:
    """Return the file that the runtime reads first, unless its name is one of ours."""
    first = runtime.in_order(names)[:1]
    if not first or first[0] in ours:
        return None
    return first[0], read(settings.cni_conf_dir / first[0])
