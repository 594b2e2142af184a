"""The cluster's half of `check`: what Multus's configuration and the cluster's networks need, and who is asked."""

import json
from types import SimpleNamespace

import pytest

from entrypoint.check import cluster as clustercheck
from entrypoint.check import networks
from entrypoint.check.findings import Status
from entrypoint.cluster.client import Access
from entrypoint.errands.errands import ACCOUNT
from entrypoint.settings import Taint
from tests.fake_api import authority, pem
from tests.opshost import ScratchHost

MACVLAN = {"cniVersion": "0.3.1", "type": "macvlan"}
DIRECTORY = "/etc/cni/multus/net.d"


@pytest.fixture
def check(api, tmp_path):
    """Return the findings by identifier, on a node with these plugins, files and paths."""

    def checked(*plugins, named=None, paths=None, timeout=60, **settings):
        programs = networks.Programs(
            fault=lambda kind: None if kind in plugins else "does not exist",
            where="/host/opt/cni/bin",
            unseen="",
            socket_there=lambda path: None if paths is None else path in paths,
            named_in=lambda directory: None if named is None or directory != DIRECTORY else frozenset(named),
        )
        usual = {"startup_taint": None, "node_name": "node-1", "token_file": tmp_path / "token"}
        wanted = SimpleNamespace(**usual | {"output_files": (tmp_path / "conf",)} | settings)
        access = Access(api.url, "good-token", pem(authority()))
        return {each.identifier: each for each in clustercheck.findings(wanted, access, programs, timeout)}

    return checked


@pytest.fixture
def configuration(tmp_path):
    return lambda **multus: (tmp_path / "conf").write_text(json.dumps({"type": "multus", **multus}))


# ---- the network that the configuration names ----


@pytest.mark.parametrize(
    ("name", "there", "status", "said"),
    [
        ("lan", {}, Status.FAIL, f"in kube-system, and no CNI configuration in {DIRECTORY}"),
        ("lan", {"named": None}, Status.WARN, "no NetworkAttachmentDefinition in kube-system"),
        ("lan", {"named": ["lan"]}, Status.PASS, f"is in {DIRECTORY}"),
        ("defined", {}, Status.PASS, "is a NetworkAttachmentDefinition in kube-system"),
        ("/etc/cni/net.d/10-a.conf", {}, Status.FAIL, "is not on this node"),
        ("/etc/cni/net.d/10-a.conf", {"paths": ["/etc/cni/net.d/10-a.conf"]}, Status.PASS, "is there"),
        ("/etc/cni/net.d/10-a.conf", {"paths": None}, Status.SKIPPED, "cannot be seen"),
        ("../../x?y", {}, Status.FAIL, "is not on this node"),
    ],
)  # fmt: skip
def test_a_cluster_network_that_is_nowhere_is_found(api, check, configuration, name, there, status, said):
    api.add_network("defined", MACVLAN, namespace="kube-system")
    configuration(clusterNetwork=name)
    found = check("macvlan", **{"named": [], "paths": [], **there})["networks.default"]
    assert found.status is status
    assert said in found.found
    if status is Status.FAIL:
        assert "no pod can start on this node" in found.advice


def test_namespace_and_directory_of_the_cluster_network_are_those_of_the_configuration(api, check, configuration):
    api.add_network("lan", MACVLAN, namespace="infra")
    configuration(plugins=[{"clusterNetwork": "lan", "multusNamespace": "infra", "confDir": "/opt/net.d"}])
    assert check("macvlan")["networks.default"].status is Status.PASS
    configuration(plugins=[{"clusterNetwork": "san", "multusNamespace": "infra", "confDir": "/opt/net.d"}])
    found = check("macvlan")["networks.default"]
    assert "in infra" in found.found
    assert "/opt/net.d" in found.advice


@pytest.mark.parametrize("multus", [{}, {"clusterNetwork": ""}, {"clusterNetwork": 5}, {"delegates": [MACVLAN]}])
def test_a_configuration_that_holds_its_network_has_no_such_finding(check, configuration, multus):
    configuration(**multus)
    assert "networks.default" not in check()


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"plugins": [5]}'])
def test_a_configuration_that_cannot_be_read_has_no_such_finding(check, tmp_path, content):
    (tmp_path / "conf").write_text(content)
    assert "networks.default" not in check()


def test_a_cluster_network_that_may_not_be_looked_for_is_a_warning(api, check, configuration):
    api.denied.add(("get", "network-attachment-definitions"))
    configuration(clusterNetwork="lan")
    assert check(named=[])["networks.default"].status is Status.WARN


# ---- networks without a configuration ----


@pytest.mark.parametrize(
    ("named", "status", "said"),
    [
        (["of-a-file"], Status.PASS, "default/of-a-file"),
        ([], Status.FAIL, f"of the network's name in {DIRECTORY} of this node: default/of-a-file"),
        (None, Status.WARN, "networks without spec.config: default/of-a-file"),
    ],
)
def test_a_network_without_a_configuration_is_named_with_the_file_that_it_needs(api, check, named, status, said):
    api.add_network("of-a-file")
    api.add_network("lan", MACVLAN)
    found = check("macvlan", named=named)["networks.files"]
    assert found.status is status
    assert said in found.found
    assert "lan" not in found.found
    if status is not Status.PASS:
        assert DIRECTORY in found.found + found.advice


