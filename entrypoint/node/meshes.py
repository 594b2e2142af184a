"""What others chain behind our configuration: service meshes put a plugin after the first of the directory. Pure.

Istio and Linkerd make a list `NAME.conflist` of our single plugin in `NAME.conf`, with ours as its first plugin, or add
to the list that is there, and do so again whenever their plugin is gone. Three rules keep the peace:

- a list that begins with what we would write is as it must be, whatever follows (`settled`);
- when ours changes, what follows is carried over; what the master has as well is left out of its copy (`settled`);
- what a mesh has begun it is given the time to end (`until`): each state is one step of its installer, and whoever
  writes between two steps makes it fail, or makes it write again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from entrypoint.cni.document import (
    MESH_PLUGINS,
    META_PLUGINS,
    MULTUS_TYPES,
    InvalidJsonError,
    depth_fault,
    equal,
    parse,
)
from entrypoint.disk.looks import Absent, File, Look
from entrypoint.node.ledger import Put

CONVERTED_NAME = "k8s-pod-network"
"""The name that Istio and Linkerd give to the list that they make of a single plugin, whatever that was called."""

_OF_THE_LIST = ("cniVersion", "name")
"""What a list says for all its plugins: in a plugin it has no effect."""

_REFERENCE = META_PLUGINS - MESH_PLUGINS
"""Plugins that may well run twice for a pod, with other settings."""


HANDOVER = 1.0
"""Seconds from one step of a mesh to the next that belongs to it. Pods get their networks meanwhile, or wait."""
REWRITE = 0.3
"""Seconds in which a list that is being written may be gone or cut off: pods have no Multus, or none at all."""
MOVE = 0.05
"""Seconds in which a single plugin that is being moved may be gone: far more than mv needs, and no pod's loss."""


class Configuration(NamedTuple):
    """A configuration whose first plugin is Multus."""

    listed: bool
    """It is a list; otherwise a single plugin."""
    level: dict[str, Any]
    """What is said of the list; of a single plugin, its name and version."""
    multus: dict[str, Any]
    """The first plugin, without what the list says for all."""
    following: tuple[dict[str, Any], ...]
    """The other plugins of a list."""

    def names(self, key: str) -> str:
        """Return the file that it names under this key; an empty string when it names none."""
        named = self.multus.get(key)
        return named if isinstance(named, str) else ""

    @property
    def chained(self) -> tuple[dict[str, Any], ...]:
        """Those that can be kept when ours changes: no second Multus, nothing twice."""
        kept: list[dict[str, Any]] = []
        for plugin in self.following:
            kind = plugin.get("type")
            if isinstance(kind, str) and kind and kind not in MULTUS_TYPES and not _among(plugin, kept):
                kept.append(plugin)
        return tuple(kept)


class Output(NamedTuple):
    """What stands under a name that we may write, or that the runtime reads."""

    name: str
    look: Look
    configuration: Configuration | None = None
    """It, taken apart; None unless its first plugin is Multus."""
    ours: bool = False
    """By the ledger, though perhaps as a mesh has written it anew."""
    since: float = float("-inf")
    """Since when it is as it is (monotonic seconds)."""

    @property
    def cut_off(self) -> bool:
        """It holds no JSON, as a file does that is being written in place."""
        try:
            parse(self.look.content if isinstance(self.look, File) else b"{}")
        except InvalidJsonError:
            return True
        return False


def parsed(content: bytes) -> Configuration | None:
    """Take a configuration apart; None unless its first plugin is Multus."""
    try:
        document = parse(content)
    except InvalidJsonError:
        return None
    if not isinstance(document, dict) or depth_fault(document):
        return None
    listed = "plugins" in document
    plugins = document["plugins"] if listed else [document]
    if not isinstance(plugins, list) or not plugins or not all(isinstance(each, dict) for each in plugins):
        return None
    kind = plugins[0].get("type")
    if not isinstance(kind, str) or kind not in MULTUS_TYPES:
        return None
    level = {key: value for key, value in document.items() if key != "plugins" and (listed or key in _OF_THE_LIST)}
    return Configuration(listed, level, _bare(plugins[0]), tuple(plugins[1:]))


def taken_apart(name: str, look: Look, put: Put | None = None, since: float = float("-inf")) -> Output:
    """Return what stands under a name, of which the ledger has `put`."""
    if isinstance(look, Absent):
        return Output(name, look, since=since)
    return Output(name, look, parsed(look.content), put is not None and is_ours(look.content, put.document), since)


