"""The steps from the node as it is to the node as it should be: each knows how it is done, and how to say so."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from entrypoint.disk import files, programs
from entrypoint.disk.looks import Signature
from entrypoint.node.ledger import Ledger, Put, Renamed

_ADVICE = {
    errno.EROFS: "is the hostPath volume mounted with readOnly?",
    errno.EACCES: "may the container write there (user, SELinux type)?",
    errno.EPERM: "may the container write there (user, SELinux type, immutable file)?",
    errno.ENOSPC: "free some space on the node's disk",
    errno.EDQUOT: "free some space on the node's disk, or raise the quota",
    errno.ENOENT: "is the hostPath volume mounted at that path?",
}


class StepError(Exception):
    """A step could not be done; the message names the file, the reason and what to do."""


class Doing(NamedTuple):
    """What steps need beside themselves."""

    ledger: Ledger
    cancelled: Callable[[], bool]
    """Tells a long copy or comparison to stop."""


@dataclass(frozen=True)
class Step:
    """One thing to do to one path."""

    verb: ClassVar[str]
    done: ClassVar[str]
    """The verb in the past tense; empty for what nobody needs to hear of."""
    vital: ClassVar[bool] = True
    """Without it the node is not configured: when it fails in the first pass, the program ends."""
    writes: ClassVar[bool] = True
    """It changes what stands at the path."""

    path: Path

    @property
    def detail(self) -> str:
        """Return what is said behind the path."""
        return ""

    @property
    def did(self) -> str:
        """Say what was done."""
        return f"{self.done} {self.path}{self.detail}" if self.done else ""

    @property
    def would(self) -> str:
        """Say what would be done."""
        return f"would {self.verb} {self.path}{self.detail}" if self.done else ""

    def do(self, doing: Doing) -> None:
        """Do it, and note in the ledger what was done.

        Raises OSError, `programs.CancelledError` when it was given up, and `files.ReplacedError` when somebody else was
        faster.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Write(Step):
    """Put this content there, whole and at once."""

    verb, done = "write", "wrote"

    content: bytes
    mode: int
    over: Signature | None = field(default=None, compare=False)
    """The file that content was taken over from: once that is another, look again."""
    put: Put | None = None
    """What the ledger notes once it is there."""
    instead: tuple[Path, ...] = ()
    """Under which other names the same may have stood until now."""

    @property
    def would(self) -> str:
        """Say what would be written; the content follows."""
        return f"would write {self.path}, mode {self.mode:o}:"

    def do(self, doing: Doing) -> None:
        """Write it beside its target and rename it."""
        if self.put is None:  # the kubeconfig, whose directory is ours
            files.make_directory(self.path.parent)
        files.write(self.path, self.content, self.mode, self.over)
        if self.put is not None:
            doing.ledger.note(configuration=self.put)


@dataclass(frozen=True)
class Note(Step):
    """Bring the ledger up to what was found, and touch nothing else."""

    verb, done, vital, writes = "note", "", False, False

    changes: Mapping[str, Any]
    """Fields of `ledger.Book`."""

    def do(self, doing: Doing) -> None:
        """Note it."""
        doing.ledger.note(**self.changes)


@dataclass(frozen=True)
class Save(Step):
    """Put the ledger on disk."""

    verb, done, vital = "write", "", False

    def do(self, doing: Doing) -> None:
        """Write it."""
        doing.ledger.save()


@dataclass(frozen=True)
class Copy(Step):
    """Install a program with the mode of its source."""

    verb, done = "install", "installed"

    source: Path
    ahead: bool = False
    """Note it in the ledger before it is there. Otherwise `Compare` does, afterwards: Multus has some 50 MB."""
    instead: tuple[Path, ...] = ()

    @property
    def detail(self) -> str:
        """Say where it is from."""
        return f" from {self.source}"

    def do(self, doing: Doing) -> None:
        """Copy it."""
        if self.ahead:
            doing.ledger.note_program(self.path.name, programs.digest(self.source, doing.cancelled))
            doing.ledger.save()
        programs.copy(self.source, self.path, doing.cancelled)


