"""`--dry-run`: what one pass would do, and the files that it would write, with secrets masked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from entrypoint.cli.masking import masked
from entrypoint.node.loop import Decision, decide_once
from entrypoint.node.steps import Write
from entrypoint.settings import Settings
from entrypoint.telling.log import logger


def run(settings: Settings, say: Callable[[str], None]) -> bool:
    """Say what one pass would do and write; return whether the node would be as it must be then."""
    decision = decide_once(settings)
    fatal = any(fault.fatal or fault.at_start for wish in decision.wishes for fault in wish.faults)
    if decision.able or (any(wish.steps for wish in decision.wishes) and not fatal):
        for line in _would_do(settings, decision):
            say(line)
    for warning in decision.warnings:
        logger.warning("%s", warning)
    for message in (*decision.messages, *([decision.waits] if decision.waits else [])):
        logger.error("%s", message)
    return decision.able


def _would_do(settings: Settings, decision: Decision) -> Iterator[str]:
    """Yield a line for each step, and under a file its content with secrets masked."""
    steps = [step for wish in decision.wishes for step in wish.steps if step.would]
    if not steps:
        yield "nothing to do: the node is as it must be"
    for step in steps:
        yield step.would
        if isinstance(step, Write):
            yield from (f"    {line}" for line in masked(step.content).splitlines())
    if settings.restart_crio and any(step.path in settings.output_files for step in steps):
        yield "would restart crio.service over D-Bus (--restart-crio)"
    if settings.startup_taint is not None:
        yield f"would remove the taint {settings.startup_taint} from node {settings.node_name}, if it has it"
    if settings.repair_pods:
        acts = {"report": "write an Event on each", "delete": "evict those that a controller makes again"}
        yield (
            f"would look for pods of node {settings.node_name} that lack networks they ask for, "
            f"and {acts[settings.repair_pods]} (--repair-pods)"
        )
