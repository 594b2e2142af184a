"""Several instances on one node: the newest that can do its work owns it, the others wait and keep still."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from entrypoint.cli import resident
from tests.opshost import run_here
from tests.process.scratch import Pod, file_id, presences, settled, vanish
from tests.waiting import until

STANDS_BY, AT_WORK = "standing by", "at work again"


@pytest.fixture
def older(host):
    host.master()
    return Pod(host, "older")


@pytest.fixture
def newer(host):
    return Pod(host, "newer")


def _outputs(host):
    return [file_id(path) for path in (host.kubeconfig, host.installed, host.conf)]


def _holds(program, path):
    for entry in os.scandir(f"/proc/{program.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # it opens and closes others meanwhile
            if os.readlink(entry.path) == str(path):
                return "FLOCK" in Path(entry.path.replace("/fd/", "/fdinfo/")).read_text()
    return False


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "asked to end"])
def test_the_newer_one_owns_the_node_until_it_ends(host, older, newer, end):
    with older.running() as first:
        with newer.running() as second:
            assert newer.owns()
            before = _outputs(host)
            older.account.update(**{"token": "another", "ca.crt": "CERTIFICATE\n"})
            (host.conf_dir / "10-flannel.conflist").touch()
            settled(first, second)
            assert newer.owns() and _outputs(host) == before
            assert older.ready.exists() and newer.ready.exists()
            assert len(first.sleeps()) == 2  # the threads: to stand by takes no other one
            second.stop(end)
        until(lambda: host.has_token("another"))
        older.token = "another"
        until(older.owns)
        assert older.ready.exists()
        assert len(first.lines(STANDS_BY)) == len(first.lines(AT_WORK)) == 1
        assert not first.lines("warning") and not second.lines("warning")
        assert not second.lines(STANDS_BY)


def test_several_that_start_at_once_agree_on_one(host, older):
    pods = [older, *(Pod(host, f"pod-{number}") for number in range(3))]
    with contextlib.ExitStack() as stack:
        alive = {stack.enter_context(pod.start()): pod for pod in pods}
        until(lambda: len(presences(host)) == len(pods))
        while alive:
            until(lambda: len(presences(host)) == len(alive))
            newest = until(lambda: next((each for each in alive if _holds(each, presences(host)[-1])), None))
            owner = alive.pop(newest)
            until(owner.owns)
            until(owner.ready.exists)
            settled(newest, *alive)
            assert owner.owns()
            newest.stop(signal.SIGKILL)


@pytest.mark.parametrize(
    "flags",
    [
        ["--multus-master-cni-file-name=99-never.conf"],
        ["--multus-autoconfig-dir=/proc/self/ns", "--cleanup-config-on-exit"],
        ["--readiness-indicator-file=/never", "--wait-for-readiness-indicator"],
    ],
    ids=["master", "directory", "gate"],
)
def test_one_that_cannot_configure_the_node_leaves_it_to_the_older_one(host, older, newer, flags):
    with older.running() as first:
        first.says("the node is configured")
        with host.start(*newer.flags, *flags) as second:
            second.says("waiting for")
            host.kubeconfig.unlink()
            host.conf.unlink()
            until(older.owns)
            settled(first, second, waiting=True)
            assert older.owns()
            assert not newer.ready.exists()
            assert not second.lines("wrote") and not second.lines("removed")
            assert not first.lines(STANDS_BY)
            assert len(presences(host)) == 1
            assert second.stop() == 0
            assert older.owns()


def test_one_that_finds_its_master_later_takes_the_node_then(host, older, newer):
    with older.running() as first, host.start(*newer.flags, "--multus-master-cni-file-name=20-own.conf") as second:
        second.says("waiting for")
        assert older.owns()
        host.master("20-own.conf")
        until(newer.owns)
        first.says(STANDS_BY)
        until(newer.ready.exists)
        assert older.ready.exists()


def test_two_that_disagree_about_a_shared_ready_file_do_not_spin(host):
    """One is configured, the other waits for a master that never comes: each undoes what the other does."""
    host.master()
    with host.configured() as one, host.start("--multus-master-cni-file-name=99-never.conf") as other:
        other.says("waiting")
        until(lambda: 0 < one.sleeps()[one.pid] < float("inf"), "a pause of the one")
        until(lambda: 0 < other.sleeps()[other.pid] < 10_000, "a pause of the other")


@pytest.mark.parametrize("flag", ["--no-such-flag", "--cni-version=x", "--multus-conf-file=/nowhere"])
def test_one_with_a_wrong_flag_is_not_noticed(host, older, newer, flag):
    with older.running() as first:
        first.says("the node is configured")
        before, log = _outputs(host), first.log
        assert host.run(*newer.flags, flag).returncode in {1, 2}
        assert _outputs(host) == before
        assert first.log == log
        assert older.ready.exists()


def test_one_that_is_stopped_keeps_the_node_until_it_is_killed(host, older, newer):
    with older.running() as first, newer.running() as second:
        second.freeze()
        older.account.update(**{"token": "another", "ca.crt": "CERTIFICATE\n"})
        settled(first)
        assert newer.owns()
        second.thaw()
        host.kubeconfig.unlink()
        until(newer.owns)
        second.freeze()
        second.process.kill()
        until(lambda: host.has_token("another"))
        first.says(AT_WORK)


def test_a_newer_one_does_not_wait_for_an_older_one_that_is_stopped(host, older, newer):
    with older.running() as first:
        first.freeze()
        with newer.running() as second:
            assert newer.owns()
            first.thaw()
            first.says(STANDS_BY)
            settled(first, second)
            assert newer.owns()


def test_a_file_that_is_taken_away_is_there_again_and_nobody_takes_over(host, older, newer):
    with older.running() as first, newer.running() as second:
        for path in presences(host):
            path.unlink()
        until(lambda: len(presences(host)) == 2)
        assert newer.owns()
        assert not first.lines(AT_WORK) and not second.lines(STANDS_BY)
        second.process.kill()
        until(older.owns)


@pytest.mark.parametrize("go", [vanish, lambda path: path.rename(path.with_name("aside"))], ids=["removed", "renamed"])
def test_the_whole_directory_may_go(host, older, newer, go):
    with older.running() as first, newer.running() as second:
        go(host.kubeconfig.parent)
        until(lambda: len(presences(host)) == 2)
        until(newer.owns)
        assert not first.lines("wrote", str(host.conf))[1:]
        second.process.kill()
        until(older.owns)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("chattr"), reason="immutable directories need root")
def test_where_no_file_can_be_made_the_node_is_configured_all_the_same(host, older):
    with older.running() as first:
        settled(first)
        first.stop()
    directory = host.kubeconfig.parent
    if subprocess.run(["chattr", "+i", directory], capture_output=True).returncode != 0:
        pytest.skip("this file system has no immutable directories")
    try:
        with older.running() as program:
            program.says("warning", "another instance", str(directory))
            assert not program.lines("error")
            host.conf.unlink()
            until(older.owns)
    finally:
        subprocess.run(["chattr", "-i", directory], check=True)


def test_an_older_one_in_the_midst_of_a_long_copy_lets_the_newer_one_through(host, older, newer):
    os.truncate(older.binary, 400 << 20)
    with older.start() as first:
        until(lambda: [name for name in os.listdir(host.bin_dir) if name.endswith(".tmp")])
        first.freeze()  # the copy must not be done before the newer one is there
        with newer.running() as second:
            assert newer.owns()
            first.thaw()
            first.says(STANDS_BY)
            settled(first, second)
            assert newer.owns()
            assert not first.lines("installed")
            assert not [name for name in os.listdir(host.bin_dir) if name.endswith(".tmp")]
            second.stop()
        until(lambda: host.has_token(older.token))
        first.stop()


# ---- the end ----


@pytest.mark.parametrize("flags", [(), ("--rename-conf-file",)], ids=["", "rename"])
@pytest.mark.parametrize("leaving", ["older", "newer"])
def test_cleanup_takes_nothing_from_another_one(host, older, newer, leaving, flags):
    older.flags += ("--cleanup-config-on-exit", *flags)
    newer.flags += ("--cleanup-config-on-exit", *flags)
    with older.running() as first, newer.running() as second:
        goes, stands = (first, second) if leaving == "older" else (second, first)
        settled(first, second)
        stands.freeze()
        before = host.conf.read_bytes(), host.names()
        assert goes.stop() == 0
        goes.says("nothing is cleaned up")
        assert (host.conf.read_bytes(), host.names()) == before
        stands.thaw()
        until((newer if leaving == "older" else older).owns)
        assert stands.stop() == 0
    assert host.names() == ["10-flannel.conflist", "multus.d"]
    assert presences(host) == []


def test_uninstall_removes_what_killed_runs_left_and_the_directory(host, older):
    with older.running() as program:
        program.process.kill()
        program.ends()
    assert presences(host)
    outcome = host.run("uninstall", f"--multus-data-dir={host.root}")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert not host.kubeconfig.parent.exists()


# ---- check ----


def _checked(host, pod):
    """Return the findings of `check` as `kubectl exec` has them in the pod that started first."""
    outcome = run_here(host.arguments("check", "--output=json", *pod.flags), host.environ())
    return {each["id"]: each for each in json.loads(outcome.stdout)["findings"]}


def test_check_warns_where_a_newer_one_has_the_node_and_fails_nothing_that_is_that_ones(
    host, older, newer, monkeypatch
):
    whose = ("node.owner", "binary.current", "configuration.current", "kubeconfig.current")
    with older.running(execed=True) as first:  # its command line says that it is one
        monkeypatch.setattr(resident, "PID", first.pid)
        assert [_checked(host, older)[name]["status"] for name in whose] == ["pass"] * 4
        with newer.running(execed=True):
            first.says(STANDS_BY)
            findings = _checked(host, older)
            assert [findings[name]["status"] for name in whose] == ["warn"] * 4
            assert all("node.owner" in findings[name]["advice"] for name in whose[1:])
        until(older.owns)
        assert [_checked(host, older)[name]["status"] for name in whose] == ["pass"] * 4


# ---- the hooks of others ----


def _hook(host):
    """Do what Spiderpool's preStop hook does."""
    host.installed.unlink()
    shutil.rmtree(host.kubeconfig.parent, ignore_errors=True)
    host.conf.unlink()


