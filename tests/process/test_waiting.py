"""Waiting for a master: what is said, how long, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.process.scratch import FLANNEL, ScratchHost, overwrite, settled
from tests.waiting import until

BROKEN = {
    "10-empty.conf": (b"", "empty"),
    "11-blank.conf": (b" \n", "empty"),
    "12-cut.conf": (b'{\n  "name": "x",\n  "type": "fl', "line 3 column 11"),
    "13-yaml.conf": (b"name: x", "line 1 column 1"),
    "14-nan.conf": (b'{"name": "x", "type": "y", "mtu": NaN}', "NaN"),
    "15-list.conf": (b"[]", "object"),
    "16-nameless.conf": (b'{"type": "x"}', "'name'"),
    "17-typeless.conf": (b'{"name": "x"}', "'type'"),
    "18-no-plugins.conflist": (b'{"name": "x", "plugins": []}', "plugins"),
    "19-typeless-plugin.conflist": (b'{"name": "x", "plugins": [{"type": "y"}, {}]}', "plugin 2"),
    "20-latin1.conf": (b'{"name": "\xe9", "type": "y"}', "its 'name'"),
    "21-deep.conf": (b'{"name": "x", "type": "y", "z": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deep"),
    "22-big.conf": (b'{"name": "x", "type": "y"}' + b" " * (2 << 20), "larger than"),
    "23-huge-number.conf": (b'{"name": "x", "type": "y", "z": 1e999}', "beyond what a double holds"),
    "24-version.conf": (b'{"name": "x", "type": "y", "cniVersion": "one"}', "cniVersion"),
    "25-bom.conf": (b'\xef\xbb\xbf{"name": "x"', ""),
}
NO_FILES = ["30-fifo.conf", "31-directory.conf", "32-dangling.conf", "33-circle.conf", "34-socket.conf"]


def no_files(directory):
    os.mkfifo(directory / "30-fifo.conf")
    (directory / "31-directory.conf").mkdir()
    (directory / "32-dangling.conf").symlink_to("nowhere")
    (directory / "33-circle.conf").symlink_to("33-circle.conf")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as unix, contextlib.chdir(directory):
        unix.bind("34-socket.conf")


def test_what_is_waited_for_is_said_at_once_and_the_node_is_prepared(host):
    with host.start() as program:
        program.says("info", "waiting for a CNI configuration", str(host.conf_dir))
        assert host.installed.exists()
        assert host.has_token("token-1")
        assert not host.ready.exists()
        assert len(program.lines("waiting")) == 1


def test_a_master_that_appears_is_picked_up_by_its_event(host):
    with host.start() as program:
        settled(program, waiting=True)
        host.master()
        until(host.conf.exists)


def test_after_the_timeout_it_gives_up_and_names_the_directory(host):
    outcome = host.run("--wait-timeout=0.5")
    assert outcome.returncode == 1
    line = outcome.stderr.splitlines()[-1]
    assert str(host.conf_dir) in line
    assert "0.5 s" in line
    assert "no .conf or .conflist file is there" in line


def test_a_timeout_of_nothing_looks_once(host):
    assert host.run("--wait-timeout=0").returncode == 1
    host.master()
    with host.start("--wait-timeout=0") as program:
        host.until_ready(program)


def test_a_broken_file_does_not_stretch_the_timeout(host):
    overwrite(host.conf_dir / "10-broken.conf", "{")
    with host.start("--wait-timeout=2") as program:
        until(lambda: not program.running() or 0 < program.sleeps()[program.pid] <= 2001, "a sleep that is no longer")
        assert program.ends() == 1
        assert program.lines("gave up", "10-broken.conf")


def test_it_gives_up_naming_each_refused_file_with_its_reason(host):
    for name, (content, _) in BROKEN.items():
        overwrite(host.conf_dir / name, content)
    overwrite(host.conf_dir / "05-multus.conf", '{"name": "m", "type": "multus"}')
    outcome = host.run("--wait-timeout=0.2")
    assert outcome.returncode == 1
    line = outcome.stderr.splitlines()[-1]
    parts = {name: part for part in line.split("; ") for name in BROKEN if f"'{name}'" in part}
    assert parts.keys() == BROKEN.keys()
    for name, (_, reason) in BROKEN.items():
        assert reason in parts[name]
    assert "'05-multus.conf' is itself a Multus configuration" in line


@pytest.mark.parametrize("name", NO_FILES)
def test_it_gives_up_naming_what_is_no_file(host, name):
    no_files(host.conf_dir)
    outcome = host.run("--wait-timeout=0.1")
    assert outcome.returncode == 1
    assert name in outcome.stderr


def test_what_is_no_file_never_blocks_and_is_passed_over(host):
    no_files(host.conf_dir)
    host.master("50-flannel.conflist")
    with host.start() as program:
        host.until_ready(program)
        assert host.wraps(**FLANNEL)
        program.stop()
    assert (host.conf_dir / "30-fifo.conf").is_fifo()


def test_a_link_that_leads_nowhere_is_not_passed_over_in_silence(host):
    """On the host it may lead to the default network, and another one is wrapped in its place."""
    (host.conf_dir / "10-calico.conflist").symlink_to("/etc/cni/calico.conflist")
    host.master("87-bridge.conflist")
    with host.start() as program:
        host.until_ready(program)
        program.says("warning", "skipping '10-calico.conflist': it is a link to what does not exist in this container")


def test_broken_files_are_taken_for_being_written_for_five_seconds_and_then_skipped_once(tmp_path):
    """One host for each kind of broken file, all of them at once."""

    def one(item):
        name, (content, reason) = item
        host = ScratchHost(tmp_path / name)
        overwrite(host.conf_dir / name, content)
        host.master("50-flannel.conflist")
        with host.start() as program:
            program.says("waiting", name)
            host.until_ready(program)
            skipped = program.says("warning", "skipping", f"'{name}'", reason)
            (host.conf_dir / "50-flannel.conflist").touch()
            host.master("60-other.conflist")
            host.rotate("proof")
            until(lambda: host.has_token("proof"))
            assert program.lines("skipping") == [skipped]
            assert host.wraps(**FLANNEL)
            assert (
                program.log.index("waiting") < program.log.index("skipping") < program.log.index(f"wrote {host.conf}")
            )

    with ThreadPoolExecutor(len(BROKEN)) as pool:
        list(pool.map(one, BROKEN.items()))


def test_a_file_that_was_skipped_is_taken_once_it_is_usable(host):
    overwrite(host.conf_dir / "10-broken.conflist", '{"name": ')
    host.master("50-flannel.conflist")
    with host.start() as program:
        host.until_ready(program)
        assert host.wraps(**FLANNEL)
        overwrite(host.conf_dir / "10-broken.conflist", json.dumps({**FLANNEL, "mtu": 1}))
        until(lambda: host.wraps(mtu=1))


@pytest.mark.parametrize("flags", [[], ["--cleanup-config-on-exit"]], ids=["kept", "cleanup"])
def test_a_master_that_stays_broken_is_damage_and_no_removal(host, flags):
    """What was made of it is the last whole copy of the network, after a restart too."""
    with host.configured(*flags) as program:
        overwrite(host.conf_dir / "10-flannel.conflist", "")
        program.says("error", "10-flannel.conflist", "empty", "what was made of it stays")
        settled(program)
        assert host.wraps() and host.ready.exists()
        program.process.kill()
        program.ends()
    host.ready.unlink()
    with host.start(*flags, "--wait-timeout=1") as program:
        host.until_ready(program)
        program.says("error", "10-flannel.conflist", "empty", "what was made of it stays")
        host.conf.unlink()
        until(host.wraps)
        host.master(mtu=7)
        until(lambda: host.wraps(mtu=7))


def test_a_named_master_is_the_only_one_waited_for(host):
    with host.start("--multus-master-cni-file-name=20-mine.conf") as program:
        program.says("waiting for 20-mine.conf", str(host.conf_dir))
        host.master("10-other.conf")
        settled(program, waiting=True)
        assert not host.conf.exists()
        host.master("20-mine.conf", mtu=2)
        until(lambda: host.wraps(mtu=2))


def test_a_file_of_another_suffix_is_no_candidate(host):
    for name in ("10-x.json", "10-x.conf.bak", "10-x.conf~", ".conf.swp", "10-x.CONF", "conf"):
        overwrite(host.conf_dir / name, json.dumps(FLANNEL))
    outcome = host.run("--wait-timeout=0.1")
    assert outcome.returncode == 1
    assert "no .conf or .conflist file is there" in outcome.stderr
