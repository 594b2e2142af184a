"""What every part of the node has in common: it looks, it wishes, and the loop does the rest.

A part owns one thing on the node: which files it follows, how it looks, what it wishes, what is wrong with it, and how
it is taken away. It knows of the other parts only what `Before` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from entrypoint.disk.looks import Look, unknown
from entrypoint.node.ledger import Book, Put
from entrypoint.node.steps import Step

Interest = Path | tuple[Path, tuple[str, ...]]
"""A file, or a directory and the suffixes of the files in it: a change there is a reason to look again."""


class LookFailedError(Exception):
    """Nobody can tell what is there, which is no news: everything stays as it is, and the loop looks again later."""

    def __init__(self, message: str, *, at_start: bool = False) -> None:
        super().__init__(message)
        self.at_start = at_start
        """In the first pass it ends the program."""


class Fault(NamedTuple):
    """The node is not as it must be, and no step of ours mends it. The log, `check` and `--dry-run` print the same."""

    identifier: str
    """As in docs/checks.md."""
    found: str
    todo: str = ""
    """What the operator can do about it."""
    at_start: bool = False
    """In the first pass it ends the program; later what is there stays."""
    fatal: bool = False
    """It ends the program."""
    unread: bool = False
    """A look failed, which is no news: it is looked at again later."""
    bars: bool = True
    """With it this run cannot configure the node, and so is not ready before it could once."""

    def __str__(self) -> str:
        """Return it as one message."""
        return f"{self.found}: {self.todo}" if self.todo else self.found


class Wish(NamedTuple):
    """What one part wants now."""

    steps: tuple[Step, ...] = ()
    """In their safe order: when one must wait, so do those behind it."""
    afterwards: tuple[Step, ...] = ()
    """What takes long and can wait until no part has steps left."""
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    waits: str | None = None
    """What a first configuration is waited for, with what was found instead."""
    awaited: str | None = None
    """What a configuration that refers to this part has to wait for."""
    until: float | None = None
    """Look again then, although nothing happened (monotonic seconds)."""
    in_use: bool = True
    """As far as this part goes, the runtime uses Multus now, and that works."""
    stands: tuple[Path, ...] = ()
    """What this part wants on the node and has found there."""


class Before(NamedTuple):
    """What a part may know beside what it sees itself."""

    ledger: Book = Book()
    configured: bool = False
    """The node was configured once in this run: from then on a missing master is waited for without limit."""
    in_use: bool = False
    """The last verdict: it stays while others are given the time to end what they have begun."""
    standing_by: bool = False
    """A newer instance owns the node: what stands is its, and counts as well."""
    awaited: str | None = None
    """What a configuration has to wait for, by the parts before."""
    give_up_at: float = float("inf")
    """When `--wait-timeout` ends, until the node was configured once (monotonic seconds)."""


class Leaving(NamedTuple):
    """Why things are taken away when the program ends."""

    hooked: frozenset[Path] = frozenset()
    """What somebody removed just before the end, as preStop hooks do, and this run has put back."""

    def because(self, path: Path) -> str:
        """Say it in the words of a log."""
        if path in self.hooked:
            return "somebody removed it just before the end, as preStop hooks do, and it had been put back"
        return "the program ends (--cleanup-config-on-exit)"


class Part(Protocol):
    """One thing on the node that is kept as it must be."""

    def follows(self) -> Iterable[Interest]:
        """Return whose change is a reason to look again."""

    def look(self) -> Any:
        """Read what a decision needs; write nothing. Raises `LookFailedError`."""

    def wish(self, seen: Any, before: Before) -> Wish:
        """Say what should be done. Pure: no disk, and no clock but the one in `seen`."""

    def leave(self, seen: Any, before: Before, why: Leaving) -> Iterable[Step]:
        """Say how to undo what the ledger calls ours. Pure as well."""


def told(look: Look, path: Path, *, at_start: bool = False) -> Look:
    """Return a look at a file. Raises `LookFailedError` when it failed."""
    if unknown(look):
        raise LookFailedError(f"{path} {look.why}", at_start=at_start)  # type: ignore[union-attr]
    return look


def missing(flag: str, directory: Path) -> Fault:
    """Return the fault that the directory of a flag is not there."""
    found = f"{flag}: the directory {directory} is not there"
    return Fault("node.directories", found, "is the volume mounted at that path?", at_start=True)


class Draft(NamedTuple):
    """What a source of the configuration wants: the static file, or the default network's master."""

    put: Put | None = None
    """The configuration that should stand; None: there is none to be made at the moment."""
    gone: bool = False
    """No master is left that is or could be one. Otherwise what was made of it stays."""
    behind: tuple[Step, ...] = ()
    """What must not be done before it is there."""
    wish: Wish = Wish()
    """What is to be said of it, without steps."""
    since: float = float("-inf")
    """Since when the master is as it is (monotonic seconds)."""


class Source(Protocol):
    """Where the configuration comes from."""

    def follows(self) -> Iterable[Interest]:
        """Return whose change is a reason to look again."""

    def look(self) -> Any:
        """Read what a decision needs. Raises `LookFailedError`."""

    def draft(self, seen: Any, before: Before) -> Draft:
        """Say which configuration should stand. Pure. Raises `LookFailedError` for what was seen to be no news."""
