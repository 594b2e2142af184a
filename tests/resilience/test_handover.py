"""Two instances at a time on one node, each with a token, a binary and flags of its own; either of them ends."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import random
import re
import struct
import time

import pytest

from tests.process.scratch import Pod, presences
from tests.resilience.conftest import LONG
from tests.waiting import BOUND, until

WIDEST = 0.6
"""Seconds after the start of the newer one until one of the two ends; a start takes about half of it."""
_MOVED_TO = 0x80


class _Writes:
    """Counts what is put under each name of some directories: whatever we write is renamed to its name."""

    def __init__(self, *directories):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for directory in directories:
            assert self._libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _MOVED_TO) > 0

    def since_last(self):
        counts = {}
        with contextlib.suppress(BlockingIOError):
            while True:
                events = os.read(self._descriptor, 1 << 16)
                while events:
                    (length,) = struct.unpack_from("12xI", events)
                    name = events[16 : 16 + length].rstrip(b"\0").decode()
                    events = events[16 + length :]
                    counts[name] = counts.get(name, 0) + 1
        return counts


def _number(path):
    """Return the number of the pod that a file tells of."""
    with contextlib.suppress(FileNotFoundError):
        return int(re.search(rb"pod-(\d+)", path.read_bytes())[1])
    return None


def _read(kubeconfig, conf, ready, stop, results):
    """Hold all the time that kubeconfig and configuration are those of the newest one that is ready, or of a later."""
    reads, faults, unready = 0, [], 0
    while not stop.is_set():
        numbers = [int(name.removeprefix("pod-")) for name in os.listdir(ready)]
        newest = max(numbers, default=0)
        found = _number(kubeconfig), _number(conf)
        still = newest == 0 or (ready / f"pod-{newest}").exists()  # its end may have come between these looks
        if still and not all(number is not None and number >= newest for number in found):
            faults.append(f"pod-{newest} was ready, and found {found}")
        unready += not numbers
        reads += 1
    results.put((reads, faults[:5], unready))


@contextlib.contextmanager
def _reader(host):
    context = multiprocessing.get_context("spawn")
    stop, results, found = context.Event(), context.Queue(), []
    reader = context.Process(target=_read, args=(host.kubeconfig, host.conf, host.ready.parent, stop, results))
    reader.start()
    try:
        yield found
    finally:
        stop.set()
        found += results.get(timeout=BOUND)
        reader.join()


def _killed(program, pod):
    """Kill it; its ready file goes before, as it does with the container."""
    program.freeze()
    pod.ready.unlink(missing_ok=True)
    program.process.kill()


@pytest.mark.thorough
def test_whichever_ends_whenever_the_node_is_the_newest_ones_and_is_written_once(host, figure):
    rounds = 200 if LONG else 12
    seed = 20261124
    chance = random.Random(seed)
    host.master()
    (host.kubeconfig.parent).mkdir()
    writes = _Writes(host.conf_dir, host.kubeconfig.parent, host.bin_dir)
    names = (host.kubeconfig.name, host.conf.name, host.installed.name)
    ends, most = {"older": 0, "newer": 0}, 0
    with contextlib.ExitStack() as stack:
        pod = Pod(host, "pod-1")
        program = stack.enter_context(pod.running())
        reading = stack.enter_context(_reader(host))
        for number in range(2, rounds + 2):
            until(pod.owns)
            writes.since_last()
            successor = Pod(host, f"pod-{number}", *chance.choice([(), ("--namespace-isolation",)]))
            other = stack.enter_context(successor.start())
            ending = chance.choice(["older", "newer"])
            ends[ending] += 1
            time.sleep(chance.uniform(0, WIDEST))
            if ending == "older":
                if chance.random() < 0.5:
                    _killed(program, pod)
                else:
                    program.process.terminate()
                pod, program = successor, other
                changes = 1
            else:
                if ends["newer"] == 1:  # once at least, on however slow a machine
                    until(successor.owns, what=f"round {number}, the newer one")
                _killed(other, successor)
                changes = 2
            until(pod.owns, what=f"round {number}, the {ending} one ended")
            until(pod.ready.exists)
            time.sleep(0.05)
            found = writes.since_last()
            most = max([most, *(found.get(name, 0) for name in names)])
            assert all(found.get(name, 0) <= changes for name in names), (found, ending)
            until(lambda: len(presences(host)) == 1, what="one presence")
            assert not program.lines("warning", "put right")  # no fight
    reads, faults, _ = reading
    assert not faults
    assert reads > rounds
    figure(
        f"{rounds} handovers (seed {seed}), the older one ended {ends['older']} times, the newer one {ends['newer']}; "
        f"{reads} reads without a fault; at most {most} writes of a file, to the newer one and back"
    )


def test_an_update_with_surge_leaves_no_moment_without_a_ready_one(host, figure):
    rounds = 50 if LONG else 5
    host.master()
    writes = None
    with contextlib.ExitStack() as stack:
        pod = Pod(host, "pod-1", "--cleanup-config-on-exit")
        program = stack.enter_context(pod.running())
        reading = stack.enter_context(_reader(host))
        writes = _Writes(host.conf_dir, host.kubeconfig.parent, host.bin_dir)
        for number in range(2, rounds + 2):
            successor = Pod(host, f"pod-{number}", "--cleanup-config-on-exit")
            other = stack.enter_context(successor.running())
            assert program.stop() == 0
            pod, program = successor, other
            assert pod.owns()
            until(lambda: len(presences(host)) == 1)
        found = writes.since_last()
    reads, faults, unready = reading
    assert not faults
    each = [found[name] / rounds for name in (host.kubeconfig.name, host.conf.name, host.installed.name)]
    assert each == [1, 1, 1]
    assert unready == 0
    figure(f"{rounds} updates, {reads} reads: one write of each file an update, never without a ready instance")
