import errno
import fcntl
import hashlib
import mmap
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from entrypoint.disk import files, programs
from entrypoint.disk.looks import read, signature
from tests.waiting import until

SECRET = b"x" * 5_000_000


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_written_file_has_its_content_and_mode_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        files.write(tmp_path / "a.conf", SECRET, 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "a.conf").read_bytes() == SECRET
    assert mode(tmp_path / "a.conf") == 0o644
    assert os.listdir(tmp_path) == ["a.conf"]


def test_a_written_file_takes_the_place_of_a_link_and_not_of_what_it_points_to(tmp_path):
    (tmp_path / "elsewhere").write_text("old")
    (tmp_path / "a.conf").symlink_to("elsewhere")
    files.write(tmp_path / "a.conf", b"new", 0o600)
    assert not (tmp_path / "a.conf").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "old"


def test_a_failed_write_leaves_the_target_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "a.conf").write_text("old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(tmp_path / "a.conf", b"new", 0o600)
    assert os.listdir(tmp_path) == ["a.conf"]
    assert (tmp_path / "a.conf").read_text() == "old"


def test_no_cni_runtime_reads_the_name_of_a_temporary_file(tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(os, "fchmod", lambda *_: names.extend(os.listdir(tmp_path)))
    files.write(tmp_path / "a.conf", b"new", 0o600)
    (name,) = names
    assert not name.endswith((".conf", ".conflist", ".json"))


def test_nobody_else_may_read_a_file_while_it_is_written(tmp_path, monkeypatch):
    """A kubeconfig gets its mode only when the token is in it."""
    modes, before = [], os.umask(0)
    monkeypatch.setattr(os, "fchmod", lambda descriptor, _: modes.append(os.fstat(descriptor).st_mode & 0o777))
    try:
        files.write(tmp_path / "a.conf", b"new", 0o600)
    finally:
        os.umask(before)
    assert modes == [0o600]


def test_a_running_binary_is_replaced(tmp_path):
    source, target = tmp_path / "sleep", tmp_path / "bin" / "multus"
    target.parent.mkdir()
    source.write_bytes(open("/bin/sleep", "rb").read())  # noqa: SIM115
    source.chmod(0o755)
    programs.copy(source, target, lambda: False)
    running = subprocess.Popen([target, "60"])
    try:
        with pytest.raises(OSError, match="Text file busy"):
            target.open("r+b").close()
        programs.copy(source, target, lambda: False)
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()
    assert subprocess.run([target, "0"], check=True)
    assert mode(target) == 0o755


SIZES = [0, 1, mmap.PAGESIZE, programs._CHUNK - 1, programs._CHUNK, programs._CHUNK + 1, 3 * programs._CHUNK + 17]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("at_once", [1 << 30, 100_000])
def test_a_copy_is_whole_however_much_the_kernel_sends_at_once(tmp_path, monkeypatch, size, at_once):
    content = os.urandom(size)
    (tmp_path / "source").write_bytes(content)
    (tmp_path / "source").chmod(0o4755)
    sendfile = os.sendfile
    monkeypatch.setattr(os, "sendfile", lambda to, of, offset, count: sendfile(to, of, offset, min(count, at_once)))
    programs.copy(tmp_path / "source", tmp_path / "multus", lambda: False)
    assert (tmp_path / "multus").read_bytes() == content
    assert mode(tmp_path / "multus") == 0o4755
    assert sorted(os.listdir(tmp_path)) == ["multus", "source"]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_copy_that_fails_leaves_the_target_and_nothing_else(tmp_path, monkeypatch, error):
    (tmp_path / "source").write_bytes(os.urandom(5 << 20))
    (tmp_path / "multus").write_text("old")

    def sendfile(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "sendfile", sendfile)
    with pytest.raises(OSError, match=os.strerror(error)):
        programs.copy(tmp_path / "source", tmp_path / "multus", lambda: False)
    assert (tmp_path / "multus").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["multus", "source"]


@pytest.mark.parametrize("end", [0, 1, programs._CHUNK, 2 * programs._CHUNK + 5])
def test_a_source_that_is_cut_off_in_the_middle_of_a_copy_is_no_crash(tmp_path, end):
    source = tmp_path / "source"
    source.write_bytes(content := os.urandom(9 << 20))
    chunks = []

    def cut():
        chunks.append(1)
        if len(chunks) == 2:
            os.truncate(source, end)

    programs.copy(source, tmp_path / "multus", cut)
    copied = (tmp_path / "multus").read_bytes()
    assert copied == content[: max(end, 2 * programs._CHUNK)]


@pytest.mark.skipif(shutil.which("fincore") is None, reason="needs fincore of util-linux")
def test_neither_a_copy_nor_a_comparison_leaves_anything_in_the_page_cache(tmp_path):
    kind = subprocess.run(
        ["stat", "--file-system", "--format=%T", tmp_path], check=True, capture_output=True, text=True
    )
    if kind.stdout.strip() in {"tmpfs", "ramfs"}:
        pytest.skip("this file system is memory")
    source, target = tmp_path / "source", tmp_path / "multus"
    source.write_bytes(os.urandom((9 << 20) + 17))
    os.sync()  # what is not on disk yet cannot be let go of
    programs.copy(source, target, lambda: False)
    assert cached(target) <= mmap.PAGESIZE
    assert cached(source) <= mmap.PAGESIZE
    assert programs.compared(target, source, lambda: False) == (True, hashlib.sha256(target.read_bytes()).hexdigest())
    assert programs.compared(target, source, lambda: False)[0]
    assert cached(target) <= mmap.PAGESIZE
    assert cached(source) <= mmap.PAGESIZE


def cached(path):
    """Return the bytes of a file that are in memory."""
    told = subprocess.run(["fincore", "--bytes", "--noheadings", "--output=RES", path], check=True, capture_output=True)
    return int(told.stdout)


@pytest.mark.parametrize("position", [0, 1 << 20, (3 << 20) + 6])
def test_two_files_differ_by_a_single_byte_anywhere(tmp_path, position):
    content = bytearray((3 << 20) + 7)
    (tmp_path / "one").write_bytes(content)
    (tmp_path / "other").write_bytes(content)
    assert programs.compared(tmp_path / "one", tmp_path / "other", lambda: False)[0]
    content[position] ^= 1
    (tmp_path / "other").write_bytes(content)
    assert not programs.compared(tmp_path / "one", tmp_path / "other", lambda: False)[0]
    (tmp_path / "other").write_bytes(content + b"x")
    assert not programs.compared(tmp_path / "one", tmp_path / "other", lambda: False)[0]


def test_a_binary_can_be_executed_from_the_very_instant_it_has_its_name(tmp_path, monkeypatch):
    """The kernel refuses a file that anybody has open for writing: "text file busy"."""
    rename, ran = Path.replace, []

    def rename_and_run(path, target):
        rename(path, target)
        ran.append(subprocess.run([target]).returncode)

    monkeypatch.setattr(Path, "replace", rename_and_run)
    (tmp_path / "source").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "source").chmod(0o755)
    programs.copy(tmp_path / "source", tmp_path / "multus", lambda: False)
    assert ran == [7]


def test_renaming_back_moves_a_link_and_not_its_target(tmp_path):
    (tmp_path / "target").write_text("x")
    (tmp_path / "a.old").symlink_to("target")
    assert files.rename_unless_taken(tmp_path / "a.old", tmp_path / "a")
    assert os.readlink(tmp_path / "a") == "target"


def test_removing_what_is_gone_is_fine(tmp_path):
    files.remove(tmp_path / "a")


def test_a_directory_is_made_once_whatever_the_umask_and_a_file_in_its_place_is_an_error(tmp_path):
    before = os.umask(0o077)
    try:
        files.make_directory(tmp_path / "d")
        files.make_directory(tmp_path / "d")
    finally:
        os.umask(before)
    assert mode(tmp_path / "d") == 0o755
    (tmp_path / "f").touch()
    with pytest.raises(FileExistsError):
        files.make_directory(tmp_path / "f")


def test_the_sweep_takes_what_a_killed_run_left_and_nothing_else(tmp_path):
    killed = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys, pathlib; from entrypoint.disk import files; os.fsync = lambda fd: (print('x', flush=True),"
            "__import__('time').sleep(60)); files.write(pathlib.Path(sys.argv[1]), b'x', 0o600)",
            tmp_path / "a.conf",
        ],
        stdout=subprocess.PIPE,
    )
    killed.stdout.readline()
    (left,) = os.listdir(tmp_path)
    (tmp_path / "10-flannel.conflist").touch()
    (tmp_path / ".multus-entrypoint-notes").touch()
    assert files.sweep([tmp_path, tmp_path / "missing"]) == []  # it is still being written
    killed.kill()
    killed.wait()
    killed.stdout.close()
    assert files.sweep([tmp_path]) == [tmp_path / left]
    assert sorted(os.listdir(tmp_path)) == [".multus-entrypoint-notes", "10-flannel.conflist"]


