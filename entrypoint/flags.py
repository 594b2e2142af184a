"""The flags: what operators may say, how it is read, and how `--help` shows it."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from entrypoint import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

_TRUE = frozenset({"true", "t", "1", "yes"})
_FALSE = frozenset({"false", "f", "0", "no"})


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
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds >= 0):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


BOOLEAN = _Boolean()
SECONDS = _Seconds()
_SWITCH: dict[str, Any] = {"type": BOOLEAN, "default": False, "show_default": "false", "metavar": "[=BOOLEAN]"}


class Flag(click.Option):
    """An option that belongs to a group of the help text, and whose empty value means its default."""

    def __init__(self, *declarations: str, group: str, env: Sequence[str] = (), **attributes: Any) -> None:
        """`env` names environment variables that are read beside `ENTRYPOINT_` + the flag's name."""
        self.group = group
        name = declarations[0].removeprefix("--").replace("-", "_")
        attributes.setdefault("default", "")
        attributes["envvar"] = [f"ENTRYPOINT_{name.upper()}", *env]
        super().__init__(list(declarations), **attributes)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Name the flag, and the environment variable if that is where the value is from."""
        hint = super().get_error_hint(ctx)
        variables = [name for name in (self.envvar or ()) if os.environ.get(name)]
        if ctx is None or not variables or ctx.get_parameter_source(self.name or "") is not ParameterSource.ENVIRONMENT:
            return hint
        return f"{hint} (environment variable {variables[0]})"

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert a value; an empty one, as templated manifests produce, means the default."""
        return super().type_cast_value(ctx, self.default if value == "" else value)

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        """Show a default that is described in words without the parentheses that click puts around it."""
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        return extra


