"""The manifest and the uninstaller of each platform, on a node that has the runtime's directories where it has them."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.manifests import DEPLOYMENTS, PLATFORMS, ROOT, documents, host_paths, only
from tests.waiting import until


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_node_of_the_platform_is_configured_and_cleaned_where_its_runtime_looks(platform, new_pod, node):
    configuration, plugins = host_paths(only(documents(DEPLOYMENTS / platform), "DaemonSet"))
    if platform == "microk8s":
        node.path("/var/snap/microk8s/7394").mkdir(parents=True)
        node.path("/var/snap/microk8s/current").symlink_to("7394")
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
    ours = [f"{configuration}/00-multus.conf", kubeconfig, f"{plugins}/multus"]
    ours += [f"{configuration}/multus.d/{name}" for name in ("ledger.json", ".multus-entrypoint.lock")]
    until(lambda: all(node.path(path).exists() for path in ours), running.log)
    assert node.files() == sorted([*before, *(f"/{node.path(path).resolve().relative_to(node.root)}" for path in ours)])

    running.signal("TERM")
    assert running.wait() == 0
    code, log = new_pod(DEPLOYMENTS / platform / "uninstall").run("uninstall")
    assert code == 0, log
    assert node.files() == before


def test_a_new_revision_of_microk8s_is_followed_while_the_pod_runs(new_pod, node):
    """`snap refresh` copies the directory of the old revision and lets `current` lead to the copy."""
    snap = node.path("/var/snap/microk8s")
    for name in ("flannel", "portmap"):
        node.write(f"/var/snap/microk8s/7394/opt/cni/bin/{name}", "").chmod(0o755)
    master = (ROOT / "tests/data/master-confs/10-flannel.conflist").read_text()
    node.write("/var/snap/microk8s/7394/args/cni-network/10-flannel.conflist", master)
    (snap / "current").symlink_to("7394")
    pod = new_pod(DEPLOYMENTS / "microk8s")
    running = pod.start("kube-multus")
    kubeconfig = "current/args/cni-network/multus.d/multus.kubeconfig"
    until((snap / "current/args/cni-network/00-multus.conf").exists, running.log)
    assert "set --multus-kubeconfig-file-host" not in running.log()  # its path follows the link as well

    shutil.copytree(snap / "7394", snap / "7500", symlinks=True)
    (snap / "next").symlink_to("7500")
    (snap / "next").rename(snap / "current")
    pod.rotate(token="token-2")
    until(lambda: "token-2" in (snap / kubeconfig).read_text(), running.log)
    assert (snap / kubeconfig).resolve().is_relative_to(snap / "7500")
    changed = master.replace("cbr0", "cbr1")
    node.write("/var/snap/microk8s/7500/args/cni-network/10-flannel.conflist", changed)
    written = snap / "7500/args/cni-network/00-multus.conf"
    until(lambda: "cbr1" in written.read_text(), running.log)
    assert running.is_running()
