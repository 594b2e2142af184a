"""What the CNI runtime reads of a configuration directory, by the rules of libcni. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable

from entrypoint.cni import document as cni

SUFFIXES = (*cni.SUFFIXES, ".json")
"""What libcni reads of a configuration directory."""


def in_byte_order(names: Iterable[str]) -> list[str]:
    """Sort file names by their bytes, as libcni does; the names come from a directory and may not be UTF-8."""
    return sorted(names, key=os.fsencode)


def in_order(names: Iterable[str]) -> list[str]:
    """Return the files of a configuration directory that a CNI runtime reads, the first first.

    By the rules of libcni's `ConfFiles`: three suffixes, byte order. containerd stops at the first file, whatever is
    in it; CRI-O goes on to the next when it cannot load one.
    """
    return in_byte_order(name for name in names if name.endswith(SUFFIXES))


def fault(name: str, content: bytes) -> str | None:
    """Say why a CNI runtime that reads this file does not use Multus; None when it does.

    By the rules of libcni: a list is only read from a `.conflist`, and a single plugin only from the other suffixes.
    """
    if not name.endswith(SUFFIXES):
        return f"no CNI runtime reads a file that ends in none of {', '.join(SUFFIXES)}: give it such a name"
    try:
        document = cni.parse(content)
    except cni.InvalidJsonError as error:
        return str(error)
    if not isinstance(document, dict):
        return f"expected a JSON object, found {cni.kind(document)}"
    listed = name.endswith(".conflist")
    if listed and not isinstance(document.get("plugins"), list):
        return "a .conflist must hold a list of 'plugins': give the file the suffix .conf"
    if not listed and "plugins" in document and not cni.is_text(document.get("type")):
        return "a list of 'plugins' is only read from a .conflist: give the file that suffix"
    try:
        first = (cni.as_list if listed else cni.as_single)(document).first_plugin
    except cni.UnusableError as error:
        return str(error)
    if first == "multus":
        wrong = cni.misfit(document["plugins"][0] if listed else document, cni.MULTUS)
        return f"{wrong}: Multus refuses it" if wrong else None
    what = "the 'multus' of the thin plugin" if first in cni.MULTUS_TYPES else "Multus"
    return f"it runs {first!r} and not {what}"
