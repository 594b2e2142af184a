"""docs/by-hand.md, followed on a scratch host, with a kubectl that plays along."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess

import kubernetes_validate
import pytest
import yaml

from entrypoint.check import kubeconfig as reading
from entrypoint.cni import runtime
from entrypoint.cni.document import Master, examine
from entrypoint.node import chained
from tests.manifests import DEPLOYMENTS, ROOT, documents
from tests.opshost import FLANNEL, ScratchHost, wait_until
from tests.test_manifests import RELEASES

pytestmark = pytest.mark.process

PAGE = (ROOT / "docs/by-hand.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^<!-- ((?:cluster|node): [\w-]+) -->\n```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
(RESULT,) = re.findall(r"^<!-- result: configuration -->\n```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TOKENS = ["secret", "token"]

KUBECTL = """#!/bin/bash
printf '%s\\n' "$*" >>"$SCRATCH/calls"
case "$*" in
  "apply -f -") { echo ---; cat; } >>"$SCRATCH/applied" ;;
  *"get secret multus-token"*) printf 'of the Secret' | base64 ;;
  *"create token multus"*) echo 'of a day' ;;
  *"get configmap kube-root-ca.crt"*) printf 'CA\\n%.0s' {1..100} ;;
  *".spec.clusterIP"*) printf %s "$ADDRESS" ;;
  *".spec.ports[0].port"*) printf 443 ;;
