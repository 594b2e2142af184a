"""What a look at the other instances makes of errors; that several really agree is in process/test_presence.py."""

import contextlib
import errno
import os
import subprocess
import sys
import time
import types

import pytest

from entrypoint import owner
from entrypoint.owner import Owner

OTHER = """
import sys
from pathlib import Path
from entrypoint.owner import Owner
other = Owner(Path(sys.argv[1]))
other.join(able=sys.argv[2] == "able")
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def clock(monkeypatch):
    """The time that an instance goes by when it makes its file anew, or looks again."""
    found = types.SimpleNamespace(now=100.0)
    faked = types.SimpleNamespace(
        monotonic=lambda: found.now, clock_gettime_ns=time.clock_gettime_ns, CLOCK_BOOTTIME=time.CLOCK_BOOTTIME
    )
    monkeypatch.setattr(owner, "time", faked)
    return found


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "multus.d"


@contextlib.contextmanager
def another(directory, kind="able"):
    """Let another process be an instance: record locks are a process's."""
    command = [sys.executable, "-c", OTHER, directory, kind]
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


def may_write(own):
    with own.turn(lambda: False) as mine:
        return mine


def files_of(directory):
    return [path for path in directory.iterdir() if owner.NAME.fullmatch(path.name)]


def test_alone_it_owns_the_node_once_it_has_something_to_write(directory):
    own = Owner(directory)
    assert not may_write(own) and not directory.exists()
    for able, suffix in ((False, ".waiting"), (True, ".alive")):
        own.join(able=able)
        assert may_write(own) and not own.accompanied and not own.superseded and own.deadline is None
        (file,) = files_of(directory)
        assert file.suffix == suffix
    own.leave()
    assert not directory.exists()


def test_a_directory_that_was_there_before_stays_with_nothing_of_ours_but_the_lock(directory):
    directory.mkdir()
    own = Owner(directory)
    own.join(able=True)
    own.leave()
    assert os.listdir(directory) == []


def test_the_lock_stays_in_a_directory_that_stays(directory):
    own = Owner(directory)
    own.join(able=True)
    assert may_write(own)
    (directory / "multus.kubeconfig").touch()
    own.leave()
    assert sorted(os.listdir(directory)) == [owner.LOCK, "multus.kubeconfig"]


def test_a_newer_one_is_seen_only_while_it_lives(directory):
    own = Owner(directory)
    own.join(able=True)
    with another(directory) as process:
        assert not may_write(own)  # it looks in its turn
        assert own.superseded and own.accompanied and own.overtaken()
        process.kill()
        process.wait()
        own.look()
        assert not own.superseded and not own.accompanied and may_write(own)
        assert len(files_of(directory)) == 1


def test_one_that_can_configure_the_node_comes_before_a_newer_one_that_cannot(directory):
    own = Owner(directory)
    own.join(able=True)
    with another(directory, "unable"):
        own.look()
        assert not own.superseded and not own.accompanied and may_write(own)
        with another(directory):
            own.look()
            assert own.superseded and not may_write(own)


def test_of_several_that_cannot_the_newest_writes_until_another_one_can(directory):
    own = Owner(directory)
    own.join(able=False)
    with another(directory, "unable"):
        own.look()
        assert not may_write(own) and not own.superseded  # it goes on looking for its master
        own.join(able=True)
        assert may_write(own)


def test_at_the_end_the_place_is_given_up_first_and_only_the_last_may_clean_up(directory):
    own = Owner(directory)
    own.join(able=True)
    with another(directory) as process:
        with own.ending() as last:
            assert not last and len(files_of(directory)) == 1
        process.kill()
        process.wait()
        with own.ending() as last:
            assert last and files_of(directory) == []


def test_a_turn_that_does_not_end_is_waited_for_only_so_long_and_not_at_all_once_cancelled(directory):
    own = Owner(directory)
    own.join(able=True)
    program = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, directory / owner.LOCK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        asked = []
        with own.turn(lambda: bool(asked.append(1))) as mine:
            assert mine and asked
        with own.turn(lambda: True) as mine:
            assert mine
        process.kill()


@pytest.mark.parametrize(("function", "suffix"), [("open", ".alive"), ("listdir", "multus.d")], ids=["open", "list"])
def test_a_look_that_failed_is_made_again_and_who_was_known_is_not_forgotten(
    directory, monkeypatch, clock, function, suffix
):
    own = Owner(directory)
    own.join(able=True)
    with another(directory) as known:
        own.look()
        assert own.superseded and own.deadline is None
        with another(directory) as unknown:
            with monkeypatch.context() as patch:
                failing(patch, function, errno.EMFILE, suffix)
                own.look()
                assert own.superseded
                assert own.deadline > clock.now
                known.kill()
                known.wait()
                own.look()
                assert not own.superseded
            own.look()
            assert own.superseded and own.deadline is None
            unknown.kill()


