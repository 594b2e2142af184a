import json
import logging
import os
import time

import pytest
from entrypoint.node.daemon import Daemon, GaveUpError
from entrypoint.node.host import StepError
from entrypoint.node.values import Copy, Remove, Write

from entrypoint.disk.wakeup import Wakeup
from tests.node import CRIO, FLANNEL, IN_CLUSTER, scratch, settings_for


@pytest.fixture
def root(tmp_path):
    return scratch(tmp_path)


@pytest.fixture
def start(root):
    daemons = []

    def make(*flags):
        daemon = Daemon(settings_for(root, f"--ready-file={root}/ready", *flags), Wakeup())
        daemons.append(daemon)
        return daemon

    yield make
    for daemon in daemons:
        daemon.close()
        daemon._watcher.stop()


def put(root, content, name="10-a.conflist"):
    (root / "net.d" / name).write_bytes(content)


def outputs(root):
    return sorted(name for name in os.listdir(root / "net.d") if name.startswith("00-"))


def loop_until(daemon, done):
    """Do passes as the loop does, each when the one before asked for it, until something is so."""
    limit = time.monotonic() + 30
    while True:
        assert time.monotonic() < limit
        daemon._wakeup.clear()
        deadline = daemon._pass()
        if done():
            return
        daemon._wakeup.wait(deadline)


def failing(daemon, monkeypatch, *kinds):
    """Let steps of these kinds fail as on a full disk."""
    real = daemon._host.apply

    def apply(step):
        if isinstance(step, kinds):
            raise StepError(f"cannot do {type(step).__name__}: No space left on device")
        return real(step)

    monkeypatch.setattr(daemon._host, "apply", apply)
    return lambda: monkeypatch.setattr(daemon._host, "apply", real)


def test_a_pass_configures_the_node_and_the_next_has_nothing_to_wait_for(root, start):
    put(root, FLANNEL)
    daemon = start()
    assert daemon._pass() is None
    assert outputs(root) == ["00-multus.conf"]
    assert (root / "ready").exists()
    assert daemon._pass() is None


def test_a_failure_at_start_gives_up(root, start, monkeypatch):
    put(root, FLANNEL)
    daemon = start()
    failing(daemon, monkeypatch, Copy)
    with pytest.raises(GaveUpError, match="No space left"):
        daemon._pass()
    assert outputs(root) == []


@pytest.mark.parametrize("kind", [Write, Copy])
def test_the_first_configuration_waits_for_what_it_refers_to(root, start, monkeypatch, kind):
    daemon = start()
    daemon._pass()
    (root / "sa/token").write_text("token-2")
    (root / "bin/multus").unlink()
    failing(daemon, monkeypatch, kind)
    put(root, FLANNEL)
    assert daemon._pass() is not None
    assert outputs(root) == []
    assert not (root / "ready").exists()


def test_a_configuration_is_not_removed_before_its_successor_is_written(root, start, monkeypatch, caplog):
    put(root, FLANNEL)
    daemon = start("--rename-conf-file")
    daemon._pass()
    repair = failing(daemon, monkeypatch, Write)
    put(root, CRIO)
    assert daemon._pass() is not None
    assert outputs(root) == ["00-multus.conf"]
    assert (root / "net.d/10-a.conflist").exists()
    assert not (root / "ready").exists()
    daemon._pass()
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    repair()
    loop_until(daemon, lambda: outputs(root) == ["00-multus.conflist"])
    assert not (root / "net.d/10-a.conflist").exists()
    assert (root / "ready").exists()


def test_a_master_is_not_renamed_before_it_is_remembered_what_stood_beside_it(root, start, monkeypatch):
    daemon = start("--rename-conf-file")
    daemon._pass()
    real = daemon._host.apply

    def apply(step):
        if step.path.name == "renamed-masters":
            raise StepError("cannot write renamed-masters: No space left on device")
        return real(step)

    monkeypatch.setattr(daemon._host, "apply", apply)
    put(root, FLANNEL)
    assert daemon._pass() is not None
    assert outputs(root) == ["00-multus.conf"]
    assert (root / "net.d/10-a.conflist").exists()
    monkeypatch.undo()
    loop_until(daemon, lambda: not (root / "net.d/10-a.conflist").exists())


