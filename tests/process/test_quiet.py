"""What the program does not do: write without need, wake up, be big, leave things lying about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.process.scratch import MULTUS, overwrite, settled
from tests.waiting import until

TEMPORARY = ".multus-entrypoint-0123456789ab.tmp"


@pytest.mark.parametrize("flags", [[], ["--rename-conf-file"], ["--cni-version=1.0.0"], ["--skip-config-watch"]])
def test_the_restart_of_a_configured_node_writes_nothing(host, flags):
    host.master(cniVersion="1.0.0")
    with host.configured(*flags) as program:
        settled(program)
        program.stop()
    before = host.snapshot(host.conf_dir, host.bin_dir)
    with host.configured(*flags) as program:
        settled(program)
        program.stop()
        assert not program.lines("wrote")
        assert not program.lines("installed")
    assert host.snapshot(host.conf_dir, host.bin_dir) == before


def test_events_without_a_difference_write_nothing(host):
    with host.configured() as program:
        program.says("the node is configured")
        settled(program)
        settled(program)
        before = host.snapshot(host.conf, host.bin_dir, host.kubeconfig.parent)
        log = program.log
        for i in range(20):
            (host.conf_dir / "10-flannel.conflist").touch()
            host.rotate("token-1")  # a swap that brings the same content
            host.master(f"5{i}-later.conf")
            overwrite(host.conf_dir / "unrelated.txt", str(i))
            overwrite(host.bin_dir / "bridge", str(i))
            host.multus.touch()
        settled(program)
        assert host.snapshot(host.conf, host.kubeconfig.parent) == {
            path: seen for path, seen in before.items() if str(host.bin_dir) not in path
        }
        assert before[str(host.installed)] == host.snapshot(host.installed)[str(host.installed)]
        assert program.log == log


@pytest.mark.parametrize("phase", ["configured", "skipping the watch", "static", "renamed"])
def test_nothing_wakes_it_while_nothing_happens(host, phase):
    """It sleeps without a limit of time, in each thread: it polls nothing, however seldom."""
    flags = {
        "configured": [],
        "skipping the watch": ["--skip-config-watch"],
        "static": [f"--multus-conf-file={host.image}/00-multus.conf"],
        "renamed": ["--rename-conf-file"],
    }[phase]
    overwrite(host.image / "00-multus.conf", str(MULTUS).replace("'", '"').replace("True", "true"))
    with host.configured(*flags) as program:
        settled(program)


def test_a_plugins_name_that_is_a_link_to_nothing_is_left_alone_and_does_not_keep_it_awake(host):
    """As where the host has its plugins elsewhere, and links from the usual place."""
    plugins = host.root / "plugins"
    plugins.mkdir()
    (plugins / "macvlan").write_bytes(b"\x7fELF")
    (plugins / "macvlan").chmod(0o755)
    (host.bin_dir / "macvlan").symlink_to("/nowhere/macvlan")
    with host.configured(f"--plugin-bin-dir={plugins}") as program:
        program.says("macvlan", "left alone")
        settled(program)
    assert os.readlink(host.bin_dir / "macvlan") == "/nowhere/macvlan"


def test_while_waiting_it_wakes_only_to_say_so(host):
    with host.start() as program:
        program.says("waiting")
        until(lambda: 25_000 < program.sleeps()[program.pid] <= 30_001, "a sleep until it is to be said again")
        settled(program, waiting=True)


def test_unrelated_files_do_not_make_it_look_at_the_node(host):
    with host.configured() as program:
        settled(program)
        before = program.switches()[str(program.pid)]
        for _ in range(300):
            overwrite(host.bin_dir / "bridge", "x")
            overwrite(host.conf_dir / "unrelated.txt", "x")
        settled(program)
        assert program.switches()[str(program.pid)] == before  # the main thread slept on


def test_the_resident_process_has_no_encryption_loaded_and_no_children(host):
    with host.configured() as program:
        host.rotate("all-of-it-has-run")
        until(lambda: host.has_token("all-of-it-has-run"))
        assert "libssl" not in Path(f"/proc/{program.pid}/maps").read_text()
        assert Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text() == ""


def test_temporary_files_of_a_killed_run_are_swept(host):
    host.master()
    host.kubeconfig.parent.mkdir()
    places = [host.conf_dir, host.kubeconfig.parent, host.bin_dir, host.ready.parent]
    for place in places:
        overwrite(place / TEMPORARY, "half")
        overwrite(place / "somebody-elses.tmp", "not ours")
    with host.configured():
        for place in places:
            assert not (place / TEMPORARY).exists()
            assert (place / "somebody-elses.tmp").exists()
