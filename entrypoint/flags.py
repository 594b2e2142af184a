"""The flags: what operators may say, how it is read, and how `--help` shows it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from entrypoint import settings

_TRUE = frozenset({"true", "t", "1", "yes"})
_FALSE = frozenset({"false", "f", "0", "no"})
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(rf"([0-9]+\.?[0-9]*|\.[0-9]+)({'|'.join(_UNITS)})")
_DURATION = re.compile(f"({_PART.pattern})+")
_NO_BREAK = "\N{NON-BREAKING HYPHEN}"


class _Boolean(click.ParamType[bool]):
    name = "boolean"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        if isinstance(value, bool):
            return value
        word = value.lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        return self.fail(f"{value!r} is not a boolean: expected true or false (or t/f, 1/0, yes/no).", param, ctx)


class _Seconds(click.ParamType[float]):
    """A duration as a number of seconds, or as Go and Kubernetes write it."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, str) and _DURATION.fullmatch(value):
            return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds >= 0):
            self.fail(f"{value!r} is not a duration: expected seconds such as 600, or 10m, 90s, 1h30m.", param, ctx)
        return seconds


PREFIX = "ENTRYPOINT_"
"""How the environment variables begin that set a flag."""

BOOLEAN = _Boolean()
SECONDS = _Seconds()


class Flag(click.Option):
    """An option that belongs to a group of the help text, and whose empty value means its default."""

    def __init__(
        self, name: str, help_text: str, *others: str, group: str, env: Sequence[str] = (), **attributes: Any
    ) -> None:
        """`others` are further names; `env` are variables that are read beside `ENTRYPOINT_` + the flag's name."""
        self.group = group
        self.variables = [f"{PREFIX}{name.removeprefix('--').replace('-', '_').upper()}", *env]
        attributes = {"default": "", "help": help_text, "envvar": self.variables, **attributes}
        super().__init__([name, *others], **attributes)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Name the flag, and the environment variable if that is where the value is from."""
        hint = super().get_error_hint(ctx)
        variables = [name for name in self.variables if os.environ.get(name)]
        if ctx is None or not variables or ctx.get_parameter_source(self.name or "") is not ParameterSource.ENVIRONMENT:
            return hint
        return f"{hint} (environment variable {variables[0]})"

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert a value; an empty one, as templated manifests produce, means the default."""
        if self.multiple:
            value = [each for each in value or () if each != ""]
        return super().type_cast_value(ctx, self.default if value == "" else value)

    def usual(self, ctx: click.Context) -> Any:
        """Return the value that it has when nobody says anything."""
        return self.type_cast_value(ctx, self.default)


class FlagCommand(click.Command):
    """A command whose booleans work bare, as in Go's pflag, and whose help is grouped."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line after writing `--flag` as `--flag=true` where the flag is a boolean.

        click's own optional values would take the word that follows, be it the name of a subcommand.
        """
        params = self.get_params(ctx)
        booleans = {name for param in params if param.type is BOOLEAN for name in param.opts}
        others = {name for param in params if isinstance(param, Flag) for name in param.opts} - booleans
        written: list[str] = []
        for before, each, after in zip(["", *args], args, [*args[1:], ""], strict=False):
            bare = each in booleans and before not in others  # behind another flag it is that flag's value
            if bare and after.lower() in _TRUE | _FALSE and not isinstance(self, PeerCommand):
                raise click.UsageError(f"The value of a boolean is joined by '=': {each}={after}", ctx)
            written.append(f"{each}=true" if bare else each)
        return super().parse_args(ctx, written)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, one section a group, without a line's end in the middle of a path."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                name, text = record
                sections.setdefault(getattr(param, "group", "Other"), []).append((name, text.replace("-", _NO_BREAK)))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=28)
        formatter.buffer = [each.replace(_NO_BREAK, "-") for each in formatter.buffer]
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class PeerCommand(FlagCommand):
    """The program by the name of a peer's, which ignores a word that belongs to no flag."""

    allow_extra_args = True


class FlagGroup(FlagCommand, click.Group):
    """The program itself: runs without a subcommand too."""


TAKEN = f"{__name__}.taken"
"""Where a context holds the values that were taken over from the entrypoint that runs in the same container."""
TAKEN_FROM = f"{__name__}.taken_from"
"""Where it holds that one's process."""


def chosen(context: click.Context) -> dict[str, Any]:
    """Return the value of each flag.

    What stands behind a subcommand's name wins over what stands before it, that over what was taken over from an
    entrypoint that runs here, and all over the environment.
    """
    values = dict(context.params)
    if context.parent is not None:
        values.update((name, context.parent.params[name]) for name in values.keys() & context.parent.params.keys())
    taken = context.meta.get(TAKEN, {})
    return {**values, **{name: taken[name] for name in values.keys() & taken.keys()}, **said(context)}


def said(context: click.Context) -> dict[str, Any]:
    """Return the value of each flag that stands on the command line, behind a subcommand's name or before it."""
    values: dict[str, Any] = {}
    for each in (context.parent, context):
        if each is not None:
            on_the_line = (
                name for name in each.params if each.get_parameter_source(name) is ParameterSource.COMMANDLINE
            )
            values.update((name, each.params[name]) for name in on_the_line)
    return {name: values[name] for name in values.keys() & context.params.keys()}


