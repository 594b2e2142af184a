"""Pods without their networks: what they ask for, what they have, and what somebody wrote in its place."""

import json

import pytest

from entrypoint.cluster import client as cluster
from entrypoint.cluster import pods

PODS = "/api/v1/pods"


def found(get, node="node-1"):
    return {each.name: each for each in pods.find(get, node)}


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
        (",".join(["lan"] * 40_000), [], []),  # no pod can be given that, nor is it quoted
        (json.dumps([{"name": f"n{number}"} for number in range(5_000)]), [], []),
        (json.dumps([{"name": "lan\n\x1b[31m2026 error: all is lost"}]), [], []),
        (json.dumps([{"name": "lan", "namespace": "\x1b[2J"}]), [], []),
        (json.dumps([{"name": "x" * 254}]), [], []),
    ],
)
def test_what_a_pod_lacks_is_what_it_asks_for_less_what_it_got(api, get, asked, got, lacks):
    api.add_pod("a", asked, got)
    assert [list(each.lacks) for each in found(get).values()] == ([lacks] if lacks else [])


@pytest.mark.parametrize(
    ("name", "status", "lacks"),
    [
        ("networks-status", json.dumps([{"name": "default/lan"}]), False),  # its name in older releases
        ("network-status", json.dumps([{"name": "default/lan", "x": "y" * 70_000}]), False),  # nothing is known of it
        *(("network-status", odd, True) for odd in ("{", "{}", "[3]", '[{"name": 3}]', "[" * 60_000, '{"a":' * 10_000)),
    ],
)
def test_a_status_that_cannot_be_read_is_none(api, get, name, status, lacks):
    api.add_pod("a", metadata={"annotations": {pods.ASKED: "lan", f"k8s.v1.cni.cncf.io/{name}": status}})
    assert list(found(get)) == ["a"] * lacks


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
        api.pods["default", name]["metadata"]["annotations"] = {pods.ASKED: "lan"}
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
    assert accepted == [(PODS, pods.METADATA), ("/api/v1/namespaces/default/pods/ill", cluster.JSON)]


def told(*addresses, **more):
    """What Multus writes of a pod with one further network, when its default network gave it these addresses."""
    default = {"name": "cbr0", "interface": "eth0", "ips": list(addresses), "default": True, **more}
    return json.dumps([default, {"name": "default/lan", "interface": "net1", "ips": ["10.222.0.7"]}])


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
        *((told(ips=odd), {"podIP": "10.244.0.5"}, False) for odd in (7, "10.1.0.5", {"a": 1}, None, [None, 7, {}])),
    ],
)
def test_what_is_told_of_another_address_is_of_an_earlier_sandbox(api, get, status, addresses, lacks):
    """After a reboot a pod keeps its annotation, and may have been set up anew before Multus was there."""
    api.add_pod("a", metadata={"annotations": {pods.ASKED: "lan", pods.GOT: status}}, **addresses)
    assert [(each.lacks, each.outdated) for each in found(get).values()] == [(("default/lan",), True)] * lacks


def test_a_pod_that_has_gone_since_the_list_is_no_finding(api, get):
    api.add_pod("a", "lan")
    api.add_pod("b", "lan")

    def meanwhile(path, *, accept=cluster.JSON):
        answer = get(path, accept=accept)
        api.pods.pop(("default", "a"), None)
        return answer

    assert list(found(meanwhile)) == ["b"]


@pytest.mark.parametrize(
    ("owner", "mirror", "told"),
    [
        ("ReplicaSet", {}, "ReplicaSet.apps"),
        ("Node", {}, "Node"),
        (None, {pods._MIRROR: "x"}, "Node"),
        (None, {}, None),
    ],
)
def test_it_is_told_what_made_a_pod(api, get, owner, mirror, told):
    api.add_pod("a", owner=owner, metadata={"annotations": {pods.ASKED: "lan", **mirror}})
    assert found(get)["a"].controller == told


@pytest.mark.parametrize("part", ["metadata", "spec", "status"])
@pytest.mark.parametrize("value", [None, 5, "x", [], [None], True])
def test_a_part_of_a_pod_that_is_of_another_kind_is_no_traceback(part, value):
    document = {"metadata": {"name": "a", "annotations": {pods.ASKED: "lan"}}, "status": {"podIP": "10.0.0.1"}}
    pods.examine({**document, part: value})


@pytest.mark.parametrize("name", ["\ud800", "../../secrets", "a?b", "a b"])
def test_whatever_a_pod_is_called_is_one_segment_of_its_path(name):
    assert pods.path_of("default", name).count("/") == 6
    assert "?" not in pods.path_of("default", name)
