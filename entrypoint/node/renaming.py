"""`--rename-conf-file`: the master gets the name NAME.old once it is wrapped.

What was renamed stands in the ledger; any other file of such a name is an operator's, and is never touched.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from entrypoint.cni.document import RETIRED_SUFFIX
from entrypoint.disk import files
from entrypoint.disk.looks import Absent, File, read
from entrypoint.node.ledger import Book, Renamed
from entrypoint.node.part import told
from entrypoint.node.steps import GiveBack, Note, Retire, Step
from entrypoint.settings import Settings

_LONGEST_NAME = 255  # bytes: the limit of every file system that a node has


def obstacle(settings: Settings, ledger: Book, name: str, old: str | None, *, old_there: bool) -> str | None:
    """Say what forbids to rename a master; None when nothing does.

    `old` is the digest of NAME.old, None where it could not be read.
    """
    new_name = name + RETIRED_SUFFIX
    if len(os.fsencode(new_name)) > _LONGEST_NAME:
        return f"a name that ends in {RETIRED_SUFFIX} would be longer than {_LONGEST_NAME} bytes; shorten it"
    # By the name alone, whatever path the host calls it by: k3s and others have the directory elsewhere.
    if settings.readiness_indicator_file and os.path.basename(settings.readiness_indicator_file) == name:
        return "it is --readiness-indicator-file, without which Multus lets every pod wait"
    if old_there and (old is None or old not in {_known(ledger).get(name), ledger.earlier.get(name)}):
        return f"{new_name} is there, and is not what was renamed to it; move it away if nobody needs it"
    return None


def retire(settings: Settings, ledger: Book, name: str, digests: Mapping[str, str], *, over: bool) -> Retire:
    """Return the step that renames the master.

    `digests` are those of all candidates. Masters that were renamed earlier count as having stood beside this one:
    their owners may write them anew, and that alone is no reason to change the default network.
    """
    beside = {**_known(ledger), **digests}
    digest = beside.pop(name)
    path = settings.autoconfig_dir / name
    return Retire(path, path.with_name(name + RETIRED_SUFFIX), Renamed(name, digest, beside), over)


class Old(NamedTuple):
    """What stands under the name NAME.old of the master that the ledger calls renamed."""

    ours: bool
    """It is what was renamed: it has the same content."""
    missing: bool
    live: bool
    """A file has the name NAME again."""


def look(settings: Settings, ledger: Book) -> Old | None:
    """Look at the renamed master; None when there is none. Raises `LookFailedError`."""
    if ledger.renamed is None:
        return None
    path = settings.autoconfig_dir / ledger.renamed.name
    old = path.with_name(path.name + RETIRED_SUFFIX)
    found = told(read(old), old)
    ours = isinstance(found, File) and hashlib.sha256(found.content).hexdigest() == ledger.renamed.digest
    live = os.path.lexists(path) and not (ours and files.same_file(path, old))
    return Old(ours, isinstance(found, Absent) and found.missing, live)


def rename_noted(settings: Settings, ledger: Book, old: Old | None) -> Iterator[Step]:
    """Yield the step that ends a rename which a run was killed in: what had the name NAME.old until then is no more."""
    name = ledger.renamed.name if ledger.renamed else ""
    if old is not None and old.ours and name in ledger.earlier:
        earlier = {each: digest for each, digest in ledger.earlier.items() if each != name}
        yield Note(settings.ledger_file, {"earlier": earlier})


def give_back(settings: Settings, ledger: Book, old: Old | None) -> Iterator[Step]:
    """Yield the step that gives the renamed master its name back; one whose name is taken is the master no more."""
    if ledger.renamed is None or old is None:
        return
    path = settings.autoconfig_dir / ledger.renamed.name
    if old.ours and not old.live:
        yield GiveBack(path.with_name(path.name + RETIRED_SUFFIX), path)
    elif old.missing:  # given back by a run that was killed before it could note that, or by hand
        yield Note(settings.ledger_file, {"renamed": None})
    elif old.live:
        yield Note(settings.ledger_file, {"renamed": None, "earlier": _known(ledger)})


def recalled(settings: Settings, ledger: Book) -> str | None:
    """Return the one master that the flags name outright, if it was renamed and made way for another since.

    Its network counts as gone, and it would be waited for in vain. Who names it, and no other one, wants it back.
    """
    name, digest = settings.master_names[0] if len(settings.master_names) == 1 else "", None
    renamed = ledger.renamed.name if ledger.renamed else None
    if settings.static_conf_file is None and name in ledger.earlier and name != renamed:
        path = settings.autoconfig_dir / name
        found = read(path.with_name(name + RETIRED_SUFFIX))
        digest = hashlib.sha256(found.content).hexdigest() if isinstance(found, File) else None
    return name if digest == ledger.earlier.get(name, "") and not os.path.lexists(path) else None


def _known(ledger: Book) -> dict[str, str]:
    renamed = ledger.renamed
    return {**ledger.earlier, **({renamed.name: renamed.digest} if renamed else {})}
