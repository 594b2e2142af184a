"""Where the process starts: `multus-entrypoint`, `python -m entrypoint`."""

from __future__ import annotations

import os
import signal
import sys

_INSTALLER = "install_multus"  # the name under which Multus 4.3's DaemonSet calls its init container's program


def main() -> None:
    """Run the command line and end the process with its exit code."""
    # As process 1 of a container we get no signal without a handler, and importing the rest takes a while under
    # the DaemonSet's CPU limit: a pod that is deleted meanwhile shall not wait for its grace period to end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))

    from entrypoint.cli import cli

    arguments = sys.argv[1:]
    if os.path.basename(sys.argv[0]) == _INSTALLER:
        arguments = ["install", *arguments]
    cli.main(arguments, prog_name="multus-entrypoint")


if __name__ == "__main__":
    main()
