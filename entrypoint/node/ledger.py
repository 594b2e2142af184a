"""The ledger: a file on the node that says what there is ours. Nothing else does.

Repair, the end of the program, `uninstall`, static mode and a successor all ask it, whatever the flags of this run are.
Where it is lost or broken, nothing is ours but what this run writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from entrypoint.disk import files
from entrypoint.disk.looks import Absent, File, holds, own, unknown

NAME = "ledger.json"
_MODE = 0o600


class Put(NamedTuple):
    """The configuration that we last put into the configuration directory."""

    name: str
    document: bytes
    """Ours alone, without what others have chained behind it: so their lists around it are known as well."""
    mode: int = _MODE
    master: str | None = None
    """File name of the wrapped master; None for a static configuration."""


class Renamed(NamedTuple):
    """The master that we renamed to NAME.old."""

    name: str
    digest: str
    """SHA-256 of its content: a file NAME.old with another content is somebody else's."""
    beside: Mapping[str, str] = {}
    """Name and digest of each candidate that stood beside it at the time: CRI-O brings some files of its own."""


class Book(NamedTuple):
    """What the ledger says."""

    configuration: Put | None = None
    renamed: Renamed | None = None
    earlier: Mapping[str, str] = {}
    """Name and digest of each master that we renamed before that one: its network has gone, and NAME.old stays."""
    programs: Mapping[str, str] = {}
    """Name and SHA-256 digest of each program that we installed."""


class Ledger:
    """The ledger's file, and what it says; while this instance owns the node, what this instance has noted."""

    def __init__(self, path: Path) -> None:
        """Say nothing yet: nothing is read before `load`."""
        self.path = path
        self.says = Book()
        self.puts = 0
        """How many times this run has noted a configuration."""
        self._loaded = False
        self._known: bytes | None = None
        """What stood in the file when this instance read or wrote it last."""

    def load(self) -> None:
        """Read the file: the first time, after `forget`, and when another instance has written it since.

        One that owns no node yet, or that was stopped, does not notice each life of another one; and what that one
        renamed must not be forgotten. A file that is lost or broken meanwhile says nothing new.
        Raises OSError when nobody can tell what is in it.
        """
        if self._loaded and not self.overwritten():
            return
        look = own(self.path)
        if unknown(look):
            raise OSError(None, look.why, os.fspath(self.path))  # type: ignore[union-attr]
        self._known = look.content if isinstance(look, File) else None
        says = parsed(self._known) if self._known is not None else Book()
        if says != self.says:  # what is the same stays the same object: it has not been written since
            self.says = says
        self._loaded = True

    def overwritten(self) -> bool:
        """Say whether the file holds a ledger that this instance has neither read nor written."""
        look = own(self.path)
        return isinstance(look, File) and look.content != self._known and parsed(look.content) != Book()

    def forget(self) -> None:
        """Begin with what the file says when this instance takes over: a newer one may have written it since."""
        self._loaded = False

    def note(self, **changes: object) -> None:
        """Remember what was found or done; `save` puts it on disk. The keywords are fields of `Book`."""
        self.puts += "configuration" in changes
        self.says = self.says._replace(**changes)  # type: ignore[arg-type]

    def note_program(self, name: str, digest: str) -> None:
        """Remember an installed program."""
        self.note(programs={**self.says.programs, name: digest})

    def strike_out_what_is_gone(self, configurations: Path, programs: Path) -> None:
        """Forget what others have taken away from these directories."""
        put = self.says.configuration
        if put is not None and not os.path.lexists(configurations / put.name):
            self.note(configuration=None)
        there = {name: digest for name, digest in self.says.programs.items() if os.path.lexists(programs / name)}
        self.note(programs=there)

    def stands(self) -> bool:
        """Say whether the file says what this instance knows."""
        look = own(self.path)
        if self.says == Book():
            return isinstance(look, Absent) and look.missing
        return holds(look, written(self.says), _MODE)

    def save(self) -> bool:
        """Put it on disk unless it is there; say whether that was needed. Raises OSError."""
        if self.stands():
            return False
        if self.says == Book():
            files.remove(self.path)
        else:
            files.make_directory(self.path.parent)
            files.write(self.path, written(self.says), _MODE)
            self._known = written(self.says)
        return True


def written(book: Book) -> bytes:
    """Return what the file holds."""
    document: dict[str, Any] = {
        "about": "What multus-entrypoint has put on this node. Without this file it takes nothing else for its own.",
        "configuration": None,
        "renamed": None,
        "earlier": dict(book.earlier),
        "programs": dict(book.programs),
    }
    if book.configuration is not None:
        text = book.configuration.document.decode("utf-8", "surrogateescape")
        document["configuration"] = {**book.configuration._asdict(), "document": text}
    if book.renamed is not None:
        document["renamed"] = {**book.renamed._asdict(), "to": book.renamed.name + ".old"}
    return json.dumps(document, indent=4).encode("ascii") + b"\n"


def parsed(content: bytes) -> Book:
    """Read what `written` writes; what is anything else says nothing."""
    try:
        document = json.loads(content)
        put, renamed = document["configuration"], document["renamed"]
        if put is not None:
            text = _text(put["document"]).encode("utf-8", "surrogateescape")
            master = None if put["master"] is None else _name(put["master"])
            put = Put(_name(put["name"]), text, _mode(put["mode"]), master)
        if renamed is not None:
            renamed = Renamed(_name(renamed["name"]), _text(renamed["digest"]), _digests(renamed["beside"]))
        return Book(put, renamed, _digests(document["earlier"]), _digests(document["programs"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Book()


def _digests(value: dict[str, Any]) -> dict[str, str]:
    return {_name(name): _text(digest) for name, digest in value.items()}


def _name(value: object) -> str:
    name = _text(value)
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ValueError(name)
    return name


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _mode(value: object) -> int:
    if type(value) is not int or not 0 <= value <= 0o7777:  # noqa: PLR2004 - the permission bits
        raise TypeError
    return value
