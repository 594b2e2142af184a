"""The deployments of others, run with our image and nothing else changed; each says where it is from."""

from __future__ import annotations

import json

import pytest

from tests.manifests import PUBLISHED, ROOT, documents, memory, only
from tests.waiting import until

DEPLOYMENTS = sorted(path.stem for path in PUBLISHED.glob("*.yml"))
MASTERS = {
    "eks": "10-aws.conflist",
    **dict.fromkeys(("microshift", "ovn-kubernetes"), "10-ovn-kubernetes.conf"),
}
"""What they find on their nodes, where it is not Flannel."""
STATIC_AND_IN_A_SHELL = "helm-charts"
"""Copies a configuration of its own instead of wrapping the master, and its first process keeps SIGTERM to itself."""


def host_paths(daemon_set):
    volumes = daemon_set["spec"]["template"]["spec"]["volumes"]
    return {volume["name"]: volume["hostPath"]["path"].rstrip("/") for volume in volumes if "hostPath" in volume}


def stop_as_kubelet_does(running, container):
    """Run the container's hook, where it has one, then send SIGTERM.

    The hook may fail, as kubelet allows: its rm can meet a directory that is filled again meanwhile.
    """
    hook = container.get("lifecycle", {}).get("preStop")
    if hook:
        assert running.exec(*hook["exec"]["command"]).returncode in (0, 1)
    running.signal("TERM")


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_published_deployment_configures_the_node_after_changing_nothing_but_the_image(name, new_pod, node, binary):
    assert "\n# From " in (PUBLISHED / f"{name}.yml").read_text()
    found = documents(PUBLISHED / f"{name}.yml")
    paths = host_paths(only(found, "DaemonSet"))
    for path in paths.values():
        node.path(path).mkdir(parents=True, exist_ok=True)
    node.path("/etc/cni/net.d/10-flannel.conflist").unlink()
    file = MASTERS.get(name, "10-flannel.conflist")
    master = (ROOT / "tests/data/master-confs" / file).read_text()
    node.write(f"{paths['cni']}/{file}", master)
    pod = new_pod(PUBLISHED / f"{name}.yml")
    for container in pod.spec.get("initContainers", []):
        code, log = pod.run(container["name"])
        assert code == 0, log
    main = pod.spec["containers"][0]
    running = pod.start(main["name"])
    written = node.path(f"{paths['cni']}/00-multus.conf")
    until(lambda: written.exists() or not running.is_running(), running.log)
    assert written.exists(), running.log()

    configuration = json.loads(written.read_text())
    assert configuration["type"] == "multus"
    if name == STATIC_AND_IN_A_SHELL:
        (config_map,) = [document for document in found if document["kind"] == "ConfigMap"]
        assert configuration == json.loads(config_map["data"]["cni-conf.json"])
    else:
        assert configuration["delegates"] == [json.loads(master)]
    # What the configuration refers to is where the host has it.
    kubeconfig = node.path(configuration["kubeconfig"])
    assert "token-1" in kubeconfig.read_text()
    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    assert node.path(f"{paths['cnibin']}/multus").read_bytes() == binary
    limits = main.get("resources", {}).get("limits", {})
    if limits:
        assert running.cgroup.limit() == memory(limits["memory"])
    assert running.cgroup.oom_kills() == 0
    pod.rotate(token="token-2")
    until(lambda: "token-2" in kubeconfig.read_text(), running.log)

    if name != STATIC_AND_IN_A_SHELL:
        stop_as_kubelet_does(running, main)
        assert running.wait() == 0, running.log()
