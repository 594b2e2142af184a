"""The cluster's networks in `check`: whether this node has the plugins that NetworkAttachmentDefinitions name.

A plugin that is missing is by far the commonest reason for a pod without `net1` (upstream issues 1413, 1038, 739).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from entrypoint.check.findings import SERVER_TROUBLE, Finding, failed, passed, skipped, warned
from entrypoint.check.plugins import Programs, plugin_types
from entrypoint.cluster import lists
from entrypoint.cluster.client import Answer
from entrypoint.cluster.lists import Get
from entrypoint.cni.document import InvalidJsonError, parse

PLUGINS, DHCP = "networks.plugins", "networks.dhcp"
RULE = "{apiGroups: [k8s.cni.cncf.io], resources: [network-attachment-definitions], verbs: [get, list]}"

_PATH = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
_DHCP_SOCKET = "/run/cni/dhcp.sock"
"""Where the reference plugins' DHCP daemon listens on the host, unless a network names another socket."""
_SHOWN = 5
"""How many networks are named for one plugin; a cluster may have thousands."""


@dataclass(slots=True)
class Networks:
    """What the NetworkAttachmentDefinitions of the cluster need on a node; networks are NAMESPACE/NAME."""

    plugins: dict[str, dict[str, None]] = field(default_factory=dict)
    """The networks that need a plugin type."""
    sockets: dict[str, dict[str, None]] = field(default_factory=dict)
    """The networks that need a DHCP daemon at a socket."""
    unreadable: dict[str, None] = field(default_factory=dict)
    """Those whose configuration is not JSON."""
    refused: Answer | None = None
    """They could not be listed."""


def ask(get: Get) -> Networks:
    """Go through all NetworkAttachmentDefinitions. Raises `cluster.UnreachableError`."""
    networks = Networks()
    try:
        for each in lists.objects(get, _PATH):
            _note(networks, each)
    except lists.RefusedError as error:
        networks.refused = error.answer
    return networks


def _note(networks: Networks, attachment: dict[str, Any]) -> None:
    metadata, spec = attachment.get("metadata") or {}, attachment.get("spec") or {}
    name = f"{metadata.get('namespace')}/{metadata.get('name')}"
    config = spec.get("config")
    if not config:
        return  # it stands for a file on each node
    try:
        document = parse(str(config).encode("utf-8", "replace"))
    except InvalidJsonError:
        networks.unreadable[name] = None
        return
    for kind in plugin_types(document):
        networks.plugins.setdefault(kind, {})[name] = None
    for socket in _dhcp_sockets(document):
        networks.sockets.setdefault(socket, {})[name] = None


def _dhcp_sockets(document: Any) -> Iterator[str]:
    plugins = document.get("plugins") if isinstance(document, dict) else None
    for plugin in [document, *(plugins if isinstance(plugins, list) else [])]:
        ipam = plugin.get("ipam") if isinstance(plugin, dict) else None
        if isinstance(ipam, dict) and ipam.get("type") == "dhcp":
            yield str(ipam.get("daemonSocketPath") or _DHCP_SOCKET)


# ---- judging ----


def findings(networks: Networks, programs: Programs) -> Iterator[Finding]:
    """Say what this node lacks of what the networks need."""
    if networks.refused is not None:
        why = f"cannot list the cluster's networks: {networks.refused.message}"
        if networks.refused.forbidden:
            yield skipped(PLUGINS, why, f"add this rule to the ClusterRole: {RULE}")
        else:
            yield warned(PLUGINS, why, SERVER_TROUBLE)
        yield skipped(DHCP, f"see {PLUGINS}")
        return
    yield _plugins(networks, programs)
    yield _dhcp(networks, programs)


def _plugins(networks: Networks, programs: Programs) -> Finding:
    faults = {kind: programs.fault(kind) for kind in sorted(networks.plugins)}
    missing = [f"{kind} ({fault}) for {_named(networks.plugins[kind])}" for kind, fault in faults.items() if fault]
    unreadable = [f"no JSON in spec.config of {_named(networks.unreadable)}"] if networks.unreadable else []
    found = f"not in {programs.where}: {'; '.join([*missing, *unreadable])}"
    if missing and programs.unseen:
        return warned(PLUGINS, found, f"are they in {programs.unseen} on the host?")
    if missing:
        advice = "install them on this node: a pod that asks for one of these networks cannot start here"
        return failed(PLUGINS, found, advice)
    if unreadable:
        return warned(PLUGINS, unreadable[0], "correct these networks")
    return passed(PLUGINS, f"all are there: {', '.join(faults)}" if faults else "no network names a plugin")


def _dhcp(networks: Networks, programs: Programs) -> Finding:
    there = {socket: programs.socket_there(socket) for socket in sorted(networks.sockets)}
    for socket, found in there.items():
        if not found:
            how = "is not there" if found is False else "cannot be seen from this container"
            fault = f"{socket} of the host {how}, and {_named(networks.sockets[socket])} need a DHCP daemon"
            return warned(DHCP, fault, "run the daemon of the dhcp plugin on this node (`dhcp daemon`)")
    if there:
        return passed(DHCP, f"the daemon's socket is there: {', '.join(there)}")
    return passed(DHCP, "no network takes its addresses from a DHCP daemon")


def _named(networks: Iterable[str]) -> str:
    names = sorted(networks)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
