"""On the way out: at once, in every phase, and no harm to a successor. `make bench` measures how fast."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import time

import pytest

from tests.process.scratch import open_files, overwrite, settled
from tests.waiting import until

CLEANUP = "--cleanup-config-on-exit"
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])


@SIGNALS
def test_while_waiting_it_ends(host, number):
    with host.start() as program:
        program.says("waiting")
        assert program.stop(number) == 0


@SIGNALS
@pytest.mark.parametrize("flags", [[], [CLEANUP]], ids=["", "cleanup"])
def test_a_configured_program_ends(host, number, flags):
    with host.configured(*flags) as program:
        assert program.stop(number) == 0
    assert not host.ready.exists()
    assert host.conf.exists() is not bool(flags)
    assert host.installed.exists()
    assert host.has_token("token-1")


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("phase", ["waiting", "configured"])
def test_on_the_way_out_no_time_is_waited_out(host, phase):
    if phase == "configured":
        host.master()
    out = host.root / "trace"
    with host.start(CLEANUP) as program:
        settled(program, waiting=phase == "waiting")
        command = ["strace", "-f", "-o", out, "-e", "trace=!read,write", "-p", str(program.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
            assert b"attached" in tracer.stderr.readline()
            program.process.terminate()
            tracer.communicate()
        assert program.ends() == 0
    said = out.read_text().partition("--- SIGTERM")[2]
    assert "exited with 0" in said
    assert not re.findall(r".*(?:\(Timeout\)|nanosleep).*", said)


def _frozen_while(program, seen, over):
    """Freeze the program in the midst of long work; return False when that was over before."""
    until(lambda: seen() or over())
    program.freeze()
    return not over()


@SIGNALS
def test_in_the_middle_of_the_copy_of_a_big_binary_it_ends(host, number):
    os.truncate(host.multus, 1 << 30)  # sparse
    host.master()

    def temporary():
        return [name for name in os.listdir(host.bin_dir) if name.endswith(".tmp")]

    def hit():
        with host.start(CLEANUP) as program:
            _frozen_while(program, temporary, host.installed.exists)
            program.process.send_signal(number)
            program.thaw()
            assert program.ends() == 0
        assert not host.conf.exists() and not temporary()
        try:
            host.installed.unlink()
        except FileNotFoundError:
            return True
        return False  # it was frozen too late

    until(hit)


def test_in_the_middle_of_the_comparison_of_a_big_binary_it_ends(host):
    for path in (host.multus, host.installed):
        path.write_bytes(b"")  # the same from the first byte on
        os.truncate(path, 8 << 30)
        path.chmod(0o755)
    host.master()

    def hit():
        with host.start() as program:
            began = _frozen_while(program, lambda: str(host.installed) in open_files(program.pid), host.ready.exists)
            program.process.terminate()
            program.thaw()
            assert program.ends() == 0
            return began and not program.lines("the node is configured")

    until(hit)


def test_a_signal_at_any_instant_of_the_start_ends_it(host):
    """Before Python runs our first line the signal itself ends the process."""
    host.master()
    for i in range(10):
        with host.start(CLEANUP, execed=True) as program:
            time.sleep(i * 0.02)
            program.process.terminate()
            assert program.ends() in {0, -signal.SIGTERM}
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
            for number in range(10 + i):
                host.master(mtu=number)
            assert program.stop() == 0
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


def test_cleanup_that_fails_is_said_and_exits_with_0(host):
    with host.configured(CLEANUP) as program:
        host.conf.unlink()
        host.conf.mkdir()
        (host.conf / "something").touch()
        code = program.stop()
        assert code == 0
