"""The image, built once for all tests, and pods on scratch hosts."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

import pytest

from tests.container.images import STAND_IN, big_binary, build, reason_to_skip, stand_in, stand_in_as_big_as_multus
from tests.container.lab import Node, Pod
from tests.manifests import ROOT, documents, only

CHECKOUT = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:12]
"""Tells the images of one checkout from those of another; the next build of the same one takes their names."""


ESSENTIAL = {
    "test_a_node_is_configured_under_a_tenth_of_a_cpu_and_fifty_mebibytes",
    "test_nothing_is_written_outside_of_the_mounts[multus-daemonset]",
    "test_the_check_of_a_node_in_order_passes_in_the_container_as_it_is_applied[multus-daemonset]",
    "test_with_cleanup_an_update_with_surge_takes_nothing_away",
    "test_a_node_is_clean_again_and_the_pod_stays_up_to_say_so",
    "test_the_names_of_earlier_images_are_our_program[thin_entrypoint-]",
    "test_cri_o_is_restarted_over_the_mounted_bus_once",
    "test_a_published_deployment_configures_the_node_after_changing_nothing_but_the_image[multus-4.3]",
}
"""What `make test` runs: one of each kind. `make test-all` runs the others."""


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    reason = reason_to_skip()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.container)
            if item.name not in ESSENTIAL:
                item.add_marker(pytest.mark.thorough)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def binary():
    """A program as big as multus, that runs."""
    return big_binary()


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """Make something once for all pytest workers: the first one makes it, and the others wait for that."""

    def make(name, how):
        directory = tmp_path_factory.getbasetemp()
        if worker_id != "master":
            directory = directory.parent  # which the workers share
        with (directory / f"{name}.lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if lock.seek(0, os.SEEK_END) == 0:
                how()
                lock.write("made")

    return make


@pytest.fixture(scope="session")
def image(once):
    """The project's image around the stand-in, with passthru, as releases of Multus have it since 4.1."""
    tag = f"localhost/multus-entrypoint:test-{CHECKOUT}"
    once("image", lambda: (stand_in_as_big_as_multus(), build(tag, STAND_IN)))
    return tag


@pytest.fixture(scope="session")
def image_without_passthru(image, once):
    """The same around a release of Multus without passthru."""
    tag, multus = f"localhost/multus-entrypoint:test-{CHECKOUT}-without-passthru", "stand-in-without-passthru"
    files = {"usr/src/multus-cni/bin/multus": b"multus"}
    once("image-without-passthru", lambda: (stand_in(multus, files), build(tag, multus)))
    return tag


@pytest.fixture
def node(tmp_path):
    """A node with the default network's configuration, and nothing of Multus yet."""
    host = Node(tmp_path / "node")
    host.write("/etc/cni/net.d/10-flannel.conflist", (ROOT / "tests/data/master-confs/10-flannel.conflist").read_text())
    for directory in ("/opt/cni/bin", "/usr/libexec/cni"):
        for plugin in ("flannel", "portmap"):
            host.write(f"{directory}/{plugin}", "").chmod(0o755)
    host.path("/run/dbus").mkdir(parents=True)
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
    # Seen where the machine is itself a sandbox: its keeper moves processes into groups of its own, now and then.
    limited = [pod.remove() for pod in pods]
    if not all(limited):
        pytest.skip(
            "something else on this machine has put a container outside of its limits: of them, this run shows nothing"
        )
