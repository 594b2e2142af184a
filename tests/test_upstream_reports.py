"""What users of both peers reported, by the number of the report in k8snetworkplumbingwg/multus-cni.

Each test sets the situation up on a scratch host, starts the real program, and shows that it ends well.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time

import pytest

from tests.fake_api import FakeCluster, serving
from tests.opshost import FLANNEL, ScratchHost, jwt
from tests.waiting import until

pytestmark = pytest.mark.process

CALICO = {
    "name": "k8s-pod-network",
    "cniVersion": "0.3.1",
    "plugins": [{"type": "calico", "ipam": {"type": "calico-ipam"}}, {"type": "bandwidth"}],
}
LEFT_OVER = {"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "delegates": [FLANNEL]}


@pytest.fixture
def host(tmp_path):
    made = ScratchHost(tmp_path)
    made.plugins()
    return made


def delegates(host):
    return json.loads(host.generated.read_text())["delegates"]


# ---- 852: the token in the kubeconfig expires, and pods are refused from then on ----


@pytest.mark.parametrize("flags", [[], ["--skip-config-watch"], ["--cleanup-config-on-exit"], ["--rename-conf-file"]])
def test_852_the_kubeconfig_follows_every_rotation_of_the_token(host, flags):
    host.master()
    with serving(FakeCluster()) as cluster:
        host.server = cluster.url
        host.flags += flags
        with host.running():
            for hours in (1, 2, 3):
                host.rotate(jwt(time.time() + 3600 * hours))
                cluster.tokens = {host.token}  # the one before is not accepted any more
                until(lambda: host.kubeconfig.exists() and host.token in host.kubeconfig.read_text())
            until(host.ready.exists)
            outcome = host.outcome()
    assert {outcome[name]["status"] for name in ("kubeconfig.current", "kubeconfig.token", "cluster.token")} == {"pass"}


# ---- 1221: after a reboot the runtime calls the binary while it is installed: "text file busy" ----


@pytest.mark.skipif(shutil.which("sleep") is None, reason="needs a program to run")
@pytest.mark.parametrize("way", ["install", "resident"])
def test_1221_a_binary_that_is_running_is_replaced_all_the_same(host, way):
    shutil.copy(shutil.which("sleep"), host.binary)
    running = subprocess.Popen([host.binary, "1000"])
    try:
        with pytest.raises(OSError, match="Text file busy"):  # what a plain copy meets
            host.binary.open("r+b")
        host.master()
        if way == "resident":
            host.configure()
        else:
            command = host.command()[:3]
            arguments = ["install", "--type=thin", f"--dest-dir={host.bin_dir}", f"--multus-bin-file={host.multus}"]
            assert subprocess.run([*command, *arguments], env=host.environ()).returncode == 0
        assert host.binary.read_bytes() == host.multus.read_bytes()
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()


# ---- 1288, 1312: after restarts the configuration holds itself twice, or a tail of an older one ----


@pytest.mark.parametrize(
    "left_over",
    [
        json.dumps(LEFT_OVER) * 2,
        json.dumps(LEFT_OVER) + '"}]}',
        json.dumps(LEFT_OVER)[:100],
        json.dumps({**LEFT_OVER, "logFile": "/var/log/multus.log" * 500}),
        "",
    ],
    ids=["twice", "a tail", "cut off", "longer", "empty"],
)
def test_1288_1312_restarts_yield_the_same_whole_configuration_whatever_was_left(host, left_over):
    host.master()
    host.flags += ["--multus-log-file=/var/log/multus.log", "--multus-log-level=verbose"]
    host.configure()
    whole = host.generated.read_bytes()
    host.generated.write_text(left_over)
    for _ in range(3):
        host.configure()
        assert host.generated.read_bytes() == whole
    assert json.loads(whole)["logFile"] == "/var/log/multus.log"


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_1312_a_pod_that_is_evicted_while_it_starts_leaves_no_mess(host, signal_number):
    with host.running() as process:  # the pod starts before the default network's
        until(lambda: "waiting for" in process.log())
        host.master()
        process.send_signal(signal_number)
        process.wait(10)
    host.configure()
    assert delegates(host) == [FLANNEL]
    assert sorted(path.name for path in host.conf_dir.iterdir()) == [
        "00-multus.conf",
        "10-flannel.conflist",
        "multus.d",
    ]


# ---- 1108, 1162, 353: Multus wraps Multus, and every pod loops ----


def test_1108_1162_a_restart_does_not_wrap_what_the_last_run_wrote(host):
    host.master()
    for _ in range(3):
        host.configure()
        assert delegates(host) == [FLANNEL]


def test_1162_a_configuration_that_was_nested_already_is_put_right(host):
    host.master()
    host.generated.write_text(json.dumps({**LEFT_OVER, "delegates": [LEFT_OVER]}))
    host.configure()
    assert delegates(host) == [FLANNEL]


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("05-multus.conf", LEFT_OVER),
        (
            "05-other.conflist",
            {"name": "x", "plugins": [{"type": "tuning"}, {"type": "multus", "delegates": [FLANNEL]}]},
        ),
        ("05-thick.conf", {"name": "x", "type": "multus-shim", "clusterNetwork": "/etc/cni/net.d/10-flannel.conflist"}),
    ],
)
def test_353_a_multus_configuration_under_another_name_is_no_master(host, name, document):
    host.master(name, document)
    with host.running() as process:
        until(lambda: f"'{name}' is itself a Multus configuration" in process.log())
        assert not host.generated.exists()
        host.master()
        until(host.ready.exists)
    assert delegates(host) == [FLANNEL]


# ---- 1429, 1105, 461, 592: the node cannot start pods after Multus was removed ----


def test_1429_1105_461_592_after_uninstalling_the_node_is_as_it_was(host):
    host.master()
    before = {path: path.read_bytes() for path in (host.root / "host").rglob("*") if path.is_file()}
    host.configure()
    assert host.generated.exists()  # this is what broke the nodes: the pod is gone, its configuration is not
    ran = host.run("uninstall", f"--multus-data-dir={host.data_dir}")
    assert ran.returncode == 0, ran.stdout
    assert {path: path.read_bytes() for path in (host.root / "host").rglob("*") if path.is_file()} == before


def test_592_a_pod_that_is_told_to_takes_its_configuration_with_it(host):
    host.master()
    host.configure([*host.flags, "--cleanup-config-on-exit"])
    assert sorted(path.name for path in host.conf_dir.glob("*.conf*")) == ["10-flannel.conflist"]


# ---- 696, 759: the master's name is given as a path ----


def test_696_759_a_path_into_the_directory_names_the_master(host):
    host.master()
    host.master("20-calico.conflist", CALICO)
    host.configure([*host.flags, f"--multus-master-cni-file-name={host.conf_dir}/20-calico.conflist"])
    assert delegates(host) == [CALICO]


def test_696_759_a_path_elsewhere_is_a_usage_error_that_says_what_is_expected(host):
    host.master()
    ran = host.run("--multus-master-cni-file-name=/etc/elsewhere/10-flannel.conflist")
    assert ran.returncode == 2
    assert f"expected a file of the directory {host.conf_dir}" in ran.stderr
    assert "Traceback" not in ran.stderr


# ---- 975: --restart-crio without a systemctl stops the entrypoint ----


def test_975_a_node_without_systemctl_or_systemd_is_configured_all_the_same(host):
    host.master()
    host.flags += ["--restart-crio"]
    nothing = host.root / "no-programs"
    nothing.mkdir()
    with host.running(PATH=str(nothing), DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={nothing}/bus") as process:
        until(lambda: "crio.service is not restarted (--restart-crio)" in process.log())
        assert "No such file or directory; mount the host's directory /run/dbus" in process.log()
        assert host.ready.exists()
    assert process.returncode == 0
    assert delegates(host) == [FLANNEL]


# ---- 1320: invalid JSON ends in a crash loop that says nothing ----


def test_1320_a_static_configuration_that_is_no_json_is_named_with_line_and_column(host):
    source = host.image / "70-multus.conf"
    source.write_text('{\n  "name": "x",\n  "type": "multus",,\n}')
    ran = host.run(flags=[f"--multus-conf-file={source}"])
    assert ran.returncode == 1
    assert str(source) in ran.stderr
    assert "line 3 column 20" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(host.conf_dir.iterdir()) == []


def test_1320_a_master_that_is_no_json_is_named_with_line_and_column(host):
    host.master(document='{\n  "name": "x",\n  "type": "bridge",,\n}')
    with host.running() as process:
        until(lambda: "10-flannel.conflist" in process.log())
        assert "line 3 column 20" in process.log()
        assert "line 3 column 20" in host.node_outcome()["configuration.current"]["found"]
        host.master()
        until(host.ready.exists)
    assert delegates(host) == [FLANNEL]


# ---- 1349: the memory limit of the manifest is too low, and the pod is killed ----

LIMIT = 50 << 20  # bytes: the limit of the DaemonSet that both peers ship


def inside(group, command):
    """Return a command that first goes into the control group."""
    return ["sh", "-c", f"echo $$ > {group}/cgroup.procs && exec {shlex.join(map(str, command))}"]


def test_1349_everything_runs_under_the_manifests_memory_limit_and_what_cannot_says_so(host, limited_group):
    group, limit_file = limited_group
    limit_file.write_text(str(LIMIT))
    with host.multus.open("ab") as file:
        for _ in range(64):  # as big as the real one
            file.write(os.urandom(1 << 20))
    host.master()
    with serving(FakeCluster()) as cluster:
        cluster.add_node("node-1", {"key": "example.com/x", "effect": "NoSchedule"})
        cluster.tokens.add(host.token)
        host.server = cluster.url
        host.flags += ["--startup-taint=example.com/x"]
        log = (host.root / "log").open("wb+")
        command = inside(group, [*host.command(), f"--ready-file={host.ready}"])
        process = subprocess.Popen(command, env=host.environ(NODE_NAME="node-1"), stderr=log)
        try:
            until(host.ready.exists)
            assert host.binary.stat().st_size == host.multus.stat().st_size
            until(lambda: b"taint" in (host.root / "log").read_bytes())
            said = (host.root / "log").read_text()
            assert ("set a limit of at least" in said) or cluster.taints("node-1") == []
            checked = inside(group, host.command("check", "--output=json"))
            ran = subprocess.run(checked, env=host.environ(NODE_NAME="node-1"), capture_output=True, text=True)
            findings = {each["id"]: each for each in json.loads(ran.stdout)["findings"]}
            assert findings["configuration.current"]["status"] == "pass"
            assert findings["cluster.reachable"]["status"] in {"pass", "skipped"}
            if findings["cluster.reachable"]["status"] == "skipped":
                assert "set a limit of at least" in findings["cluster.reachable"]["found"]
            assert process.poll() is None, "the kernel killed it"
        finally:
            process.terminate()
            process.wait(20)
            log.close()
    assert process.returncode == 0


def test_1349_under_a_limit_that_cannot_hold_the_client_nobody_is_killed(host, limited_group):
    group, limit_file = limited_group
    limit_file.write_text(str(32 << 20))
    host.master()
    with serving(FakeCluster()) as cluster:
        cluster.add_node("node-1", {"key": "example.com/x", "effect": "NoSchedule"})
        host.server = cluster.url
        command = inside(group, [*host.command(), "--startup-taint=example.com/x"])
        with (host.root / "log").open("wb") as log:
            process = subprocess.Popen(command, env=host.environ(NODE_NAME="node-1"), stderr=log)
        try:
            until(lambda: "set a limit of at least" in (host.root / "log").read_text())
            assert cluster.requests == []
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(20)
    assert process.returncode == 0
