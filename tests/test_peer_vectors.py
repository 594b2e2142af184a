"""What Multus 4.3's thin_entrypoint wrote for 165 pairs of master and flags, asked of one pass after the other.

`tests/process/test_peer_vectors.py` asks it of the real program, of some of them.
"""

from __future__ import annotations

import json
import shutil
import time

import click
import pytest
from entrypoint.node.host import Host
from entrypoint.node.plan import decide
from entrypoint.node.values import Memory

from tests.node import DATA, MASTERS, scratch, settings_for

CASES = json.loads((DATA / "peer-vectors.json").read_text())
WRITTEN = [case for case in CASES if not case.get("refused")]
REFUSED = [case for case in CASES if case.get("refused")]


def name(case):
    return f"{case['master']} {' '.join(case['flags']) or 'without flags'}"


def settle(settings):
    """Look, decide and write until nothing is left to be done."""
    host, memory = Host(settings), Memory(started=time.monotonic())
    for _ in range(4):
        plan = decide(settings, host.observe(), memory)
        memory = plan.memory
        for step in plan.steps:
            host.apply(step)
        if not plan.steps:
            break
    assert plan.satisfied and not plan.steps


@pytest.mark.parametrize("case", WRITTEN, ids=name)
def test_what_is_written_is_what_the_go_peer_wrote(tmp_path, case):
    directory = scratch(tmp_path) / "net.d"
    shutil.copy(MASTERS / case["master"], directory)
    settle(settings_for(tmp_path, *case["flags"]))
    assert sorted(path.name for path in directory.iterdir()) == sorted(case["files"])
    assert json.loads((directory / case["file"]).read_text()) == case["conf"]


@pytest.mark.parametrize("case", REFUSED, ids=name)
def test_what_the_go_peer_refuses_is_refused(tmp_path, case):
    with pytest.raises(click.UsageError):
        settings_for(scratch(tmp_path), *case["flags"])


def test_no_case_was_lost():
    assert (len(WRITTEN), len(REFUSED)) == (154, 11)
