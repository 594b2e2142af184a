"""How the command line is read: click's options with the habits of Go's pflag."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click
from click.core import ParameterSource

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(rf"([0-9]+\.?[0-9]*|\.[0-9]+)({'|'.join(_UNITS)})")
_LONGEST = 2**63 // 10**9 // 2
"""Seconds: clocks hold 63 bits of nanoseconds, and half of that is left for the time that has passed already."""
_NO_BREAK = "\N{NON-BREAKING HYPHEN}"


def seconds(value: str | float) -> float:
    """Read a duration: a number of seconds, or as Go and Kubernetes write it. Raises ValueError."""
    found = math.nan
    if isinstance(value, str) and re.fullmatch(f"({_PART.pattern})+", value):
        found = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    else:
        with suppress(ValueError):
            found = float(value)
    if not 0 <= found <= _LONGEST:
        expected = f"seconds such as 600, or 10m, 90s, 1h30m; at most {_LONGEST} seconds"
        raise ValueError(f"{value!r} is not a duration: expected {expected}.")
    return found


class _PathOnHost(click.ParamType[str]):
    """A path of the host, where the plugin runs: the DaemonSet mounts the host's directories below /host."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value and not value.startswith("/"):
            self.fail(f"expected an absolute path of the host, where the plugin runs, got {value!r}", param, ctx)
        if value != "/host" and not value.startswith("/host/"):
            return str(value)
        used = str(value.removeprefix("/host") or "/")
        if param and ctx:
            remark = f"{param.opts[0]}={value} is taken as {used}: the plugin runs on the host, which has no /host"
            ctx.meta.setdefault(REMARKS, {})[param.name] = remark
        return used


PREFIX = "ENTRYPOINT_"
"""How the environment variables begin that set a flag."""
ARGUMENTS = f"{__name__}.arguments"
"""Where a context holds its command line."""
REMARKS = f"{__name__}.remarks"
"""Where it holds, by flag, what an operator should know of a value."""
PATH_ON_HOST = _PathOnHost()


class Flag(click.Option):
    """An option that belongs to a group of the help text, and whose empty value means its default."""

    group = "Other"

    def __init__(self, usage: str, help_text: str, *others: str, env: Sequence[str] = (), **attributes: Any) -> None:
        """`usage` is the name, and how the help calls its value.

        `others` are further names; `env` are variables that are read beside `ENTRYPOINT_` + the flag's name.
        """
        name, _, metavar = usage.partition(" ")
        self.variables = [f"{PREFIX}{name.removeprefix('--').replace('-', '_').upper()}", *env]
        attributes = {"default": "", "show_default": bool(attributes.get("default")), **attributes}
        super().__init__([name, *others], help=help_text, envvar=self.variables, metavar=metavar or None, **attributes)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Name the flag, and the environment variable if that is where the value is from."""
        hint = super().get_error_hint(ctx)
        if ctx is None or ctx.get_parameter_source(self.name) is not ParameterSource.ENVIRONMENT:
            return hint
        return f"{hint} (environment variable {' or '.join(filter(os.environ.get, self.variables))})"

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert a value; an empty one, as templated manifests produce, means the default."""
        if self.multiple:
            value = [each for each in value or () if each != ""]
        blank = self.type is click.BOOL and str(value).isspace()  # which click takes for false, whatever the default
        return super().type_cast_value(ctx, self.default if value == "" or blank else value)

    def usual(self, ctx: click.Context) -> Any:
        """Return the value that it has when nobody says anything."""
        return self.type_cast_value(ctx, self.default)


class FlagCommand(click.Command):
    """A command whose booleans work bare, as in Go's pflag, and whose help is grouped."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line after writing `--flag` as `--flag=true` where the flag is a boolean.

        click's own optional values would take the word that follows, be it the name of a subcommand.
        """
        ctx.meta[ARGUMENTS] = args  # for who has to parse it again
        params = self.get_params(ctx)
        booleans = {name for param in params if param.type is click.BOOL for name in param.opts}
        others = {name for param in params if isinstance(param, Flag) for name in param.opts} - booleans
        written: list[str] = []
        for before, each, after in zip(["", *args], args, [*args[1:], ""], strict=False):
            bare = each in booleans and before not in others  # behind another flag it is that flag's value
            if bare and after and click.BOOL.str_to_bool(after) is not None and not isinstance(self, PeerCommand):
                raise click.UsageError(f"The value of a boolean is joined by '=': {each}={after}", ctx)
            written.append(f"{each}=true" if bare else each)
        return super().parse_args(ctx, written)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, one section a group, without a line's end in the middle of a path.

        A subcommand that takes all flags of the program lists its own, and says where the others are.
        """
        sections: dict[str, list[tuple[str, str]]] = {}
        params = self.get_params(ctx)
        above = {each for each in ctx.parent.command.params if isinstance(each, Flag)} if ctx.parent else set()
        takes_all = bool(above) and above.issubset(params)
        for param in params:
            if (record := param.get_help_record(ctx)) and not (takes_all and param in above):
                name, text = record
                sections.setdefault(getattr(param, "group", "Other"), []).append((name, text.replace("-", _NO_BREAK)))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=28)
        if takes_all:
            with formatter.section("Flags of the entrypoint"):
                formatter.write_text(f"Each is taken here, too: {ctx.find_root().info_name} --help lists them.")
        formatter.buffer = [each.replace(_NO_BREAK, "-") for each in formatter.buffer]
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class PeerCommand(FlagCommand):
    """The program by the name of a peer's, which ignores a word that belongs to no flag."""

    allow_extra_args = True


class FlagGroup(FlagCommand, click.Group):
    """The program itself: runs without a subcommand too, and takes a subcommand's flags before its name as well."""

    command_class = FlagCommand

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; what stands before its name is as if it stood behind it, and what does wins."""
        name, command, behind = super().resolve_command(ctx, args)
        before: list[str] = ctx.meta[ARGUMENTS]
        return name, command, [*before[: len(before) - len(args)], *behind]
