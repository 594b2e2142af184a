"""CRI-O's restart, the startup taint and the repair of pods as parts of the resident program's life."""

import contextlib
import copy
import json
import shutil
from pathlib import Path

import pytest

from tests.fake_api import FakeCluster, serving
from tests.opshost import FLANNEL, OpsHost
from tests.smallsystemd import bus, systemd
from tests.waiting import until

pytestmark = pytest.mark.process

TAINT = {"key": "multus.example/not-ready", "effect": "NoSchedule"}
AUTO = ["--multus-conf-file=auto"]
FLAGS = [*AUTO, "--startup-taint=multus.example/not-ready:NoSchedule"]
REPAIR = [*AUTO, "--repair-pods=report"]
CRIO = [*AUTO, "--restart-crio"]
RESTART = ("RestartUnit", "crio.service", "replace")


@pytest.fixture
def cluster():
    with serving(FakeCluster()) as served:
        served.add_node("node-1", TAINT)
        yield served


@pytest.fixture
def host(tmp_path, cluster):
    made = OpsHost(tmp_path)
    made.server = cluster.url
    cluster.tokens.add(made.token)
    made.environment["NODE_NAME"] = "node-1"
    made.flags = FLAGS
    return made


def children(process):
    """Return the ids of a process's children."""
    found = []
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since
            found += (task / "children").read_text().split()
    return found


def another_master(host):
    """Change the master; return once the configuration has followed."""
    host.master(document={**FLANNEL, "name": "other"})
    until(lambda: json.loads(host.generated.read_text())["delegates"][0]["name"] == "other")


def taken_away(host):
    """Let the node be no more configured: a file that the runtime reads first comes."""
    rival = host.conf_dir / "00-before.conf"
    rival.write_text("{}")
    return rival


# ---- the startup taint, and pods without their networks ----


def test_the_taint_and_then_pods_are_looked_after_once_in_a_run_when_the_node_is_configured(host, cluster):
    """One process after the other takes memory."""
    host.flags = [*FLAGS, *REPAIR]
    cluster.add_pod("a", "lan")
    with host.running() as process:
        process.says("waiting for")
        assert cluster.requests == []
        host.master()
        process.says("removed the taint multus.example/not-ready:NoSchedule from node node-1")
        assert host.generated.exists()
        assert cluster.taints("node-1") == []
        process.says("wrote an Event on pods that lack networks")
        until(lambda: not children(process))
        cluster.change("node-1", [TAINT])  # somebody else's business now
        requests = list(cluster.requests)
        host.generated.unlink()
        until(host.generated.exists)
        another_master(host)
        assert not children(process)
        assert cluster.requests == requests
    assert process.returncode == 0
    assert len(cluster.events) == 1
    last_of_the_taint = max(at for at, (_, path) in enumerate(requests) if "/nodes/" in path)
    assert last_of_the_taint < min(at for at, (_, path) in enumerate(requests) if "/pods" in path)


@pytest.mark.parametrize(
    ("flags", "tried", "done"),
    [
        (FLAGS, "is not accepted", "removed the taint"),
        (REPAIR, "--repair-pods=report is not done: 401", "wrote an Event"),
    ],
    ids=["taint", "pods"],
)
def test_nothing_is_done_when_the_node_stops_being_configured_before_the_api_server_lets_us(
    host, cluster, flags, tried, done
):
    host.flags = flags
    host.master()
    cluster.tokens.clear()  # every try is refused
    cluster.add_pod("a", "lan")
    with host.running() as process:
        process.says(tried)
        rival = taken_away(host)
        process.says("not configured any more")
        until(lambda: not children(process))
        cluster.tokens.add("next-token")
        host.rotate("next-token")
        until(lambda: "next-token" in host.kubeconfig.read_text())
        assert not children(process)
        assert cluster.taints("node-1")
        assert cluster.events == {}
        rival.unlink()
        process.says(done)


def test_an_instance_that_stands_by_does_not_remove_the_taint_of_a_node_that_is_not_configured(host, cluster):
    host.master()
    cluster.tokens.clear()  # every try is refused
    with host.running() as older:
        older.says("is not accepted")
        beside = copy.copy(host)
        beside.root = host.root / "newer"
        beside.root.mkdir()
        beside.ready = beside.root / "ready"
        with beside.running() as newer:
            older.says("standing by")
            until(beside.ready.exists)
            rival = taken_away(host)
            newer.says("not configured any more")
            until(lambda: not children(newer) and not children(older))
            cluster.tokens.add(host.token)
            assert cluster.taints("node-1")
            rival.unlink()
            until(lambda: not cluster.taints("node-1"))


