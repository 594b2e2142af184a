"""Fixtures that several modules share."""

import uuid
from contextlib import suppress
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
