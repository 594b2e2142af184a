"""A CNI configuration: JSON as programs written in Go read it, whether Multus can wrap it, and why not."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from typing import Any, NamedTuple

GENERATED_CONF = "00-multus.conf"
GENERATED_CONFLIST = "00-multus.conflist"
GENERATED = (GENERATED_CONF, GENERATED_CONFLIST)
"""What this program writes around a master: `.conf` below CNI 1.0.0, `.conflist` from then on."""

SUFFIXES = (".conf", ".conflist")
RETIRED_SUFFIX = ".old"
"""What `--rename-conf-file` adds to the name of a master."""


MULTUS_TYPES = frozenset({"multus", "multus-shim"})

MESH_PLUGINS = frozenset({"istio-cni", "linkerd-cni"})
"""What service meshes chain behind a network."""

META_PLUGINS = MESH_PLUGINS | {
    *("loopback", "portmap", "bandwidth", "firewall", "tuning", "sbr", "vrf"),
    *("kuma-cni", "consul-cni", "egress-cni", "coordinator", "route-override"),
}
"""Plugins that only change what another one made: a configuration that begins with one is no network by itself."""


class Master(NamedTuple):
    """A configuration that can be wrapped."""

    document: dict[str, Any]
    name: str
    cni_version: str | None
    """Its `cniVersion`, or else the highest of its `cniVersions` that this program's Multus knows."""
    capabilities: tuple[str, ...]
    """Those that any of its plugins enables, in the order of the file."""

    @property
    def first_plugin(self) -> str:
        """The type of its first plugin."""
        document = self.document
        return str(document["type"] if is_text(document.get("type")) else document["plugins"][0]["type"])


class Unusable(NamedTuple):
    """A file that cannot be wrapped, and why."""

    reason: str


class Multus:
    """A file that is itself a Multus configuration: wrapped once more it would loop (upstream issue 1108)."""


class NoFile(NamedTuple):
    """What stands there under a candidate's name is no regular file: nobody will write it to its end."""

    reason: str
    link: bool = False
    """It is a link that leads nowhere in this container; on the host it may lead to the default network."""


class Unread(NamedTuple):
    """The look at the file failed: nothing is known of its content."""

    reason: str


Verdict = Master | Unusable | Multus | NoFile | Unread


_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,2}", re.ASCII)
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Those that Multus 4.3 knows, compared as text."""
_NEWEST_VERSION = (1, 1, 0)
_SWITCHES = ("disableCheck", "disableGC", "loadOnlyInlinedPlugins")


def version_key(version: str) -> tuple[int, int, int]:
    """Return a CNI version as numbers to compare; missing parts count as 0, as in libcni.

    Raises ValueError for what is no version.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is not a CNI version such as 0.3.1 or 1.0.0")
    parts = [int(part) for part in version.split(".")]
    major, minor, patch = parts + [0] * (3 - len(parts))
    return major, minor, patch


def is_candidate_name(name: str) -> bool:
    """Say whether a file of this name may be a master configuration: what we generate never is."""
    return name.endswith(SUFFIXES) and name not in GENERATED


def examine(content: bytes) -> Verdict:
    """Judge the content of a candidate; its name plays no part.

    Cilium once wrote a single plugin into `05-cilium.conflist`, so the content decides and not the suffix.
    """
    if oversize := size_fault(len(content)):
        return Unusable(oversize)
    try:
        document = parse(content)
    except InvalidJsonError as error:
        return Unusable(str(error))
    if not isinstance(document, dict):
        return Unusable(f"expected a JSON object, found {kind(document)}")
    plugins = document.get("plugins")
    listed = [plugin for plugin in plugins if isinstance(plugin, dict)] if isinstance(plugins, list) else []
    types = [document.get("type"), *(plugin.get("type") for plugin in listed)]
    if any(isinstance(kind, str) and kind in MULTUS_TYPES for kind in types):
        return Multus()
    why = fault(document) or depth_fault(document) or size_fault(len(json.dumps(document)))
    if why:
        return Unusable(why)
    enabling = [document] if is_text(document.get("type")) else listed
    return Master(
        document=document,
        name=document["name"],
        cni_version=document.get("cniVersion") or _highest(document.get("cniVersions", [])),
        capabilities=_enabled_capabilities(enabling),
    )


def for_multus(document: dict[str, Any]) -> dict[str, Any]:
    """Return a master as Multus reads it: libcni takes a list's switches as text as well, and Multus refuses that."""
    if is_text(document.get("type")):
        return document
    switches = {"true": True, "false": False}
    texts = {key: document[key] for key in _SWITCHES if isinstance(document.get(key), str)}
    return {**document, **{key: switches[text] for key, text in texts.items() if text in switches}}


