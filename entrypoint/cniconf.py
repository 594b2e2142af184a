"""A CNI configuration: what is in the file, whether Multus can wrap it, and why not."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from entrypoint.settings import GENERATED, version_key

SUFFIXES = (".conf", ".conflist")
RUNTIME_SUFFIXES = (*SUFFIXES, ".json")
"""What libcni reads of a configuration directory."""
RETIRED_SUFFIX = ".old"
"""What `--rename-conf-file` adds to the name of a master."""

MAX_BYTES = 1 << 20
"""The most that is read of one file, in bytes: real configurations have some kilobytes, and a container some MiB."""

MAX_DEPTH = 400
"""How deep objects and lists may nest: far more than any configuration does, and well inside what json can write."""

MULTUS_TYPES = frozenset({"multus", "multus-shim"})


class Master(NamedTuple):
    """A configuration that can be wrapped."""

    document: dict[str, Any]
    name: str
    cni_version: str | None
    capabilities: tuple[str, ...]
    """Those that any of its plugins enables, in the order of the file."""


class Unusable(NamedTuple):
    """A file that cannot be wrapped, and why."""

    reason: str


class Multus:
    """A file that is itself a Multus configuration: wrapped once more it would loop (upstream issue 1108)."""


class NoFile(NamedTuple):
    """What stands there under a candidate's name is no regular file: nobody will write it to its end."""

    reason: str


Verdict = Master | Unusable | Multus | NoFile


class InvalidJsonError(ValueError):
    """The bytes are not the JSON that a CNI runtime would read; the message says where."""


def is_candidate_name(name: str) -> bool:
    """Say whether a file of this name may be a master configuration: what we generate never is."""
    return name.endswith(SUFFIXES) and name not in GENERATED


def examine(content: bytes) -> Verdict:
    """Judge the content of a candidate; its name plays no part.

    Cilium once wrote a single plugin into `05-cilium.conflist`, so the content decides and not the suffix.
    """
    try:
        document = parse(content)
    except InvalidJsonError as error:
        return Unusable(str(error))
    if not isinstance(document, dict):
        return Unusable(f"expected a JSON object, found {_kind(document)}")
    plugins = document.get("plugins")
    listed = [plugin for plugin in plugins if isinstance(plugin, dict)] if isinstance(plugins, list) else []
    types = [document.get("type"), *(plugin.get("type") for plugin in listed)]
    if any(isinstance(kind, str) and kind in MULTUS_TYPES for kind in types):
        return Multus()
    fault = _fault(document) or _too_deep(document)
    if fault:
        return Unusable(fault)
    enabling = [document] if _text(document.get("type")) else listed
    return Master(
        document=document,
        name=document["name"],
        cni_version=document.get("cniVersion") or None,
        capabilities=_enabled_capabilities(enabling),
    )


def parse(content: bytes) -> Any:
    """Read JSON as strictly as a CNI runtime does: UTF-8, no NaN, no numbers beyond a double's range.

    Raises `InvalidJsonError` with line and column where the parser knows them.
    """
    if not content.strip():
        raise InvalidJsonError("the file is empty")
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidJsonError(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except InvalidJsonError:
        raise
    except RecursionError:
        raise InvalidJsonError("nested too deeply") from None
    except ValueError:
        # CPython refuses to convert integers of more than 4,300 digits.
        raise InvalidJsonError("holds a number that is too long") from None


def wrapped_master(content: bytes) -> dict[str, Any] | None:
    """Return the master inside a Multus configuration that this program wrote, without its version.

    The version may have been put in. None for any other content.
    """
    try:
        document = parse(content)
        plugin = document["plugins"][0] if "plugins" in document else document
        return without_version(plugin["delegates"][0])
    except (InvalidJsonError, TypeError, LookupError, AttributeError):
        return None


def without_version(document: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without its `cniVersion`."""
    return {key: value for key, value in document.items() if key != "cniVersion"}


def _fault(document: dict[str, Any]) -> str | None:
    """Say what keeps a JSON object from being a usable master."""
    if not _text(document.get("name")):
        return "has no 'name'"
    version = document.get("cniVersion", "")
    if not isinstance(version, str):
        return f"its 'cniVersion' is {_kind(version)}, expected a string"
    if version:
        try:
            version_key(version)
        except ValueError:
            return f"its 'cniVersion' {version!r} is not a version such as 0.3.1"
    if _text(document.get("type")):
        return None
    plugins = document.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        return "has neither a 'type' nor a list of 'plugins'"
    for index, plugin in enumerate(plugins):
        if not isinstance(plugin, dict) or not _text(plugin.get("type")):
            return f"plugin {index + 1} of its 'plugins' has no 'type'"
    return None


def _too_deep(document: dict[str, Any]) -> str | None:
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


def _enabled_capabilities(plugins: list[dict[str, Any]]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for plugin in plugins:
        capabilities = plugin.get("capabilities")
        if isinstance(capabilities, dict):
            found.update((name, None) for name, enabled in capabilities.items() if enabled is True)
    return tuple(found)


def _text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _refuse_constant(name: str) -> float:
    raise InvalidJsonError(f"not JSON: {name} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        raise InvalidJsonError(f"the number {digits[:40]} is out of range")
    return number
