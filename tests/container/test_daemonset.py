"""The DaemonSet, run as it is written; test_platforms and test_published run the others."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.manifests import DEPLOYMENTS, PUBLISHED
from tests.waiting import until

PLAIN = DEPLOYMENTS / "multus-daemonset.yml"
MAIN = "kube-multus"
INIT = "install-multus-binary"

CONFIGURATION = "/etc/cni/net.d/00-multus.conf"
KUBECONFIG = "/etc/cni/net.d/multus.d/multus.kubeconfig"
MASTER = "/etc/cni/net.d/10-flannel.conflist"


def configured(pod, running):
    """Wait until the node is configured; return the configuration."""
    path = pod.node.path(CONFIGURATION)
    until(path.exists, lambda: f"{CONFIGURATION}; the log:\n{running.log()}")
    return json.loads(path.read_text())


def start(pod):
    """Run the pod's init containers, then its main container, as kubelet does."""
    for container in pod.spec.get("initContainers", []):
        code, log = pod.run(container["name"])
        assert code == 0, log
    return pod.start(MAIN)


def ready(running):
    """Probe the container as kubelet would."""
    assert running.is_running(), running.log()
    return running.exec("/usr/bin/test", "-f", "/run/multus-entrypoint/ready").returncode == 0


def test_a_node_is_configured_under_a_tenth_of_a_cpu_and_fifty_mebibytes(new_pod, node, binary):
    def smallest(daemon_set):
        limits = daemon_set["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        limits.update(cpu="100m", memory="50Mi")

    pod = new_pod(PLAIN, change=smallest)
    running = start(pod)
    configuration = configured(pod, running)
    assert running.cgroup.limit() == 50 * 2**20
    assert configuration["type"] == "multus"
    assert configuration["delegates"] == [json.loads(node.path(MASTER).read_text())]
    assert node.path("/opt/cni/bin/multus").read_bytes() == binary
    assert os.access(node.path("/opt/cni/bin/multus"), os.X_OK)
    assert "token-1" in node.path(KUBECONFIG).read_text()
    assert node.path(KUBECONFIG).stat().st_mode & 0o777 == 0o600
    assert running.cgroup.oom_kills() == 0
    assert running.is_running()


def test_the_installer_of_4_3_installs_passthru_too(new_pod, node):
    pod = new_pod(PUBLISHED / "multus-4.3.yml")
    code, log = pod.run(INIT)
    assert code == 0, log
    assert sorted(os.listdir(node.path("/opt/cni/bin"))) == ["flannel", "multus", "passthru", "portmap"]


def test_a_signal_ends_the_container_cleanly_and_at_once(new_pod, node):
    pod = new_pod(PLAIN)
    running = start(pod)
    configured(pod, running)
    ledger = node.path(f"{os.path.dirname(KUBECONFIG)}/ledger.json")
    until(lambda: ledger.exists() and '"multus":' in ledger.read_text(), running.log)  # the last thing that it writes
    files = node.files()
    running.signal("TERM")
    assert running.wait() == 0
    assert node.files() == files  # an update of the pod leaves the node as it works


def test_a_signal_while_the_program_is_still_being_loaded_ends_the_container_at_once(new_pod, node):
    """Process 1 gets no signal that it has no handler for; the first thing that the program does is to have one."""

    def slow(daemon_set):
        daemon_set["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "100m"

    pod = new_pod(PLAIN, change=slow)
    running = pod.start(MAIN)
    pid = running.inspect()["State"]["Pid"]
    until(lambda: catches_sigterm(pid), "a handler for SIGTERM")
    os.kill(pid, signal.SIGTERM)
    assert running.wait() == 0
    assert not node.path(CONFIGURATION).exists()


def catches_sigterm(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"SigCgt:\s+(\w+)", status)[1], 16) & (1 << (signal.SIGTERM - 1))


@pytest.mark.parametrize(
    "path", [PLAIN, *(PUBLISHED / f"multus-{each}.yml" for each in ("3.9", "4.3"))], ids=lambda path: path.stem
)
def test_nothing_is_written_outside_of_the_mounts(path, new_pod):
    pod = new_pod(path)
    running = start(pod)
    configured(pod, running)
    # A container that ran nothing shows what podman itself lays out for the mounts.
    untouched = new_pod(path)
    untouched.container(MAIN)["command"] = ["/usr/bin/true"]
    code, log = untouched.run(MAIN)
    assert code == 0, log
    baseline = untouched.started[-1].changes()
    assert running.changes() - baseline == set()


def test_the_probe_says_ready_exactly_while_the_node_is_configured(new_pod, node):
    node.path(MASTER).rename(node.root / "kept")
    pod = new_pod(PLAIN)
    stale = pod.volume("ready") / "ready"
    stale.touch()  # an emptyDir outlives its container: this is what a killed one leaves
    running = pod.start(MAIN)
    until(lambda: not stale.exists(), "the ready file of an earlier container to be removed")
    until(lambda: "10-flannel" in running.log() or "no " in running.log(), "a word about waiting")
    assert not ready(running)
    (node.root / "kept").rename(node.path(MASTER))
    configured(pod, running)
    until(lambda: ready(running), lambda: f"readiness; the log:\n{running.log()}")
    running.signal("TERM")
    assert running.wait() == 0
    assert not stale.exists()


def test_the_config_map_is_what_the_node_gets_after_switching_to_it(new_pod, node):
    def switch(daemon_set):
        arguments = daemon_set["spec"]["template"]["spec"]["containers"][0]["args"]
        arguments[arguments.index("--multus-conf-file=auto")] = "--multus-conf-file=/tmp/multus-conf/70-multus.conf"

    node.path(MASTER).unlink()  # its name sorts before that of the ConfigMap's file, and the runtime reads the first
    pod = new_pod(PLAIN, change=switch)
    running = pod.start(MAIN)
    target = node.path("/etc/cni/net.d/70-multus.conf")
    until(target.exists, running.log)
    assert target.read_bytes() == (pod.volume("multus-cfg") / "70-multus.conf").read_bytes()
    until(lambda: ready(running), running.log)


# Which capabilities are needed.


def without_capabilities(daemon_set):
    for container in daemon_set["spec"]["template"]["spec"]["containers"]:
        assert container["securityContext"]["capabilities"].pop("add") == ["DAC_OVERRIDE"]


def owned_by_somebody_else(node):
    for directory in ("/etc/cni/net.d", "/opt/cni/bin", "/usr/libexec/cni"):
        os.chown(node.path(directory), 1000, 0)
        node.path(directory).chmod(0o755)


def capabilities(running):
    said = running.exec("/usr/bin/grep", "-E", "CapEff|CapBnd|NoNewPrivs|Seccomp:", "/proc/1/status").stdout
    return dict(re.findall(r"(\w+):\s+(\w+)", said))


def test_where_root_owns_the_directories_no_capability_is_needed(new_pod):
    pod = new_pod(PLAIN, change=without_capabilities)
    running = pod.start(MAIN)
    configured(pod, running)
    assert int(capabilities(running)["CapEff"], 16) == 0


def test_where_another_user_owns_them_dac_override_is_needed_and_enough(new_pod, node):
    owned_by_somebody_else(node)
    code, log = new_pod(PLAIN, change=without_capabilities).run(MAIN)
    assert code == 1
    assert "Permission denied" in log
    assert not node.path(CONFIGURATION).exists()

    pod = new_pod(PLAIN)
    running = pod.start(MAIN)
    configured(pod, running)
    until(lambda: ready(running), running.log)
    override = "0000000000000002"
    assert capabilities(running) == {"CapBnd": override, "CapEff": override, "NoNewPrivs": "1", "Seccomp": "2"}
