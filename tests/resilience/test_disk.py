"""What disks do: full, read-only, failing, and directories full of strange things."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.process.scratch import ALIVE, FLANNEL, overwrite, replace, settled
from tests.resilience import tracing
from tests.resilience.conftest import LONG
from tests.runtime import works
from tests.waiting import until

root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and immutable files need root")


@contextlib.contextmanager
def _mounted(path, *options):
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", path], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.decode()}")
    try:
        yield path
    finally:  # and what a test has put over it
        while subprocess.run(["umount", "-l", path], capture_output=True).returncode == 0:
            pass


@pytest.fixture
def tmpfs(host, request):
    """The host's directories on a file system of their own, small enough to be filled."""
    with _mounted(host.root / "host", *request.param) as top:
        host.conf_dir.mkdir(parents=True)
        host.bin_dir.mkdir(parents=True)
        yield top


def _fill(top):
    """Fill a file system to the last byte and the last inode; return what to remove to make room."""
    ballast = top / "ballast"
    ballast.mkdir(exist_ok=True)
    files = range(os.statvfs(top).f_files or 1)  # 0: there is no end of inodes
    with contextlib.suppress(OSError):
        for number in files:
            (ballast / str(number)).touch()
    with contextlib.suppress(OSError), (ballast / "0").open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return ballast


def _make_room(ballast):
    for path in ballast.iterdir():
        path.unlink()


def _turn_read_only(top):
    """Mount the directory read-only over itself: the program has a file open for writing, so remounting is refused."""
    aside = top.with_name("read-only")  # where nobody writes: there it becomes read-only, and so it is bound
    aside.mkdir()
    for words in (["--bind", top, aside], ["-o", "remount,bind,ro", aside], ["--bind", aside, top]):
        subprocess.run(["mount", *words], check=True)
    subprocess.run(["umount", "-l", aside], check=True)


def _temporaries(host):
    return [path for path in (host.root / "host").rglob("*") if path.name.endswith(".tmp")]


SMALL = pytest.mark.parametrize("tmpfs", [("size=256k", "nr_inodes=0"), ("size=64m", "nr_inodes=64")], indirect=True)

NEW_BINARY = b"\x7fELF new" * 3000
CHANGES = {
    "token": (lambda host: host.rotate("token-2"), lambda host: host.has_token("token-2")),
    "binary": (
        lambda host: replace(host.multus, NEW_BINARY, 0o755),
        lambda host: host.installed.read_bytes() == NEW_BINARY,
    ),
}


@root
@SMALL
def test_on_a_full_disk_it_does_not_start_and_leaves_nothing(host, tmpfs):
    host.master()
    _fill(tmpfs)
    outcome = host.run()
    assert outcome.returncode == 1
    assert "No space left" in outcome.stderr and "free some space" in outcome.stderr
    assert not host.conf.exists() and not host.installed.exists() and not _temporaries(host)


@root
@SMALL
@pytest.mark.parametrize("kind", ["token", "binary"])
def test_a_disk_that_fills_up_costs_nothing_and_is_made_up_for_when_there_is_room(host, tmpfs, kind):
    happen, done = CHANGES[kind]
    with host.configured() as program:
        ballast = _fill(tmpfs)
        before = host.kubeconfig.read_bytes(), host.installed.read_bytes()
        happen(host)
        program.says("cannot", str(host.kubeconfig if kind == "token" else host.installed), "No space left")
        assert program.running() and host.ready.exists()  # what stands works as before
        assert (host.kubeconfig.read_bytes(), host.installed.read_bytes()) == before
        assert not _temporaries(host)
        _make_room(ballast)
        until(lambda: done(host), what=kind)
        until(host.ready.exists)


def _rewrite_master(host, **changes):
    """Write it in place: that takes no more room than it had, and no inode."""
    overwrite(host.conf_dir / "10-flannel.conflist", json.dumps({**FLANNEL, **changes}))


