"""The command line: flags become settings, outcomes become messages and exit codes."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, cast

import click

from entrypoint import __version__
from entrypoint.cli import flags, options, remarks
from entrypoint.cli import resident as running
from entrypoint.cli.options import Flag, FlagCommand, FlagGroup, PeerCommand
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
    output = _Output(sys.stdout)
    sys.stdout = cast(TextIO, output)
    try:
        with logs.failures_reported():
            _command(os.path.basename(sys.argv[0])).main(sys.argv[1:], prog_name="multus-entrypoint")
    finally:
        if output.failed():
            sys.exit(NOT_AS_IT_MUST_BE)


class _Output(io.TextIOBase):
    """Takes what is printed. Where nobody can read it, that is said at the end: no work is broken off for it."""

    def __init__(self, stream: TextIO | None) -> None:
        """`stream` is None where stdout was closed before the start."""
        self._stream, self._failure = stream, None if stream else OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._printed = False

    def write(self, text: str) -> int:
        """Print it, unless that failed before."""
        self._printed = True
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Give it to whoever reads."""
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Say whether a person reads."""
        return self._stream is not None and self._stream.isatty()

    def failed(self) -> bool:
        """Say whether something could not be printed; in the log too, unless a reader has just gone."""
        self.flush()
        if not self._printed or self._failure is None:
            return False
        if self._failure.errno != errno.EPIPE:
            logs.logger.error("cannot write to stdout: %s", self._failure.strerror)
        return True

    def _try(self, write: Callable[[TextIO], object]) -> None:
        if self._stream is not None and self._failure is None:
            try:
                write(self._stream)
            except OSError as error:
                self._failure = error
                # What Python has kept back would fail once more at the end, with words of its own.
                os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), self._stream.fileno())


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
def cli(context: click.Context, /, **_flags: object) -> None:
    """Install Multus CNI on this node and keep it installed.

    Copies the multus binary to the host, wraps the default network's CNI configuration into one for Multus, writes
    a kubeconfig, and follows every change of the configuration and of the service account's token until the pod ends.
    """
    if context.invoked_subcommand is not None:
        end_at_once()
        return
    wanted = settings_of(context, resident=not options.chosen(context)["dry_run"])
    require_what_errands_need(wanted)
    require_the_indicators_mount(wanted)
    if wanted.dry_run:
        end_at_once()
        with logs.failures_reported():
            from entrypoint.cli import dryrun

            in_order = dryrun.run(wanted, say=echo)
        if not in_order:
            sys.exit(NOT_AS_IT_MUST_BE)
    else:
        from entrypoint.node import loop  # with Jinja2 and watchdog, which `install` has no use for

        sys.exit(loop.serve(wanted))


def settings_of(context: click.Context, *, resident: bool = False) -> Settings:
    """Return the settings that the flags and the environment ask for, and warn of what has no effect.

    What is not the resident program takes over the flags of the one that runs in this container. A value that is wrong
    is a usage error.
    """
    from entrypoint.cni import wrap

    taken = None if resident else running.take_over(context)
    try:
        wanted = build(options.chosen(context), os.environ)
        if wanted.conf_patch is not None:
            wrap.read_patch(wanted.conf_patch, wanted.node_name)
    except InvalidSettingError as error:
        raise click.UsageError(f"Invalid value for {error.name}: {error}", context) from None
    except wrap.InvalidPatchError as error:
        raise click.UsageError(f"Invalid value for --multus-conf-patch: {error}", context) from None
    _require_no_subcommand(context)
    logs.configure(wanted.log_format)
    for remark in remarks.remarks(context, os.environ):
        logs.logger.warning("%s", remark)
    if taken:
        logs.logger.info("%s", taken)
    return wanted


def _require_no_subcommand(context: click.Context) -> None:
    """Refuse what is meant as a subcommand but would start a second entrypoint, under a peer's name."""
    if context.args and context.args[0] in cli.commands:
        raise click.UsageError(f"Subcommands are called as multus-entrypoint {context.args[0]}.", context)


