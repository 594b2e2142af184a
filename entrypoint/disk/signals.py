"""What the signals do that end the program."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from entrypoint.disk.wakeup import Wakeup

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that end the program in good order; the last comes when the terminal of a container is closed."""


@contextlib.contextmanager
def handled(wakeup: Wakeup) -> Iterator[None]:
    """Let the signals that end the program stop the wake-up, and a child's end wake it, from now on.

    `__main__` has held them back until here.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        wakeup.stop(number)  # and no more: a log record could be half written at this moment

    handlers = {**dict.fromkeys(ENDING, stop), signal.SIGCHLD: lambda *_: None}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    # A signal that comes just before the sleep, or in another thread, does not interrupt it, and Python would run the
    # handler only after it: the byte that Python writes at once ends the sleep.
    signal.set_wakeup_fd(wakeup.writing, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_once() -> None:
    """Let a signal end the process as a shell would say it: broken off, a subcommand has not done its work."""
    for number in ENDING:
        signal.signal(number, lambda signalled, _: os._exit(128 + signalled))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
