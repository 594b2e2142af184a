"""The steps from the node as it is to the node as it should be: each knows how it is done, and how to say so."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from entrypoint.disk import files, moving, programs
from entrypoint.disk.files import Identity
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


class Step(Protocol):
    """One thing to do to one path."""

    @property
    def path(self) -> Path:
        """Which file it is about."""

    @property
    def verb(self) -> str:
        """What it does, in the present tense, for messages of failure."""

    @property
    def did(self) -> str:
        """Say what was done; empty for what nobody needs to hear."""

    @property
    def would(self) -> str:
        """Say what would be done."""

    @property
    def vital(self) -> bool:
        """Without it the node is not configured: when it fails in the first pass, the program ends."""

    def do(self, doing: Doing) -> None:
        """Do it, and note in the ledger what was done.

        Raises OSError, `programs.CancelledError` when it was given up, and `files.ReplacedError` when somebody else was
        faster.
        """


class Write(NamedTuple):
    """Put this content there, whole and at once."""

    path: Path
    content: bytes
    mode: int
    over: Identity | None = None
    """The file that content was taken over from: once that is another, look again."""
    put: Put | None = None
    """What the ledger notes once it is there."""
    instead: tuple[Path, ...] = ()
    """Under which other names the same may have stood until now."""
    verb: str = "write"
    vital: bool = True

    @property
    def did(self) -> str:
        return f"wrote {self.path}"

    @property
    def would(self) -> str:
        return f"would write {self.path}, mode {self.mode:o}:"

    def do(self, doing: Doing) -> None:
        if self.put is None:  # the kubeconfig, whose directory is ours
            files.make_directory(self.path.parent)
        files.write(self.path, self.content, self.mode, self.over)
        if self.put is not None:
            doing.ledger.note(configuration=self.put)


class Note(NamedTuple):
    """Bring the ledger up to what was found, and touch nothing else."""

    path: Path
    changes: Mapping[str, Any]
    """Fields of `ledger.Book`."""
    verb: str = "note"
    did: str = ""
    would: str = ""
    vital: bool = False

    def do(self, doing: Doing) -> None:
        doing.ledger.note(**self.changes)


class Copy(NamedTuple):
    """Install a program with the mode of its source."""

    path: Path
    source: Path
    ahead: bool = False
    """Note it in the ledger before it is there. Otherwise `Compare` does, afterwards: Multus has some 50 MB."""
    instead: tuple[Path, ...] = ()
    verb: str = "install"
    vital: bool = True

    @property
    def did(self) -> str:
        return f"installed {self.path} from {self.source}"

    @property
    def would(self) -> str:
        return f"would install {self.path} from {self.source}"

    def do(self, doing: Doing) -> None:
        if self.ahead:
            doing.ledger.note_program(self.path.name, programs.digest(self.source, doing.cancelled))
            doing.ledger.save()
        programs.copy(self.source, self.path, doing.cancelled)


class Compare(NamedTuple):
    """Compare an installed program with its source, byte for byte, and tell who asked."""

    path: Path
    source: Path
    tell: Callable[[bool, str], None]
    """Takes whether they are the same, and the digest of the installed one."""
    ours: bool = True
    """What is the same is noted in the ledger."""
    verb: str = "compare"
    did: str = ""
    would: str = ""
    vital: bool = False

    def do(self, doing: Doing) -> None:
        same, digest = programs.compared(self.path, self.source, doing.cancelled)
        if same and self.ours and doing.ledger.says.programs.get(self.path.name) != digest:
            doing.ledger.note_program(self.path.name, digest)
        self.tell(same, digest)


class Remove(NamedTuple):
    """Take this file away."""

    path: Path
    because: str
    what: str = ""
    """What the ledger has of it: `configuration`, `programs`, or nothing."""
    verb: str = "remove"
    vital: bool = True

    @property
    def did(self) -> str:
        return f"removed {self.path}: {self.because}"

    @property
    def would(self) -> str:
        return f"would remove {self.path}: {self.because}"

    def do(self, doing: Doing) -> None:
        files.remove(self.path)
        ledger, name = doing.ledger, self.path.name
        if self.what == "configuration" and ledger.says.configuration and ledger.says.configuration.name == name:
            ledger.note(configuration=None)
        if self.what == "programs":
            ledger.note(programs={each: digest for each, digest in ledger.says.programs.items() if each != name})


class Retire(NamedTuple):
    """Give a master the name NAME.old, once the ledger says so: else nobody would know that it is ours."""

    path: Path
    to: Path
    renamed: Renamed
    over: bool = False
    """A file that we gave this name before is to be replaced; any other is in the way."""
    verb: str = "rename"
    vital: bool = False

    @property
    def did(self) -> str:
        return f"renamed {self.path} to {self.to.name}"

    @property
    def would(self) -> str:
        return f"would rename {self.path} to {self.to.name}"

    def do(self, doing: Doing) -> None:
        ledger, kept, before = doing.ledger, doing.ledger.says, doing.ledger.says.renamed
        earlier = {**kept.earlier, **({before.name: before.digest} if before else {})}
        ledger.note(renamed=self.renamed, earlier=earlier)
        try:
            ledger.save()
            moving.rename(self.path, self.to, over=self.over)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or os.path.lexists(self.path):
                ledger.says = kept  # it has not happened: the disk forbids it, or the owner has removed it meanwhile
            raise
        # Only now: what had the name NAME.old until then was ours as well, and a run may be killed in between.
        ledger.note(earlier={name: digest for name, digest in earlier.items() if name != self.renamed.name})


class GiveBack(NamedTuple):
    """Give the renamed master its name back, unless a live file has taken it."""

    path: Path
    to: Path
    verb: str = "rename"
    vital: bool = False

    @property
    def did(self) -> str:
        return f"renamed {self.path} to {self.to.name}"

    @property
    def would(self) -> str:
        return f"would rename {self.path} to {self.to.name}"

    def do(self, doing: Doing) -> None:
        given_back = moving.rename_unless_taken(self.path, self.to)
        renamed = doing.ledger.says.renamed
        if given_back and renamed is not None and renamed.name == self.to.name:
            doing.ledger.note(renamed=None)


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
    if error.filename == os.fspath(getattr(step, "path", "")) or not error.filename:
        pass
    elif os.path.dirname(str(error.filename)) != os.path.dirname(os.fspath(step.path)):
        message = f"{message} ({error.filename})"
    advice = _ADVICE.get(error.errno or 0)
    return f"{message}; {advice}" if advice else message
