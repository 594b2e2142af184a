"""What is logged of steps and plans: each message once for as long as its cause lasts."""

from __future__ import annotations

from collections.abc import Sequence

from entrypoint.logs import logger
from entrypoint.node import Copy, Remove, Rename, Step, Write

_WAITING_INTERVAL = 30.0  # seconds


class Reporter:
    """Logs what is new, and remembers what has been said."""

    def __init__(self) -> None:
        self._said: dict[int, frozenset[str]] = {}
        self._waiting_said = float("-inf")
        self._configured = False

    def news(self, level: int, messages: Sequence[str]) -> None:
        """Log each message that was not there at the last call for this level."""
        for message in messages:
            if message not in self._said.get(level, ()):
                logger.log(level, "%s", message)
        self._said[level] = frozenset(messages)

    def configured(self, *, configured: bool) -> None:
        """Log whether the node is configured when that changes."""
        if configured != self._configured:
            logger.info("the node is configured" if configured else "the node is not configured any more")
        self._configured = configured

    def waiting(self, message: str | None, now: float) -> float | None:
        """Log what is waited for, at once and then every 30 s; return when to say it again (monotonic seconds)."""
        if message is None:
            self._waiting_said = float("-inf")
            return None
        if now >= self._waiting_said + _WAITING_INTERVAL:
            logger.info("%s", message)
            self._waiting_said = now
        return self._waiting_said + _WAITING_INTERVAL


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
