"""The bench still runs; what it measures is for people to judge, on a quiet machine."""

import json
import subprocess
import sys

import pytest

from tests.manifests import ROOT

sys.path.insert(0, str(ROOT / "bench"))

import bench
from tests.container import lab


def run(script, tmp_path, *arguments):
    written = tmp_path / "figures.json"
    command = [sys.executable, ROOT / "bench" / script, "--json", written, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(written.read_text())


@pytest.mark.process
@pytest.mark.thorough
def test_a_quick_bench_measures_every_row_on_the_host_and_prints_the_table(tmp_path):
    told, document = run("bench.py", tmp_path, "--quick", "--only=host")
    assert [name for name in document["rows"] if name not in told] == []
    assert [reason for reason in document["left out"] if reason not in told] == []
    for name, row in document["rows"].items():
        assert ("host" in row) != ("upstream's limits" in name), name
        assert name.startswith("idle") or row.get("host", {"median": 1})["median"] > 0, row


@pytest.mark.process
@pytest.mark.thorough
def test_a_small_fleet_follows_all_changes_and_asks_the_api_server_nothing(tmp_path):
    printed, found = run("fleet.py", tmp_path, "--nodes=3", "--idle=1", "--rounds=1")
    assert "| nodes | 3 |" in printed
    assert (found["API server: connections"], found["API server: requests"]) == (0, 0)
    assert all(number > 0 for name, number in found.items() if "median" in name or "memory" in name), found


@pytest.mark.process
@pytest.mark.thorough
def test_what_each_command_asks_of_the_api_server(tmp_path):
    _, found = run("fleet.py", tmp_path, "--calls")
    assert {each["command"]: each["requests"] for each in found} == {
        "run: start, new token, new master, stop": 0,
        "run --startup-taint, node has the taint": 2,
        "run --startup-taint, taint gone already": 1,
        "--dry-run --startup-taint": 0,
        "install --type=thin": 0,
        "run --repair-pods=report, no pod lacks networks": 1,
        "check": 9,
        "check --startup-taint": 12,
        "uninstall --dry-run": 0,
        "uninstall": 0,
    }


@pytest.mark.parametrize(
    ("name", "samples", "met"),
    [
        (bench.TOKEN, [4.0] * 60, True),
        (bench.TOKEN, [6.0] * 60, False),
        (bench.TOKEN, [4.0] * 58 + [30.0] * 2, False),
        (bench.SWITCHES, [0.0] * 9, True),
        (bench.SWITCHES, [0.0] * 9 + [1.0], False),
        (bench.CPU, [10.0], None),
    ],
)
def test_a_row_is_as_aimed_only_when_everything_that_is_asked_for_is(name, samples, met):
    measured = {name: samples, bench.BARE_WALL: [2.0], bench.BARE_CPU: [2.0]}
    assert bench.figures(name, measured).met is met
    if bench.ROWS[name].bare:
        assert bench.figures(name, measured).ratio == samples[0] / 2


def test_what_was_not_measured_in_one_place_is_a_gap_there_and_not_a_miss():
    told = list(bench.lines({"host": {bench.TOKEN: [1.0, 2.0], bench.BARE_WALL: [1.0]}, "container": {}}))
    (line,) = [line for line in told if line.startswith(bench.TOKEN)]
    assert "MISSED" not in line
    assert line.split()[-1] == "met"


@pytest.mark.parametrize(
    ("unified", "files"),
    [
        (False, {"cpuacct.usage": "2500000\n", "memory.oom_control": "under_oom 0\noom_kill 7\n"}),
        (True, {"cpu.stat": "usage_usec 2500\nuser_usec 2000\n", "memory.events": "low 0\nmax 9\noom_kill 7\n"}),
    ],
    ids=["version 1", "version 2"],
)
def test_the_counters_of_a_control_group_are_read_in_both_versions(files, unified, monkeypatch, tmp_path):
    monkeypatch.setattr(lab, "UNIFIED", unified)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    group = lab.Cgroup("any")
    group.cpu = group.memory = tmp_path
    assert (group.cpu_seconds(), group.oom_kills()) == (0.0025, 7)