def test_a_sweep_at_any_moment_keeps_no_file_from_being_written(tmp_path):
    """As when several instances start at once: one sweeps while another has made a file and not locked it yet."""
    done = threading.Event()

    def sweep_on():
        while not done.is_set():
            files.sweep([tmp_path])

    sweepers = [threading.Thread(target=sweep_on) for _ in range(3)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for number in range(300):
            files.write(tmp_path / "target", str(number).encode(), 0o600)
    finally:
        done.set()
        for sweeper in sweepers:
            sweeper.join()
    assert os.listdir(tmp_path) == ["target"]
    assert (tmp_path / "target").read_text() == "299"


def test_the_sweep_does_not_block_on_a_fifo_of_that_name(tmp_path):
    name = ".multus-entrypoint-0.tmp"
    os.mkfifo(tmp_path / name)
    files.sweep([tmp_path])


def test_a_locked_file_is_locked_for_others_only_while_it_is_written(tmp_path):
    files.write(tmp_path / "a", b"x", 0o600)
    with open(tmp_path / "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_mark_is_an_empty_file_with_its_mode_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        files.mark(tmp_path / "ready")
        files.mark(tmp_path / "ready")
    finally:
        os.umask(before)
    assert (tmp_path / "ready").read_bytes() == b""
    assert mode(tmp_path / "ready") == 0o644


def test_a_mark_is_not_made_where_a_link_leads(tmp_path):
    (tmp_path / "ready").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        files.mark(tmp_path / "ready")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_somebody_else_has_written_meanwhile_is_not_overwritten(tmp_path):
    path = tmp_path / "00-multus.conflist"
    files.write(path, b"1", 0o600)
    known = signature(path.stat())
    files.write(path, b"2", 0o600, known)
    with pytest.raises(files.ReplacedError):
        files.write(path, b"3", 0o600, known)
    assert path.read_bytes() == b"2"
    known = signature(path.stat())
    path.unlink()
    with pytest.raises(files.ReplacedError):
        files.write(path, b"3", 0o600, known)
    assert list(tmp_path.iterdir()) == []


# ---- looking ----


def test_what_is_there_and_is_no_file_is_not_missing(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    missing = {name: read(tmp_path / name).missing for name in ("fifo", "directory", "link", "nothing", "nothing/x")}
    assert [name for name, is_missing in missing.items() if is_missing] == ["nothing", "nothing/x"]


def test_another_content_of_the_same_size_and_age_is_another_signature(tmp_path):
    """As `cp -p` and `rsync` write it. The file's own clock may stand still for some milliseconds."""
    path = tmp_path / "a.conf"

    def written(content):
        path.write_bytes(content)
        os.utime(path, (1e9, 1e9))
        return signature(path.stat())

    before = written(b"1")
    until(lambda: written(b"2") != before)
