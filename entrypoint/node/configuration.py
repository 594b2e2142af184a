"""The configuration that switches the node over to Multus: which one, under which name, and whether it is in use."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from entrypoint.cni import runtime
from entrypoint.cni.document import GENERATED, RETIRED_SUFFIX
from entrypoint.disk import mounts
from entrypoint.disk.looks import Absent, File, holds, listing, output, read
from entrypoint.node import meshes, renaming
from entrypoint.node.ledger import Ledger, Put
from entrypoint.node.master import Auto
from entrypoint.node.meshes import Output, parsed, taken_apart
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
from entrypoint.telling.pace import earliest

_KUBECONFIG, _INDICATOR = "kubeconfig", "readinessindicatorfile"
"""Under which keys a configuration of Multus names files."""
_CILIUM = ".cilium_bak"
"""What Cilium adds to the names of other CNI configurations, unless `cni.exclusive` is false."""


class Seen(NamedTuple):
    """The configuration directory, and where the configuration comes from."""

    now: float
    """Monotonic seconds."""
    directory: bool = True
    source: Any = None
    """What the source has seen."""
    outputs: Mapping[str, Output] = {}
    """What stands under each name that this program may write, or has written by the ledger."""
    stood: str = ""
    """Under which of them a configuration stood last, while this instance looked on."""
    names: tuple[str, ...] = ()
    """What is in the directory, but for directories."""
    first: Output | None = None
    """What the runtime reads first."""
    named: Mapping[str, bool | None] = {}
    """Whether each kubeconfig and readiness indicator is there that is named; None where this container cannot see."""
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
        self._dated: dict[str, tuple[object, float]] = {}
        self._stood, self._lost = "", ledger.puts
        """Where it stood last; how many were put before this one looked, or the directory was lost with the last."""
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
        outputs = {name: self._output(name, put, now) for name in (*ours, *([put.name] if put else []))}
        # A mesh may move what this run has just written before it is seen.
        written = put.name if put and put.name in ours and self._ledger.puts > self._lost else ""
        self._stood = next((name for name in ours if isinstance(outputs[name].look, File)), self._stood or written)
        names = tuple(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
        source, gate, first = self._source.look(), settings.readiness_gate, self._first(names, outputs)
        static = parsed(source.content) if isinstance(source, File) else None
        there = [each.configuration for each in (*outputs.values(), *([first] if first else []))]
        return Seen(
            now=now,
            source=source,
            outputs=outputs,
            stood=self._stood,
            names=names,
            first=first,
            named=self._look_at_what_they_name([static, *there]),
            gate=None if gate is None or os.path.exists(gate) else gate,
            renamed=renaming.look(settings, self._ledger.says),
            recalled=renaming.recalled(settings, self._ledger.says),
        )

    def _output(self, name: str, put: Put | None, now: float) -> Output:
        """Look at what stands under a name of ours. What was written and is gone before it was seen is gone anew.

        Otherwise a mesh that moves it at once would be given no time.
        """
        path = self._settings.cni_conf_dir / name
        look = told(output(path), path)
        state = look.content if isinstance(look, File) else (look, self._ledger.puts)
        if name not in self._dated or self._dated[name][0] != state:
            self._dated[name] = state, now
        return taken_apart(name, look, put, self._dated[name][1])

    def _first(self, names: Iterable[str], outputs: Mapping[str, Output]) -> Output | None:
        """Look at what the runtime reads first."""
        for name in runtime.in_order(names):
            return outputs.get(name) or taken_apart(name, read(self._settings.cni_conf_dir / name))
        return None

    def _look_at_what_they_name(self, configurations: list[meshes.Configuration | None]) -> dict[str, bool | None]:
        """Return whether each file is there that is named, and remember what is to be followed."""
        settings = self._settings
        named = {each.names(key): key for each in configurations if each for key in (_KUBECONFIG, _INDICATOR)}
        if settings.static_conf_file is None:
            named |= {settings.readiness_indicator_file: _INDICATOR, settings.kubeconfig_path_on_host: _KUBECONFIG}
        named.pop("", None)
        places = {name: settings.in_container(name) for name in named}
        self._refers_to = tuple(path for path in places.values() if path is not None)
        return {name: None if path is None else self._is_there(path, named[name]) for name, path in places.items()}

    def _is_there(self, path: Path, key: str) -> bool | None:
        """Say whether a file of the host is there; None where this container cannot see that."""
        if key == _KUBECONFIG and os.path.isdir(path) and not os.path.islink(path):
            return False  # Multus only asks whether an indicator is there, and has to read this
        directory = self._settings.cni_conf_dir
        if path.is_relative_to(directory):
            seen = mounts.is_usual(self._mounted_from)
        else:
            seen = _is_the_hosts(path.parent, directory)
        return os.path.lexists(path) if seen else None  # a link may lead elsewhere on the host

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
        wish, put, first = draft.wish._replace(in_use=in_use), self._put(draft, before), self._names_back(seen, before)
        if put is None:
            taken = self._removals(seen, None) if draft.gone and settings.cleanup_on_exit else ()
            return wish._replace(steps=(*first, *taken))
        warnings = [*wish.warnings, *self._warnings(seen, put, draft)]
        wish = wish._replace(waits=None, warnings=tuple(warnings))
        if awaited := before.awaited or _gate(seen, before):  # one that names a program that is not there stops pods
            if not before.configured:
                return wish._replace(waits=awaited, in_use=False)
            return wish._replace(faults=(*wish.faults, Fault("binary.executable", awaited)))
        stands = meshes.standing(self._chainable(seen))
        output, doubled = meshes.settled(put, stands)
        there = seen.outputs.get(output.name, Output(output.name, Absent()))
        due = not holds(there.look, output.document, output.mode)
        held = meshes.until(seen.outputs, seen.stood, put, due=due, master_since=draft.since)
        if self._patient and seen.now < held:  # a mesh has begun something
            return wish._replace(until=earliest(held, wish.until), in_use=before.in_use)
        steps = (
            *self._writing(seen, before, put, output, stands, due=due),
            *self._removals(seen, output),
            *draft.behind,
        )
        here = [step for step in (*first, *steps) if step.path.parent == settings.cni_conf_dir]
        after = {*seen.names, output.name, *(step.to.name for step in here if isinstance(step, GiveBack))}
        after -= {step.path.name for step in here if isinstance(step, Remove | Retire)}
        faults = [*wish.faults, *self._faults(seen, after, output.name, output.document)]
        ours = [each.name for each in _ours(seen)]
        switches = put.master is None and in_use and output.name not in ours
        if switches and ours and any(fault.identifier == "configuration.first" for fault in faults):
            steps = ()  # what stands works, and with this pods would get no Multus
            warnings.append(f"{ours[0]} stays until {output.name} would be read first")
        source = put.master or "the static configuration"
        warnings += [f"{each} of {source} is chained behind Multus as well: its copy goes without" for each in doubled]
        return wish._replace(
            steps=(*first, *steps),
            faults=tuple(faults),
            warnings=tuple(warnings),
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

    def _put(self, draft: Draft, before: Before) -> Put | None:
        """Return what shall stand: while there is nothing new, what the ledger has stays, or is put back."""
        kept = not draft.gone or (before.configured and not self._settings.cleanup_on_exit)
        return draft.put or (before.ledger.configuration if kept else None)

    def _names_back(self, seen: Seen, before: Before) -> tuple[Step, ...]:
        """Give a renamed master its name back once nothing renames any more; until then end what a killed run began."""
        settings = self._settings
        if settings.rename_master and settings.static_conf_file is None:
            return tuple(renaming.rename_noted(settings, before.ledger, seen.renamed))
        return tuple(renaming.give_back(settings, before.ledger, seen.renamed))

    def _chainable(self, seen: Seen) -> dict[str, Output]:
        """Return the outputs in which a mesh may stand: beside a static configuration, only one that is ours."""
        static, outputs = self._settings.static_conf_file, self._settings.output_files
        there = {path.name: seen.outputs[path.name] for path in outputs if path.name in seen.outputs}
        return {name: each for name, each in there.items() if static is None or name == static.name or each.ours}

    def _writing(
        self, seen: Seen, before: Before, put: Put, output: Put, stands: Output | None, *, due: bool
    ) -> Iterator[Step]:
        """Write it, or take what stands for ours."""
        path, put = self._settings.cni_conf_dir / output.name, put._replace(name=output.name, mode=output.mode)
        if due:
            there = stands.look if stands is not None and stands.name == output.name else None
            over = there.identity if isinstance(there, File) else None
            others = tuple(each for each in self._settings.output_files if each != path)
            yield Write(path, output.document, output.mode, over, put, others)
        elif before.ledger.configuration != put and not _is_source(seen, seen.outputs[output.name]):
            yield Note(path, {"configuration": put})

    def _removals(self, seen: Seen, output: Put | None) -> Iterator[Step]:
        """Take away what must not be there beside, or without, the configuration that shall be there."""
        settings = self._settings
        because = f"{output.name} is there instead" if output else "no master is left (--cleanup-config-on-exit)"
        for name, each in seen.outputs.items():
            if (isinstance(each.look, Absent) and each.look.missing) or (output is not None and name == output.name):
                continue
            # The file beside a static one is the operator's, unless we put it there, or a mesh made it of ours.
            if (settings.static_conf_file is None and name in GENERATED) or each.ours:
                yield Remove(settings.cni_conf_dir / name, because, "" if output else "configuration")

    # ---- the verdict ----

    def _in_use(self, seen: Seen, before: Before) -> bool:
        """Say whether the runtime uses Multus now, and that would work: by what stands, not by what is wanted."""
        # What a newer instance wrote counts as well, under whatever name.
        there = seen.first if before.standing_by else next(iter(_ours(seen)), None)
        if there is None or not isinstance(there.look, File):
            return False
        if there.configuration and seen.named.get(there.configuration.names(_KUBECONFIG)) is False:
            return False
        return not list(self._faults(seen, {*seen.names}, there.name, there.look.content))

    def _faults(self, seen: Seen, names: set[str], name: str, content: bytes) -> Iterator[Fault]:
        """Yield why the runtime would not use this configuration among these names, or why that would not work."""
        settings, configuration = self._settings, parsed(content)
        if before := overtaken(settings.cni_conf_dir, names, name, content, seen.first):
            yield Fault("configuration.first", before, "remove or rename what stands before it")
        if fault := runtime.fault(name, content):
            found = f"the CNI runtime will not use Multus with {settings.cni_conf_dir / name}: {fault}"
            yield Fault("configuration.valid", found)
        kubeconfig, indicator = (configuration.names(key) if configuration else "" for key in (_KUBECONFIG, _INDICATOR))
        path = settings.in_container(kubeconfig)
        # That ours is gone for a moment is no fault: its own part puts it back, or says why it cannot.
        if seen.named.get(kubeconfig) is False and path != settings.kubeconfig_file:
            found = "Multus is told to read a kubeconfig that is not there, and every pod will fail"
            todo = "who writes it? The entrypoint writes multus.d/multus.kubeconfig"
            yield Fault("kubeconfig.path", f"{found}: {path} does not exist", todo)
        if seen.named.get(indicator) is False:
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
        if draft.gone:
            yield f"no usable master any more, the configuration stays as it is: {draft.wish.waits}"
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
        settings, ours, old = self._settings, _ours(seen), seen.renamed
        if not settings.cleanup_on_exit and why.hooked.isdisjoint(settings.output_files):
            return
        there = any(isinstance(each.look, File) for each in seen.outputs.values())
        if there and (not ours or _is_source(seen, ours[0])):
            return  # a successor's, or somebody else's, or the operator's own
        if old is not None and not (old.ours or old.missing or old.live):
            name = before.ledger.renamed.name if before.ledger.renamed else ""
            raise LookFailedError(f"{name}.old is not what was renamed to it, and no {name} is there: both stay")
        yield from renaming.give_back(settings, before.ledger, old)
        for name, each in seen.outputs.items():
            if each.ours:
                yield Remove(settings.cni_conf_dir / name, why.because(settings.cni_conf_dir / name), "configuration")


def _ours(seen: Seen) -> list[Output]:
    """Return the configurations that stand and are ours by the ledger, or the very file of `--multus-conf-file`."""
    there = [seen.outputs[name] for name in runtime.in_byte_order(seen.outputs)]
    return [each for each in there if each.ours or _is_source(seen, each)]


def _is_source(seen: Seen, output: Output) -> bool:
    """Say whether `--multus-conf-file` names the very file that the runtime reads: the operator's, not a copy."""
    source, look = seen.source, output.look
    return isinstance(source, File) and isinstance(look, File) and source.identity == look.identity


def overtaken(directory: Path, names: Iterable[str], name: str, content: bytes, first: Output | None) -> str | None:
    """Say what the runtime reads before our file `name` and with what effect; None when pods get our Multus.

    Whatever is in it: containerd 2.3 stops at one that it cannot load, and every pod waits. But pods get our Multus
    too when the first file is a list of a mesh's own that begins with ours (`istioOwnedCNIConfig`).
    `first` is the file that was found to be the first.
    """
    if not name.endswith(runtime.SUFFIXES):
        return None  # no runtime reads it: others say so
    order = runtime.in_order(names)
    before = order[: order.index(name)] if name in order else order
    if not before:
        return None  # or ours is not there yet: others say so
    listed = f"{', '.join(map(repr, before))} in {directory} sort{'s' if len(before) == 1 else ''}"
    said = f"{listed} before {name}: the CNI runtime reads the first file and will not use Multus"
    copy = first.configuration if first and first.name == before[0] and first.name.endswith(".conflist") else None
    ours = parsed(content)
    if copy is None or ours is None or not copy.listed:
        return said
    if meshes.same_multus(ours, copy):
        return None
    return f"{said}, or only in the older form of which {before[0]} is a copy: whoever made it must make it anew"


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