def standing(outputs: Mapping[str, Output]) -> Output | None:
    """Return the list that stands under one of our names and begins with Multus.

    That is `NAME.conflist`, or else one under `NAME.conf`, where no runtime reads it: a mesh has not renamed it yet.
    """
    lists = [name for name, each in outputs.items() if each.configuration is not None and each.configuration.listed]
    return outputs[max(lists)] if lists else None


def settled(wanted: Put, stands: Output | None) -> tuple[Put, list[str]]:
    """Return the configuration that shall be there, of what we would write alone and the list that stands.

    That list itself when it is as good; else ours, with what others have chained in it. Its mode plays no part, because
    there is no secret in it. Without anything chained a list of others' making is kept as well: they may come back.
    The types of the master's plugins that are left out of its copy, because they are chained too, come second.
    """
    ours = parsed(wanted.document)
    there = stands.configuration if stands is not None else None
    if stands is None or there is None or ours is None:
        return wanted, []
    others = [plugin for plugin in there.chained if not _among(plugin, ours.following)]
    if wanted.master is None and ours.listed:
        # What else is in a static list is the operator's, who may have taken it out.
        others = [plugin for plugin in others if plugin["type"] in MESH_PLUGINS]
        if not others:
            return wanted, []
    following = [*ours.following, *others]
    multus, doubled = _leave_out(ours.multus, others)
    as_good = _same_level(ours, there) and equal(multus, there.multus) and equal(following, list(there.following))
    if as_good and stands.name.endswith(".conflist") and isinstance(stands.look, File):
        return Put(stands.name, stands.look.content, stands.look.mode, wanted.master), doubled
    if not others:
        return wanted, []
    content = _written({**ours.level, "plugins": [multus, *following]})
    return wanted._replace(name=stands.name.removesuffix("list") + "list", document=content), doubled


def _written(document: dict[str, Any]) -> bytes:
    """Return a list as JSON, each plugin on one line: indentation would multiply what nests deeply."""
    lines = [f"    {json.dumps(key)}: {json.dumps(value)}," for key, value in document.items() if key != "plugins"]
    plugins = ",\n".join(f"        {json.dumps(plugin, allow_nan=False)}" for plugin in document["plugins"])
    return "\n".join(["{", *lines, '    "plugins": [', plugins, "    ]", "}", ""]).encode("ascii")


def is_ours(content: bytes, written: bytes | None) -> bool:
    """Say whether a file holds what this run wrote, though perhaps as a mesh has written it anew."""
    ours, there = (parsed(written) if written else None), parsed(content)
    return content == written or (
        ours is not None and there is not None and _same_level(ours, there) and same_multus(ours, there)
    )


def named_in(content: bytes, key: str) -> str:
    """Return the file that a configuration of Multus names under this key; an empty string when it names none."""
    there = parsed(content)
    return there.names(key) if there else ""


def same_multus(ours: Configuration, there: Configuration) -> bool:
    """Say whether Multus does the same in both, but for what is chained behind it there."""
    return equal(_leave_out(ours.multus, there.chained)[0], _leave_out(there.multus, there.chained)[0])


def same_but_for_meshes(ours: Configuration, there: Configuration) -> bool:
    """Say whether two configurations differ in which plugins of meshes the network has, and in nothing else."""
    kinds = {plugin["type"] for plugin in there.chained} - _REFERENCE | MESH_PLUGINS
    wanted, _ = _leave_out(ours.multus, there.chained)
    here, elsewhere = ([plugin["type"] for plugin in _delegates_plugins(each)] for each in (wanted, there.multus))
    alike = equal(_without_kinds(ours.multus, kinds), _without_kinds(there.multus, kinds))
    return here != elsewhere and alike and _same_level(ours, there)


def _same_level(ours: Configuration, there: Configuration) -> bool:
    """Compare what is said of the list; of one that a mesh made of our single plugin, it chose name and version."""
    made_by_a_mesh = there.listed and not ours.listed and there.level.get("name") == CONVERTED_NAME
    return made_by_a_mesh or equal(ours.level, there.level)


