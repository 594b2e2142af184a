"""A wall clock that jumps, beside a monotonic one that does not."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from tests.process.scratch import FLANNEL
from tests.resilience.conftest import LONG
from tests.waiting import until

pytestmark = pytest.mark.thorough


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
