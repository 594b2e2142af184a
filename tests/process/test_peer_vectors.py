"""What Multus 4.3's thin_entrypoint wrote for 165 pairs of master and flags, asked of the real program."""

from __future__ import annotations

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.process.scratch import DATA, MASTERS, ScratchHost

CASES = json.loads((DATA / "peer-vectors.json").read_text())


def _name(case):
    return f"{case['master']} {' '.join(case['flags']) or 'without flags'}"


def _outcome(root, case):
    """Return exit code, log, what the configuration directory holds, and whether the host is untouched."""
    host = ScratchHost(root)
    shutil.copy(MASTERS / case["master"], host.conf_dir)
    before = host.snapshot()
    if case.get("refused"):
        outcome = host.run(*case["flags"])
        return outcome.returncode, outcome.stderr, {}, host.snapshot() == before
    with host.start(*case["flags"]) as program:
        host.until_ready(program)
        code, _ = program.stop(signal.SIGTERM)
        log = program.log
    files = {name: (host.conf_dir / name) for name in host.names()}
    return code, log, {name: path.read_text() if path.is_file() else None for name, path in files.items()}, False


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All cases, a few at a time: one after the other they would take most of a minute."""
    root = tmp_path_factory.mktemp("vectors")
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda pair: _outcome(root / str(pair[0]), pair[1]), enumerate(CASES)))


@pytest.mark.parametrize("index", range(len(CASES)), ids=map(_name, CASES))
def test_the_program_writes_what_the_go_peer_wrote(outcomes, index):
    case = CASES[index]
    code, log, files, untouched = outcomes[index]
    if case.get("refused"):
        assert (code, untouched) == (2, True), log
        return
    assert code == 0, log
    assert sorted(files) == sorted(case["files"])
    assert json.loads(files[case["file"]]) == case["conf"]


def test_no_case_was_lost():
    assert len(CASES) == 165
    assert sum(1 for case in CASES if case.get("refused")) == 11


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
