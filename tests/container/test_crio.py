"""What the manifest for CRI-O mounts is enough to have CRI-O restarted, with no capability for it."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml

from tests.manifests import DEPLOYMENTS
from tests.smallsystemd import SmallSystemd, bus
from tests.waiting import until

CRIO = DEPLOYMENTS / "crio"
FILE = CRIO / "kustomization.yaml"

pytestmark = pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="needs dbus-daemon (Debian package dbus)")


def switched_on(daemon_set):
    """Take in the patch that the file holds, commented out."""
    commented = re.search(r"^#  - target:\n((?:#.*\n)+)", FILE.read_text(), re.MULTILINE)
    lines = ["- target:", *(line[3:] for line in commented[1].splitlines())]
    for step in yaml.safe_load(yaml.safe_load("\n".join(lines))[0]["patch"]):
        *way, last = step["path"].strip("/").split("/")
        where = daemon_set
        for key in way:
            where = where[int(key) if isinstance(where, list) else key]
        assert (step["op"], last) == ("add", "-")
        where.append(step["value"])


@pytest.fixture
def systemd(node, tmp_path):
    """A system bus at its place on the node, with as much of systemd as a restart needs."""
    with bus(tmp_path) as address:
        directory = node.path("/run/dbus")
        (directory / "system_bus_socket").hardlink_to(tmp_path / "bus")
        yield SmallSystemd(address)


def test_cri_o_is_restarted_over_the_mounted_bus_once(new_pod, systemd):
    running = new_pod(CRIO, change=switched_on).start("kube-multus")
    until(lambda: "RestartUnit" in [member for member, *_ in systemd.calls], running.log)
    assert [call for call in systemd.calls if call[0] == "RestartUnit"] == [("RestartUnit", "crio.service", "replace")]
    assert running.cgroup.oom_kills() == 0


def test_as_it_is_applied_nothing_is_restarted(new_pod, node, systemd):
    running = new_pod(CRIO).start("kube-multus")
    probe = ["/usr/bin/test", "-f", "/run/multus-entrypoint/ready"]
    until(lambda: running.exec(*probe).returncode == 0, running.log)
    assert systemd.calls == []


def test_without_a_bus_the_node_is_configured_all_the_same(new_pod, node):
    running = new_pod(CRIO, change=switched_on).start("kube-multus")
    until(lambda: "crio.service" in running.log() or "bus" in running.log(), running.log)
    assert node.path("/etc/cni/net.d/00-multus.conf").exists()
    assert running.is_running()
