"""Two instances on one node."""

from __future__ import annotations

import time

from tests.process.scratch import file_id, stays, until


def _writes(program, path):
    return len(program.lines(f"wrote {path}")) + len(program.lines(f"put right {path}"))


def test_two_instances_with_other_flags_both_live_and_write_once_a_second_at_most(host, long, figure):
    seconds = 60 if long else 8
    host.master()
    ready = f"--ready-file={host.ready.parent}/other"
    with host.start("--namespace-isolation") as one, host.start("--multus-log-level=debug", ready) as other:
        until(lambda: one.lines("the node is configured") and other.lines("the node is configured"))
        start, versions, last = time.monotonic(), 0, None
        while time.monotonic() < start + seconds:
            now = file_id(host.conf)
            versions += now != last
            last = now
            time.sleep(0.001)
        elapsed = time.monotonic() - start
        assert one.running() and other.running()
        for program in (one, other):
            assert len(program.lines("warning", str(host.conf), "second installer")) == 1, program.log
            assert len(program.lines(str(host.conf))) < 12  # the fight is told of, not each blow
        figure(f"{seconds} s: {versions} versions of the file, {versions / 2 / elapsed:.2f} a second and instance")
        assert seconds / 4 < versions <= 2 * (elapsed + 2)
        assert one.cpu_seconds() + other.cpu_seconds() < 1 + elapsed * 0.2


def test_two_instances_with_the_same_flags_agree_and_stop_writing(host, long, figure):
    seconds = 10 if long else 2
    host.master()
    with host.start() as one, host.start() as other:
        until(lambda: one.lines("the node is configured") and other.lines("the node is configured"))
        for change in range(10):
            host.master(mtu=change)
            host.rotate(f"token-{change}")
            until(lambda change=change: host.wraps(mtu=change) and host.has_token(f"token-{change}"))
        time.sleep(1.5)  # a repair that was held back would come now
        before = host.snapshot(host.conf_dir, host.bin_dir)
        stays(lambda: host.snapshot(host.conf_dir, host.bin_dir) == before, seconds)
        figure(f"after 10 changes no write for {seconds} s")
        assert not one.lines("warning") and not other.lines("warning")


def test_two_instances_that_disagree_about_a_shared_ready_file_do_not_spin(host, figure):
    """One is configured, the other waits for a master that never comes: each undoes what the other does."""
    seconds = 5
    host.master()
    with host.start() as one, host.start("--multus-master-cni-file-name=99-never.conf") as other:
        until(lambda: one.lines("the node is configured") and other.lines("waiting"))
        cpu, start = one.cpu_seconds() + other.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        cost = (one.cpu_seconds() + other.cpu_seconds() - cpu) / (time.monotonic() - start)
        figure(f"{cost:.1%} of a CPU together")
        assert cost < 0.2