LOSSES = {
    "removed": (lambda host: host.conf.unlink(), lambda host: host.wraps(**FLANNEL)),
    "changed": (
        lambda host: overwrite(host.conf, "{}"),
        lambda host: host.conf.read_text() != "{}" and host.wraps(**FLANNEL),
    ),
    "master": (lambda host: _rewrite_master(host, mtu=2), lambda host: host.wraps(mtu=2)),
    "version": (  # the other file name, whose old one must stay for so long
        lambda host: _rewrite_master(host, cniVersion="1.0.0"),
        lambda host: host.conflist.exists() and not host.conf.exists(),
    ),
}


def _configuration(host):
    return {path: path.read_bytes() for path in (host.conf, host.conflist) if path.exists()}


@root
@SMALL
@pytest.mark.parametrize("kind", LOSSES)
def test_a_configuration_that_is_due_on_a_full_disk_is_written_when_there_is_room(host, tmpfs, kind):
    happen, done = LOSSES[kind]
    with host.configured() as program:
        program.freeze()  # what it would put right at once meets a disk that has become full meanwhile
        happen(host)
        ballast = _fill(tmpfs)
        program.thaw()
        standing = _configuration(host), host.kubeconfig.read_bytes(), host.installed.read_bytes()
        program.says("error", "cannot write", "00-multus", "No space left")
        assert program.running() and not _temporaries(host)
        until(lambda: host.ready.exists() == works(host.conf_dir, host.bin_dir), what="the ready file")
        assert (_configuration(host), host.kubeconfig.read_bytes(), host.installed.read_bytes()) == standing
        assert kind == "removed" or standing[0]
        _make_room(ballast)
        until(lambda: done(host), what="the configuration")
        until(host.ready.exists)


@root
@SMALL
def test_a_restart_on_a_full_disk_keeps_what_is_there(host, tmpfs):
    with host.configured() as program:
        program.stop()
    ballast = _fill(tmpfs)
    before = host.snapshot(host.conf_dir, host.bin_dir)
    with host.start() as program:  # nothing is to be written: nothing is missing
        host.until_ready(program)
        program.stop()
    host.rotate("token-2")
    outcome = host.run()
    assert outcome.returncode == 1
    assert "No space left" in outcome.stderr and "free some space" in outcome.stderr
    assert host.snapshot(host.conf_dir, host.bin_dir).keys() == before.keys()
    assert host.wraps(**FLANNEL) and host.has_token("token-1")
    _make_room(ballast)
    with host.start() as program:
        host.until_ready(program)
        assert host.has_token("token-2")


@root
@SMALL
def test_a_clean_up_on_a_full_disk_never_leaves_a_node_without_any_configuration(host, tmpfs):
    """A hard link takes an inode of a tmpfs: the master's name cannot be given back on each of them."""
    with host.configured("--cleanup-config-on-exit", "--rename-conf-file") as program:
        _fill(tmpfs)
        code = program.stop()
        assert code == 0
        restored = "10-flannel.conflist" in host.names()
        assert restored or program.lines("cannot clean up", "No space left")
        assert host.conf.exists() is not restored


@root
@pytest.mark.thorough  # a token a second, until the page that the log has is full
def test_a_log_on_a_full_disk_costs_lines_and_no_more(host):
    with _mounted(host.logs, "size=64k", "nr_inodes=0") as top:
        with host.configured() as program:
            ballast = _fill(top)
            for number in range(60):  # more than the page that the log has already
                host.rotate(f"token-{number}")
                until(lambda n=number: host.has_token(f"token-{n}"))
            assert len(program.lines("wrote", str(host.kubeconfig))) < 60  # it met a full disk
            _make_room(ballast)
            host.rotate("token-last")
            until(lambda: host.has_token("token-last"))
            program.says("wrote", str(host.kubeconfig))
            code = program.stop()
            assert code == 0
            assert "logging" not in program.log


