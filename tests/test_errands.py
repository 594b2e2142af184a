"""CRI-O's restart and the startup taint as parts of the resident program's life."""

import copy
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from entrypoint.disk.wakeup import Wakeup
from tests.fake_api import FakeCluster, serving
from tests.opshost import FLANNEL, ScratchHost
from tests.process.scratch import watches
from tests.smallsystemd import bus, systemd
from tests.waiting import until

pytestmark = pytest.mark.process

needs_dbus = pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="needs dbus-daemon (Debian package dbus)")

TAINT = {"key": "multus.example/not-ready", "effect": "NoSchedule"}
FLAGS = ["--multus-conf-file=auto", "--startup-taint=multus.example/not-ready:NoSchedule"]
CRIO = ["--multus-conf-file=auto", "--restart-crio"]
RESTART = ("RestartUnit", "crio.service", "replace")


@pytest.fixture
def cluster():
    with serving(FakeCluster()) as served:
        served.add_node("node-1", TAINT)
        yield served


@pytest.fixture
def host(tmp_path, cluster):
    made = ScratchHost(tmp_path)
    made.server = cluster.url
    cluster.tokens.add(made.token)
    made.environment["NODE_NAME"] = "node-1"
    made.flags = FLAGS
    return made


def children(process):
    """Return the ids of a process's children."""
    found = []
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        found += (task / "children").read_text().split()
    return found


# ---- the startup taint ----


def test_the_taint_stays_until_the_node_is_configured(host, cluster):
    with host.running() as process:
        until(lambda: "waiting for" in process.log())
        assert cluster.requests == []
        host.master()
        until(lambda: not cluster.taints("node-1"))
        until(lambda: "removed the taint multus.example/not-ready:NoSchedule from node node-1" in process.log())
        assert host.generated.exists()
    assert process.returncode == 0


def test_the_taint_stays_when_the_node_stops_being_configured_before_the_api_server_answers(host, cluster):
    host.master()
    cluster.tokens.clear()  # every try is refused
    with host.running() as process:
        until(lambda: "is not accepted" in process.log())
        rival = host.conf_dir / "00-before.conf"
        rival.write_text("{}")
        until(lambda: "not configured any more" in process.log())
        until(lambda: not children(process))
        cluster.tokens.add(host.token)
        time.sleep(3)  # longer than the first delay between two tries
        assert cluster.taints("node-1")
        rival.unlink()
        until(lambda: not cluster.taints("node-1"))


def test_a_node_that_flips_does_not_start_one_process_after_the_other(host, cluster):
    host.master()
    cluster.tokens.clear()  # every try is refused
    with host.running() as process:
        until(lambda: children(process))
        started, rival = set(), host.conf_dir / "00-before.conf"
        for _ in range(10):
            started |= set(children(process))
            rival.write_text("{}")
            until(lambda: not host.ready.exists())
            rival.unlink()
            until(host.ready.exists)
            time.sleep(0.1)
        assert len(started | set(children(process))) <= 2
        cluster.tokens.add(host.token)
        until(lambda: not cluster.taints("node-1"))


def test_an_instance_that_stands_by_does_not_remove_the_taint_of_a_node_that_is_not_configured(host, cluster):
    host.master()
    cluster.tokens.clear()  # every try is refused
    with host.running() as older:
        until(lambda: "is not accepted" in older.log())
        beside = copy.copy(host)
        beside.root = host.root / "newer"
        beside.root.mkdir()
        with beside.running() as newer:
            until(lambda: "standing by" in older.log())
            (host.conf_dir / "00-before.conf").write_text("{}")
            until(lambda: "not configured any more" in newer.log())
            until(lambda: not children(newer))
            cluster.tokens.add(host.token)
            time.sleep(3)  # longer than the first delay between two tries
            assert cluster.taints("node-1")
            assert not children(older)
            (host.conf_dir / "00-before.conf").unlink()
            until(lambda: not cluster.taints("node-1"))


def test_the_process_that_removes_the_taint_is_gone_afterwards_and_its_memory_with_it(host, cluster):
    host.master()
    with host.running() as process:
        until(lambda: "removed the taint" in process.log())
        until(lambda: not children(process))
        until(lambda: watches(process))
        with_errand = resident(process)
    host.flags = ["--multus-conf-file=auto"]
    with host.running() as process:
        until(lambda: watches(process))
        assert with_errand < resident(process) + (2 << 20)


