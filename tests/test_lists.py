"""Lists in pages, the cluster's networks and the node's pods, against a server that answers as an API server does."""

import json
import tracemalloc

import pytest

from entrypoint.check import networks
from entrypoint.check.findings import Status
from entrypoint.cluster import client as cluster
from entrypoint.cluster import pods as podnetworks
from tests.fake_api import authority, pem

MACVLAN = {"cniVersion": "0.3.1", "type": "macvlan", "ipam": {"type": "host-local"}}
PODS = "/api/v1/pods"


@pytest.fixture
def get(api):
    client = cluster.Api(cluster.Access(api.url, "good-token", pem(authority())))

    def request(path, *, accept=cluster.JSON):
        return client.request("GET", path, timeout=10, accept=accept)

    yield request
    client.close()


def names(found):
    return [each["metadata"]["name"] for each in found]


# ---- pages ----


def test_a_list_of_several_pages_is_taken_to_its_end(api, get):
    expected = [f"pod-{number:03}" for number in range(2 * cluster.PAGE + 7)]
    for name in expected:
        api.add_pod(name)
    assert names(cluster.objects(get, PODS)) == expected
    assert len(api.requests) == 3
    assert all(f"limit={cluster.PAGE}" in path for _, path in api.requests)


def test_a_server_that_gives_smaller_pages_than_asked_for_is_followed_too(api, get):
    api.largest_page = 2
    for number in range(5):
        api.add_pod(f"pod-{number}")
    assert len(list(cluster.objects(get, PODS))) == 5


def test_only_what_the_selector_takes_comes(api, get):
    api.add_pod("here", node="node 1/a")
    api.add_pod("there", node="node-2")
    assert names(cluster.objects(get, PODS, selector="spec.nodeName=node 1/a")) == ["here"]


def test_a_page_whose_token_has_expired_begins_the_list_anew(api, get):
    api.largest_page, api.expired_pages = 2, 1
    for number in range(5):
        api.add_pod(f"pod-{number}")
    found = names(cluster.objects(get, PODS))
    assert set(found) == {f"pod-{number}" for number in range(5)}
    assert len(found) == 7  # the first page came twice


def test_a_list_that_expires_again_and_again_is_given_up(api, get):
    api.largest_page, api.expired_pages = 2, 99
    for number in range(5):
        api.add_pod(f"pod-{number}")
    with pytest.raises(cluster.RefusedError, match="410 The provided continue parameter is too old"):
        list(cluster.objects(get, PODS))
    assert len(api.requests) == 8


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_in_the_middle_is_told(api, get, status):
    api.largest_page = 2
    for number in range(3):
        api.add_pod(f"pod-{number}")
    taken = cluster.objects(get, PODS)
    assert next(taken)
    api.failures = [status]
    with pytest.raises(cluster.RefusedError) as refused:
        list(taken)
    assert refused.value.answer.status == status


@pytest.mark.parametrize("document", [{}, {"items": None}, {"items": "x", "metadata": None}, {"items": [1, None]}])
def test_an_answer_that_is_no_list_is_an_empty_one(document):
    assert list(cluster.objects(lambda path, accept=None: cluster.Answer(200, document), PODS)) == []


def test_a_list_from_the_servers_memory_comes_at_once_and_may_be_cut_into_pages_all_the_same(api, get):
    for number in range(cluster.PAGE + 1):
        api.add_pod(f"pod-{number:03}")
    assert len(list(cluster.objects(get, PODS, cached=True))) == cluster.PAGE + 1
    assert [path for _, path in api.requests] == [f"{PODS}?limit={cluster.PAGE}&resourceVersion=0"]
    pages = iter([{"metadata": {"continue": "next"}, "items": [{}]}, {"items": [{}]}])
    asked = []

    def paged(path, *, accept=None):
        asked.append(path)
        return cluster.Answer(200, next(pages))

    assert len(list(cluster.objects(paged, PODS, cached=True))) == 2
    assert asked[1] == f"{PODS}?limit={cluster.PAGE}&continue=next"


