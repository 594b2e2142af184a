"""The entrypoint that is process 1 of this container: what it was told, so that nobody has to say it again.

`kubectl exec POD -- multus-entrypoint check` looks at what that one cares for, and so needs its flags and environment.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from itertools import dropwhile
from pathlib import Path
from typing import Any, NamedTuple

import click

from entrypoint.cli import flags, options
from entrypoint.cli.options import PeerCommand

PROC, PID = Path("/proc"), 1
_NAMES = frozenset({"multus-entrypoint", "entrypoint.sh", "thin_entrypoint", "entrypoint"})
"""What the resident program is called by, and its module; `install_multus` copies a binary and ends."""
_SUBCOMMANDS = frozenset({"check", "uninstall", "install"})


class Running(NamedTuple):
    """What an entrypoint was told."""

    values: Mapping[str, Any]
    """The value of each flag but `--dry-run`: to say that is to ask for one now."""
    told: str
    """The same in a sentence, with its command line behind the variables that set a flag."""


NOBODY = Running(
    {},
    "no entrypoint is process 1 of this container: all flags have their defaults, or what the environment sets; "
    "give those of the DaemonSet",
)


def process_1() -> Running:
    """Return what the entrypoint was told that is process 1, and take over its environment.

    `NOBODY` where that is this process or another program, or sees other files, as beside `kubectl debug`.
    """
    process = PROC / str(PID)
    try:
        if os.getpid() == PID or os.readlink(process / "ns/mnt") != os.readlink(PROC / "self/ns/mnt"):
            return NOBODY
        # A script's words begin with its interpreter; its name stays the one that it was called by, links or not.
        python, *rest = _words(process / "cmdline")
        script, *arguments = dropwhile(lambda word: word.startswith("-"), rest)
        environment = dict(word.split("=", 1) for word in _words(process / "environ") if "=" in word)
    except (OSError, ValueError):
        return NOBODY  # it may not be looked at, has too few words, or this is no Linux as we know it, such as gVisor
    name = os.path.basename(script)
    if name not in _NAMES or not os.path.basename(python).startswith("python"):
        return NOBODY
    os.environ.update(environment)
    known = flags.thin() if name == "thin_entrypoint" else [*flags.ENTRYPOINT]
    try:
        context = PeerCommand(None, params=[*known], add_help_option=False).make_context(name, [*arguments])
    except click.ClickException:
        return NOBODY  # it is about to end over its flags, or is a subcommand with flags of its own
    if _SUBCOMMANDS.intersection(context.args):
        return NOBODY
    values = {name: value for name, value in context.params.items() if name != "dry_run"}
    # What the variables of its flags say is in the values. They would win over those, although its command line did not
    # let them.
    for flag in known:
        for variable in flag.variables if flag.name in values else ():
            os.environ.pop(variable, None)
    set_there = [f"{name}={value}" for name, value in environment.items() if name.startswith(options.PREFIX)]
    said = shlex.join([*set_there, *arguments]) or "no flags"
    return Running(values, f"the flags are those of process {PID} in this container: {said}")


def _words(path: Path) -> list[str]:
    return [os.fsdecode(word) for word in path.read_bytes().split(b"\0")[:-1]]
