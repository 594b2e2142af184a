"""The deployments of others, run with our image and nothing else changed; each says where it is from."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from tests.manifests import PUBLISHED, ROOT, documents, memory, only
from tests.waiting import until


@dataclass(frozen=True)
class Case:
    """What a deployment finds on its nodes, and what must be there once it has run."""

    master: str = "10-flannel.conflist"
    static: bool = False
    """Whether it copies a configuration of its own instead of wrapping the master."""
    in_a_shell: bool = False
    """Whether its first process is a shell, which keeps SIGTERM to itself."""


OVN = "10-ovn-kubernetes.conf"
CASES = {
    "multus-3.9": Case(),
    "multus-4.3": Case(),
    "multus-4.3-crio": Case(),
    "rke2": Case(),
    "k3s": Case(),
    "kubespray": Case(),
    "nvidia-network-operator": Case(),
    "helm-charts": Case(static=True, in_a_shell=True),
    "microk8s": Case(),
    "eks": Case(master="10-aws.conflist"),
    "gke": Case(),
    "tanzu": Case(),
    "spiderpool": Case(),
    "microshift": Case(master=OVN),
    "ovn-kubernetes": Case(master=OVN),
}


def test_every_published_deployment_is_run_and_says_where_it_is_from():
    assert {path.stem for path in PUBLISHED.glob("*.yml")} == set(CASES)
    for path in PUBLISHED.glob("*.yml"):
        assert "\n# From " in path.read_text(), path.name


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


@pytest.mark.parametrize("name", CASES)
def test_a_published_deployment_configures_the_node_after_changing_nothing_but_the_image(name, new_pod, node, binary):
    case, found = CASES[name], documents(PUBLISHED / f"{name}.yml")
    paths = host_paths(only(found, "DaemonSet"))
    for path in paths.values():
        node.path(path).mkdir(parents=True, exist_ok=True)
    node.path("/etc/cni/net.d/10-flannel.conflist").unlink()
    master = (ROOT / "tests/data/master-confs" / case.master).read_text()
    node.write(f"{paths['cni']}/{case.master}", master)
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
    if case.static:
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

    if not case.in_a_shell:
        stop_as_kubelet_does(running, main)
        assert running.wait() == 0, running.log()
