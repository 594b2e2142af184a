"""What the cluster's networks need of a node, and what `check` says where it is not there."""

import json
import tracemalloc

import pytest

from entrypoint.check import networks
from entrypoint.check.findings import Status
from entrypoint.cluster import client as cluster

MACVLAN = {"cniVersion": "0.3.1", "type": "macvlan", "ipam": {"type": "host-local"}}


def judged(get, *there, unseen="", socket=None):
    """What `check` says of the networks on a node with these plugins."""
    programs = networks.Programs(
        fault=lambda kind: None if kind in there else "does not exist",
        where="/host/opt/cni/bin",
        unseen=unseen,
        socket_there=lambda path: socket if path == "/run/cni/dhcp.sock" else None,
    )
    return list(networks.findings(networks.ask(get), programs, "/etc/cni/multus/net.d"))


def test_a_plugin_that_a_network_needs_and_the_node_lacks_is_named_with_the_network(api, get):
    api.add_network("lan", MACVLAN)
    api.add_network("san", {"plugins": [MACVLAN, {"type": "tuning"}]}, namespace="infra")
    plugins, _ = judged(get, "host-local")
    assert plugins.status is Status.FAIL
    assert plugins.found == (
        "not in /host/opt/cni/bin: macvlan (does not exist) for default/lan, infra/san; "
        "tuning (does not exist) for infra/san"
    )
    assert judged(get, "host-local", "macvlan", "tuning")[0].status is Status.PASS


def test_the_plugin_that_hands_out_addresses_is_needed_too(api, get):
    api.add_network("lan", MACVLAN)
    assert "host-local (does not exist) for default/lan" in judged(get, "macvlan")[0].found


def test_of_many_networks_that_need_a_plugin_some_are_named(api, get):
    for number in range(cluster.PAGE + 50):
        api.add_network(f"lan-{number:03}", MACVLAN)
    assert "default/lan-004 and 145 more" in judged(get, "host-local")[0].found


def test_plugins_may_be_where_this_container_cannot_see_them(api, get):
    api.add_network("lan", MACVLAN)
    plugins, _ = judged(get, unseen="/opt/more")
    assert plugins.status is Status.WARN
    assert "/opt/more" in plugins.advice


@pytest.mark.parametrize("config", ["{", '{"type": NaN}', "\ud800"])
def test_a_network_whose_configuration_is_not_json_is_named(api, get, config):
    api.add_network("odd", config)
    plugins, _ = judged(get)
    assert plugins.status is Status.WARN
    assert "default/odd" in plugins.found
    api.add_network("lan", MACVLAN)
    plugins, _ = judged(get)
    assert plugins.status is Status.FAIL
    assert (
        "macvlan (does not exist) for default/lan; no JSON, or too large, in spec.config of default/odd"
        in plugins.found
    )


@pytest.mark.parametrize("config", ["[]", "5", '{"plugins": 5, "ipam": []}', '{"plugins": [null, 5]}'])
def test_a_network_that_names_no_plugin_needs_none(api, get, config):
    api.add_network("of-a-file-on-the-node", config)
    assert [finding.status for finding in judged(get)] == [Status.PASS, Status.PASS]


@pytest.mark.parametrize(
    ("socket", "status", "said"),
    [
        (True, Status.PASS, "is there"),
        (False, Status.WARN, "/run/cni/dhcp.sock of the host is not there, and default/lan"),
        (None, Status.WARN, "cannot be seen from this container"),
    ],
)
def test_a_network_with_dhcp_needs_the_daemons_socket(api, get, socket, status, said):
    api.add_network("lan", {**MACVLAN, "ipam": {"type": "dhcp"}})
    _, dhcp = judged(get, "macvlan", "dhcp", socket=socket)
    assert dhcp.status is status
    assert said in dhcp.found


def test_the_socket_that_a_network_names_is_looked_for(api, get):
    ipam = {"type": "dhcp", "daemonSocketPath": "/run/other.sock"}
    api.add_network("lan", {"plugins": [{"type": "macvlan", "ipam": ipam}]})
    assert "/run/other.sock of the host cannot be seen" in judged(get, "macvlan", "dhcp", socket=True)[1].found


def test_without_the_right_to_list_networks_the_rule_is_named(api, get):
    api.denied.add(("list", "network-attachment-definitions"))
    plugins, dhcp = judged(get)
    assert (plugins.status, dhcp.status) == (Status.SKIPPED, Status.SKIPPED)
    assert "resources: [network-attachment-definitions], verbs: [get, list]" in plugins.advice


def test_the_networks_of_a_large_cluster_fit_into_a_few_mebibytes(get, api):
    """The daemon's container has some 20 MiB left beside `check` and its client."""
    for number in range(3000):
        api.add_network(f"lan-{number:04}", {**MACVLAN, "padding": "x" * 2000})
    counted = FakeAnswers(api)
    tracemalloc.start()
    networks.ask(counted)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counted.pages == 3000 // cluster.PAGE
    assert peak < 4 << 20


class FakeAnswers:
    """Answers from text, one page in memory at a time, as the client does."""

    def __init__(self, api):
        self.pages = 0
        items = [json.dumps(each) for _, each in sorted(api.networks.items())]
        self._texts = [items[at : at + cluster.PAGE] for at in range(0, len(items), cluster.PAGE)]

    def __call__(self, path, *, accept=None):
        items = self._texts[self.pages]
        self.pages += 1
        token = f"after-{self.pages}" if self.pages < len(self._texts) else ""
        text = f'{{"metadata": {{"continue": "{token}"}}, "items": [{",".join(items)}]}}'
        return cluster.Answer(200, json.loads(text))
