"""What the main loop sleeps on, and the signals that end the program."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that end the program in good order; the last comes when the terminal of a container is closed."""
_LONGEST_POLL = 2**31 - 1  # milliseconds, the most that poll(2) takes


class Wakeup:
    """What ends the main loop's sleep: an event, a signal or a deadline.

    It is a pipe and not a `threading.Event`, whose lock a signal handler could find taken by the very thread that it
    interrupts; and not an eventfd, which `signal.set_wakeup_fd` cannot write to.
    """

    def __init__(self) -> None:
        self.stopped_by: int | None = None
        """The signal that ends the program."""
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._reading, select.POLLIN)

    def set(self) -> None:
        """Wake the loop; safe from any thread and from a signal handler."""
        with contextlib.suppress(BlockingIOError):  # full: the loop is awake already
            os.write(self.writing, b"\0")

    @property
    def stopping(self) -> bool:
        """The program is to end."""
        return self.stopped_by is not None

    def stop(self, signal_number: int) -> None:
        """Wake the loop for the last time; safe in a signal handler."""
        self.stopped_by = signal_number
        self.set()

    def clear(self) -> None:
        """Forget what has happened; call it before looking, so that nothing is missed between."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reading, 1 << 16)  # all that a pipe holds

    def wait(self, until: float | None) -> None:
        """Sleep until woken, or until the monotonic time `until` (seconds); not at all once stopped."""
        if self.stopping:
            return  # the signal may have come just before `clear`, which has forgotten it
        # Rounded up: a wait that ends a little early would find the deadline not reached and wait again.
        timeout = None if until is None else min(max(0, int((until - time.monotonic()) * 1000) + 1), _LONGEST_POLL)
        self._poll.poll(timeout)


def end_in_good_order(wakeup: Wakeup) -> None:
    """Let the signals that end the program stop the wake-up, and a child's end wake it, from now on.

    `__main__` has held them back until here.
    """
    for number in ENDING:
        # And no more: a log record could be half written at this moment.
        signal.signal(number, lambda signalled, _: wakeup.stop(signalled))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # A signal that comes just before the sleep, or in another thread, does not interrupt it, and Python would run the
    # handler only after it: the byte that Python writes at once ends the sleep.
    signal.set_wakeup_fd(wakeup.writing, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def end_at_once() -> None:
    """Let a signal end the process as a shell would say it: broken off, a subcommand has not done its work."""
    for number in ENDING:
        signal.signal(number, lambda signalled, _: os._exit(128 + signalled))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