def require_the_indicators_mount(wanted: Settings) -> None:
    """Refuse `--wait-for-readiness-indicator` where the file cannot come: what is not mounted is never there."""
    gate = wanted.readiness_gate
    if gate is None:
        return
    if not wanted.readiness_indicator_file:
        raise click.UsageError("--wait-for-readiness-indicator needs --readiness-indicator-file: which one?")
    top = gate.parents[wanted.readiness_indicator_file.strip("/").count("/") - 1]
    if not os.path.isdir(top):
        raise click.UsageError(
            f"--wait-for-readiness-indicator: {top} is not there: mount the directory of "
            f"{wanted.readiness_indicator_file} from the host there (hostPath volume)."
        )


def require_what_errands_need(wanted: Settings) -> None:
    """Refuse a flag without what tells which node it is about, and whom to ask; to be told late helps nobody."""
    for flag, value in (("--startup-taint", wanted.startup_taint), ("--repair-pods", wanted.repair_pods)):
        if value and wanted.node_name is None:
            raise click.UsageError(
                f"{flag} needs the environment variable NODE_NAME: set it from the downward API (spec.nodeName)."
            )
        if value and wanted.api_server is None:
            raise click.UsageError(f"{flag} needs KUBERNETES_SERVICE_HOST and _PORT: does this run in a pod?")


def echo(line: str) -> None:
    """Print a line, whatever bytes the names of files in it hold: they make no line of their own."""
    click.echo("\t".join(map(logs.one_line, line.split("\t"))))


@cli.command(
    cls=FlagCommand,
    context_settings=_CONTEXT,
    params=[*flags.CHECK, *flags.ENTRYPOINT],
    short_help="Check this node and cluster, and report problems.",
)
@click.pass_context
def check(context: click.Context, /, output: str, timeout: float, **_flags: object) -> None:
    """Check this node and cluster, and report problems. Change nothing.

    Uses the flags and environment of the entrypoint that runs in this container, so that none are needed here. A flag
    that is given here wins. Exits with 1 when a finding failed.
    """
    from entrypoint.check import findings, looking

    wanted = settings_of(context)
    with logs.failures_reported():
        found = looking.run(wanted, min(timeout, _LONGEST_ANSWER), resident=context.meta.get(options.TAKEN_FROM))
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    click.echo(findings.as_json(found) if output == "json" else findings.as_table(found, colour=colour), color=colour)
    if not findings.all_well(found):
        sys.exit(NOT_AS_IT_MUST_BE)


@cli.command(
    cls=FlagCommand,
    context_settings=_CONTEXT,
    params=[*flags.UNINSTALL, *flags.ENTRYPOINT],
    short_help="Remove everything installed on this node.",
)
@click.pass_context
def uninstall(context: click.Context, /, multus_data_dir: str, force: bool, wait: bool, **_flags: object) -> None:
    """Remove everything installed on this node, in the order that never breaks it.

    Delete the DaemonSet first, and give the flags that it had. Those of the entrypoint that runs in this container need
    not be given.
    """
    from entrypoint.uninstall import uninstall as uninstalling

    wanted = settings_of(context)
    with logs.failures_reported():
        succeeded = uninstalling.run(wanted, Path(multus_data_dir), force=force, wait=wait, say=echo)
    if not succeeded:
        sys.exit(NOT_AS_IT_MUST_BE)


@cli.command(
    cls=FlagCommand,
    context_settings=_CONTEXT,
    params=[*flags.INSTALL],
    short_help="Copy the multus binary to the host and end.",
)
@click.pass_context
def install(context: click.Context, /, **_flags: object) -> None:
    """Copy the multus binary to the host and end: for an init container."""
    from entrypoint import install as installing

    values = options.chosen(context)
    if values["type_"] != "thin":
        raise click.UsageError(
            f"--type={values['type_']}: expected thin, the plugin of this image; the thick one has its own image.",
            context,
        )
    logs.configure(values["log_format"])
    for remark in (*remarks.stray_arguments(context), *remarks.unknown_variables(os.environ)):
        logs.logger.warning("%s", remark)
    with logs.failures_reported():
        try:
            binary, directory = Path(values["multus_bin_file"]), Path(values["dest_dir"])
            for line in installing.install(binary, directory, dry_run=values["dry_run"]):
                echo(line)
        except installing.InstallError as error:
            logs.logger.error("%s", error)
            sys.exit(NOT_AS_IT_MUST_BE)
