"""`--rename-conf-file` through its whole life."""

from __future__ import annotations

import json
import os

import pytest

from tests.process.scratch import FLANNEL, MULTUS, file_id, overwrite, settled, vanish
from tests.waiting import until

NAME = "10-flannel.conflist"
RENAME = "--rename-conf-file"
CLEANUP = "--cleanup-config-on-exit"


def _is_renamed(host):
    return not (host.conf_dir / NAME).exists() and (host.conf_dir / f"{NAME}.old").exists()


def test_the_master_is_renamed_once_it_is_wrapped_and_that_is_no_removal(host):
    with host.configured(RENAME, CLEANUP) as program:
        assert _is_renamed(host)
        before = file_id(host.conf)
        settled(program)
        assert file_id(host.conf) == before and host.ready.exists()
        assert not program.lines("warning")
        log = program.log
        assert log.index("wrote " + str(host.conf)) < log.index("renamed ")


def test_after_a_restart_without_a_configuration_it_is_written_from_the_renamed_file(host):
    with host.configured(RENAME) as program:
        program.stop()
    host.conf.unlink()
    with host.configured(RENAME) as program:
        assert host.wraps(**FLANNEL)
        assert _is_renamed(host)


def test_a_master_that_its_owner_writes_anew_is_wrapped_and_renamed_again(host):
    with host.configured(RENAME):
        for i in range(3):
            host.master(mtu=i)
            until(lambda i=i: host.wraps(mtu=i) and _is_renamed(host))
            assert json.loads((host.conf_dir / f"{NAME}.old").read_text())["mtu"] == i
        assert host.ready.exists() or until(host.ready.exists)


def test_a_new_master_in_two_halves_replaces_the_renamed_one_only_when_it_is_whole(host):
    content = json.dumps({**FLANNEL, "mtu": 7})
    with host.configured(RENAME) as program:
        with (host.conf_dir / NAME).open("w") as file:
            file.write(content[:40])
            file.flush()
            until(lambda: 0 < program.sleeps()[program.pid] <= 5001, "the 5 s in which it may be written on")
            assert host.wraps(**FLANNEL) and (host.conf_dir / NAME).exists()
            file.write(content[40:])
        until(lambda: host.wraps(mtu=7) and _is_renamed(host))


def test_a_master_that_comes_later_wins_over_a_renamed_one_wherever_it_sorts(host):
    with host.configured(RENAME) as program:
        for name, mtu in (("20-other.conflist", 9), ("05-another.conflist", 11)):
            host.master(name, mtu=mtu)
            until(lambda mtu=mtu: host.wraps(mtu=mtu))
            until(lambda name=name: not (host.conf_dir / name).exists())
            assert (host.conf_dir / f"{name}.old").exists()
            before = file_id(host.conf)
            settled(program)
            assert file_id(host.conf) == before


def test_files_that_stand_beside_the_master_are_neither_wrapped_nor_renamed(host):
    """CRI-O brings two files; that the first of them has been renamed is no removal."""
    host.master("05-first.conflist", mtu=1)
    bystander = host.master("10-second.conflist", mtu=2)
    with host.configured(RENAME) as program:
        until((host.conf_dir / "05-first.conflist.old").exists)
        os.utime(bystander)  # a touch changes nothing
        settled(program)
        assert host.wraps(mtu=1) and bystander.exists()
        program.stop()
    os.utime(bystander)
    before = host.snapshot(host.conf_dir)
    with host.configured(RENAME) as program:
        settled(program)
        assert host.snapshot(host.conf_dir) == before


def test_a_bystander_with_another_content_takes_the_masters_place_after_a_restart_whatever_its_time(host):
    host.master("05-first.conflist", mtu=1)
    bystander = host.master("10-second.conflist", mtu=2)
    with host.configured(RENAME) as program:
        program.stop()
    before = bystander.stat()
    host.master("10-second.conflist", mtu=3)
    os.utime(bystander, ns=(before.st_atime_ns, before.st_mtime_ns))
    with host.start(RENAME):
        until(lambda: host.wraps(mtu=3) and not bystander.exists())


@pytest.mark.parametrize("content", [None, "", "{}", '{"renamed": {}, "beside": []}', "[" * 100_000])
def test_where_the_ledger_is_lost_nothing_is_ours_and_a_live_file_is_the_master(host, content):
    host.master("05-first.conflist", mtu=1)
    host.master("10-second.conflist", mtu=2)
    ledger = host.conf_dir / "multus.d/ledger.json"
    with host.configured(RENAME) as program:
        program.stop()
    old = host.conf_dir / "05-first.conflist.old"
    kept = file_id(old)
    ledger.unlink()
    if content is not None:
        ledger.write_text(content)
    host.ready.unlink(missing_ok=True)
    with host.start(RENAME) as program:
        until(lambda: host.wraps(mtu=2) and host.ready.exists())
        settled(program)
        assert file_id(old) == kept


