"""CNI plugins in `check`: which ones a configuration names, and what this node has of them. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple


class Programs(NamedTuple):
    """What this container can see of the node."""

    fault: Callable[[str], str | None]
    """Says what is wrong with the program of a plugin type; None for nothing."""
    where: str
    """The directories in which it looks."""
    unseen: str
    """The directory of the host in which Multus looks too, and which this container cannot see; empty for none."""
    socket_there: Callable[[str], bool | None]
    """Says whether there is a file of this path on the host; None when that cannot be seen."""


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
