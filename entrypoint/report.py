"""Steps and plans in words, for the log and for `--dry-run`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from entrypoint.node import Copy, Remove, Rename, Step, Write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from entrypoint.node import Plan

# A pattern, and not compiled here: only a dry run needs it.
_TOKEN = rb'(?m)^( *token: )".*"$'


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


def would_do(plan: Plan) -> Iterator[str]:
    """Yield the lines of `--dry-run`: each step, and under a file its content with the token masked."""
    if not plan.steps:
        yield "nothing to do: the node is as it must be"
    for step in plan.steps:
        match step:
            case Write():
                yield f"would write {step.path}, mode {step.mode:o}:"
                content = re.sub(_TOKEN, rb'\1"(masked)"', step.content)
                yield from (f"    {line}" for line in content.decode("utf-8", "replace").splitlines())
            case Copy():
                yield f"would install {step.path} from {step.source}"
            case Remove():
                yield f"would remove {step.path}: {step.because}"
            case Rename():
                yield f"would rename {step.path} to {step.to.name}"