def without_version(document: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without its `cniVersion`."""
    return {key: value for key, value in document.items() if key != "cniVersion"}


def fault(document: dict[str, Any]) -> str | None:
    """Say what keeps a JSON object from being a usable configuration."""
    if not is_text(document.get("name")):
        return "has no 'name'"
    version = document.get("cniVersion", "")
    if not isinstance(version, str):
        return f"its 'cniVersion' is {kind(version)}, expected a string"
    if version:
        try:
            version_key(version)
        except ValueError:
            return f"its 'cniVersion' {version!r} is not a version such as 0.3.1"
    if is_text(document.get("type")):
        return None
    plugins = document.get("plugins")
    if not isinstance(plugins, list):
        return "has neither a 'type' nor a list of 'plugins'"
    if not plugins:
        return "its list of 'plugins' is empty: Multus loads none from a directory of its name"
    for index, plugin in enumerate(plugins):
        if not isinstance(plugin, dict) or not is_text(plugin.get("type")):
            return f"plugin {index + 1} of its 'plugins' has no 'type'"
    return _versions_fault(document.get("cniVersions", []))


def _versions_fault(versions: object) -> str | None:
    """Say why libcni refuses a list with these `cniVersions`."""
    if not isinstance(versions, list):
        return f"its 'cniVersions' is {kind(versions)}, expected a list"
    for version in versions:
        try:
            version_key(version if isinstance(version, str) else "")
        except ValueError:
            return f"{version!r} of its 'cniVersions' is not a version such as 0.3.1"
    return None


def _highest(versions: object) -> str | None:
    """Return the highest of a list's `cniVersions`, which libcni reads since 1.2, of those that Multus 4.3 knows."""
    if not isinstance(versions, list) or _versions_fault(versions):
        return None
    known = [version for version in versions if version_key(version) <= _NEWEST_VERSION]
    return max(known, key=version_key, default=None)


def _enabled_capabilities(plugins: list[dict[str, Any]]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for plugin in plugins:
        capabilities = plugin.get("capabilities")
        if isinstance(capabilities, dict):
            found.update((name, None) for name, enabled in capabilities.items() if enabled is True)
    return tuple(found)


def is_text(value: object) -> bool:
    """Say whether a value of JSON is a string that says something."""
    return isinstance(value, str) and value != ""


def plugin_types(document: Any) -> list[str]:
    """Return every plugin type that a CNI configuration names, each once: delegates and IPAM too."""
    types: dict[str, None] = {}
    pending = deque([document])
    while pending:
        plugin = pending.popleft()
        if isinstance(plugin, list):
            pending += plugin
        elif isinstance(plugin, dict):
            if isinstance(plugin.get("type"), str):
                types[plugin["type"]] = None
            pending += [plugin.get(key) for key in ("plugins", "delegates", "ipam", "delegate")]
    return list(types)


# ---- JSON as in Go ----

MAX_CONFIGURATION = 256 << 10
"""The most that a configuration may have, in bytes, as a file and as compact JSON. Real ones have some kilobytes."""
MAX_DEPTH = 400
"""How deep objects and lists may nest: far more than any configuration does, and well inside what json can write."""
_SHOWN_DIGITS = 40


class InvalidJsonError(ValueError):
    """The bytes are not the JSON that a CNI runtime would read; the message says where."""


def size_fault(size: int) -> str | None:
    """Say that this is too much for a configuration; None when it is not."""
    return f"has {size} bytes, and {MAX_CONFIGURATION} are the most that is read" if size > MAX_CONFIGURATION else None


def parse(content: bytes) -> Any:
    """Read JSON as strictly as a CNI runtime does: UTF-8, no NaN, no numbers beyond a double's range.

    Raises `InvalidJsonError` with line and column where the parser knows them.
    """
    if not content.strip():
        raise InvalidJsonError("the file is empty")
    try:
        text = content.decode("utf-8")
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole)
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidJsonError(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except _NumberError as error:
        where = json.JSONDecodeError("", text, max(0, text.find(error.literal)))
        raise InvalidJsonError(f"{error} at line {where.lineno} column {where.colno}") from None
    except RecursionError:
        raise InvalidJsonError("nested too deeply") from None


def depth_fault(document: dict[str, Any]) -> str | None:
    """Say that objects and lists nest too deeply to be written; None when they do not."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return None
    return f"nested more than {MAX_DEPTH} levels deep"


def kind(value: object) -> str:
    """Return what kind of JSON a value is, as messages name it."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


class _NumberError(ValueError):
    def __init__(self, message: str, literal: str) -> None:
        super().__init__(message)
        self.literal = literal


def _refuse_constant(name: str) -> float:
    raise _NumberError(f"not JSON: {name} is no JSON number", name)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        short = digits if len(digits) <= _SHOWN_DIGITS else f"{digits[:_SHOWN_DIGITS]}…"
        raise _NumberError(f"the number {short} is beyond what a double holds", digits)
    return number


def _whole(digits: str) -> int:
    _finite(digits)  # a runtime written in Go reads every number as a double
    return int(digits)


def equal(one: object, other: object) -> bool:
    """Compare JSON as Go keeps it: all numbers are doubles, lone surrogates are U+FFFD, keys have no order."""
    return bool(_as_in_go(one) == _as_in_go(other))


def _as_in_go(value: object) -> object:
    match value:
        case bool() | None:
            return (value,)  # in Python, True is 1
        case int() | float():
            return float(value)
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_as_in_go(each) for each in value]
        case dict():
            return {_as_in_go(key): _as_in_go(each) for key, each in value.items()}
        case _:
            return value
