"""What this container sees of the node beside what the parts look at: plugins, sockets, other configurations."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from entrypoint.check.findings import Finding, failed, warned
from entrypoint.cni.document import InvalidJsonError, parse
from entrypoint.cni.runtime import SUFFIXES
from entrypoint.disk.looks import File, leads_away, program_fault, read
from entrypoint.settings import Settings


def missed(identifier: str, host: Host, plugins: str, advice: str) -> Finding:
    """Return a finding that plugins are missing, as far as this container can see."""
    found = f"not in {host.where}: {plugins}"
    if host.unseen:
        return warned(identifier, found, f"are they in {host.unseen} on the host?")
    return failed(identifier, found, advice)


class Host:
    """The node, as far as it is mounted here."""

    def __init__(self, settings: Settings) -> None:
        """Find the directories in which Multus looks for plugins; nothing else is read yet."""
        self._settings = settings
        self._directories = [settings.cni_bin_dir]
        self.unseen = settings.additional_bin_dir
        """The directory of the host in which Multus looks too, and which is not mounted here; empty for none."""
        additional = settings.in_container(self.unseen) if self.unseen else None
        if additional is not None and os.path.isdir(additional):
            self._directories.append(additional)
            self.unseen = ""

    @property
    def where(self) -> str:
        """Name the directories in which plugins are looked for."""
        return " or ".join(map(str, self._directories))

    def fault(self, plugin: str) -> str | None:
        """Say what is wrong with the program of a plugin type; None when one can be run."""
        if os.path.basename(plugin) != plugin:
            return "is no file name"
        # k3s has links to its own directory of programs, which is not mounted here: such a link counts as there.
        paths = [directory / plugin for directory in self._directories]
        faults = [None if leads_away(path) else program_fault(path) for path in paths]
        return None if None in faults else faults[0]

    def there(self, path_on_host: str) -> bool | None:
        """Say whether something has this path; None when its directory is not mounted here."""
        path = self._here(path_on_host)
        return os.path.exists(path) or (False if os.path.isdir(path.parent) else None)

    def named_in(self, directory_on_host: str) -> frozenset[str] | None:
        """Return the names of the CNI configurations in a directory; None where it is not mounted here."""
        directory, names = self._here(directory_on_host), set()
        try:
            files = [each for each in os.listdir(directory) if each.endswith(SUFFIXES)]
        except OSError:
            return None
        for each in files:
            look = read(directory / each)
            with suppress(InvalidJsonError):
                document = parse(look.content) if isinstance(look, File) else None
                names.add(str(document.get("name")) if isinstance(document, dict) else "")
        return frozenset(names)

    def _here(self, path_on_host: str) -> Path:
        return self._settings.in_container(path_on_host) or Path("/host", path_on_host.lstrip("/"))
