"""Two instances on one node that differ: which of them writes is settled, and they do not fight."""

from __future__ import annotations

import pytest

from tests.process.scratch import settled
from tests.waiting import until

pytestmark = pytest.mark.thorough


def test_two_instances_with_other_flags_both_live_and_only_the_newer_one_writes(host):
    host.master()
    with host.start("--override-network-name") as one:
        host.until_ready(one)
        with host.start("--multus-log-level=debug", f"--ready-file={host.ready.parent}/other") as other:
            other.says("the node is configured")
            settled(one, other)
            assert '"logLevel": "debug"' in host.conf.read_text()
            assert not one.lines("warning") and not other.lines("warning")


def test_two_instances_with_the_same_flags_agree_and_stop_writing(host):
    host.master()
    with host.start() as one:
        host.until_ready(one)
        with host.start() as other:
            other.says("the node is configured")
            for change in range(10):
                host.master(mtu=change)
                host.rotate(f"token-{change}")
                until(lambda change=change: host.wraps(mtu=change) and host.has_token(f"token-{change}"))
            settled(one, other)  # and no repair is held back
            assert not one.lines("warning") and not other.lines("warning")


def test_two_instances_that_disagree_about_a_shared_ready_file_do_not_spin(host):
    """One is configured, the other waits for a master that never comes: each undoes what the other does."""
    host.master()
    with host.configured() as one, host.start("--multus-master-cni-file-name=99-never.conf") as other:
        other.says("waiting")
        until(lambda: 0 < one.sleeps()[one.pid] < float("inf"), "a pause of the one")
        until(lambda: 0 < other.sleeps()[other.pid] < 10_000, "a pause of the other")