def test_once_configured_a_binary_that_cannot_be_repaired_does_not_stop_the_configuration(root, start, monkeypatch):
    put(root, FLANNEL)
    daemon = start()
    daemon._pass()
    failing(daemon, monkeypatch, Copy)
    (root / "bin/multus").write_text("broken")
    put(root, CRIO)
    daemon._pass()
    assert outputs(root) == ["00-multus.conflist"]
    assert not (root / "ready").exists()


def test_a_removal_that_fails_is_tried_again(root, start, monkeypatch):
    put(root, FLANNEL)
    daemon = start("--cleanup-config-on-exit")
    daemon._pass()
    repair = failing(daemon, monkeypatch, Remove)
    (root / "net.d/10-a.conflist").unlink()
    assert daemon._pass() is not None
    repair()
    loop_until(daemon, lambda: outputs(root) == [])


def test_a_node_without_inotify_is_configured_and_looked_at_from_time_to_time(root, start, monkeypatch, caplog):
    put(root, FLANNEL)
    daemon = start()

    def exhausted(*_):
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(daemon._watcher, "follow", exhausted)
    assert daemon._pass() is not None
    assert outputs(root) == ["00-multus.conf"]
    daemon._pass()
    assert [record.message for record in caplog.records if "max_user_instances" in record.message] != []
    assert sum("max_user_instances" in record.message for record in caplog.records) == 1