def test_a_missing_plugin_says_how_it_can_be_installed(api, check):
    api.add_network("lan", MACVLAN)
    assert "--plugin-bin-dir" in check()["networks.plugins"].advice


def test_very_many_networks_are_looked_at_as_far_as_there_is_room(api, check, monkeypatch):
    monkeypatch.setattr(networks, "_KEPT", 30)
    for number in range(300):
        api.add_network(f"lan-{number:03}", {"plugins": [{"type": f"t{number % 50}-{each}"} for each in range(99)]})
    found = check()["networks.plugins"]
    assert "only the first 30 networks were looked at" in found.found
    assert len(found.found) < 3000


# ---- what may not be asked, and what is answered oddly ----


def test_what_is_optional_says_so_in_one_short_line(api, check):
    api.denied |= {("list", "pods"), ("list", "network-attachment-definitions")}
    found = [each for each in check().values() if each.status is Status.SKIPPED]
    assert [each.identifier for each in found] == ["networks.plugins", "networks.dhcp", "pods.networks"]
    for each in found:
        assert each.found.startswith("optional: ")
        assert len(each.found) < 50
        assert "verbs: [get, list]" in each.advice or each.advice == ""


def test_one_network_that_is_too_large_is_its_own_finding_and_pods_are_looked_at(api, check):
    api.add_network("huge", "x" * (5 << 20))
    api.add_pod("a", "lan")
    found = check()
    assert found["networks.plugins"].status is Status.WARN
    assert "for which there is no room" in found["networks.plugins"].found
    assert "default/a (default/lan)" in found["pods.networks"].found
    assert "--repair-pods" in found["pods.networks"].advice


def test_of_many_pods_some_are_named(api, check):
    for number in range(23):
        api.add_pod(f"pod-{number:02}", "lan")
    assert check()["pods.networks"].found.endswith("default/pod-19 (default/lan) and 3 more")


@pytest.mark.parametrize("at", range(9))
def test_an_answer_that_is_nested_too_deeply_is_a_finding_whatever_was_asked(api, check, monkeypatch, at):
    answer, asked = api.answer, []

    def deep(*request):
        asked.append(request)
        return (200, b'{"a":' * 200_000) if len(asked) == at + 1 else answer(*request)

    monkeypatch.setattr(api, "answer", deep)
    found = [each for each in check().values() if "nested too deeply" in each.found]
    assert len(found) == 1
    assert all(each.status in {Status.WARN, Status.FAIL} for each in found)


# ---- the errands' own account ----


def test_what_is_the_errands_business_is_asked_with_their_token(api, check, tmp_path, monkeypatch):
    (tmp_path / "errands").mkdir()
    (tmp_path / "errands/token").write_text("errands-token\n")
    monkeypatch.setenv(ACCOUNT, str(tmp_path / "errands"))
    api.tokens.add("errands-token")
    api.add_node("node-1")
    asked, answer = {}, api.answer

    def noted(method, path, headers, body):
        what = body["spec"]["resourceAttributes"] if body else path.partition("?")[0]
        asked[str(what)] = headers["Authorization"].removeprefix("Bearer ")
        return answer(method, path, headers, body)

    monkeypatch.setattr(api, "answer", noted)
    found = check(startup_taint=Taint("example.com/x", None))
    assert {each.status for each in found.values()} == {Status.PASS}
    of_errands = {what for what, token in asked.items() if token == "errands-token"}
    assert of_errands == {
        "{'verb': 'get', 'resource': 'nodes'}",
        "{'verb': 'patch', 'resource': 'nodes'}",
        "/api/v1/nodes/node-1",
        "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions",
        "/api/v1/pods",
    }


def test_an_errands_token_that_is_not_there_is_no_fault_of_the_kubeconfigs(check, tmp_path, monkeypatch):
    monkeypatch.setenv(ACCOUNT, str(tmp_path / "nothing"))
    found = check()
    assert found["cluster.token"].status is Status.PASS
    assert found["pods.networks"].status is Status.WARN
    assert "401" in found["pods.networks"].found


@pytest.mark.process
def test_the_files_of_networks_are_looked_for_where_the_hosts_directory_is_mounted(api, tmp_path):
    host = ScratchHost(tmp_path)
    host.server = api.url
    api.tokens.add(host.token)
    host.master()
    host.configure()
    for name in ("good", "bad", "listed"):
        api.add_network(name)
    assert host.outcome()["networks.files"]["status"] == "warn"
    directory = host.root / "host/etc/cni/multus/net.d"
    directory.mkdir(parents=True)
    (directory / "1.conf").write_text('{"name": "good", "type": "macvlan"}')
    (directory / "2.conflist").write_text('{"name": "listed", "plugins": []}')
    (directory / "3.conf").write_text("{")
    (directory / "4.txt").write_text('{"name": "bad"}')
    found = host.outcome()["networks.files"]
    assert found["status"] == "fail"
    assert found["found"].endswith("of this node: default/bad")
    (directory / "3.conf").write_text('{"name": "bad"}')
    assert host.outcome()["networks.files"]["status"] == "pass"
