"""docs/by-hand.md, followed on a scratch host, with a kubectl that plays along."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import stat
import subprocess

import pytest
import yaml

from tests import runtime
from tests.manifests import DEPLOYMENTS, ROOT, documents
from tests.opshost import FLANNEL, OpsHost
from tests.test_manifests import RELEASES, fits_the_schema
from tests.waiting import until

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
        (self.work / "deployments").symlink_to(DEPLOYMENTS)
        self.kubeconfig = self.work / "multus.kubeconfig"

    def follow(self, *names, address="10.96.0.1"):
        """Run blocks of the page in one shell, which ends at the first command that fails."""
        script = "".join(BLOCKS[name] for name in names)
        for path in ("/etc/cni/", "/opt/cni/"):
            script = script.replace(path, f"../host{path}")  # no name of this machine's, which may have a space
        variables = {
            "PATH": f"{self.work / 'bin'}:{os.environ['PATH']}",
            "SCRATCH": str(self.work),
            "ADDRESS": address,
        }
        subprocess.run(["bash", "-euc", script], cwd=self.work, env=variables, check=True)

    def applied(self):
        return [document for document in yaml.safe_load_all((self.work / "applied").read_text()) if document]


@pytest.fixture
def reader(tmp_path):
    host = OpsHost(tmp_path)
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


def test_the_secret_and_the_pod_fit_the_schema_and_the_networks_that_it_asks_for_are_defined(reader):
    reader.follow("cluster: secret", "cluster: pod")
    secret, definition, pod = reader.applied()
    for document in (secret, pod):
        fits_the_schema(json.dumps(document), RELEASES[0])
    asked = json.loads(pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"])
    assert {network["name"] for network in asked} == {definition["metadata"]["name"]}


def read(kubeconfig):
    """Return the server, the token and the CA of a kubeconfig with one of each."""
    document = yaml.safe_load(kubeconfig.read_text())
    (cluster,), (user,), (context,) = document["clusters"], document["users"], document["contexts"]
    assert document["current-context"] == context["name"]
    assert (cluster["name"], user["name"]) == (context["context"]["cluster"], context["context"]["user"])
    authority = base64.b64decode(cluster["cluster"]["certificate-authority-data"]).decode()
    return cluster["cluster"]["server"], user["user"]["token"], authority


@pytest.mark.parametrize(
    ("token", "expected", "address", "host"),
    [
        ("secret", "of the Secret", "10.96.0.1", "10.96.0.1"),
        ("token", "of a day", "fd00:10:96::1", "[fd00:10:96::1]"),
    ],
)
def test_the_kubeconfig_of_the_page_is_whole_and_nobody_else_can_read_it(reader, token, expected, address, host):
    reader.follow(f"cluster: {token}", "cluster: kubeconfig", address=address)
    assert mode(reader.kubeconfig) == 0o600
    assert read(reader.kubeconfig) == (f"https://{host}:443", expected, "CA\n" * 100)


@needs_jq
def test_the_files_on_the_node_are_what_a_runtime_and_multus_can_use_until_they_are_removed(reader):
    by_hand(reader)
    host = reader.host
    assert (mode(host.binary), mode(host.kubeconfig)) == (0o755, 0o600)
    assert host.binary.read_bytes() == host.multus.read_bytes()
    written = host.conf_dir / "00-multus.conflist"
    assert mode(written) == 0o600
    assert runtime.works(host.conf_dir, host.bin_dir)
    assert json.loads(written.read_text())["plugins"][0]["delegates"] == [FLANNEL]
    assert written.read_text().replace("../host", "") == RESULT
    reader.follow("node: remove")
    left = [path.name for path in (reader.host.root / "host").rglob("*") if path.is_file()]
    assert left == ["10-flannel.conflist"]
    reader.follow("cluster: remove")
    for document in reader.applied():
        name, kind = document["metadata"]["name"], document["kind"].lower()
        assert re.search(rf"delete .*({kind}/|crd ){name}\b", (reader.work / "calls").read_text()), kind


@needs_jq
@pytest.mark.parametrize("master", sorted((ROOT / "tests/data/master-confs").iterdir()), ids=lambda path: path.name)
def test_the_configuration_of_every_usual_network_can_be_wrapped_by_hand(reader, master):
    reader.host.master(document=master.read_text())
    reader.follow("node: configuration")
    assert runtime.loaded(reader.host.conf_dir) == ["multus"]
    (plugin,) = json.loads((reader.host.conf_dir / "00-multus.conflist").read_text())["plugins"]
    wrapped = json.loads(master.read_text())
    assert plugin["delegates"] == [{"cniVersion": "0.3.1", **wrapped}]
    enabled = [each.get("capabilities", {}).items() for each in wrapped.get("plugins", [wrapped])]
    assert plugin["capabilities"] == {name: True for items in enabled for name, on in items if on}


def test_the_configuration_with_a_cluster_network_runs_multus_and_names_a_configuration_that_is_there(reader):
    reader.follow("node: cluster-network")
    host = reader.host
    assert runtime.loaded(host.conf_dir) == ["multus"]
    (plugin,) = json.loads((host.conf_dir / "00-multus.conflist").read_text())["plugins"]
    (found,) = (host.root / "host/etc/cni/multus/net.d").iterdir()
    assert json.loads(found.read_text())["name"] == plugin["clusterNetwork"]


@needs_jq
def test_the_daemonset_takes_over_what_was_put_there_by_hand(reader):
    by_hand(reader)
    host = reader.host
    with host.running() as process:
        until(host.ready.exists)
        assert runtime.works(host.conf_dir, host.bin_dir)
        assert sorted(path.name for path in host.conf_dir.glob("*.conf*")) == ["00-multus.conf", "10-flannel.conflist"]
        assert json.loads(host.generated.read_text())["delegates"] == [FLANNEL]
        assert read(host.kubeconfig)[1] == host.token
    assert process.returncode == 0
