"""Everything at once, at random but repeatable, with the invariants checked beside it all the time."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from collections import Counter

import pytest

from tests.resilience.soaking import CLEANUP, RENAME, Checker, Lives, Node, binary, resources

pytestmark = pytest.mark.thorough


SEED = int(os.environ.get("RESILIENCE_SEED", "20261123"))
SECONDS = float(os.environ.get("RESILIENCE_SOAK", "0"))
"""Seconds of both soaks together; 0 for those of the form."""
QUICK, LONG = 14, 1800
ROUND = 60
"""Seconds with one set of flags, at least, in the soak of many lives."""
FLAGS = [
    (),
    (CLEANUP, RENAME),
    (RENAME,),
    (CLEANUP,),
    ("--override-network-name", "--namespace-isolation", "--multus-log-level=debug", "--log-format=json"),
    ("--multus-master-cni-file-name=10-flannel.conflist", "--cni-version=0.3.1", RENAME),
]


def _seconds(long, share):
    return (SECONDS or (LONG if long else QUICK)) * share


def test_after_any_events_the_node_is_right_and_the_program_as_big_as_before(host, long, figure):
    """In one long life: a leak needs time."""
    seconds = _seconds(long, 1 / 3)
    chance = random.Random(SEED)
    node = Node(host, chance)
    host.multus.write_text(binary(0))
    host.master(mtu=0)
    with host.start() as program:
        host.until_ready(program)
        warm_up = time.monotonic() + min(seconds / 4, 60)
        checker = Checker(host)
        checker.start()
        before, settlings = None, 0
        end = time.monotonic() + seconds
        while before is None or time.monotonic() < end:
            for _ in range(chance.randrange(1, 25)):
                node.event()
                time.sleep(chance.random() * 0.02)
            node.settle(SEED)
            settlings += 1
            if before is None and time.monotonic() > warm_up:
                before = resources(program)
        checker.stop()
        after = resources(program)
        figure(
            f"{seconds:.0f} s (seed {SEED}): {node.done} events, right again all {settlings} times, {checker.looks} "
            f"looks by the checker, {len(checker.faults)} faults; descriptors {before[0]} -> {after[0]}, threads "
            f"{before[1]} -> {after[1]}, memory {before[2]} -> {after[2]} KiB; {program.cpu_seconds():.1f} s of CPU"
        )
        assert not checker.faults, checker.faults[:5]
        assert checker.looks > 100
        assert after[1] == before[1]
        assert abs(after[0] - before[0]) <= 2
        assert after[2] - before[2] < 4096
        code = program.stop()
        assert code == 0


def test_however_the_program_ends_and_starts_among_any_events_the_node_is_right(new_host, long, figure):
    """Killed, stopped, replaced, on a full disk, with other flags each round; each life stays as big as it began."""
    seconds = _seconds(long, 2 / 3)
    rounds = max(1, int(seconds / ROUND))
    drawn = random.Random(SEED).sample(FLAGS, len(FLAGS))
    counts, growth = Counter(), 0
    for number in range(rounds):
        flags = drawn[number % len(drawn)]
        lives = _live(new_host(), flags, f"{SEED}.{number}", seconds / rounds)
        counts.update(lives.counts)
        growth = max(growth, lives.growth)
    figure(
        f"{seconds:.0f} s (seed {SEED}), {rounds} rounds with {min(rounds, len(FLAGS))} sets of flags: "
        + ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        + f"; no life grew by more than {growth} KiB, in descriptors or in threads"
    )
    assert counts["starts"] > rounds
    assert growth < 4096


def _live(host, flags, seed, seconds):
    chance = random.Random(seed)
    node = Node(host, chance, flags)
    with _disk(host) as disk:
        host.multus.write_text(binary(0))
        host.master(mtu=0)
        checker = Checker(host)
        lives = Lives(host, node, checker, flags, seed, disk)
        try:
            checker.start()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for _ in range(chance.randrange(1, 15)):
                    node.event()
                    time.sleep(chance.random() * 0.02)
                lives.settle()
                lives.event()
            lives.end(15)
        finally:
            checker.stop()
            lives.close()
        assert not checker.faults, (seed, flags, checker.faults[:5])
        assert checker.looks > 100
        assert CLEANUP not in flags or not (host.conf.exists() or host.conflist.exists())
        lives.counts.update(events=node.done, looks=checker.looks, guarded=checker.guarded)
    return lives


@contextlib.contextmanager
def _disk(host):
    """Put the host's directories on a disk of their own that can be filled, or yield None where nobody may mount."""
    top = host.root / "host"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", top], capture_output=True).returncode != 0:
        yield None
        return
    try:
        host.conf_dir.mkdir(parents=True)
        host.bin_dir.mkdir(parents=True)
        yield top
    finally:
        subprocess.run(["umount", "-l", top], check=True)
