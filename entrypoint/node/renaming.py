"""`--rename-conf-file`: what was renamed to NAME.old, and what stood beside it at the time. Pure.

A renamed master stays the master against the live files that stood beside it. Which those were is remembered by their
content: a modification time says nothing, since `touch` changes it and `cp -p` keeps it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from entrypoint.cni.document import RETIRED_SUFFIX, Master, Unread
from entrypoint.disk.looks import Absent, File, Look
from entrypoint.node import chained
from entrypoint.node.values import Candidate, Memory, Record, Rename, Seen

RECORD_MODE = 0o600
_LONGEST_NAME = 255  # bytes: the limit of every file system that a node has
_UNKNOWN = ""
"""The digest of a file that could not be read."""
_NOTHING = Record({}, {})


def as_file(record: Record) -> bytes:
    """Return what the record's file holds."""
    return json.dumps(record._asdict(), indent=4).encode() + b"\n"


def from_file(look: Look) -> Record | None:
    """Read the record's file; None when it is missing, or not what `as_file` writes."""
    if isinstance(look, Absent):
        return None
    try:
        document = json.loads(look.content)  # names need not be UTF-8
        renamed = {name: tuple(map(_text, digests)) for name, digests in _object(document["renamed"]).items()}
        beside = {name: _text(digest) for name, digest in _object(document["beside"]).items()}
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    return Record(renamed, beside)


def recall(seen: Seen, memory: Memory) -> Record:
    """Return what is remembered: on the node, where another instance may have written it, or else in this run.

    Where nothing is, a file NAME.old that the configuration wraps is the renamed master, and every live file of
    another name counts as having stood beside it: a restart must not give the node another default network.
    """
    known = [record for record in (from_file(seen.record), memory.record) if record is not None]
    for record in known:
        if masters(seen, record):
            return record
    return known[0] if known else (_evident(seen) or _NOTHING)


def is_presumed(seen: Seen, memory: Memory) -> bool:
    """Say whether `recall` had nothing to go by but the configuration."""
    return from_file(seen.record) is None and memory.record is None and _evident(seen) is not None


def masters(seen: Seen, record: Record) -> list[Candidate]:
    """Return the renamed masters that are still there, the latest first."""
    there = {each.name: each for each in seen.retired}
    return [there[name] for name in record.renamed if name in there]


def stood_beside(seen: Seen, record: Record, candidate: Candidate) -> bool:
    """Say whether a live file, as it is now, stood beside the renamed master at the time.

    One that has the master's own name is the master, written anew. One that cannot be read is no news.
    """
    there = masters(seen, record)
    if not there or candidate.name == there[0].name or candidate.name not in record.beside:
        return False
    return isinstance(candidate.verdict, Unread) or record.beside[candidate.name] in {candidate.digest, _UNKNOWN}


def obstacle(seen: Seen, record: Record, name: str, record_file: Path) -> str | None:
    """Say what forbids to rename a live file; None when nothing does."""
    new_name = name + RETIRED_SUFFIX
    if len(os.fsencode(new_name)) > _LONGEST_NAME:
        return f"a name that ends in {RETIRED_SUFFIX} would be longer than {_LONGEST_NAME} bytes; shorten it"
    if isinstance(seen.record, Absent) and seen.record.failed:
        return f"{record_file}, which remembers what was renamed, {seen.record.why}"
    old = _named(seen.retired, name)
    if old is not None and isinstance(old.verdict, Unread):
        return f"{new_name} {old.verdict.reason}"
    if old is not None and (old.digest is None or old.digest not in record.renamed.get(name, ())):
        return f"{new_name} is there, and is not what was renamed to it; move it away if nobody needs it"
    return None


def retire(seen: Seen, record: Record, path: Path) -> tuple[Rename, Record]:
    """Return the step that renames a live file, and what must be remembered before it is done.

    Before: a run that is killed in between finds the file live, and not among those that stood beside it. What has
    the name NAME.old until then stays known as ours too. Masters that were renamed earlier stand beside this one:
    their owners may write them anew, and that alone is no reason to change the default network.
    """
    name = path.name
    live, old = _named(seen.candidates, name), _named(seen.retired, name)
    digests = dict.fromkeys(each.digest for each in (live, old) if each is not None and each.digest)
    earlier = {each.name: record.renamed[each.name] for each in masters(seen, record) if each.name != name}
    standing = {**_digests(each for each in seen.retired if each.name in earlier), **_digests(seen.candidates)}
    standing.pop(name, None)
    step = Rename(path, to=path.with_name(name + RETIRED_SUFFIX), over=old is not None)
    return step, Record({name: tuple(digests), **earlier}, standing)


def confirm(seen: Seen, record: Record, name: str) -> Record:
    """Return what must be remembered while NAME.old is the master.

    One that was found and not renamed by us is noted as such. One that we renamed stays ours when its content changes:
    it is the master, wherever it is edited. What could not be read when it was to be remembered is remembered later.
    """
    if name not in record.renamed:
        return Record({name: (), **record.renamed}, _digests(seen.candidates))
    read_since = (each for each in seen.candidates if each.digest and record.beside.get(each.name) == _UNKNOWN)
    record = record._replace(beside={**record.beside, **_digests(read_since)})
    master = _named(seen.retired, name)
    digests = record.renamed[name]
    if master is None or master.digest is None or not digests or master.digest in digests:
        return record
    return record._replace(renamed={**record.renamed, name: (master.digest,)})


def _evident(seen: Seen) -> Record | None:
    """Return the record of a NAME.old that the configuration wraps while no live file has its name."""
    alone = [each for each in seen.retired if _named(seen.candidates, each.name) is None]
    written = [look.content for look in seen.outputs.values() if isinstance(look, File)] if alone else []
    for each in alone:
        document = each.verdict.document if isinstance(each.verdict, Master) else {}
        if any(chained.wraps(content, document) for content in written):
            return Record({each.name: (each.digest,) if each.digest else ()}, _digests(seen.candidates))
    return None


def _named(candidates: Iterable[Candidate], name: str) -> Candidate | None:
    return next((each for each in candidates if each.name == name), None)


def _digests(candidates: Iterable[Candidate]) -> dict[str, str]:
    known = ((each.name, _UNKNOWN if isinstance(each.verdict, Unread) else each.digest) for each in candidates)
    return {name: digest for name, digest in known if digest is not None}


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
