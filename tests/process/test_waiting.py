"""Waiting for a master: what is said, how long, and what is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.process.scratch import FLANNEL, ScratchHost, overwrite, settled
from tests.waiting import until

BROKEN = {
    "10-empty.conf": (b"", "empty"),
    "12-cut.conf": (b'{\n  "name": "x",\n  "type": "fl', "line 3 column 11"),
    "16-nameless.conf": (b'{"type": "x"}', "'name'"),
    "21-deep.conf": (b'{"name": "x", "type": "y", "z": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deep"),
    "22-big.conf": (b'{"name": "x", "type": "y"}' + b" " * (2 << 20), "larger than"),
}
"""What else is refused, and in which words, is in tests/cni/test_document.py."""


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


def test_a_timeout_of_nothing_looks_once(host):
    assert host.run("--wait-timeout=0").returncode == 1
    host.master()
    with host.configured("--wait-timeout=0"):
        pass


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
    with host.configured():
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
    with host.configured(*flags, "--wait-timeout=1") as program:
        program.says("error", "10-flannel.conflist", "empty", "what was made of it stays")
        host.conf.unlink()
        until(host.wraps)
        host.master(mtu=7)
        until(lambda: host.wraps(mtu=7))


def test_a_file_of_another_suffix_is_no_candidate(host):
    for name in ("10-x.json", "10-x.conf.bak", "10-x.conf~", "10-x.conflist.old", ".conf.swp", "10-x.CONF", "conf"):
        overwrite(host.conf_dir / name, json.dumps(FLANNEL))
    outcome = host.run("--wait-timeout=0.1")
    assert outcome.returncode == 1
    assert "no .conf or .conflist file is there" in outcome.stderr
