"""What on the node is ours is what the ledger says, through restarts, other flags, and several instances."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading

import pytest

from tests.process.scratch import FLANNEL, MULTUS, Pod, file_id, overwrite, presences, settled
from tests.waiting import until

NAME = "10-flannel.conflist"
RENAME, CLEANUP, SKIP = "--rename-conf-file", "--cleanup-config-on-exit", "--skip-config-watch"
LISTED = {**FLANNEL, "cniVersion": "1.0.0"}


def _configurations(host):
    return [path.name for path in (host.conf, host.conflist) if path.exists()]


def _pods(host, *flags, older=(), newer=()):
    host.master() if not host.names() else None
    return Pod(host, "older", *flags, *older), Pod(host, "newer", *flags, *newer)


# ---- the end takes away what is ours, and only what somebody meant to go ----


def test_a_name_that_a_newer_instance_left_is_nothing_that_somebody_removed(host):
    """The newer one writes `.conf` and is killed; the older one writes `.conflist` again, and ends soon after."""
    host.master(cniVersion="1.0.0")
    older, newer = _pods(host, newer=["--cni-version=0.4.0", "--force-cni-version"])
    with older.start() as first:
        until(older.ready.exists)
        assert _configurations(host) == ["00-multus.conflist"]
        with newer.start() as second:
            until(lambda: _configurations(host) == ["00-multus.conf"])
            until(newer.ready.exists)
            second.stop(signal.SIGKILL)
        until(lambda: _configurations(host) == ["00-multus.conflist"])
        assert first.stop() == 0
    assert _configurations(host) == ["00-multus.conflist"]


def test_a_mesh_that_comes_and_goes_before_the_end_has_removed_nothing(host):
    with host.configured() as program:
        mesh = {"cniVersion": "0.3.1", "name": "k8s-pod-network", "plugins": [json.loads(host.conf.read_text())]}
        host.conflist.write_text(json.dumps({**mesh, "plugins": [*mesh["plugins"], {"type": "linkerd-cni"}]}))
        host.conf.unlink()
        settled(program)
        overwrite(host.conflist, json.dumps(mesh))
        settled(program)
        host.master(mtu=9)
        until(lambda: host.wraps(mtu=9) and len(_configurations(host)) == 1)
        settled(program)
        program.stop()
    assert host.wraps(mtu=9)


def test_the_cleanup_is_honoured_after_the_node_came_back(host):
    """The newer one writes for a changed master and is killed: what it wrote is the older one's now."""
    older, newer = _pods(host, CLEANUP)
    with older.running() as first:
        with newer.running() as second:
            host.master(mtu=9)
            until(lambda: host.wraps(mtu=9))
            second.stop(signal.SIGKILL)
        until(older.owns)
        assert first.stop() == 0
    assert host.names() == [NAME, "multus.d"]


@pytest.mark.parametrize("first_goes_on_first", [True, False])
def test_of_two_that_end_at_once_one_cleans_up(host, first_goes_on_first):
    older, newer = _pods(host, CLEANUP)
    with older.running() as first, newer.running() as second:
        for program in (first, second):
            program.freeze()
            program.process.terminate()
        for program in (first, second) if first_goes_on_first else (second, first):
            program.thaw()
        assert first.ends() == second.ends() == 0
    assert host.names() == [NAME, "multus.d"]
    assert presences(host) == []


# ---- what the master's owner, or anybody else, does ----


@pytest.mark.parametrize("anew", [False, True], ids=["appended", "made anew"])
def test_a_broken_file_that_keeps_changing_freezes_nothing(host, anew):
    """An application's log with a configuration's name, which sorts before the network's."""
    host.master("50-flannel.conflist")
    log, over = host.conf_dir / "10-app-log.conf", threading.Event()

    def scribble():
        number = 0
        while not over.wait(0.1):
            number += 1
            if anew:
                log.unlink(missing_ok=True)
                over.wait(0.03)
            with log.open("a") as file:
                file.write(f"line {number}\n")

    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        until(log.exists)
        with host.configured() as program:
            program.says("skipping the unusable", "10-app-log.conf")
            host.master("50-flannel.conflist", mtu=9)
            until(lambda: host.wraps(mtu=9))
    finally:
        over.set()
        writer.join()


def test_static_mode_leaves_an_operators_own_list_alone(host):
    """`70-multus.conflist` is what a mesh would make of `70-multus.conf`, and may be somebody's own."""
    static = host.image / "70-multus.conf"
    static.write_text(json.dumps(MULTUS))
    own = host.conf_dir / "70-multus.conflist"
    for content in (
        FLANNEL,
        {"cniVersion": "0.3.1", "name": "mine", "plugins": [{**MULTUS, "logLevel": "debug"}, {"type": "tuning"}]},
    ):
        own.write_text(json.dumps(content))
        before = file_id(own)
        with host.start(f"--multus-conf-file={static}", CLEANUP) as program:
            host.until_ready(program)
            assert (host.conf_dir / static.name).read_text() == static.read_text()
            settled(program)
            assert file_id(own) == before
            program.stop()
        assert file_id(own) == before
        assert host.names() == [own.name, "multus.d"]


