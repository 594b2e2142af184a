"""The cluster's networks in `check`: whether this node has what they need.

A plugin that is missing is by far the commonest reason for a pod without `net1` (upstream issues 1413, 1038, 739).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from entrypoint.check.findings import SERVER_TROUBLE, Finding, failed, passed, skipped, warned
from entrypoint.cluster.client import Answer, Get, RefusedError, objects, quoted
from entrypoint.cluster.pods import part, shown
from entrypoint.cni.document import InvalidJsonError, parse, plugin_types, size_fault

PLUGINS, DHCP, FILES, DEFAULT = "networks.plugins", "networks.dhcp", "networks.files", "networks.default"
RULE = "{apiGroups: [k8s.cni.cncf.io], resources: [network-attachment-definitions], verbs: [get, list]}"

_PATH = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
_DHCP_SOCKET = "/run/cni/dhcp.sock"
"""Where the reference plugins' DHCP daemon listens on the host, unless a network names another socket."""
_SHOWN = 5
"""How many networks are named for one plugin; a cluster may have thousands."""
_KEPT = 20_000
"""How many names are kept, of networks with what each needs: some MiB, and whoever may make networks can make more."""


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
    named_in: Callable[[str], frozenset[str] | None] = lambda _: None
    """Returns the names of the CNI configurations in a directory of the host; None when it cannot be seen."""


class ClusterNetwork(NamedTuple):
    """What Multus's own configuration calls its default network, where that is not in it (`clusterNetwork`)."""

    name: str
    """Of a NetworkAttachmentDefinition or a CNI configuration; with a slash the path of a file or a directory."""
    namespace: str
    directory: str
    """Of the host, in which Multus looks for CNI configurations by name (`confDir`)."""

    @property
    def is_path(self) -> bool:
        """It is named by a path, and no object of the cluster."""
        return "/" in self.name


@dataclass(slots=True)
class Networks:
    """What the NetworkAttachmentDefinitions of the cluster need on a node; networks are NAMESPACE/NAME."""

    plugins: dict[str, dict[str, None]] = field(default_factory=dict)
    """The networks that need a plugin type."""
    sockets: dict[str, dict[str, None]] = field(default_factory=dict)
    """The networks that need a DHCP daemon at a socket."""
    unreadable: dict[str, None] = field(default_factory=dict)
    """Those whose configuration is not JSON, or too large."""
    files: dict[str, None] = field(default_factory=dict)
    """Those without a configuration: they stand for a file on each node."""
    kept: int = 0
    refused: Answer | None = None
    """They could not be listed."""

    def note(self, needed: dict[str, None], name: str) -> None:
        """Keep a name, once."""
        self.kept += name not in needed
        needed[name] = None


def ask(get: Get) -> Networks:
    """Go through all NetworkAttachmentDefinitions. Raises `cluster.UnreachableError`."""
    networks = Networks()
    try:
        for each in objects(get, _PATH):
            _note(networks, each)
            if networks.kept >= _KEPT:
                break
    except RefusedError as error:
        networks.refused = error.answer
    return networks


def _note(networks: Networks, attachment: dict[str, Any]) -> None:
    metadata = part(attachment, "metadata")
    name = quoted(f"{metadata.get('namespace')}/{metadata.get('name')}")
    config = part(attachment, "spec").get("config")
    if not config:
        networks.note(networks.files, name)
        return
    content = str(config).encode("utf-8", "replace")
    try:
        document = None if size_fault(len(content)) else parse(content)
    except InvalidJsonError:
        document = None
    if document is None:
        networks.note(networks.unreadable, name)
    for kind in plugin_types(document)[: _SHOWN * _SHOWN]:  # no network has so many
        networks.note(networks.plugins.setdefault(quoted(kind), {}), name)
    for socket in _dhcp_sockets(document):
        networks.note(networks.sockets.setdefault(quoted(socket), {}), name)


def _dhcp_sockets(document: Any) -> Iterator[str]:
    plugins = document.get("plugins") if isinstance(document, dict) else None
    for plugin in [document, *(plugins if isinstance(plugins, list) else [])][: _SHOWN * _SHOWN]:
        ipam = plugin.get("ipam") if isinstance(plugin, dict) else None
        if isinstance(ipam, dict) and ipam.get("type") == "dhcp":
            yield str(ipam.get("daemonSocketPath") or _DHCP_SOCKET)


# ---- judging ----


