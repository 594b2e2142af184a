"""The cluster's half of `check`: what Multus's configuration and the cluster's networks need, and who is asked."""

import json
import tracemalloc
from types import SimpleNamespace

import pytest

from entrypoint.check import cluster as clustercheck
from entrypoint.check import networks
from entrypoint.check.findings import Status
from entrypoint.check.host import Host
from entrypoint.cluster import client
from entrypoint.errands.errands import ACCOUNT
from entrypoint.settings import Taint
from tests.fake_api import authority, pem
from tests.flags import settings_for

MACVLAN = {"cniVersion": "0.3.1", "type": "macvlan", "ipam": {"type": "host-local"}}
PLUGINS = ("macvlan", "host-local")
DHCP = {**MACVLAN, "ipam": {"type": "dhcp"}}
DIRECTORY = "/etc/cni/multus/net.d"
PASS, WARN, FAIL, SKIPPED = Status.PASS, Status.WARN, Status.FAIL, Status.SKIPPED


@pytest.fixture
def check(api, tmp_path):
    """Return the findings by identifier, on a node with these plugins, names of configurations, and paths."""

    def checked(*plugins, unseen="", named=(), paths=(), multus=None, timeout=60, **settings):
        host = SimpleNamespace(
            fault=lambda kind: None if kind in plugins else "does not exist",
            where="/host/opt/cni/bin",
            unseen=unseen,
            there=lambda path: None if paths is None else path in paths,
            named_in=lambda directory: None if named is None or directory != DIRECTORY else frozenset(named),
        )
        usual = {"startup_taint": None, "node_name": "node-1", "token_file": tmp_path / "token"}
        wanted = SimpleNamespace(**usual | settings)
        access = client.Access(api.url, "good-token", pem(authority()))
        return {each.identifier: each for each in clustercheck.findings(wanted, access, host, multus or {}, timeout)}

    return checked


# ---- the plugins that networks need ----


def test_a_plugin_that_a_network_needs_and_the_node_lacks_is_named_with_the_network(api, check):
    """The one that hands out addresses is needed, too."""
    api.add_network("lan", MACVLAN)
    api.add_network("san", {"plugins": [MACVLAN, {"type": "tuning"}]}, namespace="infra")
    found = check("host-local")["networks.plugins"]
    assert found.status is FAIL
    assert found.found == (
        "not in /host/opt/cni/bin: macvlan (does not exist) for default/lan, infra/san; "
        "tuning (does not exist) for infra/san"
    )
    assert "--plugin-bin-dir" in found.advice
    assert "host-local (does not exist) for default/lan" in check("macvlan", "tuning")["networks.plugins"].found
    assert check(*PLUGINS, "tuning")["networks.plugins"].status is PASS
    found = check(unseen="/opt/more")["networks.plugins"]
    assert found.status is WARN
    assert "/opt/more" in found.advice


def test_of_many_networks_that_need_a_plugin_some_are_named(api, check):
    for number in range(client.PAGE + 50):
        api.add_network(f"lan-{number:03}", MACVLAN)
    assert "default/lan-004 and 145 more" in check("host-local")["networks.plugins"].found


@pytest.mark.parametrize("config", ["{", '{"type": NaN}', "\ud800"])
def test_a_network_whose_configuration_is_not_json_is_named(api, check, config):
    api.add_network("odd", config)
    found = check()["networks.plugins"]
    assert found.status is WARN
    assert "default/odd" in found.found
    api.add_network("lan", MACVLAN)
    found = check("host-local")["networks.plugins"]
    assert found.status is FAIL
    said = "macvlan (does not exist) for default/lan; no JSON, or too large, in spec.config of default/odd"
    assert said in found.found


@pytest.mark.parametrize("config", ["[]", "5", '{"plugins": 5, "ipam": []}', '{"plugins": [null, 5]}'])
def test_a_network_that_names_no_plugin_needs_none(api, check, config):
    api.add_network("of-nothing", config)
    assert {each.status for each in check().values()} == {PASS}


SOCKET = "/run/cni/dhcp.sock"
OTHER = {"plugins": [{"type": "macvlan", "ipam": {"type": "dhcp", "daemonSocketPath": "/run/other.sock"}}]}


@pytest.mark.parametrize(
    ("config", "paths", "status", "said"),
    [
        (DHCP, [SOCKET], PASS, "is there"),
        (DHCP, [], WARN, f"{SOCKET} of the host is not there, and default/lan"),
        (DHCP, None, WARN, "cannot be seen from this container"),
        (OTHER, [SOCKET], WARN, "/run/other.sock of the host is not there"),
    ],
)
def test_a_network_with_dhcp_needs_the_daemons_socket(api, check, config, paths, status, said):
    api.add_network("lan", config)
    found = check("macvlan", "dhcp", paths=paths)["networks.dhcp"]
    assert found.status is status
    assert said in found.found


def test_the_networks_of_a_large_cluster_fit_into_a_few_mebibytes(api):
    """The daemon's container has some 20 MiB left beside `check` and its client."""
    for number in range(3000):
        api.add_network(f"lan-{number:04}", {**MACVLAN, "padding": "x" * 2000})
    items = [json.dumps(each) for _, each in sorted(api.networks.items())]
    pages = [",".join(items[at : at + client.PAGE]) for at in range(0, len(items), client.PAGE)]
    asked = []

    def get(path, *, accept=None):
        """Answer from text, one page in memory at a time, as the client does."""
        asked.append(path)
        token = f"after-{len(asked)}" if len(asked) < len(pages) else ""
        page = f'{{"metadata": {{"continue": "{token}"}}, "items": [{pages[len(asked) - 1]}]}}'
        return client.Answer(200, json.loads(page))

    tracemalloc.start()
    networks.ask(get)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(asked) == len(pages) == 30
    assert peak < 4 << 20


