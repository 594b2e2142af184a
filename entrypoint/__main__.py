"""Where the process starts: `multus-entrypoint`, `python -m entrypoint`."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line and end the process with its exit code."""
    # Process 1 of a container gets no signal that it has no handler for. Held back, a signal that comes while the rest
    # is being imported waits until somebody knows what to do with it.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))

    from entrypoint.cli import commands as cli

    cli.main()


if __name__ == "__main__":
    main()