def findings(networks: Networks, programs: Programs, directory: str) -> Iterator[Finding]:
    """Say what this node lacks of what the networks need.

    `directory` is the host's in which Multus looks for the file of a network without a configuration.
    """
    if networks.refused is not None:
        if networks.refused.forbidden:
            yield skipped(PLUGINS, "optional: not allowed to list networks", f"see docs/checks.md for the rule: {RULE}")
            yield skipped(DHCP, f"optional: see {PLUGINS}")
        else:
            yield warned(PLUGINS, f"cannot list the cluster's networks: {networks.refused.message}", SERVER_TROUBLE)
            yield skipped(DHCP, f"see {PLUGINS}")
        return
    yield _plugins(networks, programs)
    yield _dhcp(networks, programs)
    if networks.files:
        yield _files(networks, programs, directory)


def _plugins(networks: Networks, programs: Programs) -> Finding:
    faults = {kind: programs.fault(kind) for kind in sorted(networks.plugins)}
    missing = [f"{kind} ({fault}) for {_named(networks.plugins[kind])}" for kind, fault in faults.items() if fault]
    unreadable = [f"no JSON, or too large, in spec.config of {_named(networks.unreadable)}"] * bool(networks.unreadable)
    if networks.kept >= _KEPT:
        unreadable.append(f"only the first {_KEPT} networks were looked at")
    more = [f"and {len(missing) - _SHOWN * _SHOWN} more plugins"] * (len(missing) > _SHOWN * _SHOWN)
    found = f"not in {programs.where}: {'; '.join([*missing[: _SHOWN * _SHOWN], *more, *unreadable])}"
    if missing and programs.unseen:
        return warned(PLUGINS, found, f"are they in {programs.unseen} on the host?")
    if missing:
        advice = (
            "install them on this node (--plugin-bin-dir does): a pod that asks for such a network cannot start here"
        )
        return failed(PLUGINS, found, advice)
    if unreadable:
        return warned(PLUGINS, "; ".join(unreadable), "correct these networks")
    there = shown(faults, _SHOWN * _SHOWN)
    return passed(PLUGINS, f"all are there: {there}" if faults else "no network names a plugin")


def _dhcp(networks: Networks, programs: Programs) -> Finding:
    there = {socket: programs.socket_there(socket) for socket in sorted(networks.sockets)}
    for socket, found in there.items():
        if not found:
            how = "is not there" if found is False else "cannot be seen from this container"
            fault = f"{socket} of the host {how}, and {_named(networks.sockets[socket])} need a DHCP daemon"
            return warned(DHCP, fault, "run the daemon of the dhcp plugin on this node (`dhcp daemon`)")
    if there:
        return passed(DHCP, f"the daemon's socket is there: {shown(there, _SHOWN)}")
    return passed(DHCP, "no network takes its addresses from a DHCP daemon")


def _files(networks: Networks, programs: Programs, directory: str) -> Finding:
    """Judge the networks without `spec.config`: Multus looks for a file by the name inside it."""
    names = programs.named_in(directory)
    lacking = [each for each in sorted(networks.files) if names is None or each.partition("/")[2] not in names]
    wanted = f"a CNI configuration of the network's name in {directory} of this node"
    if not lacking:
        return passed(FILES, f"networks without spec.config have {wanted}: {_named(networks.files)}")
    if names is None:
        return warned(FILES, f"networks without spec.config: {_named(lacking)}", f"each needs {wanted}: look there")
    advice = "put it there, or give the network a spec.config: a pod that asks for it cannot start here"
    return failed(FILES, f"networks without spec.config, and without {wanted}: {_named(lacking)}", advice)


def default(network: ClusterNetwork, answer: Answer | None, programs: Programs) -> Finding:
    """Judge the cluster network; `answer` is what the API server says of a definition of its name."""
    what = f"clusterNetwork {quoted(network.name)!r}"
    correct = "correct clusterNetwork in the configuration of --multus-conf-file: no pod can start on this node"
    if answer is None:
        there = programs.socket_there(network.name)
        if there:
            return passed(DEFAULT, f"{what} is there")
        if there is False:
            return failed(DEFAULT, f"{what} is not on this node", correct)
        return skipped(DEFAULT, f"{what} cannot be seen from this container")
    if answer.ok:
        return passed(DEFAULT, f"{what} is a NetworkAttachmentDefinition in {network.namespace}")
    names = programs.named_in(network.directory)
    if names is not None and network.name in names:
        return passed(DEFAULT, f"{what} is in {network.directory}")
    if answer.status != 404:  # noqa: PLR2004 - HTTP
        return warned(DEFAULT, f"cannot look for {what}: {answer.message}", SERVER_TROUBLE)
    fault = f"{what} is no NetworkAttachmentDefinition in {network.namespace}"
    if names is None:
        return warned(DEFAULT, fault, f"is it the name of a CNI configuration in {network.directory} of this node?")
    return failed(DEFAULT, f"{fault}, and no CNI configuration in {network.directory} of this node", correct)


def _named(networks: Iterable[str]) -> str:
    return shown(sorted(networks), _SHOWN)
