"""Trouble while running: the program stays alive, says so once, and recovers."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

from tests.process.scratch import file_id, replace, settled, vanish
from tests.waiting import BOUND, until


def _command(*words):
    try:
        return subprocess.run(words, capture_output=True).returncode == 0
    except OSError:
        return False


@contextlib.contextmanager
def _immutable(directory):
    """Root ignores permission bits, so the directory is made immutable."""
    if not _command("chattr", "+i", directory):
        pytest.skip("needs root, and a file system that knows chattr +i")
    try:
        yield
    finally:
        _command("chattr", "-i", directory)


@contextlib.contextmanager
def _mounted(*words):
    if not _command("mount", *words):
        pytest.skip("needs root, and the right to mount")
    try:
        yield
    finally:
        _command("umount", "-l", words[-1])


@contextlib.contextmanager
def _read_only(directory):
    with _mounted("--bind", directory, directory), _mounted("-o", "remount,ro,bind", directory):
        yield


def _small(directory):
    return _mounted("-t", "tmpfs", "-o", "size=64k", "none", directory)


@pytest.mark.parametrize(
    ("place", "trouble", "words"),
    [
        ("conf_dir", _immutable, ["cannot write", "immutable"]),
        ("bin_dir", _read_only, ["cannot install", "readOnly"]),
        ("bin_dir", _small, ["cannot install", "No space left"]),
    ],
)
def test_at_start_a_directory_that_takes_nothing_ends_it_without_a_configuration(host, place, trouble, words):
    host.multus.write_bytes(os.urandom(1 << 20))
    host.master()
    directory = getattr(host, place)
    with trouble(directory):
        before = os.listdir(directory)
        outcome = host.run()
        assert os.listdir(directory) == before
    assert outcome.returncode == 1
    assert all(word in outcome.stderr for word in (str(directory), *words)), outcome.stderr
    assert not host.conf.exists()


def test_a_configuration_directory_that_cannot_be_written_any_more(host):
    with host.configured() as program:
        before = file_id(host.conf)
        with _immutable(host.conf_dir):
            host.rotate("meanwhile")  # another directory: the rest goes on
            until(lambda: host.has_token("meanwhile"))
            own = host.conf_dir / "10-flannel.conflist"
            own.write_text(own.read_text().replace("cbr0", "changed"))
            program.says("error", "cannot write", str(host.conf))
            assert host.ready.exists()  # what stands works as before
            for i in range(5):
                host.rotate(f"again-{i}")
                until(lambda i=i: host.has_token(f"again-{i}"))
            until(lambda: program.sleeps()[program.pid] > 2500, "a third try, 4 s after the second at the earliest")
            assert file_id(host.conf) == before
            assert len(program.lines("error")) == 1
        until(lambda: host.wraps(name="changed"))
        until(host.ready.exists)


def test_a_binary_directory_that_becomes_read_only(host):
    with _mounted("-t", "tmpfs", "-o", "size=1m", "none", host.bin_dir), host.configured() as program:
        host.installed.unlink()
        until(host.installed.exists)
        assert _command("mount", "-o", "remount,ro", host.bin_dir)
        replace(host.multus, b"new", mode=0o755)  # never empty in between
        program.says("error", "cannot install", str(host.installed), "readOnly")
        host.master(mtu=3)  # once configured, the rest goes on
        until(lambda: host.wraps(mtu=3))
        assert len(program.lines("error")) == 1
        assert _command("mount", "-o", "remount,rw", host.bin_dir)
        until(lambda: host.installed.read_bytes() == b"new")
        until(host.ready.exists)


def test_a_master_on_a_read_only_volume_is_wrapped_and_keeps_its_name(host):
    own = host.root / "own"
    own.mkdir()
    master = host.master(directory=own)
    flags = ("--rename-conf-file", "--cleanup-config-on-exit", f"--multus-autoconfig-dir={own}")
    with _read_only(own), host.start(*flags) as program:
        host.until_ready(program)
        program.says("error", "cannot rename", str(master), "Read-only")
        assert program.stop() == 0
    assert host.names() == ["multus.d"] and os.listdir(own) == [master.name]


def test_a_full_disk(host):
    with _small(host.conf_dir):
        host.master()
        with host.configured() as program:
            before = host.conf.read_bytes(), host.kubeconfig.read_bytes()
            filler = host.conf_dir / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 512)
            host.rotate("does-not-fit")
            program.says("error", "cannot write", str(host.kubeconfig), "No space left")
            until(lambda: program.sleeps()[program.pid] > 1500, "a second try")
            assert (host.conf.read_bytes(), host.kubeconfig.read_bytes()) == before
            assert not [name for name in os.listdir(host.kubeconfig.parent) if name.endswith(".tmp")]
            assert len([line for line in program.lines("error") if str(host.kubeconfig) in line]) == 1
            filler.unlink()
            until(lambda: host.has_token("does-not-fit"))
            until(host.ready.exists)


def test_a_node_without_a_free_inotify_instance_is_configured_and_followed_all_the_same(host):
    limit = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    if not _command("unshare", "-Ur", "sh", "-c", limit, "sh", "true"):
        pytest.skip("needs user namespaces")
    host.master()
    with host.start(prefix=["unshare", "-Ur", "sh", "-c", limit, "sh"]) as program:
        program.says("error", "cannot watch files", "max_user_instances")
        until(host.conf.exists)
        host.rotate("later")
        until(lambda: host.has_token("later"))
        host.master(mtu=1)
        until(lambda: host.wraps(mtu=1))
        assert len(program.lines("error")) == 1


def test_a_ready_file_that_cannot_be_written_is_told_and_written_later(host):
    host.master()
    with _immutable(host.ready.parent), host.start() as program:
        program.says("error", "--ready-file", str(host.ready))
        assert host.wraps(name="cbr0")
        assert program.running()
        _command("chattr", "-i", host.ready.parent)
        until(host.ready.exists)


def test_all_directories_taken_away_at_once_and_given_back(host):
    with host.configured() as program:
        content = host.multus.read_bytes()
        for directory in (host.conf_dir, host.bin_dir, host.account.path, host.image):
            vanish(directory)
        until(lambda: not host.ready.exists())
        settled(program)
        for directory in (host.conf_dir, host.bin_dir, host.image, host.account.path):
            directory.mkdir()
        (host.account.path / "token").write_text("new")
        (host.account.path / "ca.crt").write_text("new")
        host.multus.write_bytes(content)
        host.multus.chmod(0o755)
        host.master(mtu=8)
        until(host.ready.exists)
        assert host.wraps(mtu=8)
        assert host.has_token("new")
        assert host.installed.read_bytes() == content


def test_a_log_that_nobody_reads_does_not_keep_it_from_ending(host):
    """A pipe whose reader has gone; a full one would hold up any program that logs."""
    host.master()
    reading, writing = os.pipe()
    process = subprocess.Popen(host.command(), env=host.environment(), cwd=host.root, stderr=writing)
    os.close(writing)
    try:
        until(host.ready.exists)
        os.close(reading)
        host.master(mtu=1)
        until(lambda: host.wraps(mtu=1))
        host.rotate("next")
        until(lambda: host.has_token("next"))
        process.terminate()
        process.wait(BOUND)  # with Python's own 120, because it cannot flush stderr
    finally:
        process.kill()
        process.wait()