def test_very_many_networks_are_looked_at_as_far_as_there_is_room(api, check, monkeypatch):
    monkeypatch.setattr(networks, "_KEPT", 30)
    for number in range(300):
        api.add_network(f"lan-{number:03}", {"plugins": [{"type": f"t{number % 50}-{each}"} for each in range(99)]})
    found = check()["networks.plugins"]
    assert "only the first 30 networks were looked at" in found.found
    assert len(found.found) < 3000


# ---- the network that the configuration names ----


PATH = "/etc/cni/net.d/10-a.conf"
INFRA = {"multusNamespace": "infra", "confDir": "/opt/net.d"}


@pytest.mark.parametrize(
    ("multus", "node", "status", "said"),
    [
        ({"clusterNetwork": "lan"}, {}, FAIL, f"in kube-system, and no CNI configuration in {DIRECTORY}"),
        ({"clusterNetwork": "lan"}, {"named": None}, WARN, "no NetworkAttachmentDefinition in kube-system"),
        ({"clusterNetwork": "lan"}, {"named": ["lan"]}, PASS, f"is in {DIRECTORY}"),
        ({"clusterNetwork": "defined"}, {}, PASS, "is a NetworkAttachmentDefinition in kube-system"),
        ({"clusterNetwork": PATH}, {}, FAIL, "is not on this node"),
        ({"clusterNetwork": PATH}, {"paths": [PATH]}, PASS, "is there"),
        ({"clusterNetwork": PATH}, {"paths": None}, SKIPPED, "cannot be seen"),
        ({"clusterNetwork": "../../x?y"}, {}, FAIL, "is not on this node"),
        ({"clusterNetwork": "of-infra", **INFRA}, {}, PASS, "in infra"),
        ({"clusterNetwork": "lan", **INFRA}, {}, WARN, "in infra => is it the name of a CNI configuration in /opt"),
        *((multus, {}, None, "") for multus in ({}, {"clusterNetwork": ""}, {"clusterNetwork": 5})),
    ],
)  # fmt: skip
def test_a_cluster_network_that_is_nowhere_is_found(api, check, multus, node, status, said):
    api.add_network("defined", MACVLAN, namespace="kube-system")
    api.add_network("of-infra", MACVLAN, namespace="infra")
    found = check(*PLUGINS, multus=multus, **node).get("networks.default")
    assert (found and found.status) is status
    assert found is None or said in f"{found.found} => {found.advice}"
    if status is FAIL:
        assert "no pod can start on this node" in found.advice


# ---- networks without a configuration ----


@pytest.mark.parametrize(
    ("named", "status", "said"),
    [
        (["of-a-file"], PASS, "default/of-a-file"),
        ([], FAIL, f"of the network's name in {DIRECTORY} of this node: default/of-a-file"),
        (None, WARN, "networks without spec.config: default/of-a-file"),
    ],
)
def test_a_network_without_a_configuration_is_named_with_the_file_that_it_needs(api, check, named, status, said):
    api.add_network("of-a-file")
    api.add_network("lan", MACVLAN)
    found = check(*PLUGINS, named=named)["networks.files"]
    assert found.status is status
    assert said in found.found
    assert "lan" not in found.found
    assert DIRECTORY in found.found + found.advice


def test_the_files_of_networks_are_looked_for_where_the_hosts_directory_is_mounted(tmp_path):
    host = Host(settings_for(tmp_path, f"--cni-conf-dir={tmp_path}/host/etc/cni/net.d"))
    assert host.named_in(DIRECTORY) is None
    directory = tmp_path / f"host/{DIRECTORY}"
    directory.mkdir(parents=True)
    (directory / "1.conf").write_text('{"name": "good", "type": "macvlan"}')
    (directory / "2.conflist").write_text('{"name": "listed", "plugins": []}')
    (directory / "3.conf").write_text("{")
    (directory / "4.txt").write_text('{"name": "bad"}')
    assert host.named_in(DIRECTORY) == {"good", "listed"}
    assert host.there(f"{DIRECTORY}/4.txt") is True
    assert host.there(f"{DIRECTORY}/5.txt") is False
    assert host.there("/run/cni/dhcp.sock") is None


# ---- what may not be asked, and what is answered oddly ----


def test_what_is_optional_says_so_in_one_short_line(api, check):
    api.denied |= {("list", "pods"), ("list", "network-attachment-definitions")}
    found = [each for each in check().values() if each.status is SKIPPED]
    assert [each.identifier for each in found] == ["networks.plugins", "networks.dhcp", "pods.networks"]
    for each in found:
        assert each.found.startswith("optional: ")
        assert len(each.found) < 50
        assert "verbs: [get, list]" in each.advice or each.advice == ""


def test_a_cluster_network_that_may_not_be_looked_for_is_a_warning(api, check):
    api.denied.add(("get", "network-attachment-definitions"))
    found = check(multus={"clusterNetwork": "lan"})["networks.default"]
    assert (found.status, found.advice) == (WARN, "see cluster.rights")


def test_one_network_that_is_too_large_is_its_own_finding_and_pods_are_looked_at(api, check):
    api.add_network("huge", "x" * (5 << 20))
    api.add_pod("a", "lan")
    found = check()
    assert found["networks.plugins"].status is WARN
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
    assert all(each.status in {WARN, FAIL} for each in found)


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
    assert {each.status for each in found.values()} == {PASS}
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
    assert found["cluster.token"].status is PASS
    assert found["pods.networks"].status is WARN
    assert "401" in found["pods.networks"].found
    assert ACCOUNT in found["pods.networks"].advice
