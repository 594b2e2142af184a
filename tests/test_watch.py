import contextlib
import errno
import os
import subprocess
import threading
import time

import pytest
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD

from entrypoint.disk.wakeup import Wakeup
from entrypoint.disk.watch import Watcher
from tests.waiting import BOUND

SUFFIXES = (".conf", ".conflist")


@pytest.fixture
def wakeup():
    return Wakeup()


@pytest.fixture
def watcher(wakeup):
    watcher = Watcher(wakeup)
    yield watcher
    watcher.stop()


def woken(wakeup, within=BOUND):
    """Whether the wake-up comes."""
    started = time.monotonic()
    wakeup.wait(started + within)
    came = time.monotonic() - started < within
    wakeup.clear()
    return came


def settle(wakeup):
    while woken(wakeup, within=0.05):
        pass


def swap(link, target):
    os.symlink(target, f"{link}_tmp")
    os.replace(f"{link}_tmp", link)


def kubelet_volume(directory, number, **files):
    data = directory / f"..{number}"
    data.mkdir()
    for name, content in files.items():
        (data / name).write_text(content)
        if not os.path.lexists(directory / name):
            (directory / name).symlink_to(f"..data/{name}")
    swap(directory / "..data", data.name)


def test_a_swapped_data_link_is_noticed(tmp_path, wakeup, watcher):
    kubelet_volume(tmp_path, 1, token="a")
    watcher.follow([tmp_path / "token"])
    kubelet_volume(tmp_path, 2, token="b")
    assert woken(wakeup)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("new"),
        lambda path: path.chmod(0o640),
        lambda path: path.unlink(),
        lambda path: path.rename(path.with_suffix(".x")),
        lambda path: (path.parent / "new").rename(path),
        lambda path: path.parent.rename(path.parent.with_name("moved")),
        lambda path: path.parent.chmod(0o700),
        lambda path: swap(path.parent.parent.parent / "link", path.parent.parent.parent / "other"),
    ],
    ids=["written", "mode", "removed", "renamed", "replaced", "directory moved", "directory mode", "link swapped"],
)
def test_whatever_makes_a_followed_path_lead_to_something_else_is_noticed(tmp_path, wakeup, watcher, change):
    (tmp_path / "real/d").mkdir(parents=True)
    (tmp_path / "other/d").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    path = tmp_path / "real/d/file"
    path.write_text("old")
    (path.parent / "new").write_text("new")
    watcher.follow([tmp_path / "link/d/file"])
    settle(wakeup)
    change(path)
    assert woken(wakeup)


def test_a_file_is_noticed_when_the_directories_above_it_appear_one_by_one(tmp_path, wakeup, watcher):
    path = tmp_path / "a/b/c"
    for step in (path.parent.parent.mkdir, path.parent.mkdir, lambda: path.write_text("x"), path.unlink):
        watcher.follow([path])
        settle(wakeup)
        step()
        assert woken(wakeup)


def test_directories_that_appear_while_the_watch_begins_are_followed_to_their_end(
    tmp_path, wakeup, watcher, monkeypatch
):
    """As `mkdir -p` makes them: the second may come before the first is watched, and nothing tells of it."""
    path, real = tmp_path / "a/b/c", os.access
    path.parent.parent.mkdir()

    def looked_already(name, mode):
        path.parent.mkdir(exist_ok=True)
        return real(name, mode)

    monkeypatch.setattr("os.access", looked_already)
    watcher.follow([path])
    settle(wakeup)
    path.write_text("x")
    assert woken(wakeup)
    settle(wakeup)


def test_a_directory_that_is_made_anew_without_end_does_not_hold_the_loop_up(tmp_path, wakeup, watcher, monkeypatch):
    path, real = tmp_path / "a/b", os.access
    path.parent.mkdir()

    def made_anew(name, mode):
        path.parent.rename(tmp_path / f"gone-{len(os.listdir(tmp_path))}")
        path.parent.mkdir()
        return real(name, mode)

    monkeypatch.setattr("os.access", made_anew)
    watcher.follow([path])
    assert woken(wakeup)


def test_without_room_for_all_directories_the_others_are_watched(tmp_path, wakeup, watcher, monkeypatch):
    """What was watched stays watched: the kernel refuses new ones only."""
    interests = [tmp_path / name / "x" for name in "abc"]
    for each in interests:
        each.parent.mkdir()
    watcher.follow(interests)
    (tmp_path / "new").mkdir()
    real = InotifyFD._get_or_create_watch

    def refuse(self, path, mask):
        if path == os.fsencode(tmp_path / "new"):
            raise OSError(errno.ENOSPC, "inotify watch limit reached")
        return real(self, path, mask)

    monkeypatch.setattr(InotifyFD, "_get_or_create_watch", refuse)
    for order in ([tmp_path / "new/x", *interests], [*interests, tmp_path / "new/x"]):
        with pytest.raises(OSError, match="limit"):
            watcher.follow(order)
        for each in interests:
            settle(wakeup)
            each.write_text("x")
            assert woken(wakeup)


def test_a_directory_that_is_removed_and_made_again_is_watched_again(tmp_path, wakeup, watcher):
    directory = tmp_path / "net.d"
    for _ in range(3):
        directory.mkdir()
        watcher.follow([(directory, SUFFIXES)])
        settle(wakeup)
        (directory / "10-x.conf").write_text("x")
        assert woken(wakeup)
        (directory / "10-x.conf").unlink()
        settle(wakeup)
        directory.rmdir()
        assert woken(wakeup)
        settle(wakeup)


