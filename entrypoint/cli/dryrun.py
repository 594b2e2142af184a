"""`--dry-run`: what one pass would do, and the files that it would write, with secrets masked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from entrypoint.cli.masking import masked
from entrypoint.node.host import Host
from entrypoint.node.plan import decide
from entrypoint.node.values import Copy, Memory, Plan, Remove, Rename, Write
from entrypoint.settings import Settings
from entrypoint.telling.logs import logger


def run(settings: Settings, say: Callable[[str], None]) -> bool:
    """Say what one pass would do and write; return whether the node would be as it must be then."""
    seen = Host(settings).observe().settled()
    plan = decide(settings, seen, Memory(started=seen.now))
    if plan.satisfied or (plan.steps and not any(problem.fatal for problem in plan.problems)):
        for line in _would_do(settings, plan):
            say(line)
    for warning in plan.warnings:
        logger.warning("%s", warning)
    for problem in plan.problems:
        logger.error("%s", problem.message)
    if plan.waiting:
        logger.error("%s", plan.waiting)
    return plan.satisfied


def _would_do(settings: Settings, plan: Plan) -> Iterator[str]:
    """Yield a line for each step, and under a file its content with secrets masked."""
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
