"""The bench of a whole fleet still runs, and what it counts on its API server is what the program asks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"


def fleet(tmp_path, *flags):
    written = tmp_path / "figures.json"
    command = [sys.executable, BENCH / "fleet.py", "--json", written, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(written.read_text())


@pytest.mark.process
def test_a_small_fleet_follows_all_changes_and_asks_the_api_server_nothing(tmp_path):
    printed, [figures] = fleet(tmp_path, "--growth=3", "--idle=1", "--rounds=1")
    assert "| nodes | 3 |" in printed
    assert (figures["connections"], figures["requests"]) == (0, 0)
    assert figures["resident"] > figures["proportional"] > 0
    assert [len(figures[change][0]) for change in ("token", "master")] == [3, 3]
    assert all(took > 0 for change in ("token", "master") for took in figures[change][0])
    for _ in range(3):  # one quiet second is enough: other benches make their directories beside this one's
        if figures["idle_switches"] == 0:
            break
        _, [figures] = fleet(tmp_path, "--growth=3", "--idle=1", "--rounds=1")
    assert figures["idle_switches"] == 0


@pytest.mark.process
def test_a_fleet_with_startup_taints_asks_each_node_once_and_patches_it_once(tmp_path):
    printed, figures = fleet(tmp_path, "--startup-taint", "--nodes=3")
    assert figures["requests"] == {"GET /api/v1/nodes/NAME: 200": 3, "PATCH /api/v1/nodes/NAME: 200": 3}
    assert figures["connections"] == 3
    assert "2.00 a node" in printed


@pytest.mark.process
@pytest.mark.parametrize(("outage", "refused"), [("429", "GET /api/v1/nodes/NAME: 429"), ("reset", None)])
def test_an_api_server_that_refuses_at_first_is_asked_again_until_every_taint_is_gone(tmp_path, outage, refused):
    # Longer than the first delay: each node's second try may be refused too, however late the other node starts.
    flags = ("--startup-taint", "--nodes=2", f"--outage={outage}", "--outage-seconds=3")
    _, figures = fleet(tmp_path, *flags)
    assert figures["requests"]["PATCH /api/v1/nodes/NAME: 200"] == 2
    assert figures["connections"] > 2
    assert refused is None or figures["requests"][refused] >= 2


@pytest.mark.process
def test_what_each_command_asks_of_the_api_server(tmp_path):
    _, found = fleet(tmp_path, "--calls")
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


def test_the_back_off_spreads_the_tries_of_a_large_cluster():
    program = (
        "from apicalls import TROUBLES, simulate; load = simulate(1000, TROUBLES[0]); print(load.settled, load.served)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{BENCH}:{BENCH.parent}"}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    settled, served = map(int, told.stdout.split())
    assert settled < 150  # 1,000 nodes that wait 22.5 s in the mean are 44 a second; in step they would be 1,000
    assert served < 150
