"""The entrypoint's own log on stderr, as text for people or as JSON for collectors."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

logger = logging.getLogger("entrypoint")

_STDERR = 2
_PATIENCE = 50  # milliseconds for a reader that lags behind, once; far less than ending may take


def configure(log_format: str) -> None:
    """Send all log records to stderr; `log_format` is `text` or `json`."""
    root = logging.getLogger()
    root.handlers[:] = [_Stderr(_json if log_format == "json" else _text)]
    root.setLevel(logging.INFO)


@contextmanager
def failures_reported() -> Iterator[None]:
    """End the process with exit code 1 and one line of log over what nobody foresaw: a traceback helps no operator."""
    try:
        yield
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        logger.critical("unexpected %s at %s: %s. Please report this", type(error).__name__, where, error)
        sys.exit(1)


class _Stderr(logging.Handler):
    """Writes to stderr for as long as somebody reads it.

    A runtime that hangs leaves the pipe full. Writing would then block for ever, and with it the care for the node and
    the end of the program: what finds no room is lost and counted.
    """

    def __init__(self, line: Callable[[str, str, str], str]) -> None:
        """`line` makes one of the time, the level and the message."""
        super().__init__()
        self._line = line
        self._descriptor = _without_blocking()
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)
        self._lost = 0
        self._torn = False
        """Only the beginning of the last line found room."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is None:
            return  # closed before the start: another file may have its number by now
        now = _time(record)
        lost = f"lost {self._lost} lines of this log: there was no room for them"
        if self._lost and self._write(self._line(now, "warning", lost)):
            self._lost = 0
        if self._lost or not self._write(self._line(now, record.levelname.lower(), record.getMessage())):
            self._lost += 1

    def _write(self, line: str) -> bool:
        """Write a line; say whether all of it could be written."""
        encoded = line.encode("utf-8", "backslashreplace")  # escapes what cannot be encoded, as odd file names
        rest = whole = b"%s%s\n" % (b"\n" if self._torn else b"", encoded)
        try:
            while rest and self._poll.poll(0 if self._lost else _PATIENCE):
                rest = rest[os.write(self._descriptor, rest[: select.PIPE_BUF]) :]
        except OSError:  # the reader is gone, or the disk or a terminal full
            pass
        self._torn = bool(rest) and (self._torn or rest != whole)
        return not rest


def _without_blocking() -> int:
    """Return a descriptor for stderr that `poll` calls writable only when a write of PIPE_BUF bytes does not block.

    A pipe with room has room for so much, a terminal need not: it is opened once more, because a descriptor that is
    set not to block is so for everybody who shares it.
    """
    if sys.stderr is not None and os.isatty(_STDERR):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{_STDERR}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return _STDERR


def _text(now: str, level: str, message: str) -> str:
    return f"{now} {level}: {one_line(message)}"


def _json(now: str, level: str, message: str) -> str:
    return json.dumps({"time": now, "level": level, "message": message})


def one_line(message: str) -> str:
    """Escape line ends and control characters: who names a file must not write our log or terminal for us."""
    if message.isprintable():
        return message
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in message)


def _time(record: logging.LogRecord) -> str:
    """Return the record's time in RFC 3339, UTC, with milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
