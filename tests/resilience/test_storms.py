"""Many events at once, more than the kernel keeps, and clocks that jump."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import threading
import time
from pathlib import Path

import pytest

from tests.process.scratch import FLANNEL
from tests.resilience.conftest import LONG
from tests.waiting import until

pytestmark = pytest.mark.thorough


QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


def _resident(program):
    status = Path(f"/proc/{program.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) << 10


def _write_unrelated(conf_dir, rate, stop, done):
    """Write to files that are no configurations, in bursts of a hundredth of a second."""
    paths = [str(conf_dir / f"unrelated-{number}.log") for number in range(20)]
    descriptors = [os.open(path, os.O_WRONLY | os.O_CREAT) for path in paths]
    start = time.monotonic()
    while not stop.is_set():
        for _ in range(int((time.monotonic() - start) * rate) - done[0]):
            os.pwrite(descriptors[done[0] % len(descriptors)], b"x", 0)
            done[0] += 1
        time.sleep(0.01)
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_storm_of_unrelated_writes_delays_no_token_and_takes_no_memory(host, long, figure):
    seconds, rate = (30, 5000) if long else (5, 5000)
    with host.configured() as program:
        for number in range(20):  # so that memory is compared after the first uses of everything
            host.rotate(f"early-{number}")
            until(lambda n=number: host.has_token(f"early-{n}"))
        done, stop = [0], threading.Event()
        writer = threading.Thread(target=_write_unrelated, args=(host.conf_dir, rate, stop, done))
        memory, cpu, start = _resident(program), program.cpu_seconds(), time.monotonic()
        writer.start()
        delays = []
        while time.monotonic() < start + seconds:
            token = f"token-{len(delays)}"
            host.rotate(token)
            changed = time.monotonic()
            until(lambda t=token: host.has_token(t))
            delays.append(time.monotonic() - changed)
            time.sleep(0.25)
        stop.set()
        writer.join()
        elapsed = time.monotonic() - start
        cost = (program.cpu_seconds() - cpu) / elapsed
        grown = _resident(program) - memory
        figure(
            f"{done[0] / elapsed:.0f} writes a second for {elapsed:.0f} s cost {cost:.1%} of a CPU; {len(delays)} "
            f"tokens followed in {statistics.median(delays) * 1000:.0f} ms (median, worst "
            f"{max(delays) * 1000:.0f} ms); memory grew by {grown >> 10} KiB"
        )
        assert done[0] > seconds * rate / 4
        assert grown < 4 << 20


def _overflow(conf_dir):
    """Cause more events than the kernel keeps for an inotify instance that nobody reads."""
    paths = [conf_dir / "noise-0.log", conf_dir / "noise-1.log"]
    with paths[0].open("wb", buffering=0) as one, paths[1].open("wb", buffering=0) as other:
        for _ in range(int(QUEUE.read_text()) // 2 + 1):  # in turns: the kernel merges an event with one just like it
            one.write(b"x")
            other.write(b"x")


def test_an_overflow_of_the_event_queue_loses_nothing_in_the_end(host, long, figure):
    rounds = 200 if long else 10
    with host.configured() as program:
        for number in range(rounds):
            program.freeze()  # so that nobody takes events out of the queue meanwhile
            _overflow(host.conf_dir)
            host.rotate(f"token-{number}")
            host.master(mtu=number)
            if number % 3 == 0:
                host.conf.unlink(missing_ok=True)
            program.thaw()
            until(lambda n=number: host.has_token(f"token-{n}") and host.wraps(mtu=n), what=f"round {number}")
        assert program.running()
        until(host.ready.exists)
    figure(f"{rounds} times more than {QUEUE.read_text().strip()} events at once, everything followed")


# ---- clocks ----


def _faked(host, shift):
    """The environment in which the wall clock is what a file says, and the monotonic one is left alone."""
    if shutil.which("faketime") is None:
        pytest.skip("needs faketime (apt-get install faketime)")
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not where Debian puts it")
    file = host.root / "clock"
    file.write_text(shift)
    return file, {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


@pytest.mark.parametrize("jump", ["+5h", "-5h", "+40d", "-40d"] if LONG else ["+5h", "-5h"])
def test_a_jump_of_the_wall_clock_neither_ends_the_waiting_nor_blocks_anything(host, jump, figure):
    clock, env = _faked(host, "+0")
    with host.start("--wait-timeout=60", env=env) as program:
        program.says("waiting")
        clock.write_text(jump)
        (host.conf_dir / "05-broken.conf").write_text("{")
        (host.conf_dir / "10-flannel.conflist").write_text(json.dumps(FLANNEL))
        seen = until(lambda: host.conf.exists() or (0 < program.sleeps()[program.pid] <= 5001 and "the grace"))
        assert seen == "the grace"  # of the broken one
        until(lambda: host.wraps(**FLANNEL), what="the end of the grace, 5 s by the monotonic clock")
        until(host.ready.exists)
        clock.write_text("-3h" if jump.startswith("+") else "+3h")
        host.rotate("token-2")
        until(lambda: host.has_token("token-2"))
        host.conf.unlink()
        until(host.conf.exists)
        host.conf.unlink()
        until(host.conf.exists)
        code = program.stop()
        assert code == 0
        year = program.log.splitlines()[-1][:16]
    assert year != time.strftime("%Y-%m-%dT%H:%M", time.gmtime()), "the clock was not faked"
    figure(f"clock {jump} and back by 3 h: nothing early, nothing late")


def test_the_waiting_ends_on_time_whatever_the_wall_clock_says(host):
    clock, env = _faked(host, "+0")
    with host.start("--wait-timeout=3", env=env) as program:
        program.says("waiting")
        clock.write_text("-5h")
        assert program.ends() == 1
        assert program.lines("gave up after 3 s")
