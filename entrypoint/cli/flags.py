"""The flags: what operators may say, in the order and the words of `--help`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import click

from entrypoint.cli.options import PATH_ON_HOST, Flag, seconds
from entrypoint.cni.document import VERSIONS
from entrypoint.settings import AUTO, DEFAULT_KUBECONFIG_ON_HOST, taint

_LOG_LEVELS = ("debug", "verbose", "error", "panic")
_BIN_DIR = "/host/opt/cni/bin"


def _path(name: str, help_text: str, default: str | None = None, *others: str, **attributes: Any) -> Flag:
    return Flag(f"{name} PATH", help_text, *others, type=Path, default=default, **attributes)


def _path_on_host(name: str, help_text: str, **attributes: Any) -> Flag:
    return Flag(f"{name} PATH", help_text, type=PATH_ON_HOST, **attributes)


def _choice(usage: str, help_text: str, *values: str, **attributes: Any) -> Flag:
    return Flag(usage, help_text, type=click.Choice(values, case_sensitive=False), **{"default": None, **attributes})


def _switch(name: str, help_text: str, default: str = "false", **attributes: Any) -> Flag:
    return Flag(f"{name} [=BOOLEAN]", help_text, type=click.BOOL, default=default, **attributes)


def _group(title: str, *flags: Flag) -> tuple[Flag, ...]:
    for flag in flags:
        flag.group = title
    return flags


BIN_FILE = _path("--multus-bin-file", "The multus binary to install.", "/usr/src/multus-cni/bin/multus")

_PATHS = _group(
    "Paths",
    _path("--cni-conf-dir", "Directory that gets the Multus configuration.", "/host/etc/cni/net.d"),
    _path("--cni-bin-dir", "Directory that gets the multus binary.", _BIN_DIR),
    BIN_FILE,
    Flag(
        "--multus-conf-file PATH",
        "Configuration to copy to the node, or 'auto' to make one of the default network's.",
        default="/usr/src/multus-cni/images/70-multus.conf",
    ),
    _path(
        "--multus-autoconfig-dir",
        "With 'auto', directory where the default network writes its configuration.",
        show_default="the value of --cni-conf-dir",
    ),
    _path(
        "--service-account-dir",
        "Directory of the token and CA for the kubeconfig.",
        "/var/run/secrets/kubernetes.io/serviceaccount",
    ),
)

_GENERATED = _group(
    "Generated configuration (--multus-conf-file=auto)",
    _path_on_host(
        "--multus-kubeconfig-file-host",
        "Kubeconfig that Multus reads, as a path on the host.",
        show_default=DEFAULT_KUBECONFIG_ON_HOST,
    ),
    _path_on_host(
        "--multus-cni-conf-dir",
        "Directory on the host with the configurations of networks that are defined without 'spec.config'.",
        show_default="/etc/cni/multus/net.d",
    ),
    _choice("--cni-version VERSION", "CNI version of the configuration.", *VERSIONS, show_default="the master's"),
    _switch("--force-cni-version", "Write --cni-version into the wrapped master too, whatever it says.", hidden=True),
    _switch("--namespace-isolation", "Let pods ask only for networks of their own namespace and of 'default'."),
    Flag(
        "--global-namespaces NAMES",
        "With isolation: namespaces, separated by commas, that every pod may use networks of, instead of 'default'.",
    ),
    _choice(
        "--multus-log-level LEVEL",
        f"What Multus logs: {', '.join(_LOG_LEVELS)}. Without the flag it logs panics only.",
        *_LOG_LEVELS,
    ),
    _path_on_host("--multus-log-file", "File on the host that Multus logs to; set --multus-log-level too."),
    _switch("--multus-log-to-stderr", "Let Multus log to its stderr.", default="true"),
    _switch("--override-network-name", "Give the network the master's name, not multus-cni-network."),
    _path_on_host(
        "--readiness-indicator-file", "File on the host that Multus waits for, 45 s, whenever it sets up a pod."
    ),
    _path_on_host(
        "--additional-bin-dir", "Directory on the host where Multus looks for plugins first, before the runtime's."
    ),
    Flag(
        "--multus-conf-patch JSON|PATH",
        "Other keys of Multus's configuration: a JSON merge patch (RFC 7386), or a file that holds one.",
    ),
    _switch(
        "--wait-for-readiness-indicator",
        "Write the configuration only when the file of --readiness-indicator-file exists.",
    ),
)

_MASTER = _group(
    "Master, the default network's configuration",
    Flag(
        "--multus-master-cni-file-name NAMES",
        "Files that may be the master: names and patterns such as '*cilium*', separated by commas. The first in byte "
        "order is.",
        show_default="the alphabetically first",
    ),
    Flag(
        "--multus-master-cni-exclude GLOB",
        "Pattern of files that are never the master, such as '*-podman-*'. May be given several times.",
        multiple=True,
        default=(),
    ),
    _switch("--rename-conf-file", "Rename the master to NAME.old when it is wrapped."),
    _switch("--skip-config-watch", "Do not follow changes of the master."),
    Flag(
        "--wait-timeout DURATION",
        "How long to wait for a first master before giving up: seconds, or 10m.",
        type=seconds,
        default="600",
    ),
)

_BEHAVIOUR = _group(
    "Behaviour on the node",
    _switch("--skip-multus-binary-copy", "Leave the installed multus binary alone."),
    _path("--plugin-bin-dir", "Directory in this container with plugins to install beside Multus."),
    _switch(
        "--cleanup-config-on-exit", "Remove the configuration when the program ends, and while there is no master."
    ),
    _switch(
        "--skip-tls-verify",
        "Write a kubeconfig that does not verify the API server's certificate.",
        env=["SKIP_TLS_VERIFY"],
    ),
    _switch("--restart-crio", "Restart CRI-O once, after the first change of the configuration in this run."),
    Flag(
        "--startup-taint KEY[:EFFECT]",
        "Taint to remove from this node once it is configured; needs NODE_NAME.",
        type=taint,
        default=None,
    ),
    _choice(
        "--repair-pods report|delete",
        "Report or evict pods that lack networks they ask for, once the node is configured; needs NODE_NAME.",
        "report",
        "delete",
    ),
    _path("--ready-file", "File that exists exactly while the node is configured."),
)

_PROGRAM = _group(
    "The entrypoint itself",
    _choice("--log-format", "Format of this program's own log.", "text", "json", default="text"),
    _switch("--dry-run", "Print what would be done, with secrets masked, and change nothing."),
)

ENTRYPOINT = (*_PATHS, *_GENERATED, *_MASTER, *_BEHAVIOUR, *_PROGRAM)
"""Every flag of the entrypoint, in the order in which the help shows them; `check` and `uninstall` take them too."""

OF_AUTO = (*_GENERATED, *_MASTER)
"""Those that shape a generated configuration, or choose what it wraps."""

CHECK = _group(
    "Check",
    _choice("--output", "How to print the findings.", "table", "json", default="table"),
    Flag("--timeout DURATION", "How long to wait for the API server: seconds, or 10s.", type=seconds, default="5"),
)
"""What only `check` takes."""

UNINSTALL = _group(
    "Uninstall",
    _path("--multus-data-dir", "Directory where Multus keeps a record of each pod.", "/host/var/lib/cni/multus"),
    _switch("--wait", "Wait, instead of refusing, until pods with further networks and the entrypoint are gone."),
    _switch(
        "--force",
        "Go on although such pods are there; their addresses stay reserved. Remove what is not surely ours, too.",
    ),
)
"""What only `uninstall` takes."""

INSTALL = (
    *_group(
        "Install",
        Flag("--type thin", "Which Multus; this image carries the thin plugin only.", "-t", "type_", default="thin"),
        _path("--dest-dir", "Directory that gets the binary.", _BIN_DIR, "-d"),
    ),
    BIN_FILE,
    *_PROGRAM,
)
"""What `install` takes: its own, under the names that Multus 4.3 gave them, and a few of everybody's."""

ALL = (*ENTRYPOINT, *CHECK, *UNINSTALL, *INSTALL)


def thin() -> list[Flag]:
    """Return the flags of the entrypoint with the one default that is another in the program of Multus 4.3."""
    flags = {flag.name: copy.copy(flag) for flag in ENTRYPOINT}
    flags["multus_conf_file"].default = AUTO
    return list(flags.values())
