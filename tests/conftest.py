"""Fixtures that several modules share."""

import uuid
from contextlib import suppress
from pathlib import Path

import pytest


@pytest.fixture
def limited_group():
    """A real memory control group, where this machine lets us make one."""
    name = f"multus-entrypoint-test-{uuid.uuid4().hex[:8]}"
    for top, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        if (top / limit.replace("limit_in_bytes", "stat").replace("max", "stat")).exists():
            with suppress(OSError):
                (top / name).mkdir()
                yield top / name, top / name / limit
                (top / name).rmdir()
                return
    pytest.skip("no memory control group can be made here (needs root and the memory controller)")
