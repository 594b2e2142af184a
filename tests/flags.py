"""Settings for unit tests, as the command line makes them, below a scratch directory."""

from pathlib import Path

import click

from entrypoint.cli.flags import ENTRYPOINT
from entrypoint.cli.options import FlagCommand, chosen
from entrypoint.settings import Settings, build

DATA = Path(__file__).parent / "data"
MASTERS = DATA / "master-confs"
IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def flags(root: Path, *more: str) -> list[str]:
    return [
        f"--cni-conf-dir={root}/net.d",
        f"--cni-bin-dir={root}/bin",
        f"--multus-bin-file={root}/src/multus",
        f"--service-account-dir={root}/sa",
        "--multus-conf-file=auto",
        *more,
    ]


def options(*arguments: str) -> dict[str, object]:
    """What the command line makes of these arguments."""
    command = FlagCommand("x", params=[*ENTRYPOINT])
    return chosen(command.make_context("x", list(arguments)))


def settings_for(root: Path, *more: str, environ: dict[str, str] | None = None) -> Settings:
    return build(options(*flags(root, *more)), IN_CLUSTER if environ is None else environ)


def click_error(*arguments: str) -> str:
    try:
        options(*arguments)
    except click.UsageError as error:
        return error.format_message()
    raise AssertionError("no usage error")
