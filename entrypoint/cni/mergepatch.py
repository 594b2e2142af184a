"""JSON merge patches (RFC 7386), and the one of `--multus-conf-patch`. Pure.

No library does it better: `json-merge-patch` has no types and changes what it is given; the algorithm is the RFC's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from entrypoint.cni import gojson

PROTECTED = frozenset({"type", "delegates", "cniversion", "name"})
"""What the program decides itself, in small letters: Multus, written in Go, takes a key in any case for its own."""

_NODE_NAME = "__NODE_NAME__"


class InvalidPatchError(ValueError):
    """The content is no patch that can be applied; the message says why."""


def merged(target: Any, patch: Any) -> Any:
    """Return `target` with the patch applied: objects are merged, `null` removes, anything else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def read(content: bytes, node_name: str | None) -> dict[str, Any]:
    """Return the patch for Multus's part of the configuration, `__NODE_NAME__` filled in.

    Raises `InvalidPatchError`.
    """
    if oversize := gojson.size_fault(len(content)):
        raise InvalidPatchError(oversize)
    try:
        patch = gojson.parse(content)
    except gojson.InvalidJsonError as error:
        raise InvalidPatchError(str(error)) from None
    if not isinstance(patch, dict):
        raise InvalidPatchError("expected a JSON object")
    if fault := gojson.depth_fault(patch):
        raise InvalidPatchError(fault)
    touched = [key for key in patch if key.lower() in PROTECTED]
    if touched:
        raise InvalidPatchError(f"{', '.join(touched)}: what this program decides itself cannot be patched")
    # Multus looks for the default network in a namespace that only a path as clusterNetwork makes needless.
    if "auxiliaryCNIChainName" in patch and "/" not in str(patch.get("clusterNetwork", "")):
        raise InvalidPatchError(
            "auxiliaryCNIChainName: every pod fails with it, unless clusterNetwork is the path of a configuration"
        )
    if node_name is None and _NODE_NAME in str(patch):
        raise InvalidPatchError(f"{_NODE_NAME} needs the environment variable NODE_NAME (downward API, spec.nodeName)")
    filled: dict[str, Any] = _filled(patch, node_name or "")
    if oversize := gojson.size_fault(len(json.dumps(filled))):
        raise InvalidPatchError(f"once it is filled in and written, it {oversize}")
    return filled


def remarks(patch: Mapping[str, Any], log_file: str) -> list[str]:
    """Return a warning for each key that has no effect by itself in Multus 4.3."""
    found = []
    if "defaultNetworks" in patch and not patch.get("clusterNetwork"):
        found.append("--multus-conf-patch: defaultNetworks has no effect without clusterNetwork")
    if "logOptions" in patch and not (patch.get("logFile") or log_file):
        found.append("--multus-conf-patch: logOptions has no effect without a log file (--multus-log-file)")
    return found


def _filled(value: Any, node_name: str) -> Any:
    match value:
        case str():
            return value.replace(_NODE_NAME, node_name)
        case list():
            return [_filled(each, node_name) for each in value]
        case dict():
            return {key: _filled(each, node_name) for key, each in value.items()}
        case _:
            return value
