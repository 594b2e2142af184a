"""The image, built once for all tests, and pods on scratch hosts."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from tests.container import lab
from tests.container.lab import BASE, Node, Pod, podman
from tests.manifests import ROOT, documents, only

MULTUS = "ghcr.io/k8snetworkplumbingwg/multus-cni"
STAND_IN = "stand-in-64mib"
BINARY_SIZE = 64 * 2**20
"""As big as the real multus: what is copied is charged to the container as page cache."""


def reason_to_skip():
    if shutil.which("podman") is None:
        return "podman is not installed"
    if os.geteuid() != 0:
        return "needs root: control groups and capabilities are tested"
    if subprocess.run(["podman", "image", "exists", BASE]).returncode != 0:
        return f"the base image {BASE} is not there, and this machine may reach no registry to pull it from"
    return None


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    reason = reason_to_skip()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.container)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    """Run a test again whose container was taken out of its control group, and so ran without limits.

    Seen once in some fifty containers, on a machine whose own supervisor moves processes by number.
    """
    if Path(__file__).parent not in item.path.parents:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for _ in range(4):
        lab.strays.clear()
        item._initrequest()  # anew for every run, as the first is by pytest itself
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if not lab.strays:
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def stand_in(tag, files):
    """Make an image that stands for Multus's own: what the Dockerfile copies from it, and nothing else."""
    name = f"{MULTUS}:{tag}"
    if podman("image", "exists", name, check=False).returncode == 0:
        return name  # a new one would have another date, and every build would start from scratch
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    subprocess.run(["podman", "import", "-q", "-", name], input=archive.getvalue(), check=True, capture_output=True)
    return name


def build(tag, multus_version):
    """Build the Dockerfile as `make image` does."""
    subprocess.run(
        ["make", "--no-print-directory", "image", f"IMAGE={tag}", f"MULTUS_VERSION={multus_version}"],
        cwd=ROOT,
        check=True,
        timeout=900,
    )
    return tag


@pytest.fixture(scope="session")
def binary():
    """A program as big as multus, that runs: a small one, filled up with what no compression shrinks."""
    program = Path("/bin/true").read_bytes()
    return program + random.Random(1).randbytes(BINARY_SIZE - len(program))


@pytest.fixture(scope="session")
def image(binary):
    """The project's image around the stand-in, with passthru, as releases of Multus have it since 4.1."""
    stand_in(STAND_IN, {"usr/src/multus-cni/bin/multus": binary, "usr/src/multus-cni/bin/passthru": b"passthru"})
    return build("localhost/multus-entrypoint:test", STAND_IN)


@pytest.fixture(scope="session")
def image_without_passthru(image):
    """The same around a release of Multus without passthru."""
    stand_in("stand-in-without-passthru", {"usr/src/multus-cni/bin/multus": b"multus"})
    return build("localhost/multus-entrypoint:test-without-passthru", "stand-in-without-passthru")


@pytest.fixture
def node(tmp_path):
    """A node with the default network's configuration, and nothing of Multus yet."""
    host = Node(tmp_path / "node")
    host.write("/etc/cni/net.d/10-flannel.conflist", (ROOT / "tests/data/master-confs/10-flannel.conflist").read_text())
    for directory in ("/opt/cni/bin", "/usr/libexec/cni"):
        for plugin in ("flannel", "portmap"):
            host.write(f"{directory}/{plugin}", "").chmod(0o755)
    return host


@pytest.fixture
def new_pod(node, image, tmp_path):
    """Make a pod of a manifest, removed after the test.

    `switched_on` includes what the manifest holds off with a #; `change` may alter what it says first.
    """
    pods = []

    def make(path, *, switched_on=False, change=None, **options):
        found = documents(path, switched_on=switched_on)
        daemon_set = only(found, "DaemonSet")
        if change:
            change(daemon_set)
        config_maps = [document for document in found if document["kind"] == "ConfigMap"]
        directory = tmp_path / f"pod-{len(pods)}"
        directory.mkdir()
        pods.append(Pod(daemon_set, node, options.pop("image", image), directory, config_maps=config_maps, **options))
        return pods[-1]

    yield make
    for pod in pods:
        pod.remove()
