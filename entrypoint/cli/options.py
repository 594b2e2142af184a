"""How the command line is read: click's options with the habits of Go's pflag, and where each value was said."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

_TRUE = frozenset({"true", "t", "1", "yes"})
_FALSE = frozenset({"false", "f", "0", "no"})
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(rf"([0-9]+\.?[0-9]*|\.[0-9]+)({'|'.join(_UNITS)})")
_DURATION = re.compile(f"({_PART.pattern})+")
_LONGEST = 2**63 // 10**9 // 2
"""Seconds: clocks hold 63 bits of nanoseconds, and half of that is left for the time that has passed already."""
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
        try:
            if isinstance(value, str) and _DURATION.fullmatch(value):
                seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
            else:
                seconds = float(value)
        except ValueError:
            seconds = math.nan
        if seconds > _LONGEST and not math.isinf(seconds):
            self.fail(f"{value!r} is more than a clock holds: at most {_LONGEST} seconds.", param, ctx)
        if not (math.isfinite(seconds) and seconds >= 0):
            self.fail(f"{value!r} is not a duration: expected seconds such as 600, or 10m, 90s, 1h30m.", param, ctx)
        return seconds


PREFIX = "ENTRYPOINT_"
"""How the environment variables begin that set a flag."""
BOOLEAN = _Boolean()
SECONDS = _Seconds()


class Flag(click.Option):
    """An option that belongs to a group of the help text, and whose empty value means its default."""

    group = "Other"

    def __init__(self, name: str, help_text: str, *others: str, env: Sequence[str] = (), **attributes: Any) -> None:
        """`others` are further names; `env` are variables that are read beside `ENTRYPOINT_` + the flag's name."""
        self.variables = [f"{PREFIX}{name.removeprefix('--').replace('-', '_').upper()}", *env]
        default = attributes.pop("default", "")
        attributes = {"help": help_text, "envvar": self.variables, "show_default": bool(default), **attributes}
        super().__init__([name, *others], default=default, **attributes)

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
        """Write the options, one section a group, without a line's end in the middle of a path.

        A subcommand that takes all flags of the program lists its own, and says where the others are.
        """
        sections: dict[str, list[tuple[str, str]]] = {}
        above = [each for each in ctx.parent.command.params if isinstance(each, Flag)] if ctx.parent else []
        params = self.get_params(ctx)
        takes_all = bool(above) and all(each in params for each in above)
        for param in params:
            if takes_all and param in above:
                continue
            record = param.get_help_record(ctx)
            if record is not None:
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