def _flag(group: str, name: str, help_text: str, **attributes: Any) -> Flag:
    return Flag(name, help_text, group=group, **attributes)


def _path(group: str, name: str, help_text: str, default: str = "", shown: str | bool = True) -> Flag:
    shown = shown if default or shown is not True else False
    return Flag(name, help_text, group=group, default=default, metavar="PATH", show_default=shown)


def _switch(group: str, name: str, help_text: str, default: str = "false", **attributes: Any) -> Flag:
    attributes = {"default": default, "show_default": True, **attributes}
    return Flag(name, help_text, group=group, type=BOOLEAN, metavar="[=BOOLEAN]", **attributes)


def _conf_file(default: str) -> Flag:
    help_text = "Configuration to copy to the node, or 'auto' to generate one around the default network's."
    return _path(_PATHS, "--multus-conf-file", help_text, default)


_PATHS = "Paths"
_GENERATED = "Generated configuration (--multus-conf-file=auto)"
_MASTER = "Master, the default network's configuration"
_BEHAVIOUR = "Behaviour on the node"
_PROGRAM = "The entrypoint itself"

BIN_FILE = _path(_PATHS, "--multus-bin-file", "The multus binary to install.", settings.DEFAULT_BIN_FILE)
LOG_FORMAT = _flag(
    _PROGRAM,
    "--log-format",
    "Format of this program's own log.",
    type=click.Choice(["text", "json"], case_sensitive=False),
    default="text",
    show_default=True,
)
DRY_RUN = _switch(_PROGRAM, "--dry-run", "Print what would be done, secrets masked, and touch nothing.")

ENTRYPOINT: tuple[Flag, ...] = (
    _path(_PATHS, "--cni-conf-dir", "Directory that gets the Multus configuration.", settings.DEFAULT_CONF_DIR),
    _path(_PATHS, "--cni-bin-dir", "Directory that gets the multus binary.", settings.DEFAULT_BIN_DIR),
    BIN_FILE,
    _conf_file(settings.DEFAULT_CONF_FILE),
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
        settings.DEFAULT_SERVICE_ACCOUNT_DIR,
    ),
    _path(
        _GENERATED,
        "--multus-kubeconfig-file-host",
        "Kubeconfig that Multus shall use, as the host sees it.",
        shown=settings.DEFAULT_KUBECONFIG_ON_HOST,
    ),
    _path(_GENERATED, "--multus-cni-conf-dir", "Directory in which Multus looks for further CNI configurations."),
    _flag(
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
    _flag(
        _GENERATED,
        "--global-namespaces",
        "Namespaces, separated by commas, whose network attachments every pod may use in spite of isolation.",
        metavar="NAMES",
    ),
    _flag(
        _GENERATED,
        "--multus-log-level",
        f"What Multus logs: {', '.join(settings.LOG_LEVELS)}.",
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
    _flag(
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
    _flag(
        _MASTER,
        "--multus-master-cni-file-name",
        "The one file of the autoconfig directory to wrap.",
        metavar="NAME",
        show_default="the alphabetically first",
    ),
    _flag(
        _MASTER,
        "--multus-master-cni-exclude",
        "Files that are never the master unless named: a pattern such as '*-podman-*'. May be given several times.",
        metavar="GLOB",
        multiple=True,
        default=(),
    ),
    _switch(_MASTER, "--rename-conf-file", "Rename the master to NAME.old once it is wrapped."),
    _switch(_MASTER, "--skip-config-watch", "Do not follow changes of the master."),
    _flag(
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
    _flag(
        _BEHAVIOUR,
        "--startup-taint",
        "Taint to remove from this node once it is configured; needs NODE_NAME.",
        metavar="KEY[:EFFECT]",
    ),
    _flag(
        _BEHAVIOUR,
        "--repair-pods",
        "Once the node is configured, report or evict its pods that lack networks they ask for; needs NODE_NAME.",
        metavar="report|delete",
    ),
    _path(_BEHAVIOUR, "--ready-file", "File that exists exactly while the node is as it must be."),
    LOG_FORMAT,
    DRY_RUN,
)
"""Every flag of the entrypoint, in the order in which the help shows them; `check` and `uninstall` take them too."""

CHECK: tuple[Flag, ...] = (
    _flag(
        "Check",
        "--output",
        "How to print the findings.",
        type=click.Choice(["table", "json"], case_sensitive=False),
        default="table",
        show_default=True,
    ),
    _flag(
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
        settings.DEFAULT_DATA_DIR,
    ),
    _switch("Uninstall", "--wait", "Wait for pods with further networks to go, and then go on, instead of refusing."),
    _switch("Uninstall", "--force", "Go on although such pods are left; their addresses stay reserved."),
)
"""What only `uninstall` takes."""

INSTALL: tuple[Flag, ...] = (
    Flag(
        "--type",
        "Which Multus; this image carries the thin plugin only.",
        "-t",
        "type_",
        group="Install",
        default="thin",
        show_default=True,
        metavar="thin",
    ),
    Flag(
        "--dest-dir",
        "Directory that gets the binary.",
        "-d",
        group="Install",
        default=settings.DEFAULT_BIN_DIR,
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