def _back(host):
    return host.conf.exists() and host.kubeconfig.exists() and host.installed.exists()


@pytest.mark.parametrize(
    "flags", [(), ("--cleanup-config-on-exit",), ("--rename-conf-file",)], ids=["", "cleanup", "rename"]
)
def test_what_a_hook_removes_is_put_back_at_once_and_taken_away_at_the_end(host, older, flags):
    older.flags += flags
    with older.running() as program:
        _hook(host)
        until(lambda: _back(host))
        assert program.stop() == 0
        assert host.names() == ["10-flannel.conflist"]
        assert os.listdir(host.bin_dir) == []
    with older.running() as program:  # the pod is started again
        assert older.owns()
        program.stop()
    assert host.conf.exists() is ("--cleanup-config-on-exit" not in flags)
    assert host.installed.exists() and host.kubeconfig.exists()


def test_a_signal_in_the_midst_of_a_hook_leaves_nothing_half(host, older):
    for number in range(12):
        with older.running() as program:
            _hook(host)
            time.sleep(number * 0.002)
            assert program.stop() == 0
            assert host.names() == ["10-flannel.conflist"], number
            assert os.listdir(host.bin_dir) == []


def test_a_master_that_was_away_is_no_removal_by_somebody_else(host, older):
    older.flags += ("--cleanup-config-on-exit",)
    with older.running() as program:
        (host.conf_dir / "10-flannel.conflist").unlink()
        until(lambda: not host.conf.exists())
        host.master()
        until(host.conf.exists)
        program.stop()
    assert host.kubeconfig.exists() and host.installed.exists()


def test_a_configuration_that_stands_keeps_what_it_refers_to(host, older):
    with older.running() as program:
        host.kubeconfig.unlink()
        host.installed.unlink()
        until(older.owns)
        program.stop()
    assert older.owns()


def test_with_a_successor_what_a_hook_removed_stays(host, older, newer):
    with older.running() as first, newer.running() as second:
        _hook(host)
        until(newer.owns)
        assert first.stop() == 0
        settled(second)
        assert newer.owns()
        assert second.stop() == 0  # it was the hook of the other one
    assert _back(host)
    with older.running() as first:
        _hook(host)
        until(older.owns)
        with newer.running() as second:
            first.stop()
            settled(second)
            assert newer.owns()