class FlagCommand(click.Command):
    """A command whose booleans work bare, as in Go's pflag, and whose help is grouped."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line after writing `--flag` as `--flag=true` where the flag is a boolean."""
        return super().parse_args(ctx, self._with_bare_booleans(ctx, args))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, one section a group."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "group", "Other"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=34)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)

    def _with_bare_booleans(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = {name: param for param in self.get_params(ctx) for name in param.opts}
        result: list[str] = []
        rest = list(args)
        while rest and rest[0].startswith("-") and rest[0] != "--":
            token = rest.pop(0)
            option = options.get(token)
            if isinstance(option, Flag) and option.type is BOOLEAN:
                if rest and rest[0].lower() in _TRUE | _FALSE:
                    raise click.UsageError(f"The value of a boolean is joined by '=': {token}={rest[0]}", ctx)
                token += "=true"
            elif isinstance(option, Flag) and not option.is_flag and rest:
                result.append(token)
                token = rest.pop(0)
            result.append(token)
        return result + rest


class FlagGroup(FlagCommand, click.Group):
    """The program itself: runs without a subcommand too."""


def entrypoint_flags() -> list[click.Parameter]:
    """Return every flag of the entrypoint, in the order in which the help shows them."""
    return [*_paths(), *_generated(), *_master(), *_behaviour(), *_program()]


def chosen(context: click.Context) -> dict[str, Any]:
    """Return the value of each flag: what stands behind a subcommand's name wins over what stands before it."""
    values = dict(context.params)
    parent = context.parent
    if parent is not None:
        for name in values.keys() & parent.params.keys():
            if context.get_parameter_source(name) is ParameterSource.DEFAULT:
                values[name] = parent.params[name]
    return values


def _paths() -> list[click.Parameter]:
    def flag(name: str, default: str, help_text: str, shown: str | None = None) -> Flag:
        return Flag(name, group="Paths", default=default, metavar="PATH", show_default=shown or True, help=help_text)

    return [
        flag("--cni-conf-dir", settings.DEFAULT_CONF_DIR, "Directory that gets the Multus configuration."),
        flag("--cni-bin-dir", settings.DEFAULT_BIN_DIR, "Directory that gets the multus binary."),
        flag("--multus-bin-file", settings.DEFAULT_BIN_FILE, "The multus binary to install."),
        flag(
            "--multus-conf-file",
            settings.DEFAULT_CONF_FILE,
            "Configuration to copy to the node, or 'auto' to generate one around the default network's.",
        ),
        flag(
            "--multus-autoconfig-dir",
            "",
            "With 'auto', directory in which the default network writes its configuration.",
            "the value of --cni-conf-dir",
        ),
        flag(
            "--service-account-dir",
            settings.DEFAULT_SERVICE_ACCOUNT_DIR,
            "Directory of the token and CA that go into the kubeconfig.",
        ),
    ]


def _generated() -> list[click.Parameter]:
    def flag(name: str, help_text: str, **attributes: Any) -> Flag:
        return Flag(name, group="Generated configuration (--multus-conf-file=auto)", help=help_text, **attributes)

    return [
        flag(
            "--multus-kubeconfig-file-host",
            "Kubeconfig that Multus shall use, as the host sees it.",
            metavar="PATH",
            show_default=settings.DEFAULT_KUBECONFIG_ON_HOST,
        ),
        flag(
            "--multus-cni-conf-dir", "Directory in which Multus looks for further CNI configurations.", metavar="PATH"
        ),
        flag("--cni-version", "CNI version of the configuration.", metavar="VERSION", show_default="the master's"),
        flag(
            "--force-cni-version",
            "Write --cni-version into the wrapped master too, whatever it says.",
            **_SWITCH,
            hidden=True,
        ),
        flag("--namespace-isolation", "Let pods use network attachments of their own namespace only.", **_SWITCH),
        flag(
            "--global-namespaces",
            "Namespaces, separated by commas, whose network attachments every pod may use in spite of isolation.",
            metavar="NAMES",
        ),
        flag("--multus-log-level", f"What Multus logs: {', '.join(settings.LOG_LEVELS)}.", metavar="LEVEL"),
        flag("--multus-log-file", "File on the host that Multus logs to.", metavar="PATH"),
        flag(
            "--multus-log-to-stderr",
            "Let Multus log to its stderr.",
            **{**_SWITCH, "default": True, "show_default": "true"},
        ),
        flag("--override-network-name", "Name the network as the master does.", **_SWITCH),
        flag(
            "--readiness-indicator-file",
            "File on the host that must exist before Multus sets up a pod.",
            metavar="PATH",
        ),
        flag("--additional-bin-dir", "Directory on the host in which Multus also looks for plugins.", metavar="PATH"),
    ]


def _master() -> list[click.Parameter]:
    def flag(name: str, help_text: str, **attributes: Any) -> Flag:
        return Flag(name, group="Master, the default network's configuration", help=help_text, **attributes)

    return [
        flag(
            "--multus-master-cni-file-name",
            "The one file of the autoconfig directory to wrap.",
            metavar="NAME",
            show_default="the alphabetically first",
        ),
        flag("--rename-conf-file", "Rename the master to NAME.old once it is wrapped.", **_SWITCH),
        flag("--skip-config-watch", "Do not follow changes of the master.", **_SWITCH),
        flag(
            "--wait-timeout",
            "How long to wait for a first master before giving up.",
            type=SECONDS,
            default="600",
            show_default=True,
            metavar="SECONDS",
        ),
    ]


def _behaviour() -> list[click.Parameter]:
    def flag(name: str, help_text: str, **attributes: Any) -> Flag:
        return Flag(name, group="Behaviour on the node", help=help_text, **attributes)

    return [
        flag("--skip-multus-binary-copy", "Leave the installed multus binary alone.", **_SWITCH),
        flag(
            "--cleanup-config-on-exit",
            "Remove the configuration when the program ends, and while there is no master.",
            **_SWITCH,
        ),
        flag(
            "--skip-tls-verify",
            "Write a kubeconfig that does not verify the API server's certificate.",
            **_SWITCH,
            env=["SKIP_TLS_VERIFY"],
        ),
        flag(
            "--restart-crio", "Restart CRI-O once, after the first change of the configuration in this run.", **_SWITCH
        ),
        flag(
            "--startup-taint",
            "Taint to remove from this node once it is configured; needs NODE_NAME.",
            metavar="KEY[:EFFECT]",
        ),
        flag("--ready-file", "File that exists exactly while the node is as it must be.", metavar="PATH"),
    ]


def _program() -> list[click.Parameter]:
    group = "The entrypoint itself"
    return [
        Flag(
            "--log-format",
            group=group,
            type=click.Choice(["text", "json"], case_sensitive=False),
            default="text",
            show_default=True,
            help="Format of this program's own log.",
        ),
        Flag(
            "--dry-run",
            group=group,
            **_SWITCH,
            help="Print what would be done, the token masked, and touch nothing.",
        ),
    ]


# ---- the subcommands' own ----


def check_flags() -> list[click.Parameter]:
    """Return what only `check` takes."""
    group = "Check"
    return [
        Flag(
            "--output",
            group=group,
            type=click.Choice(["table", "json"], case_sensitive=False),
            default="table",
            show_default=True,
            help="How to print the findings.",
        ),
        Flag(
            "--timeout",
            group=group,
            type=SECONDS,
            default="5",
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for the API server.",
        ),
    ]


def uninstall_flags() -> list[click.Parameter]:
    """Return what only `uninstall` takes."""
    group = "Uninstall"
    return [
        Flag(
            "--multus-data-dir",
            group=group,
            default=settings.DEFAULT_DATA_DIR,
            show_default=True,
            metavar="PATH",
            help="Directory in which Multus keeps a record of each pod it has attached.",
        ),
        Flag("--force", group=group, **_SWITCH, help="Go on although such records are left."),
    ]


def install_flags() -> list[click.Parameter]:
    """Return what `install` takes: its own, under the names that Multus 4.3 gave them, and a few of everybody's."""
    shared = {"multus_bin_file", "log_format", "dry_run"}
    return [
        Flag(
            "--type",
            "-t",
            "type_",
            group="Install",
            default="thin",
            show_default=True,
            metavar="thin",
            help="Which Multus; this image carries the thin plugin only.",
        ),
        Flag(
            "--dest-dir",
            "-d",
            group="Install",
            default=settings.DEFAULT_BIN_DIR,
            show_default=True,
            metavar="PATH",
            help="Directory that gets the binary.",
        ),
        *(flag for flag in entrypoint_flags() if flag.name in shared),
    ]