@dataclass(frozen=True)
class Compare(Step):
    """Compare an installed program with its source, byte for byte, and tell who asked."""

    verb, done, vital, writes = "compare", "", False, False

    source: Path
    tell: Callable[[bool, str], None] = field(compare=False)
    """Takes whether they are the same, and the digest of the installed one."""
    ours: bool = True
    """What is the same is noted in the ledger."""

    def do(self, doing: Doing) -> None:
        """Compare them."""
        try:
            same, digest = programs.compared(self.path, self.source, doing.cancelled)
        except FileNotFoundError:
            if not self.path.is_symlink():
                return  # gone since, as the next look will see
            same, digest = False, ""  # a link to what is not there, or not in this container: never one of ours
        if same and self.ours and doing.ledger.says.programs.get(self.path.name) != digest:
            doing.ledger.note_program(self.path.name, digest)
        self.tell(same, digest)


@dataclass(frozen=True)
class Remove(Step):
    """Take this file away."""

    verb, done = "remove", "removed"

    because: str
    what: str = ""
    """What the ledger has of it: `configuration`, `programs`, or nothing."""

    @property
    def detail(self) -> str:
        """Say why."""
        return f": {self.because}"

    def do(self, doing: Doing) -> None:
        """Remove it, and strike it out."""
        files.remove(self.path)
        ledger, name = doing.ledger, self.path.name
        if self.what == "configuration" and ledger.says.configuration and ledger.says.configuration.name == name:
            ledger.note(configuration=None)
        if self.what == "programs":
            ledger.note(programs={each: digest for each, digest in ledger.says.programs.items() if each != name})


@dataclass(frozen=True)
class _Rename(Step):
    verb, done, vital = "rename", "renamed", False

    to: Path

    @property
    def detail(self) -> str:
        """Say what it is called then."""
        return f" to {self.to.name}"


@dataclass(frozen=True)
class Retire(_Rename):
    """Give a master the name NAME.old, once the ledger says so: else nobody would know that it is ours."""

    renamed: Renamed
    over: bool = False
    """A file that we gave this name before is to be replaced; any other is in the way."""

    def do(self, doing: Doing) -> None:
        """Note it, and rename it."""
        ledger, kept, before = doing.ledger, doing.ledger.says, doing.ledger.says.renamed
        # What a killed run noted and did not rename has not taken the place of the NAME.old before it.
        earlier = {**({before.name: before.digest} if before else {}), **kept.earlier}
        ledger.note(renamed=self.renamed, earlier=earlier)
        try:
            ledger.save()
            files.rename(self.path, self.to, over=self.over)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or os.path.lexists(self.path):
                ledger.says = kept  # it has not happened: the disk forbids it, or the owner has removed it meanwhile
            raise
        # Only now: what had the name NAME.old until then was ours as well, and a run may be killed in between.
        ledger.note(earlier={name: digest for name, digest in earlier.items() if name != self.renamed.name})


@dataclass(frozen=True)
class GiveBack(_Rename):
    """Give the renamed master its name back, unless a live file has taken it."""

    def do(self, doing: Doing) -> None:
        """Link it, and take the other name away."""
        given_back = files.rename_unless_taken(self.path, self.to)
        ledger, name = doing.ledger, self.to.name
        renamed = ledger.says.renamed
        if given_back:
            earlier = {each: digest for each, digest in ledger.says.earlier.items() if each != name}
            ledger.note(earlier=earlier, renamed=None if renamed is not None and renamed.name == name else renamed)


def attempted(step: Step, doing: Doing) -> None:
    """Do a step. Raises `StepError` where the disk does not let it, and what `Step.do` raises beside OSError."""
    try:
        step.do(doing)
    except OSError as error:
        raise StepError(failure(step, error)) from error


def failure(step: Step, error: OSError) -> str:
    """Say that a step could not be done, why, and what to do."""
    if isinstance(step, Copy) and error.filename == os.fspath(step.source):
        return f"cannot install {step.path}: {step.source} cannot be read: {error.strerror}"
    message = f"cannot {step.verb} {step.path}: {error.strerror}"
    elsewhere = os.path.dirname(os.fsdecode(error.filename or step.path)) != os.path.dirname(step.path)
    message += f" ({error.filename})" if elsewhere else ""
    return message + advice(error)


def advice(error: OSError) -> str:
    """Say what to do about a disk that refuses, as the end of a message; empty where nothing is known."""
    known = _ADVICE.get(error.errno or 0)
    return f"; {known}" if known else ""
