"""The DaemonSets, run as they are written: ours, and those that Multus 3.9 and 4.3 published."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.container.lab import SERVICE_ACCOUNT_DIR, podman
from tests.manifests import DEPLOYMENTS, PUBLISHED, memory
from tests.waiting import until

PLAIN = DEPLOYMENTS / "multus-daemonset.yml"
CRIO = DEPLOYMENTS / "crio"
OURS = [PLAIN, CRIO]
THEIRS = [PUBLISHED / "multus-3.9.yml", PUBLISHED / "multus-4.3.yml"]
"""The two whose habits all others have; test_published runs each of them."""
MAIN = "kube-multus"
INIT = "install-multus-binary"

CONFIGURATION = "/etc/cni/net.d/00-multus.conf"
KUBECONFIG = "/etc/cni/net.d/multus.d/multus.kubeconfig"
MASTER = "/etc/cni/net.d/10-flannel.conflist"

manifest = pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
published = pytest.mark.parametrize("path", THEIRS, ids=lambda path: path.stem)
every_manifest = pytest.mark.parametrize("path", [*OURS, *THEIRS], ids=lambda path: path.stem)


def bin_dir(path):
    return "/usr/libexec/cni" if path == CRIO else "/opt/cni/bin"


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
    probe = json.loads(podman("inspect", running.identifier).stdout)[0]
    assert probe["State"]["Running"], running.log()
    return running.exec("/usr/bin/test", "-f", "/run/multus-entrypoint/ready").returncode == 0


@every_manifest
def test_a_node_is_configured_under_a_tenth_of_a_cpu_and_fifty_mebibytes(path, new_pod, node, binary):
    def smallest(daemon_set):
        limits = daemon_set["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        limits.update(cpu="100m", memory="50Mi")

    pod = new_pod(path, change=smallest)
    running = start(pod)
    configuration = configured(pod, running)
    assert running.cgroup.limit() == 50 * 2**20
    assert configuration["type"] == "multus"
    assert configuration["delegates"] == [json.loads(node.path(MASTER).read_text())]
    assert node.path(f"{bin_dir(path)}/multus").read_bytes() == binary
    assert os.access(node.path(f"{bin_dir(path)}/multus"), os.X_OK)
    assert "token-1" in node.path(KUBECONFIG).read_text()
    assert node.path(KUBECONFIG).stat().st_mode & 0o777 == 0o600
    assert running.cgroup.oom_kills() == 0
    assert running.is_running()


def test_the_installer_of_4_3_installs_passthru_too(new_pod, node):
    pod = new_pod(PUBLISHED / "multus-4.3.yml")
    code, log = pod.run(INIT)
    assert code == 0, log
    assert sorted(os.listdir(node.path("/opt/cni/bin"))) == ["flannel", "multus", "passthru", "portmap"]


@every_manifest
def test_a_renewed_token_reaches_the_kubeconfig(path, new_pod, node):
    pod = new_pod(path)
    running = start(pod)
    configured(pod, running)
    for number in range(2, 5):
        pod.rotate(token=f"token-{number}")
        until(
            lambda number=number: f"token-{number}" in node.path(KUBECONFIG).read_text(),
            lambda: f"the token in {KUBECONFIG}; the log:\n{running.log()}",
        )
    assert node.path(KUBECONFIG).stat().st_mode & 0o777 == 0o600


@every_manifest
def test_a_change_of_the_master_is_followed(path, new_pod, node):
    pod = new_pod(path)
    running = start(pod)
    configured(pod, running)
    changed = json.loads(node.path(MASTER).read_text())
    changed["plugins"][0]["delegate"]["mtu"] = 1400
    node.write(MASTER, json.dumps(changed))
    until(
        lambda: json.loads(node.path(CONFIGURATION).read_text())["delegates"] == [changed],
        lambda: f"the change in {CONFIGURATION}; the log:\n{running.log()}",
    )


@every_manifest
@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_signal_ends_the_container_cleanly_and_at_once(path, name, new_pod, node):
    pod = new_pod(path)
    running = start(pod)
    configured(pod, running)
    until(node.path(f"{os.path.dirname(KUBECONFIG)}/ledger.json").exists, running.log)  # it is written last
    files = node.files()
    os.kill(running.inspect()["State"]["Pid"], signal.Signals[f"SIG{name}"])
    assert running.wait() == 0
    assert node.files() == files  # an update of the pod leaves the node as it works


@manifest
def test_a_signal_while_the_program_is_still_being_loaded_ends_the_container_at_once(path, new_pod, node):
    """Process 1 gets no signal that it has no handler for; the first thing that the program does is to have one."""

    def slow(daemon_set):
        daemon_set["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "100m"

    pod = new_pod(path, change=slow)
    running = pod.start(MAIN)
    pid = running.inspect()["State"]["Pid"]
    until(lambda: catches_sigterm(pid), "a handler for SIGTERM")
    os.kill(pid, signal.SIGTERM)
    assert running.wait() == 0
    assert not node.path(CONFIGURATION).exists()


def catches_sigterm(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"SigCgt:\s+(\w+)", status)[1], 16) & (1 << (signal.SIGTERM - 1))


@every_manifest
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


@manifest
def test_nothing_is_on_the_node_but_what_belongs_there(path, new_pod, node):
    pod = new_pod(path)
    before = node.files()
    running = start(pod)
    configured(pod, running)
    until(lambda: ready(running), "readiness")
    ours = [CONFIGURATION, KUBECONFIG, f"{bin_dir(path)}/multus"]
    ours += [f"{os.path.dirname(KUBECONFIG)}/{name}" for name in ("ledger.json", ".multus-entrypoint.lock")]
    until(lambda: all(node.path(each).exists() for each in ours), running.log)
    assert node.files() == sorted([*before, *ours])


@manifest
@pytest.mark.parametrize("place", ["/", "/tmp", "/run", "/opt/multus-entrypoint", "/usr/src/multus-cni/bin"])
def test_the_root_file_system_is_read_only(path, place, new_pod):
    running = new_pod(path).start(MAIN)
    done = running.exec("/usr/bin/touch", f"{place}/written")
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


@manifest
def test_the_service_account_and_the_static_configuration_are_read_only(path, new_pod):
    running = new_pod(path).start(MAIN)
    for place in (SERVICE_ACCOUNT_DIR, "/tmp/multus-conf"):
        assert "Read-only file system" in running.exec("/usr/bin/touch", f"{place}/written").stderr


@manifest
def test_the_probe_says_ready_exactly_while_the_node_is_configured(path, new_pod, node):
    node.path(MASTER).rename(node.root / "kept")
    pod = new_pod(path)
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


@manifest
def test_a_probe_costs_next_to_nothing(path, new_pod):
    pod = new_pod(path)
    running = start(pod)
    configured(pod, running)
    until(lambda: ready(running), "readiness")
    before = running.cgroup.cpu_seconds()
    for _ in range(5):
        assert ready(running)
    each = (running.cgroup.cpu_seconds() - before) / 5
    period = pod.container(MAIN)["readinessProbe"]["periodSeconds"]
    assert each / period < 0.1 / 4  # CPUs: of the tenth that is asked for


@manifest
def test_the_config_map_is_what_the_node_gets_after_switching_to_it(path, new_pod, node):
    def switch(daemon_set):
        arguments = daemon_set["spec"]["template"]["spec"]["containers"][0]["args"]
        arguments[arguments.index("--multus-conf-file=auto")] = "--multus-conf-file=/tmp/multus-conf/70-multus.conf"

    node.path(MASTER).unlink()  # its name sorts before that of the ConfigMap's file, and the runtime reads the first
    pod = new_pod(path, change=switch)
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


@manifest
def test_where_root_owns_the_directories_no_capability_is_needed(path, new_pod, node):
    pod = new_pod(path, change=without_capabilities)
    running = pod.start(MAIN)
    configured(pod, running)
    assert "token-1" in node.path(KUBECONFIG).read_text()
    status = running.exec("/usr/bin/grep", "CapEff", "/proc/1/status").stdout
    assert int(status.split()[1], 16) == 0


@manifest
def test_where_another_user_owns_them_the_node_is_not_configured_without_dac_override(path, new_pod, node):
    owned_by_somebody_else(node)
    pod = new_pod(path, change=without_capabilities)
    code, log = pod.run(MAIN)
    assert code == 1
    assert "Permission denied" in log
    assert not node.path(CONFIGURATION).exists()


@manifest
def test_where_another_user_owns_them_dac_override_is_enough(path, new_pod, node):
    owned_by_somebody_else(node)
    pod = new_pod(path)
    running = pod.start(MAIN)
    configured(pod, running)
    until(lambda: ready(running), running.log)
    status = running.exec("/usr/bin/grep", "-E", "CapEff|CapBnd|NoNewPrivs|Seccomp:", "/proc/1/status").stdout
    assert dict(re.findall(r"(\w+):\s+(\w+)", status)) == {
        "CapBnd": "0000000000000002",  # CAP_DAC_OVERRIDE
        "CapEff": "0000000000000002",
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }


@manifest
def test_the_limit_in_the_manifest_is_the_one_that_the_kernel_enforces(path, new_pod):
    pod = new_pod(path)
    running = pod.start(MAIN)
    assert running.cgroup.limit() == memory(pod.container(MAIN)["resources"]["limits"]["memory"])
