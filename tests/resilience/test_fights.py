"""Two instances on one node that differ: which of them writes is settled, and they do not fight."""

from __future__ import annotations

import time

from tests.process.scratch import stays
from tests.waiting import until


def test_two_instances_with_other_flags_both_live_and_only_the_newer_one_writes(host, long, figure):
    seconds = 60 if long else 4
    host.master()
    with host.start("--namespace-isolation") as one:
        host.until_ready(one)
        with host.start("--multus-log-level=debug", f"--ready-file={host.ready.parent}/other") as other:
            other.says("the node is configured")
            before = host.snapshot(host.conf_dir, host.bin_dir)
            stays(lambda: host.snapshot(host.conf_dir, host.bin_dir) == before, seconds)
            assert '"logLevel": "debug"' in host.conf.read_text()
            assert one.running() and other.running()
            assert not one.lines("warning") and not other.lines("warning")
            figure(f"no write for {seconds} s")


def test_two_instances_with_the_same_flags_agree_and_stop_writing(host, long, figure):
    seconds = 10 if long else 2
    host.master()
    with host.start() as one:
        host.until_ready(one)
        with host.start() as other:
            other.says("the node is configured")
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
