"""Fixtures that several modules share, and how tests run beside each other."""

import fcntl
import os
import uuid
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

LIMITS = {"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"}


@pytest.fixture
def limited_group():
    """A real memory control group and the file of its limit, where this machine lets us make one."""
    for top, limit in LIMITS.items():
        group = Path(top, f"multus-entrypoint-test-{uuid.uuid4().hex[:8]}")
        with suppress(OSError):
            group.mkdir()
            if (group / limit).exists():
                yield group, group / limit
                group.rmdir()
                return
            group.rmdir()
    pytest.skip("no memory control group can be made here (needs root and the memory controller)")


# ---- beside each other: `make test` starts several pytest workers, since most tests mostly sleep ----

LONGEST_FIRST = ("container", "resilience", "process")
PREFERRED = -15
"""The nice value of a test that is alone: other work on this machine is not to be measured."""


@pytest.hookimpl(trylast=True)  # the conftest files further down give the marks
def pytest_collection_modifyitems(items):
    """Begin with what takes long, so that no worker is left with it; tests that must be alone come last."""
    items.sort(key=lambda item: (_marked(item, "alone"), *(not _marked(item, mark) for mark in LONGEST_FIRST)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Let a test that is marked `alone` run while no other one does, however many workers there are."""
    with (item.config.cache.mkdir("alone") / "lock").open("w") as lock:
        alone = _marked(item, "alone")
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        with _preferred() if alone else nullcontext():
            return (yield)


def _marked(item, mark):
    return item.get_closest_marker(mark) is not None


@contextmanager
def _preferred():
    """Come before everything else that wants the CPU, where that is allowed (to root)."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PREFERRED)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)
