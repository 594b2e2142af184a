"""The uninstaller, run from its manifest on a node that has been installed from the other one."""

from __future__ import annotations

import json
import os

import pytest

from tests.manifests import DEPLOYMENTS
from tests.waiting import until

INSTALLER = DEPLOYMENTS / "multus-daemonset.yml"
UNINSTALLER = DEPLOYMENTS / "multus-uninstall.yml"
CONFIGURATION = "/etc/cni/net.d/00-multus.conf"
RECORD = f"/var/lib/cni/multus/{'ab' * 32}"


@pytest.fixture
def installed(new_pod, node):
    """A node with Multus on it, whose installer has been deleted; returns what was there before Multus came."""
    before = node.files()
    running = new_pod(INSTALLER).start("kube-multus")
    until(node.path(CONFIGURATION).exists, running.log)
    running.signal("TERM")
    assert running.wait() == 0
    assert node.files() != before
    return before


def test_a_node_is_clean_again_and_the_pod_stays_up_to_say_so(new_pod, node, installed):
    pod = new_pod(UNINSTALLER)
    code, log = pod.run("uninstall")
    assert code == 0, log
    assert node.files() == installed
    assert not node.path("/etc/cni/net.d/multus.d").exists()
    done = pod.start("done")
    assert done.exec("/usr/bin/true").returncode == 0
    assert done.cgroup.limit() == 16 * 2**20
    assert done.is_running()


def further(node):
    """Leave what Multus and the runtime leave of a pod with a further network; return the record."""
    sandbox = RECORD.rpartition("/")[2]
    arguments = [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web-0"]]
    cache = {"kind": "cniCacheV1", "containerId": sandbox, "cniArgs": arguments, "netns": "/var/run/netns/cni-1"}
    node.write(f"/var/lib/cni/results/multus-cni-network-{sandbox}-eth0", json.dumps(cache))
    node.write("/var/run/netns/cni-1", "")
    return node.write(RECORD, json.dumps([{"Name": "cbr0"}, {"Name": "default/lan"}]))


@pytest.mark.parametrize("gone", ["the record", "the network namespace"])
def test_a_node_with_attached_pods_waits_until_they_are_gone_and_goes_on_by_itself(new_pod, node, installed, gone):
    record = further(node)
    with_multus = node.files()
    running = new_pod(UNINSTALLER).start("uninstall")
    until(lambda: "default/web-0 (default/lan)" in running.log(), running.log)
    until(lambda: node.files() == with_multus, "no more than what Multus has")  # a kubeconfig is renewed
    assert running.is_running()
    (record if gone == "the record" else node.path("/var/run/netns/cni-1")).unlink()
    assert running.wait() == 0
    assert not node.path(CONFIGURATION).exists()


def test_switching_force_on_cleans_a_node_with_attached_pods_and_leaves_their_records(new_pod, node, installed):
    further(node)
    left = {path for path in node.files() if path.startswith(("/var/lib/cni/", "/var/run/"))}
    pod = new_pod(UNINSTALLER, switched_on=True)
    assert "--force" in pod.container("uninstall")["args"]
    code, log = pod.run("uninstall")
    assert code == 0, log
    assert node.files() == sorted({*installed, *left})


def test_directories_of_another_user_are_cleaned_too_and_the_records_are_only_read(new_pod, node, installed):
    for directory in ("/etc/cni/net.d", "/etc/cni/net.d/multus.d", "/opt/cni/bin"):
        os.chown(node.path(directory), 1000, 0)
    node.write("/var/lib/cni/results/kept", json.dumps({}))
    pod = new_pod(UNINSTALLER)
    code, log = pod.run("uninstall")
    assert code == 0, log
    assert node.files() == sorted([*installed, "/var/lib/cni/results/kept"])
    mounts = {each["name"]: each.get("readOnly") for each in pod.container("uninstall")["volumeMounts"]}
    assert mounts == {"cni": None, "cnibin": None, "cnidata": True, "netns": True, "service-account": True}
