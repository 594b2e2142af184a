"""What the program does not do: write without need, wake up, be big, leave things lying about."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.process.scratch import FLANNEL, MULTUS, overwrite, presences, settled
from tests.waiting import until

TEMPORARY = ".multus-entrypoint-0123456789ab.tmp"
RUNTIME_SUFFIXES = (".conf", ".conflist", ".json")


@pytest.mark.parametrize("flags", [[], ["--rename-conf-file"], ["--cni-version=1.0.0"], ["--skip-config-watch"]])
def test_the_restart_of_a_configured_node_writes_nothing(host, flags):
    host.master(cniVersion="1.0.0")
    with host.configured(*flags) as program:
        settled(program)
        program.stop()
    before = host.snapshot(host.conf_dir, host.bin_dir)
    with host.start(*flags) as program:
        host.until_ready(program)
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


def test_the_resident_process_has_not_loaded_the_kubernetes_client(host):
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, entrypoint.cli.commands, entrypoint.node.loop; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "entrypoint.node.loop" in loaded
    for module in (
        "kubernetes",
        "ssl",
        "urllib3",
        "jeepney",
        "yaml",
        "entrypoint.cluster.client",
        "entrypoint.check",
        "entrypoint.uninstall",
    ):
        assert module not in loaded
    with host.configured() as program:
        host.rotate("all-of-it-has-run")
        until(lambda: host.has_token("all-of-it-has-run"))
        maps = Path(f"/proc/{program.pid}/maps").read_text()
        assert "libssl" not in maps
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text()
        assert children == ""


def test_temporary_files_of_a_killed_run_are_swept(host):
    host.master()
    host.kubeconfig.parent.mkdir()
    places = [host.conf_dir, host.kubeconfig.parent, host.bin_dir, host.ready.parent]
    for place in places:
        overwrite(place / TEMPORARY, "half")
        overwrite(place / "somebody-elses.tmp", "not ours")
    with host.start() as program:
        host.until_ready(program)
        for place in places:
            assert not (place / TEMPORARY).exists()
            assert (place / "somebody-elses.tmp").exists()


def test_temporary_files_of_a_live_instance_stay(host):
    host.master()
    with (host.bin_dir / TEMPORARY).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with host.start() as program:
            host.until_ready(program)
            settled(program)
            assert (host.bin_dir / TEMPORARY).exists()
    with host.start() as program:
        until(lambda: not (host.bin_dir / TEMPORARY).exists())


def test_a_second_instance_does_not_disturb_the_copy_of_the_first(host):
    with host.multus.open("ab") as file:
        for _ in range(24):
            file.write(os.urandom(4 << 20))
    host.master()
    with host.start() as first:
        until(lambda: [name for name in os.listdir(host.bin_dir) if name.endswith(".tmp")])
        with host.start(f"--ready-file={host.root}/run/second") as second:
            until((host.root / "run/second").exists)  # the first may stand by in the middle of its copy
            assert not first.lines("error")
            assert not second.lines("error")
        until(host.ready.exists)
        assert not first.lines("error")
    assert host.installed.read_bytes() == host.multus.read_bytes()
    assert os.listdir(host.bin_dir) == ["multus"]


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_instant_every_file_is_whole(host, seed):
    chance = random.Random(seed)
    with host.multus.open("ab") as file:
        for _ in range(4):
            file.write(os.urandom(4 << 20))
    host.master()
    for i in range(12):
        with host.start() as program:
            end = time.monotonic() + chance.uniform(0.08, 0.3)
            while time.monotonic() < end:
                host.master(mtu=chance.random(), cniVersion=chance.choice(["0.3.1", "1.0.0"]))
                host.rotate(f"token-{i}-{chance.random()}")
            program.process.kill()
            program.ends()
        for name in host.names():
            assert name.endswith((".tmp", "multus.d")) or name.endswith(RUNTIME_SUFFIXES)
            assert not (name.startswith(".multus-entrypoint") and name.endswith(RUNTIME_SUFFIXES))
        assert host.delegate() is None or host.wraps(name=FLANNEL["name"])
        with contextlib.suppress(FileNotFoundError):
            assert host.kubeconfig.read_text().endswith("current-context: multus-context\n")
        if host.installed.exists():
            assert host.installed.stat().st_size == host.multus.stat().st_size
            assert host.installed.stat().st_mode & 0o777 == 0o755
        if host.conf.exists() or host.conflist.exists():
            assert host.installed.exists()
            assert host.kubeconfig.exists()
    with host.start() as program:
        host.ready.unlink(missing_ok=True)
        host.until_ready(program)
        assert list(host.root.rglob(".multus-entrypoint-*")) == presences(host)
        assert len(presences(host)) == 1  # its own
    assert host.installed.read_bytes() == host.multus.read_bytes()
