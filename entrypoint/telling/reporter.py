"""What is logged: each message once for as long as its cause lasts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from entrypoint.telling.log import logger
from entrypoint.telling.pace import Pace, earliest

_WAITING_INTERVAL = 30.0  # seconds
_OFTEN, _OFTEN_WINDOW = 10, 60.0
"""So many times in so many seconds one and the same message is logged."""


class Verdict(NamedTuple):
    """What a pass has shown; the ready file, the log and the errands follow it."""

    ready: bool
    """The runtime uses Multus now, and that works."""
    errors: Sequence[str] = ()
    warnings: Sequence[str] = ()
    waits: str | None = None
    """What a first configuration is waited for."""


class Reporter:
    """Logs what is new, and remembers what has been said.

    What comes and goes on a node that flips is said a few times a minute, and in the end as it is then. All times are
    monotonic seconds.
    """

    def __init__(self) -> None:
        self._said: dict[int, frozenset[str]] = {}
        self._waiting_said = float("-inf")
        self._configured = False
        self._paces: dict[str, Pace] = {}
        """How often each message may be logged, of those of the last minute."""
        self._held: list[float] = []
        """When what has been said too often may be said again."""

    def told(self, verdict: Verdict, now: float) -> float | None:
        """Log what is new; return when to go on, None when nothing is left to say."""
        self._held = []
        self.warnings(verdict.warnings, now)
        self._news(logging.ERROR, verdict.errors, now)
        if verdict.ready != self._configured:
            message = "the node is configured" if verdict.ready else "the node is not configured any more"
            if self._say(logging.INFO, message, now):
                self._configured = verdict.ready
        return earliest(self._waiting(verdict.waits, now), *self._held)

    def warnings(self, messages: Sequence[str], now: float) -> None:
        """Log the warnings that are new, before anything is written."""
        self._news(logging.WARNING, messages, now)

    def _news(self, level: int, messages: Sequence[str], now: float) -> None:
        before = self._said.get(level, frozenset())
        self._said[level] = frozenset(
            message for message in messages if message in before or self._say(level, message, now)
        )

    def _waiting(self, message: str | None, now: float) -> float | None:
        """Log what is waited for, at once and then every 30 s; return when to say it again."""
        if message is None:
            self._waiting_said = float("-inf")
            return None
        if now >= self._waiting_said + _WAITING_INTERVAL:
            if not self._say(logging.INFO, message, now):
                return None
            self._waiting_said = now
        return self._waiting_said + _WAITING_INTERVAL

    def _say(self, level: int, message: str, now: float) -> bool:
        """Log a message; return False, and note when it may be logged, if that was done too often just now."""
        self._paces = {each: pace for each, pace in self._paces.items() if now < pace.last() + _OFTEN_WINDOW}
        pace = self._paces.setdefault(message, Pace(_OFTEN, _OFTEN_WINDOW))
        free_at = pace.free_at(now)
        if free_at is not None:
            self._held.append(free_at)
            return False
        often = pace.took(now)
        logger.log(level, "%s%s", message, " (it comes and goes: not said again for a minute)" if often else "")
        return True