def _leave_out(multus: dict[str, Any], chained: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Return Multus without those of its delegate's plugins that are chained behind it as well, and their types.

    Never without the delegate's first, which makes the network.
    """
    plugins = _delegates_plugins(multus)
    doubled = [plugin for plugin in plugins[1:] if _among(plugin, chained)]
    kept = [plugin for plugin in plugins if not any(plugin is each for each in doubled)]
    return _with_delegates_plugins(multus, kept), [plugin["type"] for plugin in doubled]


def _without_kinds(multus: dict[str, Any], kinds: set[str]) -> dict[str, Any]:
    """Return Multus without the plugins of these types in its delegate, and what comes with them."""
    kept = [each for each in _delegates_plugins(multus) if each["type"] not in kinds]
    return {key: value for key, value in _with_delegates_plugins(multus, kept).items() if key != "capabilities"}


def _delegates_plugins(multus: dict[str, Any]) -> list[dict[str, Any]]:
    delegates = multus.get("delegates")
    first = delegates[0] if isinstance(delegates, list) and delegates else None
    plugins = first.get("plugins") if isinstance(first, dict) else None
    if not isinstance(plugins, list):
        return []
    return plugins if all(isinstance(each, dict) and isinstance(each.get("type"), str) for each in plugins) else []


def _with_delegates_plugins(multus: dict[str, Any], plugins: list[dict[str, Any]]) -> dict[str, Any]:
    if not plugins:
        return multus
    first, *others = multus["delegates"]
    return {**multus, "delegates": [{**first, "plugins": plugins}, *others]}


def _among(plugin: dict[str, Any], others: Sequence[dict[str, Any]]) -> bool:
    """Say whether one of the others does the same: of a mesh there is one, of `tuning` there may be several."""
    kind = plugin.get("type")
    alike = [other for other in others if other.get("type") == kind]
    return any(kind not in _REFERENCE or equal(_bare(plugin), _bare(other)) for other in alike)


def _bare(plugin: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plugin.items() if key not in _OF_THE_LIST}


# ---- the time that a mesh is given ----


def until(
    outputs: Mapping[str, Output], stood: str, wanted: Put, *, due: bool, master_since: float = float("-inf")
) -> float:
    """Return until when a mesh is left alone to end what it has begun (monotonic seconds).

    `stood` is under which of our names the configuration stood last (empty: it never did), `due` says that one is to be
    written, and `master_since` since when the master is as it is.
    """
    times = [*_converting(outputs), *_rewriting(outputs, stood)]
    if due:
        times += _moving(outputs, wanted, master_since)
    return max(times, default=float("-inf"))


def _converting(outputs: Mapping[str, Output]) -> Iterator[float]:
    """Find a list that is being made of a single plugin.

    Istio writes the list over `NAME.conf` and then renames that. Linkerd writes `NAME.conflist`, its older script not
    in one step, and then removes `NAME.conf`. Whoever takes `NAME.conf` away meanwhile ends their processes.
    """
    for name, single in outputs.items():
        if not name.endswith(".conf") or single.configuration is None:
            continue
        beside = outputs.get(name + "list")
        if single.configuration.listed:
            yield single.since + HANDOVER
        elif beside and (beside.cut_off or (beside.configuration and beside.configuration.chained)):
            yield beside.since + HANDOVER


def _rewriting(outputs: Mapping[str, Output], stood: str) -> Iterator[float]:
    """Find a configuration that is gone, or a list that is cut off: a mesh may be about to write it.

    Linkerd takes its plugin out in place, that is, it empties the file and then writes; what is put there in between
    loses its last word, and a plugin would stay chained whose binary is gone. Its older script moves every file away
    and back from another file system, which removes, makes and then fills it, and ends when a file is there already.
    """
    if not stood or standing(outputs) is not None:
        return
    there, is_list = outputs[stood], stood.endswith(".conflist")
    if isinstance(there.look, Absent) and there.look.missing:
        yield there.since + (REWRITE if is_list else MOVE)
    elif is_list and there.cut_off:
        yield there.since + REWRITE


def _moving(outputs: Mapping[str, Output], wanted: Put, master_since: float) -> Iterator[float]:
    """Find what differs from what is wanted only in where meshes are: one may be on its way into, or out of, both.

    Linkerd patches the network's file and ours, one after the other, and answers each write of ours with one of its
    own. Were ours written after each of its steps, that would go to and fro. So both files must have come to rest.
    """
    ours = parsed(wanted.document)
    for each in outputs.values():
        if ours and each.configuration and same_but_for_meshes(ours, each.configuration):
            yield max(each.since, master_since) + HANDOVER
