"""The cluster's networks in `check`: whether this node has what they need.

A plugin that is missing is by far the commonest reason for a pod without `net1` (upstream issues 1413, 1038, 739).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from entrypoint.check.findings import Finding, failed, passed, skipped, warned
from entrypoint.check.host import Host, missed
from entrypoint.cluster.client import Get, RefusedError, attachment_path, objects, part, quoted
from entrypoint.cluster.pods import shown
from entrypoint.cni.document import InvalidJsonError, parse, plugin_types, size_fault

PLUGINS, DHCP, FILES, DEFAULT = "networks.plugins", "networks.dhcp", "networks.files", "networks.default"
RULE = "{apiGroups: [k8s.cni.cncf.io], resources: [network-attachment-definitions], verbs: [get, list]}"

_PATH = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
_DHCP_SOCKET = "/run/cni/dhcp.sock"
"""Where the reference plugins' DHCP daemon listens on the host, unless a network names another socket."""
_SHOWN = 5
"""How many networks are named for one plugin; a cluster may have thousands."""
_MOST = 25
"""How many plugins are named, or looked for in one network: none has so many."""
_INSTALL = "install them on this node (--plugin-bin-dir does): a pod that asks for such a network cannot start here"
_KEPT = 20_000
"""How many names are kept, of networks with what each needs: some MiB, and whoever may make networks can make more."""


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

    def note(self, needed: dict[str, None], name: str) -> None:
        """Keep a name, once."""
        self.kept += name not in needed
        needed[name] = None


def ask(get: Get) -> Networks:
    """Go through all NetworkAttachmentDefinitions. Raises `RefusedError` and `UnreachableError`."""
    networks = Networks()
    for each in objects(get, _PATH):
        _note(networks, each)
        if networks.kept >= _KEPT:
            break
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
    for kind in plugin_types(document)[:_MOST]:
        networks.note(networks.plugins.setdefault(quoted(kind), {}), name)
    for socket in _dhcp_sockets(document):
        networks.note(networks.sockets.setdefault(quoted(socket), {}), name)


def _dhcp_sockets(document: Any) -> Iterator[str]:
    plugins = document.get("plugins") if isinstance(document, dict) else None
    for plugin in [document, *(plugins if isinstance(plugins, list) else [])][:_MOST]:
        ipam = plugin.get("ipam") if isinstance(plugin, dict) else None
        if isinstance(ipam, dict) and ipam.get("type") == "dhcp":
            yield str(ipam.get("daemonSocketPath") or _DHCP_SOCKET)


# ---- judging ----


def findings(host: Host, multus: Mapping[str, Any], get: Get) -> Iterator[Finding]:
    """Say what this node lacks of what the cluster's networks need.

    `multus` is Multus's part of the configuration that stands. Raises `RefusedError` and `UnreachableError`.
    """
    try:
        networks = ask(get)
    except RefusedError as error:
        if error.answer.status != HTTPStatus.NOT_FOUND:
            raise
        yield from (skipped(each, "see cluster.attachments") for each in (PLUGINS, DHCP))
        return
    yield _plugins(networks, host)
    yield _dhcp(networks, host)
    if networks.files:
        yield _files(networks, host, _directory(multus))


def _plugins(networks: Networks, host: Host) -> Finding:
    faults = {kind: host.fault(kind) for kind in sorted(networks.plugins)}
    missing = [f"{kind} ({fault}) for {_named(networks.plugins[kind])}" for kind, fault in faults.items() if fault]
    others = []
    if networks.unreadable:
        others.append(f"no JSON, or too large, in spec.config of {_named(networks.unreadable)}")
    if networks.kept >= _KEPT:
        others.append(f"only the first {_KEPT} networks were looked at")
    if missing:
        if len(missing) > _MOST:
            missing[_MOST:] = [f"and {len(missing) - _MOST} more plugins"]
        return missed(PLUGINS, host, "; ".join([*missing, *others]), _INSTALL)
    if others:
        advice = "correct spec.config: a pod that asks for such a network cannot start"
        return warned(PLUGINS, "; ".join(others), advice if networks.unreadable else "look at the others yourself")
    return passed(PLUGINS, f"all are there: {shown(faults, _MOST)}" if faults else "no network names a plugin")


def _dhcp(networks: Networks, host: Host) -> Finding:
    there = {socket: host.there(socket) for socket in sorted(networks.sockets)}
    for socket, found in there.items():
        if not found:
            how, advice = "is not there", "run the daemon of the dhcp plugin on this node (`dhcp daemon`)"
            if found is None:
                how, advice = "cannot be seen from this container", f"look on the node for it: {advice}"
            fault = f"{socket} of the host {how}, and {_named(networks.sockets[socket])} need a DHCP daemon"
            return warned(DHCP, fault, advice)
    if there:
        return passed(DHCP, f"the daemon's socket is there: {shown(there, _SHOWN)}")
    return passed(DHCP, "no network takes its addresses from a DHCP daemon")


def _files(networks: Networks, host: Host, directory: str) -> Finding:
    """Judge the networks without `spec.config`: Multus looks for a file by the name inside it."""
    names = host.named_in(directory)
    lacking = [each for each in sorted(networks.files) if names is None or each.partition("/")[2] not in names]
    wanted = f"a CNI configuration of the network's name in {directory} of this node"
    if not lacking:
        return passed(FILES, f"networks without spec.config have {wanted}: {_named(networks.files)}")
    if names is None:
        return warned(FILES, f"networks without spec.config: {_named(lacking)}", f"each needs {wanted}: look there")
    advice = "put it there, or give the network a spec.config: a pod that asks for it cannot start here"
    return failed(FILES, f"networks without spec.config, and without {wanted}: {_named(lacking)}", advice)


def default(host: Host, multus: Mapping[str, Any], get: Get) -> Iterator[Finding]:
    """Judge the default network that Multus's configuration names instead of holding it (`clusterNetwork`).

    Raises `RefusedError` and `UnreachableError`.
    """
    name, directory = str(multus["clusterNetwork"]), _directory(multus)
    what = f"clusterNetwork {quoted(name)!r}"
    correct = "correct clusterNetwork in the configuration of --multus-conf-file: no pod can start on this node"
    if "/" in name:  # a file or a directory, and no object of the cluster
        there = host.there(name)
        if there:
            yield passed(DEFAULT, f"{what} is there")
        elif there is None:
            yield skipped(DEFAULT, f"{what} cannot be seen from this container", "look on the node whether it is there")
        else:
            yield failed(DEFAULT, f"{what} is not on this node", correct)
        return
    namespace = str(multus.get("multusNamespace") or "kube-system")
    answer, names = get(attachment_path(namespace, name)), host.named_in(directory)
    fault = f"{what} is no NetworkAttachmentDefinition in {namespace}"
    if answer.ok:
        yield passed(DEFAULT, f"{what} is a NetworkAttachmentDefinition in {namespace}")
    elif names is not None and name in names:
        yield passed(DEFAULT, f"{what} is in {directory}")
    elif answer.status != HTTPStatus.NOT_FOUND:
        raise RefusedError(answer)
    elif names is None:
        yield warned(DEFAULT, fault, f"is it the name of a CNI configuration in {directory} of this node?")
    else:
        yield failed(DEFAULT, f"{fault}, and no CNI configuration in {directory} of this node", correct)


def _directory(multus: Mapping[str, Any]) -> str:
    """Return the host's directory in which Multus looks for a network by the name of its CNI configuration."""
    return str(multus.get("confDir") or "/etc/cni/multus/net.d")


def _named(networks: Iterable[str]) -> str:
    return shown(sorted(networks), _SHOWN)