@root
@pytest.mark.parametrize("tmpfs", [("size=4m",)], indirect=True)
def test_a_disk_that_turns_read_only_costs_nothing_and_is_made_up_for_when_it_is_back(host, tmpfs):
    with host.configured() as program:
        settled(program)
        _turn_read_only(tmpfs)
        before = host.snapshot(host.conf_dir, host.bin_dir)
        host.rotate("token-2")
        host.multus.write_bytes(b"\x7fELF new")
        program.says("cannot write", str(host.kubeconfig), "Read-only", "readOnly")
        program.says("cannot install", str(host.installed), "Read-only")
        assert host.snapshot(host.conf_dir, host.bin_dir) == before
        assert program.running() and host.ready.exists()
        subprocess.run(["umount", "-l", tmpfs], check=True)
        until(lambda: host.has_token("token-2") and host.installed.read_bytes() == b"\x7fELF new")
        until(host.ready.exists)


@contextlib.contextmanager
def _immutable(path):
    done = subprocess.run(["chattr", "+i", path], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"this file system has no immutable files: {done.stderr.decode()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


IMMUTABLE = {
    "kubeconfig": CHANGES["token"],
    "installed": CHANGES["binary"],
    "conf": LOSSES["master"],
    "conf_dir": LOSSES["changed"],  # what is there may be written all the same
}


@root
@pytest.mark.parametrize("kind", IMMUTABLE)
def test_an_immutable_file_is_complained_of_and_replaced_once_it_may_be(host, kind):
    happen, done = IMMUTABLE[kind]
    with host.configured() as program:
        with _immutable(getattr(host, kind)):
            happen(host)
            program.says("cannot", str(host.conf if kind == "conf_dir" else getattr(host, kind)), "immutable file")
            until(lambda: host.ready.exists() == works(host.conf_dir, host.bin_dir), "the ready file")
            if kind == "conf_dir":
                host.rotate("token-2")  # its directory is another, and goes on
                until(lambda: host.has_token("token-2"))
            assert program.running() and not _temporaries(host)
        until(lambda: done(host))
        until(host.ready.exists)


# ---- power cuts ----

_NAMING = re.compile(r'(?:rename|link)\w*\(.*?"([^"]*)".*?"([^"]*)".* = 0')
_CHANGING = re.compile(r"(?:rename|link|unlink|mkdir|rmdir)\w*\(|openat\(.*O_CREAT")
_WRITING = re.compile(r"(?:write|writev|pwrite64|sendfile|copy_file_range|ftruncate)\(")


def _flushes(calls, path):
    return [number for number, call in enumerate(calls) if re.match(rf"f(?:data)?sync\(\d+<{re.escape(path)}>", call)]


def _assert_durable(calls, host):
    """Assert that content is on the disk before its name is, and that before anything else; return the names."""
    names = []
    for number, call in enumerate(calls):
        if not (named := _NAMING.match(call)) or str(host.root / "host") not in call or ALIVE in call:
            continue
        source, name = named.groups()
        names.append(name)
        before, after = calls[:number], calls[number + 1 :]
        written = [at for at, each in enumerate(before) if _WRITING.match(each) and f"<{source}>" in each]
        if source.endswith(".tmp"):
            assert written and [at for at in _flushes(before, source) if at > written[-1]], (
                f"not flushed before: {call}"
            )
        else:
            assert not written
            # A master's owner may not have flushed it: after a power cut both of its names would be empty.
            assert name in names or _flushes(before, source), f"not flushed before: {call}"
        further = [at for at, each in enumerate(after) if _CHANGING.match(each) and str(host.root / "host") in each]
        flushed = _flushes(after, os.path.dirname(name))
        assert flushed and flushed[0] < min(further, default=len(after)), f"the directory is not flushed after: {call}"
    return names


@pytest.mark.usefixtures("strace")
def test_whatever_gets_a_name_survives_a_power_cut_from_then_on(host):
    """In this order: the content, its flush, the name, the flush of the directory, and only then the next file."""
    host.master()
    out, renamed = host.root / "trace", host.conf_dir / "10-flannel.conflist.old"
    with host.start("--rename-conf-file", "--cleanup-config-on-exit", prefix=tracing.prefix(out)) as program:
        until(lambda: host.ready.exists() and renamed.exists())
        assert program.stop() == 0
    calls = out.read_text("utf-8", "replace").splitlines()
    names = _assert_durable(calls, host)
    outputs = [host.kubeconfig, host.installed, host.conf, renamed, host.conf_dir / "10-flannel.conflist"]
    assert [name for name in names if Path(name) in outputs] == [str(path) for path in outputs]
    removals = [number for number, call in enumerate(calls) if f'unlink("{host.conf}") = 0' in call]
    assert len(removals) == 1 and [at for at in _flushes(calls, str(host.conf_dir)) if at > removals[0]]


# ---- input and output errors, by strace ----

FAILING = {
    "fsync": ["1..2", "3..4"],
    "rename": ["1", "1..3"],
    "flock": ["1"],
    "fchmod": ["1"],
    "write": ["1..2", "3..4"],
    "sendfile": ["1", "2"],
    "fdatasync": ["1"],
    "openat": ["1..3"],
    "mkdir": ["1"],
    "getdents64": ["1..2"],
    "inotify_add_watch": ["1"],
    "unlink": ["1"],
    "pread64": ["1"],
}
"""Which call fails, and which times: each that the program uses for its files."""
HARMLESS = {"fadvise64", "close", "utimensat"}
"""Their failure is nobody's loss."""


def _change_everything(host):
    host.rotate("token-2", "CERTIFICATE 2\n")
    host.multus.write_bytes(NEW_BINARY)
    host.master(cniVersion="1.0.0", mtu=2)


def _assert_changed(host):
    until(lambda: host.has_token("token-2"), what="the token")
    until(lambda: host.installed.read_bytes() == NEW_BINARY, what="the binary")
    until(lambda: host.conflist.exists() and not host.conf.exists() and host.wraps(mtu=2), what="the master")
    until(host.ready.exists, what="being ready")


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT"] if LONG else ["EIO"])
@pytest.mark.parametrize("call", [f"{name}:{when}" for name, times in FAILING.items() for when in times])
def test_a_call_that_fails_now_and_then_delays_and_loses_nothing(host, call, error, figure):
    name, _, when = call.partition(":")
    out = host.root / "trace"
    with host.configured() as program:
        # Only calls on the host's directories are to fail: the others are for the log and the wake-up.
        with tracing.attached(program, out, f"{name}:error={error}:when={when}"):
            _change_everything(host)
            _assert_changed(host)
            until(
                lambda: "(INJECTED)" in out.read_text("utf-8", "replace"),
                f"a call of {name}: if the program makes none, take it off the list",
            )
        assert program.running()
        until(lambda: not _temporaries(host), "the end of what is being written")
    figure("the call failed, nothing was lost")


@pytest.mark.usefixtures("strace")
def test_each_call_that_writes_is_one_that_was_made_to_fail(host):
    out = host.root / "trace"
    with host.configured() as program:
        with tracing.attached(program, out):
            _change_everything(host)
            _assert_changed(host)
    used = {call.name for call in tracing.calls(out, host) if call.changes}
    assert len(used) > 4
    assert used <= {*FAILING, *HARMLESS}, "add it to the calls that fail"


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(("error", "advice"), [("ENOSPC", "free some space"), ("EDQUOT", "free some space")])
def test_a_disk_or_a_quota_that_is_used_up_comes_with_advice(host, error, advice):
    with host.configured() as program:
        settled(program)
        with tracing.attached(program, host.root / "trace", f"fsync:error={error}:when=1"):
            host.rotate("token-2")
            program.says("error", "cannot write", str(host.kubeconfig), advice)
        until(lambda: host.has_token("token-2"))


# ---- strange things in the directory ----


def _fifo(path):
    os.mkfifo(path)


def _dangling(path):
    path.symlink_to("nowhere")


def _loop(path):
    path.symlink_to(path.name)


def _socket(path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as unix, contextlib.chdir(path.parent):  # its name is short
        unix.bind(path.name)


def _sparse(path):
    with path.open("wb") as file:
        file.truncate(1 << 30)


def _device(path):
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: endless


STRANGE = {
    "fifo": (_fifo, "not a regular file"),
    "directory": (Path.mkdir, "not a regular file"),
    "dangling": (_dangling, "does not exist"),
    "loop": (_loop, "cannot be read"),
    "device": (_device, "not a regular file"),
    "sparse": (_sparse, "larger than"),
    "socket": (_socket, "not"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_something_strange_under_a_masters_name_blocks_nothing_and_is_named(host, kind):
    make, said = STRANGE[kind]
    with host.start() as program:
        try:
            make(host.conf_dir / "10-x.conf")
        except PermissionError:
            pytest.skip("needs root")
        program.says("waiting")
        host.master("20-flannel.conflist")
        until(lambda: host.wraps(**FLANNEL), what="the other master")
        until(host.ready.exists)
        peak = _peak_memory(program)
        assert peak < 64 << 20, peak
        host.rotate("token-2")
        until(lambda: host.has_token("token-2"))
    assert host.run("--dry-run").returncode == 0
    (host.conf_dir / "20-flannel.conflist").unlink()
    outcome = host.run("--wait-timeout=0")
    assert outcome.returncode == 1
    assert "10-x.conf" in outcome.stderr and said in outcome.stderr, outcome.stderr


@pytest.mark.parametrize("kind", sorted(STRANGE.keys() - {"directory"}))
def test_something_strange_in_the_place_of_an_output_is_replaced(host, kind):
    """Whatever can be renamed over; a directory is not ours to empty, as process/test_bad_input.py has it."""
    try:
        STRANGE[kind][0](host.conf)
    except PermissionError:
        pytest.skip("needs root")
    host.master()
    with host.start() as program:
        host.until_ready(program)
        assert host.wraps(**FLANNEL)
        assert stat.S_ISREG(host.conf.lstat().st_mode)


def _peak_memory(program):
    status = Path(f"/proc/{program.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10


@pytest.mark.parametrize("masters", [False, True], ids=["unrelated", "masters"])
def test_a_directory_of_ten_thousand_files_is_no_trouble(host, masters, figure):
    count = 10_000
    for number in range(count):
        name = f"50-{number:05d}.conf" if masters else f"50-{number:05d}.bak"
        (host.conf_dir / name).write_text(json.dumps({"name": str(number), "type": "bridge"}))
    host.master()
    with host.start() as program:
        host.until_ready(program)
        assert host.wraps(**FLANNEL)
        cpu = program.cpu_seconds()
        host.rotate("token-2")
        until(lambda: host.has_token("token-2"))
        host.master(mtu=2)
        until(lambda: host.wraps(mtu=2))
        figure(
            f"{count} files: a token and a master cost "
            f"{program.cpu_seconds() - cpu:.2f} s of CPU, peak memory {_peak_memory(program) >> 20} MiB"
        )
        assert _peak_memory(program) < 128 << 20


NAMES = [b"10-a\nb.conf", b"10-\xff\xfe.conf", b"10-\x1b[31m.conf", b"10-" + b"x" * 240 + b".conf", b"10- .conf"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flags", [(), ("--rename-conf-file",), ("--log-format=json",)], ids=["", "rename", "json"])
def test_an_odd_name_is_a_name_like_any_other(host, name, flags):
    path = os.path.join(os.fsencode(host.conf_dir), name)
    with open(path, "wb") as file:
        file.write(b"{")
    with host.start(*flags) as program:
        program.says("waiting")
        with open(path, "wb") as file:
            file.write(json.dumps(FLANNEL).encode())
        until(lambda: host.wraps(**FLANNEL))
        until(host.ready.exists)
        program.stop()
    log = program.log
    for line in log.splitlines():
        assert line.isprintable(), line
        if "--log-format=json" in flags:
            json.loads(line)
        else:
            assert line[:2] == "20", line
    left = os.listdir(os.fsencode(host.conf_dir))
    assert (name in left) is ("--rename-conf-file" not in flags)
