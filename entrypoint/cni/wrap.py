"""The two documents that this program writes, made from the templates beside this file: pure.

Around the master goes what the flags chose, changed by a JSON merge patch (RFC 7386). No library does that better:
`json-merge-patch` has no types and changes what it is given.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jinja2

from entrypoint.cni.document import (
    GENERATED_CONF,
    GENERATED_CONFLIST,
    MULTUS,
    InvalidJsonError,
    Master,
    depth_fault,
    field,
    misfit,
    parse,
    size_fault,
    version_key,
    with_field,
)

DEFAULT_NETWORK_NAME = "multus-cni-network"
ASSUMED_CNI_VERSION = "0.1.0"
"""What a configuration without a version counts as (CNI specification)."""

_LIST_SINCE = (1, 0, 0)
_CHECK_SINCE = (0, 4, 0)


class CannotWrapError(ValueError):
    """The master cannot be wrapped as the flags ask; the message says why and what to do."""


class Wrapping(NamedTuple):
    """What the flags say of the configuration around the master."""

    options: Mapping[str, Any] = MappingProxyType({})
    """What goes into Multus's part beside type, capabilities and delegates, in this order."""
    patch: Mapping[str, Any] = MappingProxyType({})
    """A JSON merge patch for Multus's part."""
    cni_version: str | None = None
    """One of `VERSIONS`; None: the master's."""
    force_cni_version: bool = False
    """The master's copy gets `cni_version`, too."""
    override_network_name: bool = False
    """The network is called as the master calls it."""


def multus_configuration(master: Master, wrapping: Wrapping) -> tuple[str, bytes]:
    """Wrap the master; return the file name and content of the configuration that the CNI runtime shall read.

    Below CNI 1.0.0 that is a single plugin in `00-multus.conf`, from 1.0.0 on a list in `00-multus.conflist`.
    Raises `CannotWrapError`.
    """
    version, document = _versions(master, wrapping)
    file_name = GENERATED_CONFLIST if version_key(version) >= _LIST_SINCE else GENERATED_CONF
    inlined = wrapping.override_network_name and master.only_inlined
    capabilities = {"capabilities": dict.fromkeys(master.capabilities, True)} if master.capabilities else {}
    content = _rendered(
        file_name.removeprefix("00-") + ".j2",
        cni_version=version,
        # Our list has to say as the master does: a runtime (CRI-O) takes no attachments down that it does not know,
        # and under the master's name it loads no further plugins either.
        level={key: True for key, on in (("disableGC", master.no_gc), ("loadOnlyInlinedPlugins", inlined)) if on},
        name=master.name if wrapping.override_network_name else DEFAULT_NETWORK_NAME,
        plugin=list(merged({"type": "multus", **capabilities, **wrapping.options}, wrapping.patch).items()),
        master=document,
    )
    parse(content)  # never write what the runtime could not read
    return file_name, content


def kubeconfig(server: str, token: str, certificate_authority: bytes | None) -> bytes:
    """Return the kubeconfig; without a certificate authority, one that does not verify the server's certificate."""
    encoded = None if certificate_authority is None else base64.b64encode(certificate_authority).decode("ascii")
    return _rendered("kubeconfig.j2", server=server, token=token, certificate_authority=encoded)


def _rendered(template: str, **values: object) -> bytes:
    return _TEMPLATES.get_template(template).render(values).encode("ascii")


def _versions(master: Master, wrapping: Wrapping) -> tuple[str, dict[str, Any]]:
    """Return the version of the configuration, and the master's document as it is to be wrapped.

    A master without a version gets the one chosen: with a version-less delegate Multus 4.3 sets pods up but cannot
    tear them down. A version of 0.4.0 or later around an older master is refused, as in Multus 3.9: the runtime
    would call CHECK, which the master's plugins do not know.
    """
    wanted = wrapping.cni_version or master.cni_version or ASSUMED_CNI_VERSION
    document = master.document
    if wrapping.force_cni_version and wrapping.cni_version is not None:
        document = {key: value for key, value in document.items() if key != "cniVersions"}
        return wanted, with_field(document, "cniVersion", wanted)
    if master.cni_version is None:
        return wanted, with_field(document, "cniVersion", wanted)
    if version_key(wanted) >= _CHECK_SINCE > version_key(master.cni_version):
        raise CannotWrapError(
            f"--cni-version={wanted} cannot wrap a master of CNI version {master.cni_version}: from 0.4.0 on the "
            "runtime uses CHECK, which older plugins do not answer; raise the master's cniVersion or drop the flag"
        )
    # Multus has no use for `cniVersions`.
    return wanted, document if document.get("cniVersion") else with_field(document, "cniVersion", master.cni_version)


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("entrypoint.cni"),
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # noqa: S701 - these are no web pages: every value goes through `json`
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
# Non-ASCII characters are escaped, because JSON may hold lone surrogates, which UTF-8 cannot.
_TEMPLATES.filters["json"] = functools.partial(json.dumps, allow_nan=False)


