"""What is logged of steps and plans: each message once for as long as its cause lasts."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from entrypoint.node.values import Copy, Remove, Rename, Step, Write
from entrypoint.telling.logs import logger

_WAITING_INTERVAL = 30.0  # seconds
_OFTEN, _OFTEN_WINDOW = 10, 60.0
"""So many times in so many seconds one and the same message is logged."""


class Reporter:
    """Logs what is new, and remembers what has been said.

    What comes and goes on a node that flips is said a few times a minute, and in the end as it is then. All times are
    monotonic seconds.
    """

    def __init__(self) -> None:
        self._said: dict[int, frozenset[str]] = {}
        self._waiting_said = float("-inf")
        self._configured = False
        self._times: dict[str, deque[float]] = {}
        """When each message was logged in the last minute."""
        self._held: dict[object, float] = {}
        """Of each kind of message, when one may be logged that has been said too often."""

    @property
    def held_until(self) -> float | None:
        """Return when to go on with what has been said too often to be said now."""
        return min(self._held.values(), default=None)

    def errors(self, messages: Sequence[str], now: float) -> None:
        """Log each message that was not there at the last call."""
        self._news(logging.ERROR, messages, now)

    def warnings(self, messages: Sequence[str], now: float) -> None:
        """Log each message that was not there at the last call."""
        self._news(logging.WARNING, messages, now)

    def _news(self, level: int, messages: Sequence[str], now: float) -> None:
        self._held.pop(level, None)
        before = self._said.get(level, frozenset())
        self._said[level] = frozenset(
            message for message in messages if message in before or self._say(level, level, message, now)
        )

    def configured(self, *, configured: bool, now: float) -> None:
        """Log whether the node is configured when that changes."""
        self._held.pop("configured", None)
        if configured != self._configured:
            message = "the node is configured" if configured else "the node is not configured any more"
            if self._say("configured", logging.INFO, message, now):
                self._configured = configured

    def waiting(self, message: str | None, now: float) -> float | None:
        """Log what is waited for, at once and then every 30 s; return when to say it again."""
        self._held.pop("waiting", None)
        if message is None:
            self._waiting_said = float("-inf")
            return None
        if now >= self._waiting_said + _WAITING_INTERVAL:
            if not self._say("waiting", logging.INFO, message, now):
                return self._held["waiting"]
            self._waiting_said = now
        return self._waiting_said + _WAITING_INTERVAL

    def _say(self, kind: object, level: int, message: str, now: float) -> bool:
        """Log a message; return False, and note when it may be logged, if that was done too often just now."""
        self._times = {each: times for each, times in self._times.items() if now < times[-1] + _OFTEN_WINDOW}
        times = self._times.get(message) or deque(maxlen=_OFTEN)
        over = times[0] + _OFTEN_WINDOW if len(times) == _OFTEN else now
        if now < over:
            self._held[kind] = min(over, self._held.get(kind, over))
            return False
        times.append(now)
        self._times[message] = times
        often = len(times) == _OFTEN and now < times[0] + _OFTEN_WINDOW
        logger.log(level, "%s%s", message, " (it comes and goes: not said again for a minute)" if often else "")
        return True


def done(step: Step) -> str:
    """Say what a step did."""
    match step:
        case Write():
            return f"wrote {step.path}"
        case Copy():
            return f"installed {step.path} from {step.source}"
        case Remove():
            return f"removed {step.path}: {step.because}"
        case Rename():
            return f"renamed {step.path} to {step.to.name}"
