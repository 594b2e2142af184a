"""The manifest and the uninstaller of each platform, on a node that has the runtime's directories where it has them."""

from __future__ import annotations

import json

import pytest

from tests.manifests import DEPLOYMENTS, PLATFORMS, ROOT, documents, only
from tests.waiting import until


def host_paths(platform):
    """Return the directories of the configuration and of the plugins on the host."""
    volumes = only(documents(DEPLOYMENTS / platform), "DaemonSet")["spec"]["template"]["spec"]["volumes"]
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in volumes if "hostPath" in volume}
    return paths["cni"], paths["cnibin"]


@pytest.mark.parametrize("platform", [platform for platform in PLATFORMS if platform != "base"])
def test_a_node_of_the_platform_is_configured_and_cleaned_where_its_runtime_looks(platform, new_pod, node):
    configuration, plugins = host_paths(platform)
    for name in ("flannel", "portmap"):
        node.write(f"{plugins}/{name}", "").chmod(0o755)
    node.path("/etc/cni/net.d/10-flannel.conflist").unlink()
    master = (ROOT / "tests/data/master-confs/10-flannel.conflist").read_text()
    node.write(f"{configuration}/10-flannel.conflist", master)
    before = node.files()

    running = new_pod(DEPLOYMENTS / platform).start("kube-multus")
    written = node.path(f"{configuration}/00-multus.conf")
    until(written.exists, running.log)
    kubeconfig = json.loads(written.read_text())["kubeconfig"]
    assert kubeconfig == f"{configuration}/multus.d/multus.kubeconfig"
    assert "token-1" in node.path(kubeconfig).read_text()
    assert node.files() == sorted([*before, f"{configuration}/00-multus.conf", kubeconfig, f"{plugins}/multus"])

    running.signal("TERM")
    assert running.wait() == 0
    code, log = new_pod(DEPLOYMENTS / platform / "uninstall").run("uninstall")
    assert code == 0, log
    assert node.files() == before


def test_where_only_the_mounts_are_changed_the_kubeconfigs_path_is_found_to_be_wrong(new_pod, node):
    """As somebody does who adapts the manifest for k3s by hand (upstream issues 564, 1143)."""
    directory = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
    node.write(f"{directory}/10-flannel.conflist", (ROOT / "tests/data/master-confs/10-flannel.conflist").read_text())

    def change(daemon_set):
        volumes = daemon_set["spec"]["template"]["spec"]["volumes"]
        next(volume for volume in volumes if volume["name"] == "cni")["hostPath"]["path"] = directory

    pod = new_pod(DEPLOYMENTS / "multus-daemonset.yml", change=change)
    running = pod.start("kube-multus")
    advice = f"set --multus-kubeconfig-file-host={directory}/multus.d/multus.kubeconfig"
    until(lambda: advice in running.log(), running.log)
    until(node.path(f"{directory}/00-multus.conf").exists, running.log)  # it is written after the warning
    flags = pod.container("kube-multus")["args"]
    done = running.exec("/usr/local/bin/multus-entrypoint", "check", "--output=json", "--timeout=1", *flags)
    findings = {finding["id"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["kubeconfig.path"]["status"] == "fail"
    assert findings["kubeconfig.path"]["advice"].startswith(advice)
