"""The one clockwork: how often something may be done, and when it is tried again after it failed.

All times are monotonic seconds.
"""

from __future__ import annotations

from collections import deque


class Pace:
    """At most so many times in so many seconds: what others do to a node must not make us spin."""

    def __init__(self, times: int, seconds: float) -> None:
        self._seconds = seconds
        self._done: deque[float] = deque(maxlen=times)

    def free_at(self, now: float) -> float | None:
        """Return when it may be done once more; None for at once."""
        if len(self._done) < (self._done.maxlen or 0):
            return None
        at = self._done[0] + self._seconds
        return at if now < at else None

    def took(self, now: float) -> bool:
        """Take note that it was done; say whether that was as often as may be."""
        self._done.append(now)
        return self.free_at(now) is not None

    def last(self) -> float:
        """Return when it was done last."""
        return self._done[-1] if self._done else float("-inf")


class Backoff:
    """Tried again after so many seconds, each time twice as many, up to a last number."""

    def __init__(self, first: float, last: float) -> None:
        self._first, self._last = first, last
        self._wait = 0.0
        self.at: float | None = None
        """When to try again; None while nothing has failed."""

    def failed(self, now: float) -> float:
        """Take note of a failure; return when to try again."""
        self._wait = min(max(self._first, 2 * self._wait), self._last)
        self.at = now + self._wait
        return self.at

    def succeeded(self) -> None:
        """Begin anew."""
        self._wait, self.at = 0.0, None


def earliest(*times: float | None) -> float | None:
    """Return the first of these times; None when there is none."""
    return min((each for each in times if each is not None), default=None)
