"""The node as values: what was seen on it, and what should be done to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from entrypoint.cni.document import Verdict
from entrypoint.disk.files import Identity
from entrypoint.disk.looks import Absent, Look

# ---- what was seen ----


class Candidate(NamedTuple):
    """A file of the autoconfig directory that may be the master, and since when (monotonic seconds) it is so."""

    name: str
    verdict: Verdict
    since: float
    digest: str | None = None
    """Of its content; None for what is no file, or could not be read."""


class Binary(NamedTuple):
    """The multus binary of the image and the installed one."""

    source: Absent | None
    """None when the source can be read."""
    installed: bool
    """The target has the source's content and mode."""
    source_fault: str | None = None
    """What keeps the image's binary from being run, if it can be read at all."""
    fault: str | None = None
    """What keeps the installed one from being run."""


class Seen(NamedTuple):
    """One look at the node."""

    now: float
    """Monotonic seconds."""
    missing_dirs: tuple[tuple[str, Path], ...]
    """Flag and path of each directory that must exist and does not."""
    token: Look
    certificate_authority: Look
    kubeconfig: Look
    binary: Binary
    static: Look | None
    """The source of a static configuration; None with auto configuration."""
    patch: Look | None
    """The file of `--multus-conf-patch`; None when there is none."""
    outputs: dict[str, Look]
    """What stands under each configuration file name that this program may write."""
    since: Mapping[str, float] = {}
    """For each of them, since when it has been so (monotonic seconds)."""
    readiness: str | None = None
    """Where the readiness indicator is missing that the configuration waits for; None when it is there."""
    candidates: tuple[Candidate, ...] = ()
    """Possible masters in byte order of their names."""
    retired: tuple[Candidate, ...] = ()
    """With `--rename-conf-file`, the files NAME.old, under the name NAME; in byte order."""
    record: Look = Absent()
    """With `--rename-conf-file`, what was remembered of the masters that were renamed."""
    unlisted: str | None = None
    """Why the autoconfig directory could not be listed; one that is not there is empty."""
    beside: tuple[str, ...] | None = ()
    """Every file of the autoconfig directory that has a candidate's name; None when there is no such directory."""
    directories: Mapping[str, tuple[str, ...]] = {}
    """The `.conf` files in each directory of the autoconfig directory: libcni takes one for a list of that name."""
    names: tuple[str, ...] = ()
    """What stands in the configuration directory, but for directories: a CNI runtime reads some of it."""
    beside_ours: tuple[str, ...] = ()
    """What stands in the directory of our kubeconfig, but for directories."""
    first: tuple[str, Look] | None = None
    """The file of it that the runtime reads first, when its name is none of ours."""
    failed: str | None = None
    """Why the configuration directory could not be listed."""
    mounted_from: str | None = None
    """The path of the configuration directory within the file system that it is on; None when nothing tells."""

    def settled(self) -> Seen:
        """Return this look with every file taken for what it is, and not for one being written.

        For who looks only once: the resident process would find it unchanged some seconds later.
        """

        def old(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
            return tuple(candidate._replace(since=float("-inf")) for candidate in candidates)

        return self._replace(since={}, candidates=old(self.candidates), retired=old(self.retired))


# ---- what should be done ----


class Write(NamedTuple):
    """Put this content there, whole and at once."""

    path: Path
    content: bytes
    mode: int
    over: Identity | None = None
    """The file that it takes the place of, from which content was taken over: once that is another, look again."""


class Copy(NamedTuple):
    """Install the binary with the mode of its source."""

    path: Path
    source: Path


class Remove(NamedTuple):
    """Take this file away."""

    path: Path
    because: str


class Rename(NamedTuple):
    """Retire a master: give it the other name."""

    path: Path
    to: Path
    over: bool = False
    """A file that we gave this name before is to be replaced; any other is in the way."""


Step = Write | Copy | Remove | Rename


class Problem(NamedTuple):
    """The node is not as it must be, and no step of ours mends it."""

    message: str
    fatal: bool
    """Give up over it; otherwise keep what is there and go on."""


class Output(NamedTuple):
    """A configuration that this run put or found in place."""

    file_name: str
    content: bytes
    mode: int
    master: str | None
    """File name of the wrapped master; None for a static configuration."""


class Record(NamedTuple):
    """What was renamed to NAME.old, and what stood beside it at the time: it outlives a restart in a file of ours."""

    renamed: dict[str, tuple[str, ...]]
    """The names NAME, the latest first, with the digests of what this program gave the name NAME.old. Without one,
    NAME.old was found and wrapped: it is perhaps an operator's own."""
    beside: dict[str, str]
    """The name and the digest of each live file that stood beside the latest."""


class Memory(NamedTuple):
    """What a decision needs to know of the decisions before it."""

    started: float
    """Monotonic seconds."""
    first: bool = True
    """No pass has been made yet."""
    configured: bool = False
    """A configuration has been in place once: from then on a missing master is waited for without limit."""
    output: Output | None = None
    """The configuration that must be there; None before there was one, and after its removal."""
    patch: Mapping[str, Any] | None = None
    """The last good merge patch for Multus's part of the configuration."""
    record: Record | None = None
    """What must be remembered of renamed masters; None as long as there is none."""
    stood: str = ""
    """The name under which the configuration must be there, or was, when it is gone for a moment; empty: none was."""
    satisfied: bool = False
    """The last verdict: it stays while others are given the time to end what they have begun."""
    retry: float = 0.0
    """How long to wait before the next look after one that failed, in seconds; 0 after one that did not."""


class Plan(NamedTuple):
    """What to do now, in this order, and when to look again although nothing happened."""

    memory: Memory
    kubeconfig: Write | None = None
    binary: Copy | None = None
    configuration: Write | None = None
    accepted: bytes | None = None
    """The configuration that stands there as it must be, whoever wrote it."""
    removals: tuple[Remove, ...] = ()
    record: Write | None = None
    rename: Rename | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    waiting: str | None = None
    """What is waited for, and why each file that is there was refused."""
    reads: Path | None = None
    """The kubeconfig that Multus is told to read, if this container sees its place: its coming and going is news."""
    satisfied: bool = False
    """Once the steps are done the node is as it must be."""
    deadline: float | None = None
    """When to look again although nothing happened, in monotonic seconds."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in the order in which they are safe: what the configuration refers to comes before it."""
        steps = (self.kubeconfig, self.binary, self.configuration, *self.removals, self.record, self.rename)
        return tuple(step for step in steps if step is not None)