def test_a_signal_while_the_api_server_is_silent_ends_the_program_and_what_it_started(host, cluster):
    host.master()
    cluster.silent.set()
    with host.running() as process:
        cluster.wait_for_requests(1)
        (child,) = children(process)
    assert process.returncode == 0
    assert "no answer of the API server" not in process.log  # nobody has waited for that
    assert "Traceback" not in process.log
    until(lambda: is_gone(child))


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("flags", [FLAGS, REPAIR], ids=["taint", "pods"])
@pytest.mark.parametrize(
    ("gone", "said"), [("NODE_NAME", "spec.nodeName"), ("KUBERNETES_SERVICE_HOST", "does this run in a pod")]
)
def test_an_errand_without_what_it_needs_is_a_usage_error_before_anything_is_written(host, flags, gone, said):
    host.master()
    before = host.snapshot()
    for arguments in ([], ["--dry-run"]):
        ran = host.run(*arguments, flags=flags, **{gone: ""})
        assert ran.returncode == 2
        assert f"{flags[1].partition('=')[0]} needs" in ran.stderr
        assert gone in ran.stderr
        assert said in ran.stderr
    assert host.snapshot() == before


def test_there_are_two_ways_to_repair_pods(host):
    ran = host.run("--dry-run", flags=["--repair-pods=restart"])
    assert ran.returncode == 2
    assert "'--repair-pods': 'restart' is not one of 'report', 'delete'" in ran.stderr


@pytest.mark.parametrize(("mode", "what"), [("report", "write an Event on each"), ("delete", "evict those that")])
def test_a_dry_run_tells_of_every_errand_and_asks_nobody(host, cluster, mode, what):
    host.master()
    ran = host.run("--dry-run", "--restart-crio", f"--repair-pods={mode}")
    assert ran.returncode == 0, ran.stderr
    assert "would restart crio.service over D-Bus" in ran.stdout
    assert "would remove the taint multus.example/not-ready:NoSchedule from node node-1" in ran.stdout
    assert "would look for pods of node node-1 that lack networks" in ran.stdout
    assert what in ran.stdout
    assert host.token not in ran.stdout
    assert cluster.requests == []
    host.configure(AUTO)
    assert "crio" not in host.run("--dry-run", "--restart-crio").stdout


# ---- CRI-O ----


@pytest.fixture
def crio(host, tmp_path):
    """As much of systemd as a restart needs, on a bus that the program is told of."""
    if shutil.which("dbus-daemon") is None:
        pytest.skip("needs dbus-daemon (Debian package dbus)")
    host.flags = CRIO
    with bus(tmp_path) as address, systemd(address) as served:
        host.environment["DBUS_SYSTEM_BUS_ADDRESS"] = address
        yield served


def test_cri_o_is_restarted_once_after_the_first_change_and_not_by_a_restart_of_the_pod(host, crio):
    with host.running() as process:
        process.says("waiting for")
        assert crio.calls == []
        host.master()
        process.says("restarted crio.service")
        another_master(host)
    assert crio.calls.count(RESTART) == 1
    with host.running():
        until(host.ready.exists)
    assert crio.calls.count(RESTART) == 1
    host.generated.unlink()
    with host.running() as process:
        process.says("restarted crio.service")
    assert crio.calls.count(RESTART) == 2


def test_cri_o_is_restarted_when_only_a_stale_file_that_it_would_read_first_has_gone(host, crio):
    host.master(document={**FLANNEL, "cniVersion": "1.0.0"})
    host.configure(AUTO)
    host.generated.write_text("{}")  # the other name, which sorts first
    with host.running() as process:
        process.says("restarted crio.service")
    assert not host.generated.exists()
    assert crio.calls.count(RESTART) == 1


def test_the_one_restart_is_not_spent_on_taking_a_configuration_away(host, crio):
    host.flags = [*CRIO, "--cleanup-config-on-exit"]
    host.generated.write_text("{}")
    with host.running() as process:
        until(lambda: not host.generated.exists())
        process.says("waiting for")
        assert crio.calls == []
        host.master()
        process.says("restarted crio.service")
    assert crio.calls.count(RESTART) == 1


def test_a_cri_o_that_cannot_be_restarted_never_stops_the_entrypoint(host, tmp_path):
    """Upstream 975: a node without systemctl or systemd."""
    host.flags = [*CRIO, "--log-format=json"]
    host.master()
    with host.running(DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={tmp_path}/no-bus") as process:
        process.says("crio.service is not restarted (--restart-crio)", "mount the host's directory /run/dbus")
        host.rotate("next-token")
        until(lambda: "next-token" in host.kubeconfig.read_text())
        assert host.ready.exists()
    assert process.returncode == 0
    lines = [json.loads(line) for line in process.log.splitlines()]  # words of a child are part of this log
    assert any(line["level"] == "error" and "is not restarted" in line["message"] for line in lines)


def test_pods_come_to_the_node_only_after_cri_o_knows_the_configuration(host, cluster, crio):
    crio.result = None
    host.flags = [*FLAGS, "--restart-crio"]
    host.master()
    with host.running() as process:
        until(lambda: RESTART in crio.calls)
        assert cluster.requests == []
        crio.finish("failed")  # whatever came of it: the taint must not stay for ever
        process.says("removed the taint")
        assert process.log.index("is not restarted") < process.log.index("removed the taint")
