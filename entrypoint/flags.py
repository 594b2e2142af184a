"""The flags: what operators may say, in the order and the words of `--help`."""

from __future__ import annotations

from typing import Any

import click

from entrypoint import settings
from entrypoint.options import BOOLEAN, SECONDS, Flag


def _path(group: str, name: str, help_text: str, default: str = "", shown: str | bool = True) -> Flag:
    shown = shown if default or shown is not True else False
    return Flag(group, name, help_text, default=default, metavar="PATH", show_default=shown)


def _switch(group: str, name: str, help_text: str, default: str = "false", **attributes: Any) -> Flag:
    attributes = {"default": default, "show_default": True, **attributes}
    return Flag(group, name, help_text, type=BOOLEAN, metavar="[=BOOLEAN]", **attributes)


def _conf_file(default: str) -> Flag:
    help_text = "Configuration to copy to the node, or 'auto' to generate one around the default network's."
    return _path(_PATHS, "--multus-conf-file", help_text, default)


_PATHS = "Paths"
_GENERATED = "Generated configuration (--multus-conf-file=auto)"
_MASTER = "Master, the default network's configuration"
_BEHAVIOUR = "Behaviour on the node"
_PROGRAM = "The entrypoint itself"

_LOG_LEVELS = ("debug", "verbose", "error", "panic")
_BIN_DIR = "/host/opt/cni/bin"

BIN_FILE = _path(_PATHS, "--multus-bin-file", "The multus binary to install.", "/usr/src/multus-cni/bin/multus")
LOG_FORMAT = Flag(
    _PROGRAM,
    "--log-format",
    "Format of this program's own log.",
    type=click.Choice(["text", "json"], case_sensitive=False),
    default="text",
    show_default=True,
)
DRY_RUN = _switch(_PROGRAM, "--dry-run", "Print what would be done, secrets masked, and touch nothing.")

ENTRYPOINT: tuple[Flag, ...] = (
    _path(_PATHS, "--cni-conf-dir", "Directory that gets the Multus configuration.", "/host/etc/cni/net.d"),
    _path(_PATHS, "--cni-bin-dir", "Directory that gets the multus binary.", _BIN_DIR),
    BIN_FILE,
    _conf_file("/usr/src/multus-cni/images/70-multus.conf"),
    _path(
        _PATHS,
        "--multus-autoconfig-dir",
        "With 'auto', directory in which the default network writes its configuration.",
        shown="the value of --cni-conf-dir",
    ),
    _path(
        _PATHS,
        "--service-account-dir",
        "Directory of the token and CA that go into the kubeconfig.",
        "/var/run/secrets/kubernetes.io/serviceaccount",
    ),
    _path(
        _GENERATED,
        "--multus-kubeconfig-file-host",
        "Kubeconfig that Multus shall use, as the host sees it.",
        shown=settings.DEFAULT_KUBECONFIG_ON_HOST,
    ),
    _path(_GENERATED, "--multus-cni-conf-dir", "Directory in which Multus looks for further CNI configurations."),
    Flag(
        _GENERATED,
        "--cni-version",
        "CNI version of the configuration.",
        metavar="VERSION",
        show_default="the master's",
    ),
    _switch(
        _GENERATED,
        "--force-cni-version",
        "Write --cni-version into the wrapped master too, whatever it says.",
        hidden=True,
    ),
    _switch(_GENERATED, "--namespace-isolation", "Let pods use network attachments of their own namespace only."),
    Flag(
        _GENERATED,
        "--global-namespaces",
        "Namespaces, separated by commas, whose network attachments every pod may use in spite of isolation.",
        metavar="NAMES",
    ),
    Flag(
        _GENERATED,
        "--multus-log-level",
        f"What Multus logs: {', '.join(_LOG_LEVELS)}.",
        type=click.Choice(_LOG_LEVELS, case_sensitive=False),
        default=None,
        metavar="LEVEL",
    ),
    _path(_GENERATED, "--multus-log-file", "File on the host that Multus logs to."),
    _switch(_GENERATED, "--multus-log-to-stderr", "Let Multus log to its stderr.", default="true"),
    _switch(_GENERATED, "--override-network-name", "Name the network as the master does."),
    _path(
        _GENERATED,
        "--readiness-indicator-file",
        "File on the host that must exist before Multus sets up a pod.",
    ),
    _path(_GENERATED, "--additional-bin-dir", "Directory on the host in which Multus also looks for plugins."),
    Flag(
        _GENERATED,
        "--multus-conf-patch",
        "Whatever else Multus knows: a JSON merge patch (RFC 7386) for its part of the configuration, or a file of it.",
        metavar="JSON|PATH",
    ),
    _switch(
        _GENERATED,
        "--wait-for-readiness-indicator",
        "Write the configuration only once the file of --readiness-indicator-file is there.",
    ),
    Flag(
        _MASTER,
        "--multus-master-cni-file-name",
        "The one file of the autoconfig directory to wrap.",
        metavar="NAME",
        show_default="the alphabetically first",
    ),
    Flag(
        _MASTER,
        "--multus-master-cni-exclude",
        "Files that are never the master unless named: a pattern such as '*-podman-*'. May be given several times.",
        metavar="GLOB",
        multiple=True,
        default=(),
    ),
    _switch(_MASTER, "--rename-conf-file", "Rename the master to NAME.old once it is wrapped."),
    _switch(_MASTER, "--skip-config-watch", "Do not follow changes of the master."),
    Flag(
        _MASTER,
        "--wait-timeout",
        "How long to wait for a first master before giving up: seconds, or as 10m.",
        type=SECONDS,
        default="600",
        show_default=True,
        metavar="DURATION",
    ),
    _switch(_BEHAVIOUR, "--skip-multus-binary-copy", "Leave the installed multus binary alone."),
    _switch(
        _BEHAVIOUR,
        "--cleanup-config-on-exit",
        "Remove the configuration when the program ends, and while there is no master.",
    ),
    _switch(
        _BEHAVIOUR,
        "--skip-tls-verify",
        "Write a kubeconfig that does not verify the API server's certificate.",
        env=["SKIP_TLS_VERIFY"],
    ),
    _switch(
        _BEHAVIOUR,
        "--restart-crio",
        "Restart CRI-O once, after the first change of the configuration in this run.",
    ),
    Flag(
        _BEHAVIOUR,
        "--startup-taint",
        "Taint to remove from this node once it is configured; needs NODE_NAME.",
        metavar="KEY[:EFFECT]",
    ),
    Flag(
        _BEHAVIOUR,
        "--repair-pods",
        "Once the node is configured, report or evict its pods that lack networks they ask for; needs NODE_NAME.",
        type=click.Choice(["report", "delete"]),
        default=None,
        metavar="report|delete",
    ),
    _path(_BEHAVIOUR, "--ready-file", "File that exists exactly while the node is as it must be."),
    LOG_FORMAT,
    DRY_RUN,
)
"""Every flag of the entrypoint, in the order in which the help shows them; `check` and `uninstall` take them too."""

