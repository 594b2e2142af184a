"""Flags and settings for tests, as the command line makes them, below a scratch directory."""

import os
from pathlib import Path
from unittest import mock

import click

from entrypoint.cli.flags import ENTRYPOINT
from entrypoint.cli.options import FlagCommand
from entrypoint.settings import InvalidSettingError, Settings, build

DATA = Path(__file__).parent / "data"
MASTERS = DATA / "master-confs"
IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
BOOLEANS = sorted(flag.opts[0] for flag in ENTRYPOINT if flag.type is click.BOOL)
VALUES = ("true", "false", "/elsewhere/x", "1.0.0", "debug", "a.example/b", "7", "json", "report", '{"a": 1}')
"""Among them every flag finds one that it takes and that is not its default."""


def flags(root: Path, *more: str) -> list[str]:
    return [
        f"--cni-conf-dir={root}/net.d",
        f"--cni-bin-dir={root}/bin",
        f"--multus-bin-file={root}/src/multus",
        f"--service-account-dir={root}/sa",
        "--multus-conf-file=auto",
        *more,
    ]


def context(*arguments: str, kind: type[click.Command] = FlagCommand) -> click.Context:
    """What the command line makes of these arguments."""
    return kind("x", params=[*ENTRYPOINT]).make_context("x", list(arguments))


def built(*arguments: str, **environ: str) -> Settings:
    """The settings that these arguments and this environment make, in a cluster."""
    with mock.patch.dict(os.environ, environ):
        return build(context(*arguments).params, {**IN_CLUSTER, **environ})


def refused(*arguments: str, **environ: str) -> str:
    """What is said of arguments, or an environment, that are wrong usage."""
    with mock.patch.dict(os.environ, environ):
        try:
            found = built(*arguments, **environ)
        except InvalidSettingError as error:
            return f"{error.name}: {error}"
        except click.UsageError as error:
            return error.format_message()
    raise AssertionError(f"taken as {found}")


def settings_for(root: Path, *more: str, environ: dict[str, str] | None = None) -> Settings:
    return build(context(*flags(root, *more)).params, IN_CLUSTER if environ is None else environ)


def variable(name: str) -> str:
    """The environment variable that sets a flag."""
    return "ENTRYPOINT_" + name.removeprefix("--").upper().replace("-", "_")
