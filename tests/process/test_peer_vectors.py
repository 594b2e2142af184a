"""What Multus 4.3's thin_entrypoint wrote for pairs of master and flags, asked of the real program.

`tests/node/test_master.py` has all 165 pairs, without a process for each.
"""

from __future__ import annotations

import json
import shutil

import pytest

from tests.process.scratch import DATA, MASTERS

CASES = json.loads((DATA / "peer-vectors.json").read_text())[::7]
"""Each network and each flag."""


def _name(case):
    return f"{case['master']} {' '.join(case['flags']) or 'without flags'}"


@pytest.mark.parametrize("case", CASES, ids=map(_name, CASES))
def test_the_program_writes_what_the_go_peer_wrote(host, case):
    shutil.copy(MASTERS / case["master"], host.conf_dir)
    (host.root / "host/x").touch()  # the readiness indicator of some cases
    if case.get("refused"):
        before = host.snapshot()
        outcome = host.run(*case["flags"])
        assert outcome.returncode == 2, outcome.stderr
        assert host.snapshot() == before
        return
    with host.start(*case["flags"]) as program:
        host.until_ready(program)
        code = program.stop()
        assert code == 0, program.log
    assert host.names() == sorted(case["files"])
    assert json.loads((host.conf_dir / case["file"]).read_text()) == case["conf"]


def test_no_network_and_no_flag_was_lost():
    everything = json.loads((DATA / "peer-vectors.json").read_text())
    for part in (lambda case: {case["master"]}, lambda case: {flag.partition("=")[0] for flag in case["flags"]}):
        assert set().union(*map(part, CASES)) == set().union(*map(part, everything))


def test_a_master_without_a_version_gets_one_with_a_warning(host):
    """The Go peer refuses it."""
    name = "10-aws-no-cniversion.conflist"
    shutil.copy(MASTERS / name, host.conf_dir)
    original = json.loads((MASTERS / name).read_text())
    with host.configured() as program:
        document = json.loads(host.conf.read_text())
        program.says("warning", name, "0.1.0")
    assert document["cniVersion"] == "0.1.0"
    assert document["delegates"] == [{"cniVersion": "0.1.0", **original}]


def test_a_master_without_a_version_gets_the_one_of_the_flag(host):
    name = "10-aws-no-cniversion.conflist"
    shutil.copy(MASTERS / name, host.conf_dir)
    with host.configured("--cni-version=1.0.0") as program:
        document = json.loads(host.conflist.read_text())
        assert not program.lines("warning")
    assert document["cniVersion"] == document["plugins"][0]["delegates"][0]["cniVersion"] == "1.0.0"