# ---- the patch ----


PROTECTED = frozenset({"type", "delegates", "cniVersion", "name"})
"""What the program decides itself."""

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


def read_patch(content: bytes, node_name: str | None) -> dict[str, Any]:
    """Return the patch for Multus's part of the configuration, `__NODE_NAME__` filled in.

    Raises `InvalidPatchError`.
    """
    if oversize := size_fault(len(content)):
        raise InvalidPatchError(oversize)
    try:
        patch = parse(content)
    except InvalidJsonError as error:
        raise InvalidPatchError(str(error)) from None
    if not isinstance(patch, dict):
        raise InvalidPatchError("expected a JSON object")
    if fault := depth_fault(patch):
        raise InvalidPatchError(fault)
    if node_name is None and _NODE_NAME in str(patch):
        raise InvalidPatchError(f"{_NODE_NAME} needs the environment variable NODE_NAME (downward API, spec.nodeName)")
    # In keys as well, which are judged below as Multus will read them.
    patch = json.loads(json.dumps(patch).replace(_NODE_NAME, json.dumps(node_name or "")[1:-1]))
    if oversize := size_fault(len(json.dumps(patch))):
        raise InvalidPatchError(f"once it is filled in and written, it {oversize}")
    if touched := [key for key in patch if field(MULTUS, key) in PROTECTED]:
        raise InvalidPatchError(f"{', '.join(touched)}: what this program decides itself cannot be patched")
    # Multus, written in Go, takes a key in any letters for its own.
    patch = {field(MULTUS, key) or key: value for key, value in patch.items()}
    if wrong := misfit(patch, MULTUS):
        raise InvalidPatchError(f"{wrong}: Multus would refuse the configuration, and every pod fail")
    if patch.get("cniDir") == "":
        raise InvalidPatchError("cniDir is empty: Multus needs a directory for its records, and every pod would fail")
    if patch.get("prevResult") is not None:
        raise InvalidPatchError("prevResult: the result of an earlier plugin comes from the runtime, and of no file")
    # Multus looks for the default network in a namespace that only a path as clusterNetwork makes needless.
    if patch.get("auxiliaryCNIChainName") and "/" not in (patch.get("clusterNetwork") or ""):
        raise InvalidPatchError(
            "auxiliaryCNIChainName: every pod fails with it, unless clusterNetwork is the path of a configuration"
        )
    return patch


def patch_remarks(patch: Mapping[str, Any]) -> list[str]:
    """Return a warning for each key that has no effect by itself in Multus 4.3."""
    found = []
    if "defaultNetworks" in patch and not patch.get("clusterNetwork"):
        found.append("--multus-conf-patch: defaultNetworks has no effect without clusterNetwork")
    if "logOptions" in patch:  # it applies them before it opens the file, and each call is a new process
        found.append("--multus-conf-patch: logOptions has no effect: the log file is rotated at 100 MB all the same")
    return found


# ---- what is known by its form ----


def has_our_form(content: bytes) -> bool:
    """Say whether a configuration is, byte for byte, what the templates make of what is in it."""
    try:
        document = parse(content)
        (plugin,) = document.get("plugins", [document])
        (master,) = plugin["delegates"]
        return content == _rendered(
            "multus.conf.j2" if plugin is document else "multus.conflist.j2",
            cni_version=document["cniVersion"],
            name=document["name"],
            level={key: value for key, value in document.items() if key not in {"cniVersion", "name", "plugins"}},
            plugin=[each for each in plugin.items() if each[0] not in {"cniVersion", "name", "delegates"}],
            master=master,
        )
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return False


def is_our_kubeconfig(content: bytes) -> bool:
    """Say whether a kubeconfig begins with the line that ours do."""
    return content.partition(b"\n")[0] == kubeconfig("", "", None).partition(b"\n")[0]
