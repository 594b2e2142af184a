"""The time that a service mesh is given to end what it has begun with our configuration. Pure.

A file that is not as it must be is put right at once, but for these states: each is one step of a mesh's installer, and
whoever writes between two steps makes it fail, or makes it write again.
"""

from __future__ import annotations

from entrypoint.cni.document import InvalidJsonError, parse
from entrypoint.disk.looks import Absent, File, Look
from entrypoint.node.chained import parsed, same_but_for_meshes, standing
from entrypoint.node.values import Output, Seen

HANDOVER = 1.0
"""Seconds from one step of a mesh to the next that belongs to it. Pods get their networks meanwhile, or wait."""
REWRITE = 0.3
"""Seconds in which a list that is being written may be gone or cut off: pods have no Multus, or none at all."""
MOVE = 0.05
"""Seconds in which a single plugin that is being moved may be gone: far more than mv needs, and no pod's loss."""


def until(seen: Seen, wanted: Output, stood: str, *, due: bool) -> float | None:
    """Return until when a mesh is left alone to end what it has begun (monotonic seconds); None: none has.

    `due` says that a configuration is to be written, `stood` under which of our names it was before, if it was.
    """
    times = [*_converting(seen), *_rewriting(seen, stood), *(_moving(seen, wanted) if due else ())]
    latest = max(times, default=seen.now)
    return latest if seen.now < latest else None


def _converting(seen: Seen) -> list[float]:
    """Find a list that is being made of a single plugin.

    Istio writes the list over `NAME.conf` and then renames that. Linkerd writes `NAME.conflist`, its older script not
    in one step, and then removes `NAME.conf`. Whoever takes `NAME.conf` away meanwhile ends their processes.
    """
    for name, look in seen.outputs.items():
        single = parsed(look.content) if name.endswith(".conf") and isinstance(look, File) else None
        if single is None:
            continue
        if single.listed:
            return [_since(seen, name) + HANDOVER]
        beside = seen.outputs.get(name + "list")
        if isinstance(beside, File):
            there = parsed(beside.content)
            if _cut_off(beside) or (there is not None and there.chained):
                return [_since(seen, name + "list") + HANDOVER]
    return []


def _rewriting(seen: Seen, stood: str) -> list[float]:
    """Find a configuration that is gone, or a list that is cut off: a mesh may be about to write it.

    Linkerd takes its plugin out in place, that is, it empties the file and then writes; what is put there in between
    loses its last word, and a plugin would stay chained whose binary is gone. Its older script moves every file away
    and back from another file system, which removes, makes and then fills it, and ends when a file is there already.
    """
    if not stood or standing(seen.outputs) is not None:
        return []
    look, is_list = seen.outputs[stood], stood.endswith(".conflist")
    if isinstance(look, Absent) and look.missing:
        return [_since(seen, stood) + (REWRITE if is_list else MOVE)]
    return [_since(seen, stood) + REWRITE] if is_list and _cut_off(look) else []


def _moving(seen: Seen, wanted: Output) -> list[float]:
    """Find what differs from what is wanted only in where meshes are: one may be on its way into, or out of, both.

    Linkerd patches the network's file and ours, one after the other, and answers each write of ours with one of its
    own. Were ours written after each of its steps, that would go to and fro. So both files must have come to rest.
    """
    ours = parsed(wanted.content)
    for name, look in seen.outputs.items():
        there = parsed(look.content) if isinstance(look, File) else None
        if ours is not None and there is not None and same_but_for_meshes(ours, there):
            changes = [each.since for each in (*seen.candidates, *seen.retired) if each.name == wanted.master]
            return [max([_since(seen, name), *changes]) + HANDOVER]
    return []


def _since(seen: Seen, name: str) -> float:
    return seen.since.get(name, float("-inf"))


def _cut_off(look: Look) -> bool:
    """Say whether a file holds no JSON, as one does that is being written in place."""
    if isinstance(look, Absent):
        return False
    try:
        parse(look.content)
    except InvalidJsonError:
        return True
    return False
