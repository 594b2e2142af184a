"""Short-lived processes of our own beside the loop, for work whose libraries shall not stay in the resident one.

A child gets one JSON object on its command line (never a secret: those it reads itself), says what it has to say as
JSON lines on its standard output, and ends when its standard input does: that is, with its parent at the latest.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from entrypoint.telling.log import logger

_running: set[int] = set()
"""Process identifiers of the children that a thread of ours waits for."""
_starting = threading.Lock()
"""Held while a child is there that is not in `_running` yet, and while one is stopped."""

RESTART_AFTER = 30.0
"""Seconds after which a child that did not come to its own end is started again."""
FULL = "is the limit of this container's processes or of its memory reached?"
"""What to ask oneself when no process, or no thread, can be started."""


class Child:
    """One child process, followed by a thread that sleeps until the child says something or ends."""

    def __init__(self, module: str, order: Mapping[str, Any], what: str, *, persistent: bool = False) -> None:
        """Prepare to run `module` with `order` as its only argument; `what` names the work in messages.

        A `persistent` one is started again until it ends with 0; others are only when something killed them.
        """
        self._persistent = persistent
        # -P: what lies in the working directory is no module of ours.
        self._command = [sys.executable, "-P", "-m", module, json.dumps(order)]
        self._what = what
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self.ended = threading.Event()
        """It has come to its end, good or bad."""

    def start(self, after: Child | None = None) -> None:
        """Start it, once the other one has ended; return at once."""
        threading.Thread(target=self._follow, args=(after,), name=self._what, daemon=True).start()

    def stop(self) -> None:
        """Kill it, if it is still there, without waiting for its end; what it works at is safe to break off."""
        with _starting:
            self._stopping.set()
            if self._process is not None:
                self._process.kill()  # does nothing to a process that has been waited for

    def _follow(self, after: Child | None) -> None:
        """Run it to its end: again and again if something keeps it from that."""
        if after is not None:
            after.ended.wait()
        try:
            while (trouble := self._run()) and not self._stopping.is_set():
                logger.error("the process that was to %s %s. Trying again in %g s", self._what, trouble, RESTART_AFTER)
                self._stopping.wait(RESTART_AFTER)
        finally:
            self.ended.set()

    def _run(self) -> str | None:
        """Run it once; return what kept it from its end, None when nothing did, or when nobody wants it any more."""
        try:
            with _starting:
                if self._stopping.is_set():
                    return None
                # Its own process group: an interrupt from the keyboard is the parent's to handle.
                process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
                )
                self._process = process
                _running.add(process.pid)
        except OSError as error:
            return f"could not be started: {error.strerror}; {FULL}"
        with process:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            for line in process.stdout:
                _log(line)
            code = process.wait()
        _running.discard(process.pid)
        reap_orphans()  # those that stood behind it
        if code < 0:
            return f"was killed (signal {-code}), mostly for want of memory: raise the container's memory limit"
        return "failed, for the reason above" if code and self._persistent else None


def reap_orphans() -> None:
    """Wait for ended processes that are not ours: process 1 of a container inherits them (`kubectl exec` leaves some).

    The end of one more is another SIGCHLD, which calls this again.
    """
    if os.getpid() != 1:
        return
    with _starting, contextlib.suppress(ChildProcessError):
        # Looking first leaves the end of our own children to the threads that wait for them.
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in _running:
                return
            os.waitpid(ended.si_pid, 0)


def _log(line: bytes) -> None:
    try:
        said = json.loads(line)
        level, message = logging.getLevelNamesMapping()[said["level"]], said["message"]
    except (ValueError, LookupError, TypeError):
        level, message = logging.WARNING, line.decode("utf-8", "backslashreplace").rstrip()
    logger.log(level, "%s", message)


# ---- in the child ----


def run(work: Callable[[dict[str, Any]], bool]) -> None:
    """Do `work` with the order from the command line and end the process: 0 when it returns True, else 1."""
    try:
        done = work(json.loads(sys.argv[1]))
    except BrokenPipeError:
        sys.exit(1)  # nobody listens any more
    except Exception as error:  # no traceback reaches a user
        say(
            "ERROR", f"internal error: {type(error).__name__}: {error}: this is a fault of multus-entrypoint: report it"
        )
        sys.exit(1)
    sys.exit(0 if done else 1)


def say(level: str, message: str) -> None:
    """Have the parent log a message at this level (`INFO`, `WARNING`, `ERROR`)."""
    sys.stdout.write(json.dumps({"level": level, "message": message}) + "\n")
    sys.stdout.flush()


def pause(seconds: float) -> bool:
    """Wait; return True at once when the parent has gone."""
    readable, _, _ = select.select([sys.stdin.fileno()], [], [], seconds)
    return bool(readable)