# ---- several instances ----


def test_an_instance_that_takes_over_keeps_what_stands_with_the_config_watch_off(host):
    """It has seen the master as it was then; the newer one has written a newer one."""
    older, newer = _pods(host, SKIP)
    with older.running():
        host.master(mtu=9)
        with newer.running() as second:
            assert host.wraps(mtu=9)
            second.stop(signal.SIGKILL)
        until(lambda: host.has_token(older.token))
        host.conf.unlink()
        until(host.conf.exists)
        assert host.wraps(mtu=9)


def test_the_older_pod_is_not_ready_once_the_newer_one_has_removed_the_configuration(host):
    older, newer = _pods(host, CLEANUP)
    with older.running() as first, newer.running():
        first.says("standing by")
        assert older.ready.exists() or until(older.ready.exists)
        (host.conf_dir / NAME).unlink()
        until(lambda: not host.conf.exists())
        until(lambda: not older.ready.exists() and not newer.ready.exists())
        host.master()
        until(lambda: older.ready.exists() and newer.ready.exists())


def test_one_that_waits_knows_what_one_that_was_killed_has_renamed(host):
    """It has read the ledger before the other came: with that it would remove the only configuration of the node."""
    waiting, killed = _pods(host, CLEANUP, older=["--multus-master-cni-file-name=99-later.conf"], newer=[RENAME])
    with waiting.start() as first:
        first.says("waiting for 99-later.conf")
        with killed.running() as second:
            until(lambda: f"{NAME}.old" in host.names())
            settled(second)
            second.stop(signal.SIGKILL)
        until(lambda: NAME in host.names() and not host.conf.exists())
        host.master("99-later.conf", plugins=None, type="bridge")
        until(waiting.ready.exists)
        assert NAME in host.names() and host.conf.exists()


def test_one_that_was_stopped_meanwhile_knows_what_one_that_was_killed_has_renamed(host):
    stopped, killed = _pods(host, newer=[RENAME])
    with stopped.running() as first:
        settled(first)
        first.freeze()
        with killed.running() as second:
            until(lambda: f"{NAME}.old" in host.names())
            settled(second)
            second.stop(signal.SIGKILL)
        first.thaw()
        until(stopped.owns)
        until(lambda: NAME in host.names() and host.conf.exists())
        settled(first)
        assert stopped.ready.exists()


def test_a_renamed_master_that_is_there_again_at_the_end_is_no_empty_line_in_the_log(host):
    host.master(NAME)
    with host.configured(CLEANUP, RENAME) as program:
        until(lambda: f"{NAME}.old" in host.names())
        settled(program)
        (host.conf_dir / "00-multus.conflist").mkdir()  # in the way of what is made of the next one
        host.master(NAME, cniVersion="1.0.0")
        program.says("Is a directory")
        assert program.stop() == 0
        assert all(not line.endswith("info: ") for line in program.log.splitlines()), program.log


@pytest.mark.parametrize("instant", ["at its start", "in its first pass"])
def test_one_that_can_configure_the_node_does_not_stand_by_for_one_that_cannot(host, instant):
    """The older one is stopped before, or just after, it takes its place, and the newer one's master never comes."""
    older, newer = _pods(host, newer=["--multus-master-cni-file-name=99-never.conf"])
    os.truncate(older.binary, 100 << 20)
    with older.start() as first:
        if instant == "in its first pass":
            until(lambda: presences(host))
        first.freeze()
        with newer.start() as second:
            second.says("waiting for 99-never.conf")
            if instant == "at its start":  # alone, it prepares what it can
                until(lambda: host.has_token(newer.token))
            first.thaw()
            until(lambda: older.ready.exists() and older.owns())
            settled(first)
            assert older.owns() and not first.lines("standing by")


# ---- what is renamed ----


def _immutable(path):
    if os.geteuid() != 0 or subprocess.run(["chattr", "+i", path], capture_output=True).returncode != 0:
        pytest.skip("no immutable directories here")


def test_a_rename_that_had_to_wait_is_done_with_the_config_watch_off_too(host):
    with host.configured() as program:
        program.stop()
    host.ready.unlink(missing_ok=True)
    _immutable(host.kubeconfig.parent)
    try:
        with host.configured(RENAME, SKIP) as program:
            program.says("cannot rename", NAME, "immutable")
            assert (host.conf_dir / NAME).exists()
            subprocess.run(["chattr", "-i", host.kubeconfig.parent], check=True)
            until(lambda: not (host.conf_dir / NAME).exists())
            assert (host.conf_dir / f"{NAME}.old").exists()
    finally:
        subprocess.run(["chattr", "-i", host.kubeconfig.parent])