esac
"""

needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")


class Reader:
    """Somebody who follows the page, with the paths of a scratch host in place of the real ones."""

    def __init__(self, host):
        self.host = host
        self.work = host.root / "work"
        (self.work / "bin").mkdir(parents=True)
        kubectl = self.work / "bin/kubectl"
        kubectl.write_text(KUBECTL)
        kubectl.chmod(0o755)
        shutil.copy(host.multus, self.work / "multus")
        self.kubeconfig = self.work / "multus.kubeconfig"

    def follow(self, *names, address="10.96.0.1"):
        """Run blocks of the page in one shell, which ends at the first command that fails."""
        script = "".join(BLOCKS[name] for name in names)
        for path in ("/etc/cni/", "/opt/cni/"):
            script = script.replace(path, f"{self.host.root}/host{path}")
        variables = {
            "PATH": f"{self.work / 'bin'}:{os.environ['PATH']}",
            "SCRATCH": str(self.work),
            "ADDRESS": address,
        }
        subprocess.run(["bash", "-euc", script], cwd=self.work, env=variables, check=True)

    def in_real_paths(self, path):
        """Return the text of a file as it would be on a real host."""
        return path.read_text().replace(f"{self.host.root}/host", "")

    def applied(self):
        return [document for document in yaml.safe_load_all((self.work / "applied").read_text()) if document]


@pytest.fixture
def reader(tmp_path):
    host = ScratchHost(tmp_path)
    host.master()
    return Reader(host)


def by_hand(reader, token="secret"):
    reader.follow("node: binary")
    reader.follow("cluster: rights", f"cluster: {token}", "cluster: kubeconfig")
    reader.follow("node: kubeconfig")
    reader.follow("node: configuration")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_every_block_of_the_page_has_a_name_under_which_it_is_run():
    assert PAGE.count("```sh\n") == len(BLOCKS)
    source = (ROOT / "tests/test_by_hand.py").read_text()
    unnamed = [name for name in BLOCKS if name not in source and name.removeprefix("cluster: ") not in TOKENS]
    assert unnamed == []


def test_the_objects_of_the_page_are_those_of_the_manifest(reader):
    reader.follow("cluster: rights")
    in_manifest = documents(DEPLOYMENTS / "multus-daemonset.yml")
    kinds = ["CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"]
    assert reader.applied() == [document for document in in_manifest if document["kind"] in kinds]


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_of_the_page_fits_the_schema_of_a_kubernetes_release(reader, release):
    reader.follow("cluster: rights", "cluster: secret", "cluster: pod")
    known = [document for document in reader.applied() if document["kind"] != "NetworkAttachmentDefinition"]
    assert [document["kind"] for document in known][-2:] == ["Secret", "Pod"]
    for document in known:
        kubernetes_validate.validate(document, release, strict=True)


def test_the_networks_that_the_pod_of_the_page_asks_for_are_defined(reader):
    reader.follow("cluster: pod")
    definition, pod = reader.applied()
    assert json.loads(definition["spec"]["config"])["type"] == "macvlan"
    asked = json.loads(pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"])
    assert {network["name"] for network in asked} == {definition["metadata"]["name"]}


@pytest.mark.parametrize(("token", "expected"), [("secret", "of the Secret"), ("token", "of a day")])
def test_the_kubeconfig_of_the_page_is_one_that_we_accept_and_nobody_else_can_read(reader, token, expected):
    reader.follow(f"cluster: {token}", "cluster: kubeconfig")
    assert mode(reader.kubeconfig) == 0o600
    access = reading.parse(reader.kubeconfig.read_bytes())
    assert (access.server, access.token) == ("https://10.96.0.1:443", expected)
    assert access.certificate_authority == "CA\n" * 100


def test_an_ipv6_address_gets_brackets(reader):
    reader.follow("cluster: token", "cluster: kubeconfig", address="fd00:10:96::1")
    assert reading.parse(reader.kubeconfig.read_bytes()).server == "https://[fd00:10:96::1]:443"


@needs_jq
def test_the_files_on_the_node_are_what_a_runtime_and_multus_can_use(reader):
    by_hand(reader)
    host = reader.host
    assert (mode(host.binary), mode(host.kubeconfig)) == (0o755, 0o600)
    assert host.binary.read_bytes() == host.multus.read_bytes()
    written = host.conf_dir / "00-multus.conflist"
    assert mode(written) == 0o600
    assert runtime.in_order(os.listdir(host.conf_dir))[0] == written.name
    assert runtime.fault(written.name, written.read_bytes()) is None
    assert chained.wraps(written.read_bytes(), FLANNEL)
    assert reader.in_real_paths(written) == RESULT


@needs_jq
@pytest.mark.parametrize("master", sorted((ROOT / "tests/data/master-confs").iterdir()), ids=lambda path: path.name)
def test_the_configuration_of_every_usual_network_can_be_wrapped_by_hand(reader, master):
    reader.host.master(document=master.read_text())
    reader.follow("node: configuration")
    content = (reader.host.conf_dir / "00-multus.conflist").read_bytes()
    assert runtime.fault("00-multus.conflist", content) is None
    (plugin,) = json.loads(content)["plugins"]
    (delegate,) = plugin["delegates"]
    assert delegate == {"cniVersion": "0.3.1", **json.loads(master.read_text())}
    wrapped = examine(master.read_bytes())
    assert isinstance(wrapped, Master)
    assert plugin["capabilities"] == dict.fromkeys(wrapped.capabilities, True)


def test_the_configuration_with_a_cluster_network_runs_multus_and_names_a_configuration_that_is_there(reader):
    reader.follow("node: cluster-network")
    host = reader.host
    content = (host.conf_dir / "00-multus.conflist").read_bytes()
    assert runtime.fault("00-multus.conflist", content) is None
    (plugin,) = json.loads(content)["plugins"]
    (found,) = (host.root / "host/etc/cni/multus/net.d").iterdir()
    assert json.loads(found.read_text())["name"] == plugin["clusterNetwork"]


@needs_jq
def test_what_was_put_onto_the_node_is_gone_after_the_last_step(reader):
    by_hand(reader)
    reader.follow("node: remove")
    left = [path.name for path in (reader.host.root / "host").rglob("*") if path.is_file()]
    assert left == ["10-flannel.conflist"]
    reader.follow("cluster: remove")
    for document in reader.applied():
        name, kind = document["metadata"]["name"], document["kind"].lower()
        assert re.search(rf"delete .*({kind}/|crd ){name}\b", (reader.work / "calls").read_text()), kind


@needs_jq
def test_the_daemonset_takes_over_what_was_put_there_by_hand(reader):
    by_hand(reader)
    host = reader.host
    with host.running() as process:
        wait_until(host.ready.exists, what="the program to be ready")
        assert runtime.in_order(os.listdir(host.conf_dir)) == ["00-multus.conf", "10-flannel.conflist"]
        assert chained.wraps(host.generated.read_bytes(), FLANNEL)
        assert reading.parse(host.kubeconfig.read_bytes()).token == host.token
    assert process.returncode == 0
