"""The static configuration: the file of `--multus-conf-file`, copied as it is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from entrypoint.cni.document import InvalidJsonError, parse, size_fault
from entrypoint.disk.looks import Absent, File, Look, read
from entrypoint.node.ledger import Put
from entrypoint.node.part import Before, Draft, Fault, Interest, LookFailedError, Wish
from entrypoint.settings import Settings


class Static:
    """A source of the configuration."""

    def __init__(self, settings: Settings, path: Path) -> None:
        self._settings, self._path = settings, path

    def follows(self) -> Iterable[Interest]:
        """Return the file."""
        return (self._path,)

    def look(self) -> Look:
        """Read the file."""
        look = read(self._path)
        if isinstance(look, Absent) and look.failed:
            raise LookFailedError(f"--multus-conf-file={self._path}: {look.why}", at_start=True)
        return look

    def draft(self, seen: Look, before: Before) -> Draft:
        """Want what is in the file, if it is JSON."""
        fault = seen.why if isinstance(seen, Absent) else size_fault(len(seen.content))
        if isinstance(seen, File) and not fault:
            try:
                parse(seen.content)
            except InvalidJsonError as error:
                fault = str(error)
            else:
                return Draft(Put(self._path.name, seen.content, seen.mode))
        found = f"--multus-conf-file={self._path}: {fault}"
        return Draft(wish=Wish(faults=(Fault("configuration.current", found, at_start=True),)))