def test_who_wrote_which_field_is_dropped_while_a_page_is_read(api, get):
    """Else the metadata of 250 pods would take some 10 MiB more."""
    api.add_pod("a", metadata={"managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]})
    (pod,) = cluster.objects(get, PODS)
    assert pod["metadata"]["name"] == "a"
    assert "managedFields" not in pod["metadata"]


# ---- pods without their networks ----


def found(get, node="node-1"):
    return {each.name: each for each in podnetworks.find(get, node)}


@pytest.mark.parametrize(
    ("asked", "got", "lacks"),
    [
        (None, [], []),
        ("", [], []),
        ("lan", ["default/lan"], []),
        ("lan", [], ["default/lan"]),
        ("lan", None, ["default/lan"]),
        ("lan, infra/san@net7", ["infra/san"], ["default/lan"]),
        ("lan,lan", ["default/lan"], ["default/lan"]),
        ("lan", ["default/lan", "default/lan"], []),  # a plugin may make several interfaces
        ('[{"name": "lan"}, {"name": "san", "namespace": "infra"}]', ["default/lan"], ["infra/san"]),
        ('[{"name": "lan", "interface": "uplink"}]', ["default/lan"], []),
        ("[]", [], []),
        ('{"name": "lan"}', [], []),  # Multus refuses it, and a new pod with it would not start
        ("[{", [], []),
        ('[{"namespace": "infra"}, 5]', [], []),
        ('[{"name": "lan"}, 5]', [], []),
        ('[{"name": "lan"}, {"name": ["san"]}]', [], []),
        ('[{"name": "lan", "namespace": 7}]', [], []),
        ('[{"name": "lan"}, {"namespace": "infra"}]', [], []),
        ("[" * 100_000, [], []),
        (" infra / lan @ net7 ,/san", ["default/san"], ["infra/lan"]),
        ("lan,", [], []),
        ("lan,Upper", [], []),
        ("lan,a/b/c", [], []),
        ("lan,a@b@c", [], []),
        ("lan@an-interface-name-too-long", [], []),
    ],
)
def test_what_a_pod_lacks_is_what_it_asks_for_less_what_it_got(api, get, asked, got, lacks):
    api.add_pod("a", asked, got)
    assert [list(each.lacks) for each in found(get).values()] == ([lacks] if lacks else [])


def test_the_status_under_the_name_of_older_releases_counts(api, get):
    got = json.dumps([{"name": "default/lan"}])
    annotations = {podnetworks.ASKED: "lan", "k8s.v1.cni.cncf.io/networks-status": got}
    api.add_pod("a", metadata={"annotations": annotations})
    assert found(get) == {}


@pytest.mark.parametrize("status", ["{", "{}", "[3]", '[{"name": 3}]', "[" * 60_000, '{"a":' * 10_000])
def test_a_status_that_cannot_be_read_is_none(api, get, status):
    api.add_pod("a", metadata={"annotations": {podnetworks.ASKED: "lan", podnetworks.GOT: status}})
    assert list(found(get)) == ["a"]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("of-another-node", {"node": "node-2"}),
        ("on-the-hosts-network", {"spec": {"hostNetwork": True}}),
        ("going", {"metadata": {"deletionTimestamp": "2026-11-24T00:00:00Z"}}),
        ("not-set-up-yet", {"phase": "Pending", "podIP": ""}),
        ("done", {"phase": "Succeeded"}),
        ("failed", {"phase": "Failed"}),
    ],
)
def test_a_pod_that_may_still_get_its_networks_or_needs_none_is_passed_over(api, get, name, more):
    api.add_pod(name, "lan", **more)
    api.add_pod("pulling-an-image", "lan", phase="Pending")
    if name == "going":
        api.pods["default", name]["metadata"]["annotations"] = {podnetworks.ASKED: "lan"}
    assert list(found(get)) == ["pulling-an-image"]