def resident(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_a_signal_while_the_api_server_is_silent_ends_the_program_in_a_moment(host, cluster):
    host.master()
    cluster.silent.set()
    with host.running() as process:
        cluster.wait_for_requests(1)
        (child,) = children(process)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        assert time.monotonic() - begun < 0.5  # 100 ms are the aim; this machine may be busy with other tests
    assert process.returncode == 0
    until(lambda: not os.path.exists(f"/proc/{child}") or "Z" in Path(f"/proc/{child}/stat").read_text().split())
    assert "Traceback" not in process.log()


def test_a_signal_that_comes_between_two_passes_is_not_forgotten():
    wakeup = Wakeup()
    wakeup.stop(signal.SIGTERM)
    wakeup.clear()  # the loop had looked whether to stop just before the signal came
    sleeping = threading.Thread(target=wakeup.wait, args=(None,), daemon=True)
    sleeping.start()
    sleeping.join(10)
    assert not sleeping.is_alive()


def test_a_token_rotated_while_the_api_server_refuses_the_old_one_is_used(host, cluster):
    host.master()
    cluster.tokens.clear()
    with host.running() as process:
        until(lambda: "is not accepted" in process.log())
        cluster.tokens.add("next-token")
        host.rotate("next-token")
        until(lambda: not cluster.taints("node-1"))


def test_the_taint_is_removed_once_in_a_run(host, cluster):
    host.master()
    with host.running() as process:
        until(lambda: "removed the taint" in process.log())
        cluster.change("node-1", [TAINT])  # somebody else's business now
        count = len(cluster.requests)
        host.master(document={**FLANNEL, "name": "other"})
        until(lambda: json.loads(host.generated.read_text())["delegates"][0]["name"] == "other")
        assert len(cluster.requests) == count


@pytest.mark.parametrize(
    ("gone", "said"), [("NODE_NAME", "spec.nodeName"), ("KUBERNETES_SERVICE_HOST", "does this run in a pod")]
)
def test_a_startup_taint_without_what_it_needs_is_a_usage_error_before_anything_is_written(host, gone, said):
    host.master()
    before = host.snapshot()
    for arguments in ([], ["--dry-run"]):
        ran = host.run(*arguments, **{gone: ""})
        assert ran.returncode == 2
        assert gone in ran.stderr
        assert said in ran.stderr
    assert host.snapshot() == before


def test_a_dry_run_tells_of_the_taint_and_of_cri_o_and_asks_nobody(host, cluster):
    host.master()
    ran = host.run("--dry-run", "--restart-crio")
    assert ran.returncode == 0, ran.stderr
    assert "would restart crio.service over D-Bus" in ran.stdout
    assert "would remove the taint multus.example/not-ready:NoSchedule from node node-1" in ran.stdout
    assert host.token not in ran.stdout
    assert cluster.requests == []


def test_a_dry_run_on_a_configured_node_does_not_restart_cri_o(host):
    host.master()
    host.configure(["--multus-conf-file=auto"])
    assert "crio" not in host.run("--dry-run", "--restart-crio").stdout


# ---- pods without their networks ----

REPAIR = ["--multus-conf-file=auto", "--repair-pods=report"]


def test_pods_are_looked_for_once_in_a_run_when_the_node_is_configured(host, cluster):
    host.flags = REPAIR
    cluster.add_pod("a", "lan")
    with host.running() as process:
        until(lambda: "waiting for" in process.log())
        assert cluster.requests == []
        host.master()
        until(lambda: "wrote an Event on pods that lack networks" in process.log())
        until(lambda: not children(process))
        count = len(cluster.requests)
        host.generated.unlink()
        until(host.generated.exists)
        host.master(document={**FLANNEL, "name": "other"})
        until(lambda: json.loads(host.generated.read_text())["delegates"][0]["name"] == "other")
        assert len(cluster.requests) == count
    assert len(cluster.events) == 1


def test_pods_come_after_the_taint_so_that_one_process_at_a_time_takes_memory(host, cluster):
    host.flags = [*FLAGS, "--repair-pods=delete"]
    cluster.add_pod("a", "lan")
    host.master()
    with host.running() as process:
        until(lambda: "evicted 1 pods" in process.log())
    last_of_the_taint = max(at for at, (_, path) in enumerate(cluster.requests) if "/nodes/" in path)
    assert last_of_the_taint < min(at for at, (_, path) in enumerate(cluster.requests) if "/pods" in path)


def test_pods_are_left_alone_when_the_node_stops_being_configured_before_they_are_looked_at(host, cluster):
    host.flags = REPAIR
    host.master()
    cluster.tokens.clear()
    cluster.add_pod("a", "lan")
    with host.running() as process:
        until(lambda: "--repair-pods=report is not done: 401" in process.log())
        rival = host.conf_dir / "00-before.conf"
        rival.write_text("{}")
        until(lambda: "not configured any more" in process.log())
        until(lambda: not children(process))
        cluster.tokens.add(host.token)
        rival.unlink()
        until(lambda: "wrote an Event" in process.log())


@pytest.mark.parametrize(
    ("gone", "said"), [("NODE_NAME", "spec.nodeName"), ("KUBERNETES_SERVICE_HOST", "does this run in a pod")]
)
def test_a_repair_of_pods_without_what_it_needs_is_a_usage_error(host, gone, said):
    ran = host.run(flags=REPAIR, **{gone: ""})
    assert ran.returncode == 2
    assert "--repair-pods needs" in ran.stderr
    assert said in ran.stderr


def test_there_are_two_ways_to_repair_pods(host):
    ran = host.run(flags=["--repair-pods=restart"])
    assert ran.returncode == 2
    assert "'--repair-pods': 'restart' is not one of 'report', 'delete'" in ran.stderr


@pytest.mark.parametrize(("mode", "what"), [("report", "write an Event on each"), ("delete", "evict those that")])
def test_a_dry_run_tells_of_the_repair_of_pods(host, cluster, mode, what):
    host.master()
    ran = host.run("--dry-run", flags=["--multus-conf-file=auto", f"--repair-pods={mode}"])
    assert ran.returncode == 0, ran.stderr
    assert "would look for pods of node node-1 that lack networks" in ran.stdout
    assert what in ran.stdout
    assert cluster.requests == []


# ---- CRI-O ----


@needs_dbus
def test_cri_o_is_restarted_once_after_the_first_change_and_not_by_a_restart_of_the_pod(host, tmp_path):
    host.flags = CRIO
    with bus(tmp_path) as address, systemd(address) as served:
        with host.running(DBUS_SYSTEM_BUS_ADDRESS=address) as process:
            until(lambda: "waiting for" in process.log())
            assert served.calls == []
            host.master()
            until(lambda: "restarted crio.service" in process.log())
            host.master(document={**FLANNEL, "name": "other"})
            until(lambda: json.loads(host.generated.read_text())["delegates"][0]["name"] == "other")
        assert served.calls.count(RESTART) == 1
        with host.running(DBUS_SYSTEM_BUS_ADDRESS=address) as process:
            until(host.ready.exists)
        assert served.calls.count(RESTART) == 1
        host.generated.unlink()
        with host.running(DBUS_SYSTEM_BUS_ADDRESS=address) as process:
            until(lambda: "restarted crio.service" in process.log())
        assert served.calls.count(RESTART) == 2


@needs_dbus
def test_cri_o_is_restarted_when_only_a_stale_file_that_it_would_read_first_has_gone(host, tmp_path):
    host.flags = CRIO
    host.master(document={**FLANNEL, "cniVersion": "1.0.0"})
    host.configure(["--multus-conf-file=auto"])
    host.generated.write_text("{}")  # the other name, which sorts first
    with bus(tmp_path) as address, systemd(address) as served:
        with host.running(DBUS_SYSTEM_BUS_ADDRESS=address) as process:
            until(lambda: "restarted crio.service" in process.log())
    assert not host.generated.exists()
    assert served.calls.count(RESTART) == 1


@needs_dbus
def test_the_one_restart_is_not_spent_on_taking_a_configuration_away(host, tmp_path):
    host.flags = [*CRIO, "--cleanup-config-on-exit"]
    host.generated.write_text("{}")
    with bus(tmp_path) as address, systemd(address) as served:
        with host.running(DBUS_SYSTEM_BUS_ADDRESS=address) as process:
            until(lambda: not host.generated.exists())
            until(lambda: "waiting for" in process.log())
            assert served.calls == []
            host.master()
            until(lambda: "restarted crio.service" in process.log())
    assert served.calls.count(RESTART) == 1


def test_a_cri_o_that_cannot_be_restarted_never_stops_the_entrypoint(host, tmp_path):
    host.flags = CRIO
    host.master()
    with host.running(DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={tmp_path}/no-bus") as process:
        until(lambda: "crio.service is not restarted (--restart-crio)" in process.log())
        assert "mount the host's directory /run/dbus" in process.log()
        host.rotate("next-token")
        until(lambda: "next-token" in host.kubeconfig.read_text())
        assert host.ready.exists()
    assert process.returncode == 0


@needs_dbus
def test_pods_come_to_the_node_only_after_cri_o_knows_the_configuration(host, cluster, tmp_path):
    host.flags = [*FLAGS, "--restart-crio"]
    host.master()
    with bus(tmp_path) as address, systemd(address, result=None) as served:
        with host.running(DBUS_SYSTEM_BUS_ADDRESS=address) as process:
            until(lambda: RESTART in served.calls)
            assert cluster.requests == []
            served.finish("failed")  # whatever came of it: the taint must not stay for ever
            until(lambda: "removed the taint" in process.log())
            assert process.log().index("is not restarted") < process.log().index("removed the taint")


def test_words_of_a_child_are_part_of_the_json_log(host, tmp_path):
    host.flags = [*CRIO, "--log-format=json"]
    host.master()
    with host.running(DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={tmp_path}/no-bus") as process:
        until(lambda: "is not restarted" in process.log())
    lines = [json.loads(line) for line in process.log().splitlines()]
    assert any(line["level"] == "error" and "is not restarted" in line["message"] for line in lines)
