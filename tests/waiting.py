"""The one way in which tests wait: for a condition, never for a time."""

from __future__ import annotations

import time

BOUND = 120.0
"""Seconds that any condition is waited for: only a test that is going to fail waits so long on a busy machine."""
FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.001, 0.02, 1.2
"""Seconds between two looks. Many tests wait at a time, and what they wait for shall have the CPU."""


def until(condition, what="the condition"):
    """Wait until the condition holds, and return what it returned.

    `what` says what was waited for, or is a function that says it once that is known to be in vain.
    """
    end, pause = time.monotonic() + BOUND, FIRST_PAUSE
    while True:
        looked = time.monotonic()
        if outcome := condition():
            return outcome
        now = time.monotonic()
        if now > end:
            raise AssertionError(f"{BOUND:g} s were not enough for {what() if callable(what) else what}")
        time.sleep(max(pause, 2 * (now - looked)))  # who asks podman leaves the CPU to it
        pause = min(pause * GROWTH, LONGEST_PAUSE)