CHECK: tuple[Flag, ...] = (
    Flag(
        "Check",
        "--output",
        "How to print the findings.",
        type=click.Choice(["table", "json"], case_sensitive=False),
        default="table",
        show_default=True,
    ),
    Flag(
        "Check",
        "--timeout",
        "How long to wait for the API server: seconds, or as 10s.",
        type=SECONDS,
        default="5",
        show_default=True,
        metavar="DURATION",
    ),
)
"""What only `check` takes."""

UNINSTALL: tuple[Flag, ...] = (
    _path(
        "Uninstall",
        "--multus-data-dir",
        "Directory in which Multus keeps a record of each pod it has attached.",
        "/host/var/lib/cni/multus",
    ),
    _switch("Uninstall", "--wait", "Wait for pods with further networks to go, and then go on, instead of refusing."),
    _switch("Uninstall", "--force", "Go on although such pods are left; their addresses stay reserved."),
)
"""What only `uninstall` takes."""

INSTALL: tuple[Flag, ...] = (
    Flag(
        "Install",
        "--type",
        "Which Multus; this image carries the thin plugin only.",
        "-t",
        "type_",
        default="thin",
        show_default=True,
        metavar="thin",
    ),
    Flag(
        "Install",
        "--dest-dir",
        "Directory that gets the binary.",
        "-d",
        default=_BIN_DIR,
        show_default=True,
        metavar="PATH",
    ),
    BIN_FILE,
    LOG_FORMAT,
    DRY_RUN,
)
"""What `install` takes: its own, under the names that Multus 4.3 gave them, and a few of everybody's."""

ALL: tuple[Flag, ...] = (*ENTRYPOINT, *CHECK, *UNINSTALL, *INSTALL)

OF_AUTO: tuple[Flag, ...] = tuple(flag for flag in ENTRYPOINT if flag.group in (_GENERATED, _MASTER))
"""Those that shape a generated configuration, or choose what it wraps."""


def thin() -> list[Flag]:
    """Return the flags of the entrypoint with the one default that is another in the program of Multus 4.3."""
    return [_conf_file("auto") if flag.name == "multus_conf_file" else flag for flag in ENTRYPOINT]
