"""What users of both peers reported, by the number of the report in k8snetworkplumbingwg/multus-cni.

Each test sets the situation up on a scratch host, starts the program, and shows that it ends well. Of these reports
others are proved elsewhere: 852 in process/test_following, 353 in process/test_wrapping and test_waiting, 1429, 1105
and 461 in test_uninstall, 696 and 759 in test_settings, 975 in test_errands, 1320 in process/test_bad_input and
test_check.
"""

import json
import shlex
import shutil
import signal
import subprocess

import pytest

from tests.fake_api import FakeCluster, serving
from tests.opshost import FLANNEL, OpsHost
from tests.waiting import until

pytestmark = pytest.mark.process

LEFT_OVER = {"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "delegates": [FLANNEL]}


@pytest.fixture
def host(tmp_path):
    made = OpsHost(tmp_path)
    made.plugins()
    return made


def delegates(host):
    return json.loads(host.generated.read_text())["delegates"]


@pytest.mark.parametrize("way", ["install", "resident"])
def test_1221_a_binary_that_is_running_is_replaced_all_the_same(host, way):
    """After a reboot the runtime calls the binary while it is installed: "text file busy"."""
    shutil.copy(shutil.which("sleep"), host.binary)
    running = subprocess.Popen([host.binary, "1000"])
    try:
        with pytest.raises(OSError, match="Text file busy"):  # what a plain copy meets
            host.binary.open("r+b")
        host.master()
        if way == "resident":
            host.configure()
        else:
            arguments = ["install", "--type=thin", f"--dest-dir={host.bin_dir}", f"--multus-bin-file={host.multus}"]
            assert subprocess.run([*host.command()[:3], *arguments], env=host.environ()).returncode == 0
        assert host.binary.read_bytes() == host.multus.read_bytes()
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()


def test_1288_1312_1162_restarts_yield_the_same_whole_configuration_whatever_was_left(host):
    """It held itself twice, or a tail of an older one, or wrapped Multus in Multus."""
    host.master()
    host.flags += ["--multus-log-file=/var/log/multus.log", "--multus-log-level=verbose"]
    host.configure()
    whole = host.generated.read_bytes()
    assert json.loads(whole)["logFile"] == "/var/log/multus.log"
    for left_over in (
        whole,
        json.dumps(LEFT_OVER) * 2,
        json.dumps(LEFT_OVER) + '"}]}',
        json.dumps(LEFT_OVER)[:100],
        json.dumps({**LEFT_OVER, "logFile": "/var/log/multus.log" * 500}),
        json.dumps({**LEFT_OVER, "delegates": [LEFT_OVER]}),
        "",
    ):
        for content in (left_over.encode() if isinstance(left_over, str) else left_over, None):
            if content is not None:
                host.generated.write_bytes(content)
            host.configure()
            assert host.generated.read_bytes() == whole, content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_1312_a_pod_that_is_evicted_while_it_starts_leaves_no_mess(host, number):
    with host.running() as process:  # the pod starts before the default network's
        process.says("waiting for")
        host.master()
        process.stop(number)
    host.configure()
    assert delegates(host) == [FLANNEL]
    left = sorted(path.name for path in host.conf_dir.iterdir())
    assert left == ["00-multus.conf", "10-flannel.conflist", "multus.d"]


def test_1349_under_a_memory_limit_that_cannot_hold_the_client_nobody_is_killed(host, limited_group):
    """Under the manifests' own limits everything runs: container/test_cluster."""
    group, limit_file = limited_group
    limit_file.write_text(str(32 << 20))
    host.flags += ["--startup-taint=example.com/x"]
    host.master()
    with serving(FakeCluster()) as cluster:
        cluster.add_node("node-1", {"key": "example.com/x", "effect": "NoSchedule"})
        cluster.tokens.add(host.token)
        host.server = cluster.url
        script = f"echo $$ > {group}/cgroup.procs && exec {shlex.join(map(str, host.command()))}"
        with (host.root / "log").open("wb+") as log:
            process = subprocess.Popen(["sh", "-c", script], env=host.environ(NODE_NAME="node-1"), stderr=log)
            try:
                until(lambda: "set a limit of at least" in (host.root / "log").read_text())
                assert cluster.requests == []
                assert process.poll() is None
            finally:
                process.terminate()
                process.wait()
    assert process.returncode == 0