def test_a_file_that_may_not_be_read_hides_no_living_instance(directory, monkeypatch):
    own = Owner(directory)
    own.join(able=True)
    with another(directory):
        for number in range(20):  # they are met in no particular order
            (directory / f".multus-entrypoint-{number:020}-0123456789ab.alive").touch()
        failing(monkeypatch, "open", errno.EACCES, "-0123456789ab.alive")
        own.look()
        assert own.superseded


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_file_of_an_instance_is_none(directory, make):
    own = Owner(directory)
    own.join(able=True)
    make(directory / f".multus-entrypoint-{owner._HIGHEST}-0123456789ab.alive")
    assert may_write(own) and not own.superseded


def test_what_cannot_be_made_is_told_and_tried_again_and_hinders_nothing(directory, monkeypatch, clock):
    directory.mkdir()
    own = Owner(directory)
    with monkeypatch.context() as patch:
        failing(patch, "open", errno.ENOSPC, ".tmp")
        own.join(able=True)
        assert may_write(own)
        assert "No space left on device" in own.complaint
        again = own.deadline
        assert again > clock.now
    own.look()
    assert own.deadline == again and files_of(directory) == []  # not at every look
    clock.now = again
    own.look()
    assert own.complaint is None and own.deadline is None
    assert len(files_of(directory)) == 1


def test_one_that_could_not_tell_that_it_can_configure_the_node_now_tells_it_later(directory, monkeypatch, clock):
    """Its file of before stands all the time, and to others it would be one that cannot for ever."""
    own = Owner(directory)
    own.join(able=False)
    with monkeypatch.context() as patch:
        failing(patch, "open", errno.ENOSPC, ".tmp")
        own.join(able=True)
        own.look()
        assert own.complaint is not None and own.deadline is not None
    clock.now += 31
    own.look()
    assert own.complaint is None and own.deadline is None
    assert [file.suffix for file in files_of(directory)] == [".alive"]


def test_without_the_directory_above_there_is_nothing_to_say_and_nothing_to_wait_for(tmp_path):
    own = Owner(tmp_path / "missing/multus.d")
    own.join(able=True)
    assert may_write(own) and own.complaint is None and own.deadline is None
    (tmp_path / "missing").mkdir()
    own.look()
    assert len(files_of(tmp_path / "missing/multus.d")) == 1


def test_a_file_that_is_made_anew_has_another_name_and_is_made_once_a_second(directory, clock):
    """Who found the one before without a lock may be about to remove it."""
    own = Owner(directory)
    own.join(able=True)
    (before,) = files_of(directory)
    before.unlink()
    own.look()
    assert files_of(directory) == [] and own.deadline == clock.now + 1
    clock.now += 1
    own.look()
    (after,) = files_of(directory)
    assert after.name[:39] == before.name[:39]
    assert after.name != before.name


def test_a_file_that_is_brought_back_is_waited_for_no_longer(directory, clock):
    """A deadline that stays, and has passed, would make the loop spin."""
    own = Owner(directory)
    own.join(able=True)
    (file,) = files_of(directory)
    file.rename(directory / "away")
    own.look()
    assert own.deadline is not None
    (directory / "away").rename(file)
    own.look()
    assert may_write(own) and own.deadline is None


def test_a_descriptor_of_another_one_is_given_back(directory):
    own = Owner(directory)
    own.join(able=True)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with another(directory):
            own.look()
            assert len(os.listdir("/proc/self/fd")) == before + 3  # two of them are the pipes
        own.look()
    assert len(os.listdir("/proc/self/fd")) == before


def test_who_is_none_sees_the_living_with_their_processes_and_changes_nothing(directory):
    with another(directory, "unable") as first, another(directory) as second:
        (directory / f".multus-entrypoint-{7:020}-0123456789ab.alive").touch()  # a killed run's
        before = sorted(os.listdir(directory))
        found = owner.living(directory)
        assert [each.pid for each in found] == [first.pid, second.pid]
        assert [each.rank[0] for each in found] == [False, True]
        assert sorted(os.listdir(directory)) == before
    assert owner.living(directory) == []
    owner.sweep(directory)
    assert files_of(directory) == []


@pytest.mark.parametrize(("tie", "is_newer"), [("0" * 12, False), ("f" * 12, True)])
def test_of_two_that_started_in_the_same_instant_the_name_decides(directory, tie, is_newer):
    own = Owner(directory)
    own.join(able=True)
    (file,) = files_of(directory)
    with another(directory) as process:
        (other,) = set(files_of(directory)) - {file}
        other.rename(directory / f"{file.name[:40]}{tie}.alive")
        own.look()
        assert own.superseded is is_newer
        process.kill()


def test_a_rank_comes_after_that_of_every_one_that_lives(directory):
    with another(directory) as process:
        (file,) = files_of(directory)
        later = file.with_name(f".multus-entrypoint-{owner._HIGHEST - 5:020}-{'f' * 12}.alive")
        file.rename(later)
        own = Owner(directory)
        own.join(able=True)
        assert may_write(own) and not own.superseded
        process.kill()