def test_a_node_without_a_thread_left_is_configured_and_looked_at_from_time_to_time(root, start, monkeypatch, caplog):
    put(root, FLANNEL)
    daemon = start()

    def exhausted(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", exhausted)
    assert daemon._pass() is not None
    assert outputs(root) == ["00-multus.conf"]
    daemon._pass()
    assert sum("can't start new thread" in record.message for record in caplog.records) == 1
    monkeypatch.undo()
    assert daemon._pass() is None


def test_without_a_thread_left_the_startup_taint_is_removed_later(root, monkeypatch, caplog):
    put(root, FLANNEL)
    wanted = settings_for(root, "--startup-taint=x", environ={**IN_CLUSTER, "NODE_NAME": "node-1"})

    def exhausted(*_):
        raise RuntimeError("can't start new thread")

    daemon = Daemon(wanted, Wakeup())
    monkeypatch.setattr("threading.Thread.start", exhausted)
    assert daemon._pass() is not None
    assert "cannot start a process of our own: can't start new thread" in caplog.text
    assert outputs(root) == ["00-multus.conf"]
    daemon.close()


def test_leaving_with_cleanup_takes_back_what_this_run_wrote(root, start):
    put(root, FLANNEL)
    daemon = start("--cleanup-config-on-exit", "--rename-conf-file")
    daemon._pass()
    assert sorted(os.listdir(root / "net.d")) == ["00-multus.conf", "10-a.conflist.old", "multus.d"]
    daemon._leave()
    assert sorted(os.listdir(root / "net.d")) == ["10-a.conflist", "multus.d"]
    assert (root / "bin/multus").exists()
    assert (root / "net.d/multus.d/multus.kubeconfig").exists()


def test_leaving_with_cleanup_takes_back_what_it_found_as_it_wanted_it(root, start):
    put(root, FLANNEL)
    start()._pass()
    daemon = start("--cleanup-config-on-exit")
    daemon._pass()
    daemon._leave()
    assert outputs(root) == []


def test_leaving_leaves_a_successors_file_alone(root, start):
    put(root, FLANNEL)
    daemon = start("--cleanup-config-on-exit")
    daemon._pass()
    path = root / "net.d/00-multus.conf"
    (root / "new").write_bytes(b"{}")
    (root / "new").chmod(0o600)
    (root / "new").rename(path)
    daemon._leave()
    assert path.exists()


def test_leaving_takes_away_what_it_wrote_although_somebody_touched_it(root, start):
    put(root, FLANNEL)
    daemon = start("--cleanup-config-on-exit")
    daemon._pass()
    os.utime(root / "net.d/00-multus.conf", (1, 1))
    daemon._leave()
    assert outputs(root) == []


def test_leaving_does_not_remove_a_static_configuration_that_is_its_own_source(root, start):
    put(root, FLANNEL, "05-own.conflist")
    daemon = start(f"--multus-conf-file={root}/net.d/05-own.conflist", "--cleanup-config-on-exit")
    daemon._pass()
    daemon._leave()
    assert (root / "net.d/05-own.conflist").read_bytes() == FLANNEL


def test_leaving_does_not_overwrite_a_live_master(root, start):
    put(root, FLANNEL)
    daemon = start("--cleanup-config-on-exit", "--rename-conf-file")
    daemon._pass()
    put(root, CRIO)
    daemon._leave()
    assert (root / "net.d/10-a.conflist").read_bytes() == CRIO
    assert outputs(root) == []


def test_a_fight_is_bounded_and_told_of(root, start, caplog):
    put(root, FLANNEL)
    daemon = start()
    daemon._pass()
    path = root / "net.d/00-multus.conf"
    deadlines = []
    for _ in range(20):
        path.write_text("{}")
        deadlines.append(daemon._pass())
    assert deadlines[:4] == [None] * 4  # with the first, five writes
    assert None not in deadlines[4:]
    assert json.loads(path.read_text()) == {}


def test_a_directory_made_again_is_filled_at_once(root, start):
    import shutil

    put(root, FLANNEL)
    daemon = start()
    daemon._pass()
    shutil.rmtree(root / "net.d")
    assert root / "net.d/00-multus.conf" in daemon._throttle._histories
    daemon._pass()
    assert root / "net.d/00-multus.conf" not in daemon._throttle._histories
    (root / "net.d").mkdir()
    put(root, FLANNEL)
    daemon._pass()
    assert outputs(root) == ["00-multus.conf"]


def test_a_mesh_that_takes_its_plugin_out_just_before_ours_is_written_has_the_last_word(root, start, monkeypatch):
    put(root, CRIO)
    daemon = start()
    daemon._pass()
    ours = json.loads((root / "net.d/00-multus.conflist").read_bytes())

    def chain(*plugins):
        put(root, json.dumps({**ours, "plugins": [*ours["plugins"], *plugins]}).encode(), "00-multus.conflist")

    chain({"type": "istio-cni"})
    daemon._pass()
    real, left = daemon._host.apply, []

    def apply(step):
        if isinstance(step, Write) and not left:
            chain()
            left.append((root / "net.d/00-multus.conflist").read_bytes())
        return real(step)

    monkeypatch.setattr(daemon._host, "apply", apply)
    put(root, CRIO.replace(b'"cni0"', b'"cni1"'))
    again = daemon._pass()
    assert (root / "net.d/00-multus.conflist").read_bytes() == left[0]
    assert again <= time.monotonic()
    daemon._pass()
    (multus,) = json.loads((root / "net.d/00-multus.conflist").read_bytes())["plugins"]
    assert multus["delegates"][0]["plugins"][0]["bridge"] == "cni1"


def test_the_log_does_not_call_a_node_configured_whose_configuration_still_has_to_be_written(root, start, caplog):
    caplog.set_level(logging.INFO)
    put(root, FLANNEL)
    daemon = start("--cleanup-config-on-exit")
    for number in range(3):  # each time it comes and goes the file is written and removed
        put(root, FLANNEL)
        daemon._pass()
        if number < 2:
            (root / "net.d/10-a.conflist").unlink()
            daemon._pass()
    assert outputs(root) == ["00-multus.conf"]
    put(root, b"{}", "00-a.json")  # the runtime would read it first
    daemon._pass()
    (root / "net.d/00-a.json").unlink()
    put(root, FLANNEL.replace(b"cbr0", b"cbr1"))
    said = len(caplog.records)
    assert daemon._pass() is not None
    assert "the node is configured" not in [record.message for record in caplog.records[said:]]