def test_an_operators_disabled_file_is_never_the_master(host):
    disabled = host.conf_dir / "87-podman-bridge.conflist.old"
    disabled.write_text(json.dumps({**FLANNEL, "name": "podman"}))
    with host.start(RENAME, CLEANUP) as program:
        program.says("waiting for", "not renamed by this program: 87-podman-bridge.conflist.old", "its name back")
        settled(program, waiting=True)
        assert not host.conf.exists()
        host.master()
        host.until_ready(program)
        settled(program)
        assert host.wraps()
        program.stop()
    assert host.names() == [NAME, disabled.name, "multus.d"]


def test_a_network_that_was_left_does_not_come_back(host):
    """Flannel is renamed, then calico in turn; at the end calico alone gets its name back."""
    with host.configured(RENAME, CLEANUP) as program:
        host.master("20-calico.conflist", mtu=9)
        until((host.conf_dir / "20-calico.conflist.old").exists)
        program.stop()
    assert host.names() == [f"{NAME}.old", "20-calico.conflist", "multus.d"]
    with host.configured(RENAME) as program:
        assert host.wraps(mtu=9)


def test_it_is_ready_all_the_time_while_the_networks_owner_restores_its_file(host):
    with host.configured(RENAME) as program:
        settled(program)
        ready = file_id(host.ready)
        for _ in range(12):
            until(lambda: _is_renamed(host) or len(program.lines("renamed")) >= 5)
            host.master()
        settled(program)
        assert file_id(host.ready) == ready
        assert "not configured any more" not in program.log


@pytest.mark.parametrize("mode", ["auto", "static"])
def test_without_the_flag_the_renamed_master_gets_its_name_back_first(host, mode):
    with host.configured(RENAME) as program:
        program.stop()
    host.ready.unlink(missing_ok=True)
    static = host.root / "static/00-static.conf"
    static.parent.mkdir()
    static.write_text(host.conf.read_text())
    flags = [f"--multus-conf-file={static}"] if mode == "static" else []
    with host.configured(*flags) as program:
        settled(program)
        assert (host.conf_dir / NAME).exists() and not (host.conf_dir / f"{NAME}.old").exists()
        assert host.conf.exists() is (mode == "auto")
        program.stop()
    assert host.run("check", *flags).returncode in (0, 1)


def test_a_ledger_of_another_node_makes_nothing_ours(host):
    """A backup of the directory: its names are here too, with other content."""
    with host.configured(RENAME) as program:
        program.stop()
    ledger = (host.conf_dir / "multus.d/ledger.json").read_bytes()
    vanish(host.conf_dir)
    (host.conf_dir / "multus.d").mkdir(parents=True)
    (host.conf_dir / "multus.d/ledger.json").write_bytes(ledger)
    old = host.conf_dir / f"{NAME}.old"
    old.write_text(json.dumps({**FLANNEL, "name": "disabled"}))
    host.master("20-other.conflist", mtu=2)
    host.ready.unlink(missing_ok=True)
    before = file_id(old)
    with host.start(RENAME, CLEANUP) as program:
        until(lambda: host.wraps(mtu=2) and host.ready.exists())
        settled(program)
        program.stop()
    assert file_id(old) == before
    assert host.names() == [f"{NAME}.old", "20-other.conflist", "multus.d"]


def test_an_earlier_master_that_its_owner_writes_as_it_was_does_not_take_the_network_back(host):
    """Flannel's pod restarts, after the node was moved to another network."""
    with host.configured(RENAME) as program:
        host.master("20-other.conflist", mtu=9)
        until(lambda: host.wraps(mtu=9) and not (host.conf_dir / "20-other.conflist").exists())
        host.master()
        settled(program)
        assert host.wraps(mtu=9)
        program.stop()
    with host.configured(RENAME) as program:
        settled(program)
        assert host.wraps(mtu=9)
        host.master(mtu=10)
        until(lambda: host.wraps(mtu=10) and _is_renamed(host))