def test_of_pods_that_have_their_networks_only_the_metadata_is_taken(api, get):
    for number in range(3):
        api.add_pod(f"well-{number}", "lan", ["default/lan"])
    api.add_pod("ill", "lan")
    accepted = []

    def watched(path, *, accept=cluster.JSON):
        accepted.append((path.partition("?")[0], accept))
        return get(path, accept=accept)

    assert list(found(watched)) == ["ill"]
    assert accepted == [(PODS, podnetworks.METADATA), ("/api/v1/namespaces/default/pods/ill", cluster.JSON)]


def told(*addresses, name="cbr0", **more):
    """What Multus writes of a pod with one further network, when its default network gave it these addresses."""
    default = {"name": name, "interface": "eth0", "ips": list(addresses), "default": True, **more}
    return json.dumps([default, {"name": "default/lan", "interface": "net1", "ips": ["10.222.0.7"]}])


@pytest.mark.parametrize("ips", [7, "10.1.0.5", {"a": 1}, None, [None, 7, {}]])
def test_what_somebody_wrote_in_the_place_of_addresses_says_nothing(api, get, ips):
    status = json.dumps([{"name": "cbr0", "default": True, "ips": ips}, {"name": "default/lan"}])
    annotations = {podnetworks.ASKED: "lan", podnetworks.GOT: status}
    api.add_pod("a", metadata={"annotations": annotations})
    assert found(get) == {}


@pytest.mark.parametrize(
    ("status", "addresses", "lacks"),
    [
        (told("10.244.0.5"), {"podIP": "10.244.0.5"}, False),
        (told("10.244.0.4"), {"podIP": "10.244.0.5"}, True),
        (told("10.244.0.4"), {"podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00::5"}]}, True),
        (told("fd00::5"), {"podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00::5"}]}, False),
        (told("fd00:0::5"), {"podIP": "fd00::5"}, False),
        (told(), {"podIP": "10.244.0.5"}, False),
        (told("10.244.0.4"), {"podIP": "", "phase": "Pending"}, False),
        (told("10.244.0.4", default=False), {"podIP": "10.244.0.5"}, False),
        (told("x"), {"podIP": "10.244.0.5"}, False),
    ],
    ids=["same", "another", "others", "second family", "spelling", "not told", "none yet", "no default", "no address"],
)
def test_what_is_told_of_another_address_is_of_an_earlier_sandbox(api, get, status, addresses, lacks):
    """After a reboot a pod keeps its annotation, and may have been set up anew before Multus was there."""
    annotations = {podnetworks.ASKED: "lan", podnetworks.GOT: status}
    api.add_pod("a", metadata={"annotations": annotations}, **addresses)
    assert [(each.lacks, each.outdated) for each in found(get).values()] == [(("default/lan",), True)] * lacks


def test_a_pod_that_has_gone_since_the_list_is_no_finding(api, get):
    api.add_pod("a", "lan")
    api.add_pod("b", "lan")

    def meanwhile(path, *, accept=cluster.JSON):
        answer = get(path, accept=accept)
        api.pods.pop(("default", "a"), None)
        return answer

    assert list(found(meanwhile)) == ["b"]


@pytest.mark.parametrize("owner", ["ReplicaSet", "Node", None])
def test_it_is_told_what_made_a_pod(api, get, owner):
    mirror = {"kubernetes.io/config.mirror": "x"} if owner == "Node" else {}
    api.add_pod("a", owner=owner, metadata={"annotations": {podnetworks.ASKED: "lan", **mirror}})
    (pod,) = found(get).values()
    assert (pod.controller, pod.static) == {
        "ReplicaSet": ("ReplicaSet.apps", False),
        "Node": ("Node", True),
        None: (None, False),
    }[owner]


# ---- networks and their plugins ----


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
