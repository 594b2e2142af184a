"""The pod is replaced: its successor starts before, while and after it ends, or is ready before it ends (surge)."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time

import pytest

from tests.process.scratch import Pod
from tests.waiting import until

pytestmark = pytest.mark.thorough


NAME = "10-flannel.conflist"
CLEANUP, RENAME = "--cleanup-config-on-exit", "--rename-conf-file"
WIDEST = 0.35
"""Seconds between the start of the one and the end of the other, either first: about twice what a start takes."""


FLAGS = pytest.mark.parametrize("flags", [(CLEANUP,), (CLEANUP, RENAME), (RENAME,)], ids=["cleanup", "both", "rename"])


@FLAGS
def test_with_surge_the_node_is_configured_all_the_time(host, flags, long, figure):
    """And a renamed master keeps its other name: nothing is given back while a successor is there."""
    rounds = 50 if long else 5
    seed = 20261124
    chance = random.Random(seed)
    host.master()
    missing, looks, done = [], 0, threading.Event()

    def look_on():
        nonlocal looks
        while not done.is_set():
            names = host.names()
            if "00-multus.conf" not in names or (NAME in names) is (RENAME in flags):
                missing.append(names)
            looks += 1
            time.sleep(0.0005)

    with contextlib.ExitStack() as stack:
        old = stack.enter_context(Pod(host, "pod-0", *flags).running())
        watching = threading.Thread(target=look_on)
        watching.start()
        for number in range(1, rounds + 1):
            pod = Pod(host, f"pod-{number}", *flags)
            new = stack.enter_context(pod.running())
            time.sleep(chance.uniform(0, 0.2))
            assert old.stop() == 0
            assert pod.owns()
            old = new
        done.set()
        watching.join()
        assert not missing
        assert old.stop() == 0
    assert host.conf.exists() is (CLEANUP not in flags)
    assert (NAME in host.names()) is (CLEANUP in flags or RENAME not in flags)
    figure(f"{rounds} updates with surge (seed {seed}), {looks} looks: configured each time")


@FLAGS
def test_whenever_the_old_instance_ends_the_new_one_leaves_the_node_configured(host, flags, long, figure):
    rounds = 200 if long else 12
    seed = 20261123
    chance = random.Random(seed)
    host.master(mtu=1)
    offsets = []
    for number in range(rounds):
        offset = chance.uniform(-WIDEST, WIDEST)  # of the old one's end after the new one's start
        offsets.append(offset)
        with host.configured(*flags) as old:
            if offset < 0:
                old.process.terminate()
                time.sleep(-offset)
            with host.start(*flags) as new:
                if offset >= 0:
                    time.sleep(offset)
                    old.process.terminate()
                assert old.ends() == 0
                if number % 2:  # so that something is different now and then
                    host.master(mtu=number)
                until(lambda new=new: new.lines("the node is configured"), what="the successor")
                mtu = number if number % 2 else None
                until(lambda mtu=mtu: host.conf.exists() and (mtu is None or host.wraps(mtu=mtu)), what=f"{offset=}")
                until(lambda: (NAME in host.names()) is (RENAME not in flags), what=f"the master's name, {offset=}")
                assert not [name for name in host.names() if name.endswith(".tmp")]
                code = new.stop(signal.SIGTERM)
        assert code == 0
        assert host.conf.exists() is (CLEANUP not in flags)
        if CLEANUP in flags:
            assert NAME in host.names()
    before = sum(1 for offset in offsets if offset < 0)
    figure(f"{rounds} updates (seed {seed}), in {before} the old instance ended first; configured at the end: {rounds}")
