"""The command line: flags become settings, outcomes become messages and exit codes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from entrypoint import __version__, logs, settings
from entrypoint.flags import FlagGroup, chosen, entrypoint_flags

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.settings import Settings

NOT_AS_IT_MUST_BE = 1
"""Exit code when the node or the cluster is not as it must be; 2, for wrong usage, is click's."""


@click.group(
    cls=FlagGroup,
    invoke_without_command=True,
    params=entrypoint_flags(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Each flag can also be set in the environment: --cni-version as ENTRYPOINT_CNI_VERSION. The command line "
    "wins. A boolean flag alone means true; an empty value means the default.",
)
@click.version_option(__version__, message="multus-entrypoint %(version)s")
@click.pass_context
def cli(context: click.Context, /, **_flags: object) -> None:
    """Install Multus CNI on this node and keep it installed.

    Copies the multus binary to the host, wraps the default network's CNI configuration into one for Multus, writes
    a kubeconfig, and follows every change of the configuration and of the service account's token until the pod ends.
    """
    if context.invoked_subcommand is not None:
        return
    wanted = settings_of(context)
    if wanted.restart_crio or wanted.startup_taint:
        flag = "--restart-crio" if wanted.restart_crio else "--startup-taint"
        raise click.UsageError(f"{flag} is not available yet.")
    if wanted.dry_run:
        dry_run(wanted)
    elif context.obj is not None:
        context.obj(wanted)  # the process that started this one becomes the resident one
    else:
        from entrypoint import daemon

        sys.exit(daemon.serve(wanted))


def main(arguments: list[str], obj: Callable[[Settings], object] | None = None) -> None:
    """Run the command line and end the process; `obj` gets the settings of the resident process, if one is to be."""
    logs.configure("text")
    with logs.failures_reported():
        cli.main(arguments, prog_name="multus-entrypoint", obj=obj)


def settings_of(context: click.Context) -> Settings:
    """Return the settings that the flags and the environment ask for; a value that is wrong is a usage error."""
    try:
        return settings.build(chosen(context), os.environ)
    except settings.InvalidSettingError as error:
        raise click.UsageError(f"Invalid value for {error.name}: {error}", context) from None


def dry_run(wanted: Settings) -> None:
    """Print what one pass would do and write; exit with 1 when it could not do its work."""
    from entrypoint import report
    from entrypoint.host import Host
    from entrypoint.node import Memory
    from entrypoint.plan import decide

    logs.configure(wanted.log_format)
    with logs.failures_reported():
        seen = Host(wanted).observe()
        plan = decide(wanted, seen, Memory(started=seen.now))
        for line in report.would_do(plan):
            # Names of files may hold bytes that are not UTF-8.
            click.echo(line.encode("utf-8", "backslashreplace"))
        logger = logs.logger
        for warning in plan.warnings:
            logger.warning("%s", warning)
        for problem in plan.problems:
            logger.error("%s", problem.message)
        if plan.waiting:
            logger.error("%s", plan.waiting)
        if plan.problems or plan.waiting:
            sys.exit(NOT_AS_IT_MUST_BE)