@pytest.mark.parametrize("content", ["", "{"])
def test_what_was_made_of_a_renamed_master_stays_when_that_is_damaged(host, content):
    """As a power cut leaves one that its owner never flushed."""
    with host.configured(RENAME, CLEANUP) as program:
        program.stop(signal.SIGKILL)
    old = host.conf_dir / f"{NAME}.old"
    old.write_text(content)
    before = host.conf.read_bytes()
    for _ in range(2):
        with host.configured(RENAME, CLEANUP) as program:
            program.says("error", f"{NAME}.old")
            settled(program)
            assert host.conf.read_bytes() == before
            assert program.stop() == 0
            program.says("cannot clean up", f"{NAME}.old")
        assert host.conf.read_bytes() == before and old.read_text() == content
    host.master(mtu=9)
    with host.start(CLEANUP) as program:
        until(lambda: host.wraps(mtu=9))
        program.stop()
    assert host.names() == [NAME, old.name, "multus.d"]


@pytest.mark.parametrize("flags", [[], [RENAME]], ids=["", "rename"])
def test_uninstall_gives_no_name_to_an_operators_copy(host, flags):
    with host.configured(*flags) as program:
        settled(program)
        program.stop()
    master = next(path for path in host.conf_dir.iterdir() if path.name.startswith(NAME))
    copy = host.conf_dir / "05-before-upgrade.conflist.old"
    copy.write_bytes(master.read_bytes())
    before = file_id(copy), file_id(master)
    outcome = host.run("uninstall", f"--multus-data-dir={host.root}")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert host.names() == [copy.name, NAME]
    assert (file_id(copy), file_id(host.conf_dir / NAME)) == before


def test_the_master_that_the_flags_name_is_the_master_whatever_was_renamed_before(host):
    """Flannel was renamed; then calico is named, and then flannel again, which has made way for it."""
    host.master(mtu=3)
    host.master("20-calico.conflist", mtu=9)
    with host.configured(RENAME) as program:
        program.stop()
    for name, mtu in (("20-calico.conflist", 9), (NAME, 3)) * 2:
        host.ready.unlink(missing_ok=True)
        with host.start(RENAME, f"--multus-master-cni-file-name={name}") as program:
            until(lambda mtu=mtu: host.wraps(mtu=mtu))
            host.until_ready(program)
            settled(program)
            assert host.wraps(mtu=mtu)
            program.stop()


# ---- the ledger itself ----


def _removed(path):
    path.unlink()


def _cut_off(path):
    path.write_bytes(path.read_bytes()[:-20])


def _junk(path):
    path.write_bytes(os.urandom(2 << 20))


def _directory(path):
    while not path.is_dir():  # a running program puts the file back between the two
        with contextlib.suppress(FileExistsError):
            path.unlink(missing_ok=True)
            path.mkdir()


def _link(path):
    """To an operator's file, which is neither read as a ledger nor written over."""
    link = path.with_name("link")
    link.symlink_to("../20-operators.conf.bak")
    link.replace(path)


def _empty(path):
    path.write_bytes(b"")


def _edited(path):
    """By hand: the operator's file is said to be ours, and so is one outside of the directory."""
    said = json.loads(path.read_text())
    said["configuration"]["name"] = "20-operators.conf.bak"
    said["renamed"] = {"name": "../../../logs", "digest": "", "beside": {}}
    path.write_text(json.dumps(said))


LOSSES = [_removed, _cut_off, _junk, _directory, _link, _empty, _edited]


@pytest.mark.parametrize("running", [True, False], ids=["running", "before the start"])
@pytest.mark.parametrize("lose", LOSSES, ids=lambda each: each.__name__.strip("_"))
def test_whatever_becomes_of_the_ledger_the_node_is_configured_and_nobodys_file_is_touched(host, lose, running):
    own = host.conf_dir / "20-operators.conf.bak"
    own.write_text("{}")
    before, ledger = file_id(own), host.kubeconfig.with_name("ledger.json")
    with host.configured() as program:
        settled(program)
        whole = ledger.read_bytes()
        if not running:
            program.stop(signal.SIGKILL)
        lose(ledger)
        if running:
            until(lambda: ledger.is_dir() or (ledger.exists() and ledger.read_bytes() == whole))
            host.master(mtu=9)
            until(lambda: host.wraps(mtu=9))
            assert host.ready.exists() or until(host.ready.exists)
    with host.configured(CLEANUP) as program:
        until(lambda: ledger.is_dir() or json.loads(ledger.read_text())["configuration"]["name"] == "00-multus.conf")
        assert program.stop() == 0
    assert host.names() == [NAME, own.name, "multus.d"]
    assert file_id(own) == before
