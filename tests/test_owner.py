"""What a look at the other instances makes of errors; that several really agree is in process/test_presence.py."""

import contextlib
import errno
import os
import subprocess
import sys
import time

import pytest

from entrypoint import owner
from entrypoint.owner import Presence

OTHER = """
import sys
from pathlib import Path
from entrypoint.owner import Presence
other = Presence(Path(sys.argv[1]))
other.join()
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "multus.d"


@contextlib.contextmanager
def another(directory):
    """Let another process be an instance: record locks are a process's."""
    command = [sys.executable, "-c", OTHER, directory]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def failing(monkeypatch, function, number, suffix):
    """Let a function of `os` fail for what ends so."""
    real = getattr(os, function)

    def fail(path, *arguments):
        if os.fspath(path).endswith(suffix):
            raise OSError(number, os.strerror(number), os.fspath(path))
        return real(path, *arguments)

    monkeypatch.setattr(os, function, fail)


def test_alone_it_owns_the_node_once_it_can_do_its_work(directory):
    own = Presence(directory)
    assert not own.owner and not directory.exists()
    own.join()
    assert own.owner and not own.accompanied and own.deadline is None
    (name,) = os.listdir(directory)
    assert owner.NAME.fullmatch(name)
    own.leave()
    assert not directory.exists()


def test_a_directory_that_was_there_before_stays(directory):
    directory.mkdir()
    own = Presence(directory)
    own.join()
    own.leave()
    assert os.listdir(directory) == []


def test_a_newer_one_is_seen_only_while_it_lives(directory):
    own = Presence(directory)
    own.join()
    with another(directory) as process:
        own.look()
        assert own.superseded and own.accompanied
        process.kill()
        process.wait()
        own.look()
        assert own.owner and not own.accompanied
        assert len(os.listdir(directory)) == 1


@pytest.mark.parametrize(
    ("function", "suffix"), [("open", owner.SUFFIX), ("listdir", "multus.d")], ids=["open", "list"]
)
def test_a_look_that_failed_is_made_again_and_who_was_known_is_not_forgotten(directory, monkeypatch, function, suffix):
    own = Presence(directory)
    own.join()
    with another(directory) as known:
        own.look()
        assert own.superseded and own.deadline is None
        with another(directory) as unknown:
            with monkeypatch.context() as patch:
                failing(patch, function, errno.EMFILE, suffix)
                own.look()
                assert own.superseded
                assert own.deadline > time.monotonic()
                known.kill()
                known.wait()
                own.look()
                assert own.owner
            own.look()
            assert own.superseded and own.deadline is None
            unknown.kill()


def test_a_file_that_may_not_be_read_hides_no_living_instance(directory, monkeypatch):
    own = Presence(directory)
    own.join()
    with another(directory):
        for number in range(20):  # they are met in no particular order
            (directory / f".multus-entrypoint-{number:020}-0123456789ab.alive").touch()
        failing(monkeypatch, "open", errno.EACCES, "-0123456789ab.alive")
        own.look()
        assert own.superseded


def test_what_cannot_be_made_is_told_and_tried_again_and_hinders_nothing(directory, monkeypatch):
    directory.mkdir()
    own = Presence(directory)
    with monkeypatch.context() as patch:
        failing(patch, "open", errno.ENOSPC, ".tmp")
        own.join()
        assert own.owner
        assert "No space left on device" in own.complaint
        assert own.deadline > time.monotonic()
    patched = own.deadline
    own.look()
    assert own.deadline == patched  # not at every look
    own._not_before = time.monotonic()
    own.look()
    assert own.complaint is None and own.deadline is None
    assert len(os.listdir(directory)) == 1


def test_without_the_directory_above_there_is_nothing_to_say_and_nothing_to_wait_for(tmp_path):
    own = Presence(tmp_path / "missing/multus.d")
    own.join()
    assert own.owner and own.complaint is None and own.deadline is None
    (tmp_path / "missing").mkdir()
    own.look()
    assert len(os.listdir(tmp_path / "missing/multus.d")) == 1


def test_a_file_that_is_made_anew_has_another_name(directory):
    """Who found the one before without a lock may be about to remove it."""
    own = Presence(directory)
    own.join()
    (before,) = directory.iterdir()
    before.unlink()
    own.look()
    assert list(directory.iterdir()) == [] and own.deadline is not None
    own._not_before = time.monotonic()
    own.look()
    (after,) = directory.iterdir()
    assert after.name[:39] == before.name[:39]
    assert after.name != before.name


def test_a_file_that_is_brought_back_is_waited_for_no_longer(directory):
    """A deadline that stays, and has passed, would make the loop spin."""
    own = Presence(directory)
    own.join()
    (file,) = directory.iterdir()
    file.rename(directory / "away")
    own.look()
    assert own.deadline is not None
    (directory / "away").rename(file)
    own.look()
    assert own.owner and own.deadline is None


def test_a_descriptor_of_another_one_is_given_back(directory):
    own = Presence(directory)
    own.join()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with another(directory):
            own.look()
            assert len(os.listdir("/proc/self/fd")) == before + 3  # two of them are the pipes
        own.look()
    assert len(os.listdir("/proc/self/fd")) == before