def test_a_listed_link_is_followed_to_its_target(tmp_path, wakeup, watcher):
    (tmp_path / "net.d").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/real").write_text("old")
    (tmp_path / "net.d/10-x.conf").symlink_to("../elsewhere/real")
    watcher.follow([(tmp_path / "net.d", SUFFIXES)])
    settle(wakeup)
    (tmp_path / "elsewhere/real").write_text("new")
    assert woken(wakeup)


def test_unrelated_files_our_temporaries_and_reading_wake_nobody(tmp_path, wakeup, watcher):
    (tmp_path / "10-x.conf").write_text("x")
    watcher.follow([tmp_path / "token", (tmp_path, SUFFIXES)])
    settle(wakeup)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".multus-entrypoint-1.tmp").write_text("x")
    (tmp_path / "10-x.conf").read_text()
    os.listdir(tmp_path)
    assert not woken(wakeup, within=0.2)


def test_what_is_no_longer_followed_wakes_nobody(tmp_path, wakeup, watcher):
    (tmp_path / "a").mkdir()
    watcher.follow([tmp_path / "a/x"])
    watcher.follow([tmp_path / "b/x"])
    settle(wakeup)
    (tmp_path / "a/x").write_text("x")
    assert not woken(wakeup, within=0.2)


def test_two_paths_to_one_directory_are_one_watch_with_both_interests(tmp_path, wakeup, watcher):
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    watcher.follow([tmp_path / "d/x", (tmp_path / "link", SUFFIXES)])
    settle(wakeup)
    for name in ("x", "a.conf"):
        (tmp_path / "d" / name).write_text("x")
        assert woken(wakeup)
        settle(wakeup)


@pytest.mark.parametrize("other_first", [False, True])
def test_a_directory_that_is_mounted_at_two_places_is_watched_for_both(tmp_path, wakeup, watcher, other_first):
    """As hostPath volumes may be; inotify knows it once, and of the second place less is asked."""
    for name in ("d", "bound"):
        (tmp_path / name).mkdir()
    (tmp_path / "d/a.conf").write_text("x")
    if subprocess.run(["mount", "--bind", tmp_path / "d", tmp_path / "bound"], capture_output=True).returncode != 0:
        pytest.skip("nothing may be mounted here")
    try:
        interests = [(tmp_path / "d", SUFFIXES), tmp_path / "bound/x"]
        watcher.follow(interests[::-1] if other_first else interests)
        settle(wakeup)
        for name in ("a.conf", "x"):
            (tmp_path / "bound" / name).write_text("y")
            assert woken(wakeup)
            settle(wakeup)
    finally:
        subprocess.run(["umount", tmp_path / "bound"], check=True)


def test_a_path_that_goes_up_behind_a_link_is_followed_as_the_kernel_goes(tmp_path, wakeup, watcher):
    (tmp_path / "o/d").mkdir(parents=True)
    (tmp_path / "link").symlink_to("o/d")
    watcher.follow([tmp_path / "link/../x"])
    settle(wakeup)
    (tmp_path / "o/x").write_text("x")
    assert woken(wakeup)


def test_links_in_a_circle_end(tmp_path, wakeup, watcher):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    watcher.follow([tmp_path / "a/x"])
    settle(wakeup)
    (tmp_path / "b").unlink()
    assert woken(wakeup)


def test_a_reader_that_died_is_replaced(tmp_path, wakeup, watcher):
    watcher.follow([tmp_path / "x"])
    settle(wakeup)
    watcher._reader.stop()
    assert woken(wakeup)
    watcher._reader.join()
    watcher.follow([tmp_path / "x"])
    settle(wakeup)
    (tmp_path / "x").write_text("x")
    assert woken(wakeup)


def test_an_overflow_of_the_queue_wakes_the_loop(tmp_path, wakeup, watcher):
    watcher.follow([tmp_path / "x"])
    settle(wakeup)
    watcher._reader.handle_event(InotifyEvent(-1, InotifyConstants.IN_Q_OVERFLOW, 0, b""))
    assert woken(wakeup)


class TestWakeup:
    def test_what_comes_before_the_wait_is_not_lost(self, wakeup):
        wakeup.set()
        assert woken(wakeup)
        assert not woken(wakeup, within=0.05)

    def test_a_deadline_is_never_early(self, wakeup):
        for _ in range(20):
            until = time.monotonic() + 0.0035
            wakeup.wait(until)
            assert time.monotonic() >= until

    def test_a_deadline_in_the_past_does_not_wait(self, wakeup):
        wakeup.wait(time.monotonic() - 5)

    def test_a_deadline_in_years_is_no_error(self, wakeup):
        threading.Timer(0.05, wakeup.set).start()
        wakeup.wait(time.monotonic() + 1e12)

    def test_stopping_wakes(self, wakeup):
        wakeup.stop(15)
        assert wakeup.stopping
        assert woken(wakeup)

    def test_a_stop_just_before_a_clear_is_not_forgotten(self, wakeup):
        wakeup.stop(15)
        wakeup.clear()
        wakeup.wait(None)


def _descriptors():
    """Return what is open here; an earlier test's threads may close something of theirs at any time."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


def test_a_watch_that_cannot_start_leaves_no_descriptor_behind(tmp_path, wakeup, monkeypatch):
    watcher = Watcher(wakeup)
    before = _descriptors()

    def exhausted(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr("threading.Thread.start", exhausted)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                watcher.follow([tmp_path / "file"])
    with monkeypatch.context() as patched:
        patched.setattr("os.pipe", lambda: os.open("/nowhere", os.O_RDONLY))
        for _ in range(3):
            with pytest.raises(OSError, match="nowhere"):
                watcher.follow([tmp_path / "file"])
    assert _descriptors() <= before
    watcher.follow([tmp_path / "file"])
    watcher.stop()
