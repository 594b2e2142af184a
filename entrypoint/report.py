"""Steps and plans in words: for the log, each message once for as long as its cause lasts, and for `--dry-run`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from entrypoint.logs import logger
from entrypoint.masking import masked
from entrypoint.node import Copy, Plan, Remove, Rename, Step, Write
from entrypoint.settings import Settings

_WAITING_INTERVAL = 30.0  # seconds


class Reporter:
    """Logs what is new, and remembers what has been said."""

    def __init__(self) -> None:
        self._said: dict[int, frozenset[str]] = {}
        self._waiting_said = float("-inf")
        self._configured = False

    def errors(self, messages: Sequence[str]) -> None:
        """Log each message that was not there at the last call."""
        self._news(logging.ERROR, messages)

    def warnings(self, messages: Sequence[str]) -> None:
        """Log each message that was not there at the last call."""
        self._news(logging.WARNING, messages)

    def _news(self, level: int, messages: Sequence[str]) -> None:
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


def would_do(settings: Settings, plan: Plan) -> Iterator[str]:
    """Yield the lines of `--dry-run`: each step, and under a file its content with secrets masked."""
    if not plan.steps:
        yield "nothing to do: the node is as it must be"
    for step in plan.steps:
        match step:
            case Write():
                yield f"would write {step.path}, mode {step.mode:o}:"
                yield from (f"    {line}" for line in masked(step.content).splitlines())
            case Copy():
                yield f"would install {step.path} from {step.source}"
            case Remove():
                yield f"would remove {step.path}: {step.because}"
            case Rename():
                yield f"would rename {step.path} to {step.to.name}"
    if settings.restart_crio and plan.configuration is not None:
        yield "would restart crio.service over D-Bus (--restart-crio)"
    if settings.startup_taint is not None:
        yield f"would remove the taint {settings.startup_taint} from node {settings.node_name}, if it has it"
    if settings.repair_pods:
        acts = {"report": "write an Event on each", "delete": "evict those that a controller makes again"}
        yield (
            f"would look for pods of node {settings.node_name} that lack networks they ask for, "
            f"and {acts[settings.repair_pods]} (--repair-pods)"
        )
