"""How often a file may be written: two installers that fight over a node, or a master that flips, must not spin."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from entrypoint.node.values import Step, Write

WRITES, WINDOW = 5, 5.0
"""So many steps on one file in so many seconds, whatever is written; a single one is never held back."""
FIGHT_REPAIRS, FIGHT_WINDOW = 5, 60.0
"""So many repairs of one file in so many seconds are worth a warning."""
_FIRST_RETRY, _LAST_RETRY = 1.0, 30.0  # seconds


class _History:
    """What has been done to one file, and when (monotonic seconds)."""

    def __init__(self) -> None:
        self.step: Step | None = None
        """The last step, done or failed."""
        self.repeated = False
        """The last step undid what somebody else did: it had been done before."""
        self.done: deque[float] = deque(maxlen=WRITES)
        self.repairs: deque[float] = deque(maxlen=FIGHT_REPAIRS)
        self.warned = float("-inf")
        self.retry = 0.0
        self.retry_at = float("-inf")


def _same(one: Step | None, other: Step) -> bool:
    """Say whether two steps leave the same behind, whatever was there before."""
    if isinstance(one, Write) and isinstance(other, Write):
        return one._replace(over=None) == other._replace(over=None)
    return one == other


class Throttle:
    """Remembers what was done to each file."""

    def __init__(self) -> None:
        self._histories: dict[Path, _History] = {}

    def held_until(self, step: Step, now: float) -> float | None:
        """Return when the step may be done, None for at once. All times are monotonic seconds."""
        history = self._histories.get(step.path)
        if history is None:
            return None
        enough = history.done[0] + WINDOW if len(history.done) == WRITES else float("-inf")
        failed = history.retry_at if _same(history.step, step) else float("-inf")
        not_before = max(enough, failed)
        return not_before if now < not_before else None

    def done(self, step: Step, now: float) -> str | None:
        """Note that the step was done; return a warning when its file keeps being changed by somebody else."""
        history = self._histories.setdefault(step.path, _History())
        history.repeated = _same(history.step, step) and not history.retry
        history.step, history.retry, history.retry_at = step, 0.0, float("-inf")
        history.done.append(now)
        if not history.repeated:
            return None
        history.repairs.append(now)
        often = len(history.repairs) == FIGHT_REPAIRS and now - history.repairs[0] <= FIGHT_WINDOW
        if not often or now - history.warned < FIGHT_WINDOW:
            return None
        history.warned = now
        return (
            f"{step.path} was put right {FIGHT_REPAIRS} times within {FIGHT_WINDOW:g} s: "
            "something else on this node, perhaps a second installer, keeps changing it"
        )

    def known_fight(self, step: Step, now: float) -> bool:
        """Say whether the step just done was one more repair of a file whose fight has been told of."""
        history = self._histories[step.path]
        return history.repeated and now - history.warned < FIGHT_WINDOW

    def failed(self, step: Step, now: float) -> float:
        """Note that the step failed; return when to try again, later each time up to 30 s."""
        history = self._histories.setdefault(step.path, _History())
        known = _same(history.step, step)
        history.step = step
        history.retry = min(history.retry * 2, _LAST_RETRY) if known and history.retry else _FIRST_RETRY
        history.retry_at = now + history.retry
        return history.retry_at

    def forget(self, directories: Iterable[str]) -> None:
        """Start anew for the files of directories that were removed: making them again is no fight."""
        lost = set(directories)
        if lost:
            kept = {path: each for path, each in self._histories.items() if os.path.realpath(path.parent) not in lost}
            self._histories = kept
