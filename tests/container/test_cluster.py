"""What needs the API server, in the container and under its limits."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fake_api import BareCA, FakeCluster, authority, pem, serving
from tests.manifests import DEPLOYMENTS, containers, documents, memory, only
from tests.waiting import until

OURS = [DEPLOYMENTS / "multus-daemonset.yml", DEPLOYMENTS / "crio"]
MAIN = "kube-multus"
TAINT = {"key": "multus-cni.io/not-ready", "effect": "NoSchedule"}

manifest = pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)


@pytest.fixture
def cluster():
    """An API server that knows this node, which registered with the startup taint."""
    found = FakeCluster()
    found.add_node("node-1", dict(TAINT), {"key": "other", "effect": "NoExecute"})
    with serving(found):
        yield found


def attach(new_pod, path, cluster, **more):
    """Return a pod of a manifest that finds the API server."""
    address = urlsplit(cluster.url)
    pod = new_pod(path, **{"token": next(iter(cluster.tokens)), "ca": pem(authority()), **more})
    pod.api_server = (address.hostname, str(address.port))
    return pod


def in_order(pod):
    """Start it; return it once its node is as it must be."""
    running = pod.start(MAIN, network="host")
    probe = ("/usr/bin/test", "-f", "/run/multus-entrypoint/ready")
    until(lambda: running.exec(*probe).returncode == 0, running.log)
    return running


def limit_of(path):
    (container,) = containers(only(documents(path), "DaemonSet"))
    return memory(container["resources"]["limits"]["memory"])


def limited_to(size):
    def change(daemon_set):
        daemon_set["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = size

    return change


def check(running, *flags):
    """Run the check in the container; return the status of each finding. It takes the flags of process 1."""
    done = running.exec("/usr/local/bin/multus-entrypoint", "check", "--output=json", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "info: the flags are those of process 1 in this container: --multus-conf-file=auto" in done.stderr
    return {finding["id"]: finding["status"] for finding in json.loads(done.stdout)["findings"]}


def cluster_part(findings):
    return {status for name, status in findings.items() if name.startswith(("cluster.", "networks.", "pods."))}


# One short-lived process beside the resident one is given three quarters of what the manifest grants: the last quarter
# is a third of that again. It is the worst case, a node that has just booted: all that is read is charged to this
# container.


def as_after_a_boot():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def three_quarters(path):
    return math.floor(limit_of(path) * 3 / 4)


@manifest
def test_check_beside_the_resident_process_leaves_a_third_of_the_memory(path, new_pod, cluster):
    as_after_a_boot()
    size = three_quarters(path)
    running = in_order(attach(new_pod, path, cluster, change=limited_to(size)))
    assert running.cgroup.limit() // 4096 == size // 4096
    findings = check(running)
    assert cluster_part(findings) == {"pass"}  # and not skipped for lack of memory
    # A token of the tests is no JWT, so that nobody can tell when it expires.
    assert {name for name, status in findings.items() if status != "pass"} == {"kubeconfig.token"}
    assert running.cgroup.oom_kills() == 0


def test_check_fits_in_beside_as_many_pods_and_networks_as_a_large_node_and_cluster_have(new_pod, cluster):
    written = [{"manager": "kubelet", "operation": "Update", "fieldsV1": {f"f:field-{at}": {} for at in range(150)}}]
    for number in range(250):
        cluster.add_pod(f"pod-{number}", "lan", ["default/lan"], metadata={"managedFields": written})
    for number in range(2000):
        cluster.add_network(f"lan-{number}", {"cniVersion": "0.3.1", "padding": "x" * 1000})
    as_after_a_boot()
    running = in_order(attach(new_pod, OURS[0], cluster))
    assert cluster_part(check(running)) == {"pass"}
    assert running.cgroup.oom_kills() == 0


@manifest
def test_the_removal_of_the_taint_beside_the_resident_process_leaves_a_third_of_the_memory(path, new_pod, cluster):
    as_after_a_boot()
    size = three_quarters(path)
    pod = attach(new_pod, path, cluster, switched_on=True, change=limited_to(size))
    assert "--startup-taint=multus-cni.io/not-ready:NoSchedule" in pod.container(MAIN)["args"]
    running = pod.start(MAIN, network="host")
    assert running.cgroup.limit() // 4096 == size // 4096
    until(lambda: TAINT not in cluster.taints("node-1"), running.log)
    assert cluster.taints("node-1") == [{"key": "other", "effect": "NoExecute"}]
    assert pod.node.path("/etc/cni/net.d/00-multus.conf").exists()
    assert running.cgroup.oom_kills() == 0
    assert running.is_running()


@manifest
def test_both_at_once_kill_nothing_and_the_check_is_done_or_says_why_not(path, new_pod, cluster):
    as_after_a_boot()
    cluster.denied.add(("patch", "nodes"))  # so that the taint's removal is tried again and again, beside the check
    pod = attach(new_pod, path, cluster, switched_on=True)
    running = pod.start(MAIN, network="host")
    until(lambda: ("PATCH", "/api/v1/nodes/node-1") in cluster.requests, running.log)
    assert cluster_part(check(running, "--startup-taint=")) in ({"pass"}, {"skipped"})
    assert running.cgroup.oom_kills() == 0
    cluster.denied.clear()
    until(lambda: TAINT not in cluster.taints("node-1"), running.log)
    assert running.is_running()


def test_an_api_server_whose_ca_has_no_key_identifiers_is_trusted_by_the_python_of_the_image(new_pod):
    """That Python's default does not, and Multus, which is written in Go, does."""
    old, found = BareCA(), FakeCluster()
    with serving(found, ca=old) as served:
        running = in_order(attach(new_pod, OURS[0], served, ca=pem(old)))
        assert cluster_part(check(running)) == {"pass"}


@manifest
def test_the_check_reports_a_limit_that_is_too_low_instead_of_being_killed(path, new_pod, cluster):
    running = in_order(attach(new_pod, path, cluster, change=limited_to("50Mi")))
    assert cluster_part(check(running)) == {"skipped"}
    assert running.cgroup.oom_kills() == 0
