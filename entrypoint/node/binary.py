"""The programs that we install where the runtime looks for plugins: `multus`, and those of `--plugin-bin-dir`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from entrypoint.disk.looks import Signature, leads_away, listing, program_fault, signature, source_fault
from entrypoint.node.part import Before, Fault, Interest, Leaving, LookFailedError, Wish, missing
from entrypoint.node.steps import Compare, Copy, Remove, Step
from entrypoint.settings import Settings


class Compared(NamedTuple):
    """What comparing an installed program with its source, byte for byte, has shown."""

    same: bool
    digest: str
    """SHA-256 of the installed one."""


class Program(NamedTuple):
    """A program that we install: the image's, and what is installed under its name."""

    path: Path
    source: Path
    there: bool
    """Something has its name."""
    fault: str | None
    """What keeps the installed one from being run."""
    source_fault: str | None
    """What keeps the image's from being installed."""
    alike: bool
    """The installed one is a regular file with the size and the mode of the image's."""
    pair: tuple[Signature, Signature] | None
    """Which two files these are, as they are now."""
    compared: Compared | None
    """None: these two have not been compared yet, as they are now."""


class Seen(NamedTuple):
    """The programs, Multus first."""

    missing: tuple[Fault, ...]
    """Directories that are not there, and should be."""
    multus: Program
    plugins: tuple[Program, ...] = ()


class Binary:
    """`multus` in `--cni-bin-dir`, and beside it the programs of `--plugin-bin-dir`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._plugins_there: list[Path] = []
        self._compared: dict[Path, tuple[tuple[Signature, Signature], Compared]] = {}

    def follows(self) -> Iterable[Interest]:
        """Return the installed programs and their sources."""
        settings = self._settings
        yield settings.binary_file
        if not settings.skip_binary_copy:
            yield settings.multus_bin_file
        if settings.plugin_bin_dir is not None:
            yield settings.plugin_bin_dir, ("",)
            yield from (settings.cni_bin_dir / source.name for source in self._plugins_there)

    def look(self) -> Seen:
        """Look at each program and its source."""
        settings, plugin_dir = self._settings, self._settings.plugin_bin_dir
        target = None if settings.skip_binary_copy and plugin_dir is None else settings.cni_bin_dir
        needed = {"--cni-bin-dir": target, "--plugin-bin-dir": plugin_dir}
        self._plugins_there = self._sources()
        return Seen(
            missing=tuple(missing(flag, path) for flag, path in needed.items() if path and not os.path.isdir(path)),
            multus=self._program(settings.binary_file, settings.multus_bin_file),
            plugins=tuple(self._program(settings.cni_bin_dir / each.name, each) for each in self._plugins_there),
        )

    def wish(self, seen: Seen, before: Before) -> Wish:
        """Say how to install them, and what a configuration that names Multus has to wait for."""
        settings, multus = self._settings, seen.multus
        faults = [*seen.missing]
        if multus.source_fault and not settings.skip_binary_copy:
            found = f"--multus-bin-file={multus.source} {multus.source_fault}"
            faults.append(Fault("binary.current", found, "does the image carry the multus binary?", at_start=True))
        if faults:
            return Wish(faults=tuple(faults), in_use=multus.fault is None)
        right = settings.skip_binary_copy or (multus.alike and (multus.compared is None or multus.compared.same))
        copies = () if right else (Copy(multus.path, multus.source),)
        unsure = not settings.skip_binary_copy and right and multus.compared is None
        plugins, unsure_plugins, warnings = self._plugins(seen, before)
        awaited = None
        if multus.fault and not copies:
            who = ": who installs it? --skip-multus-binary-copy is set" if settings.skip_binary_copy else ""
            awaited = f"waiting for an executable file {multus.path}, which {multus.fault}{who}"
        return Wish(
            steps=(*copies, *plugins),
            afterwards=(*([self._compare(multus)] if unsure else []), *unsure_plugins),
            warnings=warnings,
            awaited=awaited,
            in_use=multus.fault is None,
            stands=(multus.path,) if right and not multus.fault else (),
        )

    def leave(self, seen: Seen, before: Before, why: Leaving) -> Iterator[Step]:
        """Leave them, as running pods need them to be torn down, unless a preStop hook removed Multus."""
        if seen.multus.path in why.hooked:
            yield Remove(seen.multus.path, why.because(seen.multus.path), what="programs")

    def _plugins(self, seen: Seen, before: Before) -> tuple[list[Step], list[Step], tuple[str, ...]]:
        """Return what to copy, what to compare first, and a warning for each that is on the host and is not ours."""
        copies, unsure, foreign = list[Step](), list[Step](), list[str]()
        for plugin in seen.plugins:
            known = before.ledger.programs.get(plugin.path.name)
            if not plugin.there:
                copies.append(Copy(plugin.path, plugin.source, ahead=True))
            elif plugin.compared is None:
                unsure.append(self._compare(plugin, ours=known is not None))
            elif plugin.compared.digest == known and not (plugin.compared.same and plugin.alike):
                # Not noted ahead: a run that is killed in between leaves the old one, which must still be ours.
                copies.append(Copy(plugin.path, plugin.source))
            elif plugin.compared.digest != known and not plugin.compared.same:
                foreign.append(plugin.path.name)
        if not foreign:
            return copies, unsure, ()
        told = f"{', '.join(foreign)} in {self._settings.cni_bin_dir}: not ours, and another than in --plugin-bin-dir"
        return copies, unsure, (f"{told}; left alone",)

    def _compare(self, program: Program, *, ours: bool = True) -> Compare:
        def tell(same: bool, digest: str) -> None:
            if program.pair is not None and program.pair == self._signatures(program.path, program.source):
                self._compared[program.path] = program.pair, Compared(same, digest)

        return Compare(program.path, program.source, tell, ours)

    def _sources(self) -> list[Path]:
        """Return the executable regular files of `--plugin-bin-dir`."""
        directory = self._settings.plugin_bin_dir
        if directory is None:
            return []
        entries, failure = listing(directory)
        if failure:
            raise LookFailedError(f"the directory {directory} {failure}")
        paths = sorted(Path(entry.path) for entry in entries)
        reserved = self._settings.binary_file.name
        return [path for path in paths if path.name != reserved and program_fault(path) is None]

    def _program(self, path: Path, source: Path) -> Program:
        pair = self._signatures(path, source)
        known = self._compared.get(path)
        return Program(
            path=path,
            source=source,
            there=os.path.lexists(path),
            fault=leads_away(path) or program_fault(path),
            source_fault=source_fault(source),
            alike=pair is not None and stat.S_ISREG(pair[0][2]) and pair[0][2:4] == pair[1][2:4],  # mode and size
            pair=pair,
            compared=known[1] if known is not None and known[0] == pair else None,
        )

    def _signatures(self, path: Path, source: Path) -> tuple[Signature, Signature] | None:
        try:
            return signature(path.lstat()), signature(source.stat())
        except OSError:
            return None
