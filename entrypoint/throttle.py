"""How often a file may be put back: two installers that fight over a node must not spin."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from entrypoint.node import Step

REPAIR_INTERVAL = 1.0
"""Seconds between two identical steps on one file."""
FIGHT_REPAIRS, FIGHT_WINDOW = 5, 60.0
"""So many repairs of one file in so many seconds are worth a warning."""
_FIRST_RETRY, _LAST_RETRY = 1.0, 30.0  # seconds


class _History:
    """What has been done to one file: the last step and its times, in monotonic seconds."""

    __slots__ = ("not_before", "repairs", "repeated", "retry", "step", "warned")

    def __init__(self, step: Step, not_before: float) -> None:
        self.step = step
        self.not_before = not_before
        self.repeated = False
        self.repairs: deque[float] = deque(maxlen=FIGHT_REPAIRS)
        self.warned = float("-inf")
        self.retry = 0.0


class Throttle:
    """Remembers the last step on each file. A step that is new is never held back, however fast they come."""

    def __init__(self) -> None:
        self._histories: dict[Path, _History] = {}

    def held_until(self, step: Step, now: float) -> float | None:
        """Return when the step may be done, None for at once. All times are monotonic seconds."""
        history = self._histories.get(step.path)
        if history is None or history.step != step or now >= history.not_before:
            return None
        return history.not_before

    def done(self, step: Step, now: float) -> str | None:
        """Note that the step was done; return a warning when its file keeps being changed by somebody else."""
        history = self._histories.setdefault(step.path, _History(step, float("-inf")))
        history.repeated = history.step == step and history.not_before > float("-inf") and not history.retry
        history.step, history.retry = step, 0.0
        history.not_before = now + REPAIR_INTERVAL
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
        history = self._histories.setdefault(step.path, _History(step, now))
        known = history.step == step
        history.step = step
        history.retry = min(history.retry * 2, _LAST_RETRY) if known and history.retry else _FIRST_RETRY
        history.not_before = now + history.retry
        return history.not_before

    def forget(self, directories: Iterable[str]) -> None:
        """Start anew for the files of directories that were removed: making them again is no fight."""
        lost = set(directories)
        if lost:
            kept = {path: each for path, each in self._histories.items() if os.path.realpath(path.parent) not in lost}
            self._histories = kept
