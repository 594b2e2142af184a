"""Where the process starts: `multus-entrypoint`, `python -m entrypoint`.

The resident process never imports the command line: click and the declarations of the flags are a tenth of its
memory and are needed once. They are read by a forked child, which hands back the values of the flags.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, NoReturn

INSTALLER = "install_multus"
"""The name under which the init container of Multus 4.3's DaemonSet calls its program."""

_SUBCOMMANDS = frozenset({"check", "uninstall", "install"})


def main() -> None:
    """Run the command line and end the process with its exit code."""
    arguments = sys.argv[1:]
    if os.path.basename(sys.argv[0]) == INSTALLER:
        arguments = ["install", *arguments]
    resident = _SUBCOMMANDS.isdisjoint(arguments)
    # As process 1 of a container we get no signal without a handler, and importing the rest takes a while under
    # the DaemonSet's CPU limit: a pod that is deleted meanwhile shall not wait for its grace period to end.
    for number in (signal.SIGTERM, signal.SIGINT):
        # A subcommand that is broken off has not done its work, and says so as a shell would.
        signal.signal(number, lambda signalled, _: os._exit(0 if resident else 128 + signalled))

    if resident:
        gc.disable()  # modules are no garbage: looking for some while importing only costs time
        # Before the fork: half of what the flags need is then there already.
        from entrypoint import daemon, logs, settings

        gc.freeze()  # and lets the child leave the parent's objects alone
        logs.configure("text")
        with logs.failures_reported():
            wanted = settings.build(_flags_from_child(arguments), os.environ)
        gc.enable()
        _end(daemon.serve(wanted))

    from entrypoint import cli

    cli.main(arguments)


def _flags_from_child(arguments: list[str]) -> dict[str, Any]:
    """Return the value of each flag, all of them valid; `--help`, wrong usage and `--dry-run` end the process."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)

        from entrypoint import cli

        # This ends the child with the exit code that is due.
        cli.main(arguments, lambda flags: _send(sending, json.dumps(flags).encode("ascii")))
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        handed = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        sys.stderr.write(
            f"the process that reads the flags was killed (signal {-code}): is the memory limit too low?\n"
        )
    if code != 0 or not handed:
        sys.exit(code if code >= 0 else 1)
    flags: dict[str, Any] = json.loads(handed)
    return flags


def _send(descriptor: int, content: bytes) -> NoReturn:
    with os.fdopen(descriptor, "wb") as pipe:
        pipe.write(content)
    _end(0)


def _end(code: int) -> NoReturn:
    """End the process without taking the interpreter down in good order.

    That takes 10 to 20 ms of CPU: more than reading the flags did, and under the DaemonSet's limit of a tenth of a
    CPU more than the 100 ms in which a signal shall end the program.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
