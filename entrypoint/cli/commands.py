"""The command line: flags become settings, outcomes become messages and exit codes."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from entrypoint import __version__
from entrypoint.cli import flags, options, remarks, resident
from entrypoint.cli.options import Flag, FlagGroup, PeerCommand
from entrypoint.disk.wakeup import end_at_once
from entrypoint.settings import InvalidSettingError, Settings, build
from entrypoint.telling import log as logs

NOT_AS_IT_MUST_BE = 1
"""Exit code when the node or the cluster is not as it must be; 2, for wrong usage, is click's."""

THIN, SCRIPT, INSTALLER = "thin_entrypoint", "entrypoint.sh", "install_multus"
"""The names under which the DaemonSets of Multus 4.3 and 3.9 call their programs, and 4.3's init container its own."""

_LONGEST_ANSWER = (2**31 - 1) // 1000
"""Seconds, the most that a socket waits: poll(2) takes 31 bits of milliseconds."""

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def main() -> None:
    """Run the command line, with the habits of a peer when called by its name, and end the process."""
    logs.configure("text")
    # What was closed before the start is stood in for by what cannot be written either: nothing else gets its number.
    output = _Stdout(1 if sys.stdout else os.open(os.devnull, os.O_RDONLY), "w", closefd=False)
    encoding, errors = (sys.stdout.encoding, sys.stdout.errors) if sys.stdout else ("utf-8", "backslashreplace")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(output), encoding, errors)
    with logs.failures_reported():
        try:
            _command(os.path.basename(sys.argv[0])).main(sys.argv[1:], "multus-entrypoint", standalone_mode=False)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        finally:
            sys.stdout.flush()
            if output.failure is not None:
                if output.failure.errno != errno.EPIPE:  # a reader that has gone knows
                    logs.logger.error(
                        "cannot write to stdout: %s; nothing was broken off over that", output.failure.strerror
                    )
                sys.exit(NOT_AS_IT_MUST_BE)


class _Stdout(io.FileIO):
    """Takes what is printed. Where nobody can read it, that is said at the end: no work is broken off for it."""

    failure: OSError | None = None

    def write(self, printed: Any, /) -> int:
        """Print it, and pretend to where that fails: Python would try again at the end, with words of its own."""
        try:
            while (written := super().write(printed)) is None:  # a pipe that somebody else has set not to block
                select.select([], [self], [])
        except OSError as error:
            self.failure = error
            return len(printed)
        return written


def _command(name: str) -> click.Command:
    """Return the command line that belongs to the name that the program is called by."""
    if name not in (THIN, SCRIPT, INSTALLER):
        return cli
    original = install if name == INSTALLER else cli
    common = [param for param in cli.params if not isinstance(param, Flag)]  # --version
    known = flags.INSTALL if name == INSTALLER else flags.thin() if name == THIN else flags.ENTRYPOINT
    return PeerCommand(
        original.name,
        params=[*known, *common],
        callback=original.callback,
        help=original.help,
        epilog=original.epilog,
        context_settings=_CONTEXT,
    )


def _version() -> str:
    multus = os.environ.get("MULTUS_VERSION")  # set by the image
    return f"multus-entrypoint {__version__}" + (f" (Multus {multus})" if multus else "")


@click.group(
    cls=FlagGroup,
    invoke_without_command=True,
    params=[*flags.ENTRYPOINT],
    context_settings=_CONTEXT,
    epilog="Each flag can also be set in the environment: --cni-version as ENTRYPOINT_CNI_VERSION. The command line "
    "wins. A boolean flag alone means true; an empty value means the default.",
)
@click.version_option(__version__, message=_version())
@click.pass_context
def cli(context: click.Context, /, dry_run: bool, **_flags: object) -> None:
    """Install Multus CNI on this node and keep it installed.

    Copies the multus binary to the host, wraps the default network's CNI configuration into one for Multus, writes
    a kubeconfig, and follows every change of the configuration and of the service account's token until the pod ends.
    """
    subcommand = context.invoked_subcommand
    if subcommand or dry_run:
        end_at_once()
    if subcommand in {"check", "uninstall"}:
        context.obj = resident.process_1()
        context.default_map = {subcommand: context.obj.values}
    elif subcommand is None:
        if dry_run:
            running, arguments = resident.process_1(), context.meta[options.ARGUMENTS]
            context = context.command.make_context(
                context.info_name, arguments, default_map=running.values, obj=running
            )
        wanted = settings_of(context)
        _require_surroundings(wanted)
        if dry_run:
            from entrypoint.cli import dryrun

            sys.exit(0 if dryrun.run(wanted, say=echo) else NOT_AS_IT_MUST_BE)
        from entrypoint.node import loop  # with Jinja2 and watchdog, which `install` has no use for

        sys.exit(loop.serve(wanted))


