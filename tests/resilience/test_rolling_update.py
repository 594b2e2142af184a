"""The pod is replaced: its successor starts before, while and after it ends."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.process.scratch import until

NAME = "10-flannel.conflist"
CLEANUP, RENAME = "--cleanup-config-on-exit", "--rename-conf-file"
WIDEST = 0.35
"""Seconds between the start of the one and the end of the other, either first: about twice what a start takes."""


@pytest.mark.parametrize("flags", [(CLEANUP,), (CLEANUP, RENAME), (RENAME,)], ids=["cleanup", "both", "rename"])
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
                code, _ = new.stop(signal.SIGTERM)
        assert code == 0
        assert host.conf.exists() is (CLEANUP not in flags)
        if CLEANUP in flags:
            assert NAME in host.names()
    before = sum(1 for offset in offsets if offset < 0)
    figure(f"{rounds} updates (seed {seed}), in {before} the old instance ended first; configured at the end: {rounds}")
