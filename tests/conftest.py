"""Fixtures that several modules share, and how tests run beside each other."""

import fcntl
import os
import shutil
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest

# The same examples in each run, however busy the machine; `make resilience` draws others each time.
hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    derandomize=os.environ.get("RESILIENCE") != "long",
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")

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


@pytest.fixture(scope="session")
def strace():
    """Skip where the calls of a program cannot be traced."""
    if not shutil.which("strace"):
        pytest.skip("needs strace (apt-get install strace)")
    if subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode != 0:
        pytest.skip("nothing may be traced here")


@pytest.fixture
def one_at_a_time():
    """Let the tests that have this fixture run one after the other, whatever else runs beside them."""
    with Path(__file__).open() as lock:  # it is there for all workers
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def api():
    """An API server that refuses as real ones do."""
    from tests.fake_api import FakeCluster, serving

    with serving(FakeCluster()) as served:
        yield served


@pytest.fixture
def get(api):
    """Ask that server for a path, as the program's own client does."""
    from entrypoint.cluster.client import Access, Api
    from tests.fake_api import authority, pem

    client = Api(Access(api.url, "good-token", pem(authority())))
    yield client.get
    client.close()


@pytest.fixture
def account(api, tmp_path):
    """What an errand on node-1 is told of that server, with the files of a service account."""
    from tests.fake_api import authority, pem

    (tmp_path / "token").write_text("good-token\n")
    (tmp_path / "ca.crt").write_text(pem(authority()))
    files = {"token_file": str(tmp_path / "token"), "ca_file": str(tmp_path / "ca.crt")}
    return {"node": "node-1", "server": api.url, **files}


# ---- beside each other: `make test` starts several pytest workers, since most tests mostly sleep ----

LONGEST_FIRST = ("container", "resilience", "process")
SPREAD = 6
"""One in so many of the longest tests is one of those that run one at a time."""


@pytest.hookimpl(trylast=True)  # the conftest files further down give the marks
def pytest_collection_modifyitems(items):
    """Begin with what takes long, so that no worker is left with it.

    The very first one has the image built, which those that need it would all wait for. Those that run one at a time
    are spread, so that no worker waits for another one's.
    """
    items.sort(key=lambda item: [item.get_closest_marker(mark) is None for mark in LONGEST_FIRST])
    single = [item for item in items if "one_at_a_time" in item.fixturenames]
    items[:] = [item for item in items if item not in single]
    for place, item in enumerate(single):
        items.insert(place * SPREAD, item)
    if builder := next((item for item in items if "image" in item.fixturenames), None):
        items.remove(builder)
        items.insert(0, builder)