def settings_of(context: click.Context) -> Settings:
    """Return the settings that the flags and the environment ask for, and warn of what has no effect.

    A value that is wrong is a usage error, and so is what is meant as a subcommand but would start a second entrypoint,
    under a peer's name.
    """
    from entrypoint.cni import wrap

    try:
        wanted = build(context.params, os.environ)
        if wanted.conf_patch is not None:
            wrap.read_patch(wanted.conf_patch, wanted.node_name)
    except InvalidSettingError as error:
        raise click.UsageError(f"Invalid value for {error.name}: {error}", context) from None
    except wrap.InvalidPatchError as error:
        raise click.UsageError(f"Invalid value for --multus-conf-patch: {error}", context) from None
    if context.args and context.args[0] in cli.commands:
        raise click.UsageError(f"{context.args[0]} is a subcommand: call multus-entrypoint {context.args[0]}", context)
    logs.configure(wanted.log_format)
    for remark in remarks.remarks(context, os.environ):
        logs.logger.warning("%s", remark)
    own = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    running: resident.Running | None = context.obj
    if running and (running.values or not own - {"dry_run", "log_format"}):
        logs.logger.info("%s", running.told)
    return wanted


def _require_surroundings(wanted: Settings) -> None:
    """Refuse a flag without what it needs of the container: to be told late helps nobody."""
    for flag, value in (("--startup-taint", wanted.startup_taint), ("--repair-pods", wanted.repair_pods)):
        if value and wanted.node_name is None:
            raise click.UsageError(
                f"{flag} needs the environment variable NODE_NAME: set it from the downward API (spec.nodeName)."
            )
        if value and wanted.api_server is None:
            raise click.UsageError(f"{flag} needs KUBERNETES_SERVICE_HOST and _PORT: does this run in a pod?")
    gate, indicator = wanted.readiness_gate, wanted.readiness_indicator_file
    if gate is None:
        return
    if not indicator:
        raise click.UsageError(
            "--wait-for-readiness-indicator needs --readiness-indicator-file=PATH: the file to wait for."
        )
    top = gate.parents[indicator.strip("/").count("/") - 1]
    if not os.path.isdir(top):  # what is not mounted is never there
        raise click.UsageError(
            f"--wait-for-readiness-indicator: {top} is not there: mount the directory of {indicator} from the host "
            "there (hostPath volume)."
        )


def echo(line: str) -> None:
    """Print a line, whatever bytes the names of files in it hold: they make no line of their own."""
    click.echo("\t".join(map(logs.one_line, line.split("\t"))))


@cli.command(params=[*flags.CHECK, *flags.ENTRYPOINT])
@click.pass_context
def check(context: click.Context, /, output: str, timeout: float, **_flags: object) -> None:
    """Check this node and cluster, and report problems. Change nothing.

    Uses the flags and environment of the entrypoint that runs in this container, so that none are needed here. A flag
    that is given here wins. Exits with 1 when a finding failed.
    """
    from entrypoint.check import findings, looking

    wanted = settings_of(context)
    found = looking.run(wanted, min(timeout, _LONGEST_ANSWER), resident=resident.PID if context.obj.values else None)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    click.echo(findings.as_json(found) if output == "json" else findings.as_table(found, colour=colour), color=colour)
    if not findings.all_well(found):
        sys.exit(NOT_AS_IT_MUST_BE)


@cli.command(params=[*flags.UNINSTALL, *flags.ENTRYPOINT])
@click.pass_context
def uninstall(context: click.Context, /, multus_data_dir: Path, force: bool, wait: bool, **_flags: object) -> None:
    """Remove everything installed on this node.

    The order is one that never breaks the node. Delete the DaemonSet first, and give the flags that it had. Those of
    the entrypoint that runs in this container need not be given.
    """
    from entrypoint.uninstall import uninstall as uninstalling

    if not uninstalling.run(settings_of(context), multus_data_dir, force=force, wait=wait, say=echo):
        sys.exit(NOT_AS_IT_MUST_BE)


@cli.command(params=[*flags.INSTALL])
@click.pass_context
def install(
    context: click.Context, /, *, type_: str, dest_dir: Path, multus_bin_file: Path, dry_run: bool, log_format: str
) -> None:
    """Copy the multus binary to the host and end.

    For an init container.
    """
    from entrypoint import install as installing

    if type_ != "thin":
        raise click.UsageError(
            f"--type={type_}: expected thin, the plugin of this image; the thick one has its own image.", context
        )
    logs.configure(log_format)
    for remark in (*remarks.stray_arguments(context), *remarks.unknown_variables(os.environ)):
        logs.logger.warning("%s", remark)
    try:
        for line in installing.install(multus_bin_file, dest_dir, dry_run=dry_run):
            echo(line)
    except installing.InstallError as error:
        logs.logger.error("%s", error)
        sys.exit(NOT_AS_IT_MUST_BE)