@pytest.mark.parametrize("same", [True, False])
def test_an_operators_own_old_file_is_never_overwritten_which_is_said_before_anything_is_written(host, same):
    live = host.master()
    own = live.with_name(f"{NAME}.old")
    own.write_bytes(live.read_bytes() if same else b"mine")
    before = file_id(own), own.read_bytes()
    for _ in range(2):
        with host.configured(RENAME, CLEANUP) as program:
            assert host.wraps(**FLANNEL)
            line = program.says("warning", f"{NAME}.old is there, and is not what was renamed to it")
            assert program.log.index(line) < program.log.index("wrote ")
            host.master(mtu=3)
            until(lambda: host.wraps(mtu=3))
            host.master()
            until(lambda: host.wraps(**FLANNEL) and not host.wraps(mtu=3))
            program.stop()
        assert (file_id(own), own.read_bytes()) == before
        assert live.exists()
    with host.configured(RENAME) as program:
        own.rename(own.with_name("mine"))
        until(lambda: _is_renamed(host))


@pytest.mark.parametrize("directory", ["/etc/cni/net.d", "/var/lib/rancher/k3s/agent/etc/cni/net.d"])
def test_the_readiness_indicator_keeps_its_name(host, directory):
    """Multus lets every pod wait until the file is there, and would wait for ever; k3s has the directory elsewhere."""
    host.master()
    indicator = host.root / f"host{directory}/10-flannel.conflist"
    indicator.parent.mkdir(parents=True, exist_ok=True)
    indicator.touch()
    flags = ("--rename-conf-file", f"--readiness-indicator-file={directory}/10-flannel.conflist")
    with host.configured(*flags) as program:
        program.says("warning", "keeps its name: it is --readiness-indicator-file")
        assert "10-flannel.conflist" in host.names()


def test_the_longest_name_that_can_be_renamed_is(host):
    name = "10-" + "x" * 239 + ".conflist"
    (host.conf_dir / name).write_text(json.dumps(FLANNEL))
    with host.start(RENAME) as program:
        until((host.conf_dir / f"{name}.old").exists)
        host.until_ready(program)


def test_a_renamed_master_that_somebody_edits_is_neither_followed_nor_overwritten(host):
    """It is not what was renamed any more: its name is the way to have it wrapped."""
    old = host.conf_dir / f"{NAME}.old"
    with host.configured(RENAME) as program:
        settled(program)
        old.write_text(edited := json.dumps({**FLANNEL, "mtu": 5}))
        program.says("error", f"{NAME}.old", "Give it that name")
        settled(program)
        assert host.wraps() and host.ready.exists()
        host.master(mtu=6)
        program.says("warning", "keeps its name", f"{NAME}.old")
        until(lambda: host.wraps(mtu=6))
        assert old.read_text() == edited


def test_a_renamed_master_whose_name_was_taken_on_the_way_out_is_replaced_by_the_next_run(host):
    with host.configured(RENAME, CLEANUP, "--skip-config-watch") as program:
        host.master(mtu=4)
        program.stop()
    with host.configured(RENAME) as program:
        until(lambda: host.wraps(mtu=4) and _is_renamed(host))


def test_cleanup_puts_the_name_back_even_if_somebody_has_just_removed_the_configuration(host):
    with host.configured(RENAME, CLEANUP) as program:
        for _ in range(4):  # with the first, as many writes as are made in five seconds
            host.conf.unlink()
            until(host.conf.exists)
        host.conf.unlink()
        program.stop()
    assert host.names() == [NAME, "multus.d"]


def test_a_run_that_was_killed_while_it_put_the_name_back_leaves_two_names_that_become_one(host):
    """The name is put back by a hard link; a rename onto another link of the same file does nothing."""
    with host.configured(RENAME, CLEANUP) as program:
        program.process.kill()
    host.ready.unlink()
    os.link(host.conf_dir / f"{NAME}.old", host.conf_dir / NAME)
    with host.configured(RENAME) as program:
        until(lambda: _is_renamed(host))
        assert len(program.lines("renamed")) == 1


def test_a_renamed_master_of_a_directory_of_its_own_is_found_again(host):
    own = host.root / "own"
    own.mkdir()
    path = host.master(directory=own)
    flags = [RENAME, CLEANUP, f"--multus-autoconfig-dir={own}"]
    for _ in range(2):
        with host.configured(*flags) as program:
            until(lambda: os.listdir(own) == [f"{NAME}.old"])
            program.process.kill()
    with host.configured(*flags) as program:
        program.stop()
    assert os.listdir(own) == [path.name]
    assert host.names() == [NAME, "multus.d"]  # what is no master is not touched


def test_a_rename_that_waits_for_a_mesh_is_done_without_the_config_watch_too(host):
    """Istio has written its list under the name of the single plugin and has not renamed it yet."""
    host.master("00-calico.conflist")
    overwrite(host.conf, json.dumps({"cniVersion": "0.3.1", "name": "k8s-pod-network", "plugins": [MULTUS]}))
    with host.configured(RENAME, "--skip-config-watch"):
        until(lambda: "00-calico.conflist.old" in host.names())
