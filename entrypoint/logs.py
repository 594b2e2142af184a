"""The entrypoint's own log on stderr, as text for people or as JSON for collectors."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("entrypoint")


def configure(log_format: str) -> None:
    """Send all log records to stderr; `log_format` is `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)  # stderr escapes what cannot be encoded, as odd file names
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.raiseExceptions = False  # a line that finds no room on the disk is lost, without a traceback in its place


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


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{_time(record)} {record.levelname.lower()}: {_one_line(record.getMessage())}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage()})


def _one_line(message: str) -> str:
    """Escape line ends and control characters: whoever names a file in a directory must not write our log for us."""
    if message.isprintable():
        return message
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in message)


def _time(record: logging.LogRecord) -> str:
    """Return the record's time in RFC 3339, UTC, with milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
