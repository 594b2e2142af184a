"""On the way out: fast, in every phase, and no harm to a successor."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time

import pytest

from tests.process.scratch import FLANNEL, MULTUS, open_files, overwrite, replace
from tests.waiting import until

CLEANUP = "--cleanup-config-on-exit"
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
RUNS = 5


def _best(runs):
    codes, seconds = zip(*runs, strict=True)
    assert set(codes) == {0}
    assert min(seconds) < 0.1, seconds


@pytest.mark.prompt
@SIGNALS
def test_while_waiting_it_ends_at_once(host, number):
    runs = []
    for _ in range(RUNS):
        with host.start() as program:
            program.says("waiting")
            runs.append(program.stop(number))
    _best(runs)


@pytest.mark.prompt
@SIGNALS
@pytest.mark.parametrize("flags", [[], [CLEANUP]], ids=["", "cleanup"])
def test_a_configured_program_ends_at_once(host, number, flags):
    runs = []
    for _ in range(RUNS):
        with host.configured(*flags) as program:
            runs.append(program.stop(number))
        assert not host.ready.exists()
        assert host.conf.exists() is not bool(flags)
        assert host.installed.exists()
        assert host.has_token("token-1")
    _best(runs)


def test_a_signal_that_does_not_interrupt_the_sleep_ends_it_all_the_same(host):
    """Python only notes a signal that comes just before the sleep, or in another thread; nothing may wait for more."""
    libc = ctypes.CDLL(None, use_errno=True)
    with host.configured() as program:
        time.sleep(0.3)
        threads = [int(entry) for entry in os.listdir(f"/proc/{program.pid}/task") if int(entry) != program.pid]
        assert threads
        assert libc.tgkill(program.pid, threads[0], signal.SIGTERM) == 0
        assert program.ends() == 0


@pytest.mark.prompt
@SIGNALS
def test_in_the_middle_of_the_copy_of_a_big_binary_it_ends_at_once(host, number):
    with host.multus.open("ab") as file:
        for _ in range(48):
            file.write(os.urandom(4 << 20))
    host.master()
    runs = []
    for _ in range(RUNS):
        with host.start(CLEANUP) as program:
            until(lambda: [name for name in os.listdir(host.bin_dir) if name.endswith(".tmp")])
            runs.append(program.stop(number))
        assert os.listdir(host.bin_dir) == []
        assert not host.conf.exists()
    _best(runs)


@pytest.mark.prompt
def test_in_the_middle_of_the_comparison_of_a_big_binary_it_ends_at_once(host):
    with host.multus.open("ab") as file:
        file.truncate(2 << 30)  # sparse
    host.installed.touch()
    os.truncate(host.installed, 2 << 30)
    replace(host.installed, b"")
    with host.installed.open("ab") as file:
        file.write(host.multus.open("rb").read(4096))
        file.truncate(2 << 30)
    host.installed.chmod(0o755)
    host.master()
    runs = []
    for _ in range(RUNS):
        with host.start() as program:
            until(lambda: str(host.installed) in open_files(program.pid))
            runs.append(program.stop())
    _best(runs)
    assert not host.conf.exists()


def test_a_signal_at_any_instant_of_the_start_ends_it(host):
    """Each instant once; before Python runs our first line the signal itself ends the process."""
    host.master()
    for i in range(25):
        with host.start(CLEANUP) as program:
            time.sleep(i * 0.008)
            code, seconds = program.stop()
            assert code in {0, -signal.SIGTERM}
            assert seconds < 2
        assert not host.conf.exists()
        assert not host.ready.exists()


@SIGNALS
def test_a_signal_that_the_kernel_gives_to_another_thread_ends_it_at_once(host, number):
    """As it does when the main thread is being traced, and much as when it is just about to fall asleep."""
    tgkill = {"x86_64": 234, "aarch64": 131}[os.uname().machine]
    with host.configured() as program:
        others = {int(name) for name in os.listdir(f"/proc/{program.pid}/task")} - {program.pid}
        assert others
        ctypes.CDLL(None).syscall(tgkill, program.pid, others.pop(), int(number))
        assert program.ends() == 0


def test_a_signal_while_it_is_logging_is_not_lost(host):
    """Many passes and many records, and a signal in the midst of them."""
    with host.configured() as program:
        program.stop()
    for i in range(10):
        with host.configured() as program:
            end = time.monotonic() + 0.02 + i * 0.001
            while time.monotonic() < end:
                host.master(mtu=time.monotonic_ns())
            code, seconds = program.stop()
            assert (code, seconds < 2) == (0, True)
            assert program.lines("stopping on SIGTERM")


def test_the_ready_file_is_gone_while_nothing_is_configured(host):
    overwrite(host.ready, "an earlier run's")
    with host.start() as program:
        program.says("waiting")
        assert not host.ready.exists()
        host.master()
        host.until_ready(program)
        host.ready.unlink()
        until(host.ready.exists)
        program.stop()
    assert not host.ready.exists()


def test_without_cleanup_everything_stays(host):
    with host.configured() as program:
        before = host.snapshot(host.conf_dir, host.bin_dir)
        program.stop()
    assert host.snapshot(host.conf_dir, host.bin_dir) == before


def test_cleanup_takes_a_configuration_that_it_found_as_it_had_to_be(host):
    with host.configured() as program:
        program.stop()
    with host.start(CLEANUP) as program:
        host.until_ready(program)
        program.stop()
    assert host.names() == ["10-flannel.conflist", "multus.d"]


def test_cleanup_while_waiting_takes_the_configuration_of_an_earlier_run_at_once(host):
    with host.configured() as program:
        program.stop()
    (host.conf_dir / "10-flannel.conflist").unlink()
    with host.start(CLEANUP) as program:
        program.says("waiting")
        until(lambda: not host.conf.exists())


def test_cleanup_leaves_the_file_of_a_successor_alone(host):
    with host.configured(CLEANUP) as program:
        for _ in range(4):  # with the first, as many writes as are made in five seconds
            host.conf.unlink()
            until(host.conf.exists)
        content = b'{"successor": true}'
        replace(host.conf, content, mode=0o600)
        program.stop()
    assert host.conf.read_bytes() == content


def test_cleanup_takes_its_file_although_somebody_touched_it(host):
    with host.configured(CLEANUP) as program:
        host.conf.touch()
        program.stop()
    assert not host.conf.exists()


@pytest.mark.parametrize("changed", [False, True], ids=["the same flags", "other flags"])
def test_a_rolling_update_with_overlap_ends_with_a_configuration(host, changed):
    with host.configured(CLEANUP) as old:
        flags = ["--namespace-isolation"] if changed else []
        with host.start(CLEANUP, f"--ready-file={host.root}/run/ready2", *flags) as new:
            until((host.root / "run/ready2").exists)
            old.stop()
            until(lambda: host.wraps(**FLANNEL))
            assert ("namespaceIsolation" in json.loads(host.conf.read_text())) is changed
            time.sleep(0.1)
            assert host.wraps(**FLANNEL)
            until((host.root / "run/ready2").exists)
            new.stop()
    assert not host.conf.exists()


def test_cleanup_that_fails_is_said_and_exits_with_0(host):
    with host.configured(CLEANUP) as program:
        host.conf.unlink()
        host.conf.mkdir()
        (host.conf / "something").touch()
        code, _ = program.stop()
        assert code == 0


def test_cleanup_in_static_mode_takes_the_copy(host):
    static = host.image / "70-multus.conf"
    static.write_text(json.dumps(MULTUS))
    with host.start(CLEANUP, f"--multus-conf-file={static}") as program:
        host.until_ready(program)
        program.stop()
    assert host.names() == ["multus.d"]
    assert static.exists()
