"""`--repair-pods` where tenants, webhooks, quotas and broken networks are in the way."""

import json

import pytest

from entrypoint.errands import pods
from tests.errand import Log, no_pause

NETWORK = {"cniVersion": "0.3.1", "type": "macvlan"}


@pytest.fixture
def order(api, account, tmp_path):
    (tmp_path / "macvlan").write_text("#!/bin/sh\n")
    (tmp_path / "macvlan").chmod(0o755)
    api.add_network("lan", NETWORK)
    return lambda mode="delete": pods.Order(**account, mode=mode, bin_dirs=[str(tmp_path)])


@pytest.fixture
def replica_set(api):
    def add(*names, **more):
        for name in names:
            api.add_pod(name, "lan", owner_uid="set", metadata={"labels": {"pod-template-hash": "h"}}, **more)
            api.pods[more.get("namespace", "default"), name]["metadata"]["annotations"] = {
                "k8s.v1.cni.cncf.io/networks": "lan"
            }

    return add


def evicted(api):
    return [name for _, name in api.evicted]


# ---- only what can come back ----


@pytest.mark.parametrize(
    ("network", "why"),
    [
        ({}, "does not exist, and a new pod would not start at all"),
        ({"config": {"type": "ipvlan"}}, "its plugins are not on this node: ipvlan"),
        ({"config": {"type": "macvlan", "ipam": {"type": "whereabouts"}}}, "not on this node: whereabouts"),
        ({"config": {"type": "../macvlan"}}, "not on this node: ../macvlan"),
        ({"config": None}, "has no configuration of its own but a file on each node"),
        ({"config": "{"}, "not JSON"),
        ({"config": "[" * 100_000}, "nested too deeply"),
        ({"config": json.dumps({"type": "macvlan", "x": "y" * (300 << 10)})}, "262144 are the most that is read"),
        ({"config": json.dumps({"type": "macvlan", "x": "y" * (5 << 20)})}, "too large to be looked at"),
    ],
)
def test_a_pod_whose_networks_cannot_be_had_is_left_as_it_is(api, order, replica_set, network, why):
    if network:
        api.add_network("lan", **network)
    else:
        del api.networks["default", "lan"]
    replica_set("a", "b", "c")
    log = Log()
    assert pods.run(order(), log, no_pause)
    assert api.evicted == []
    assert log.text().count(why) == 3


def test_of_several_networks_each_must_be_there(api, order):
    api.add_pod("a", "lan, infra/san")
    log = Log()
    assert pods.run(order(), log, no_pause)
    assert api.evicted == []
    assert "the network infra/san does not exist" in log.text()


def test_a_plugin_that_is_a_link_out_of_the_directory_counts_as_there(api, order, tmp_path):
    (tmp_path / "macvlan").unlink()
    (tmp_path / "macvlan").symlink_to("/var/lib/rancher/k3s/data/0123/bin/cni")
    api.add_pod("a", "lan")
    assert pods.run(order(), Log(), no_pause)
    assert evicted(api) == ["a"]


# ---- one after the other ----


def test_the_next_pod_waits_until_the_one_before_is_gone_and_its_successor_ready(api, order, replica_set):
    replica_set("a", "b")
    seen = []

    def going(namespace, name):
        api.pods[namespace, name]["metadata"]["deletionTimestamp"] = "2026-11-24T00:00:00Z"

    def pause(_seconds):
        seen.append(evicted(api))
        last = api.evicted[-1] if api.evicted else None
        if last in api.pods and len(seen) % 3 == 0:
            api.replace(*last, ready=False)
        elif last and len(seen) % 3 == 0:
            api.pods[last[0], f"{last[1]}-again"]["status"]["conditions"][0]["status"] = "True"

    api.after_eviction = going
    assert pods.run(order(), Log(), pause)
    assert evicted(api) == ["a", "b"]
    waiting_for_a = seen.count(["a"])
    assert waiting_for_a >= 4  # until it was gone, and then until its successor was Ready


def test_a_pod_waits_while_another_of_its_controller_is_being_made_on_another_node(api, order, replica_set):
    replica_set("a")
    api.add_pod("new", "lan", None, owner_uid="set", node="node-2", ready=False, podIP="",
                metadata={"labels": {"pod-template-hash": "h"}})  # fmt: skip
    log, pauses = Log(), []

    def pause(seconds):
        pauses.append(list(api.evicted))
        if len(pauses) == 4:
            api.pods["default", "new"]["status"]["conditions"][0]["status"] = "True"

    assert pods.run(order(), log, pause)
    assert not any(pauses[:4])
    assert evicted(api) == ["a"]
    assert (
        "not evicted yet: default/a (default/lan): other pods of its ReplicaSet.apps are not Ready: new" in log.text()
    )


def test_pods_that_are_unwell_for_want_of_the_same_network_do_not_wait_for_each_other(api, order, replica_set):
    replica_set("a", "b", ready=False)
    assert pods.run(order(), Log(), no_pause)
    assert evicted(api) == ["a", "b"]


def test_what_has_come_to_its_end_is_nobody_to_wait_for(api, order, replica_set):
    replica_set("a")
    replica_set("evicted-by-kubelet", phase="Failed", ready=False)
    assert pods.run(order(), Log(), no_pause)
    assert evicted(api) == ["a"]


def test_a_pod_of_a_daemon_set_does_not_wait_for_a_node_that_is_down(api, order):
    api.add_pod("here", "lan", owner="DaemonSet", owner_uid="set")
    api.add_pod("there", "lan", ["default/lan"], owner="DaemonSet", owner_uid="set", node="node-9", ready=False)
    assert pods.run(order(), Log(), no_pause)
    assert evicted(api) == ["here"]


def test_no_more_than_so_many_pods_are_evicted_in_a_run(api, order, monkeypatch):
    monkeypatch.setattr(pods, "MOST", 2)
    for name in "abcd":
        api.add_pod(name, "lan")
    log = Log()
    assert pods.run(order(), log, no_pause)
    assert evicted(api) == ["a", "b"]
    assert log.text().count("a run evicts no more than 2; start this pod again to go on") == 2


# ---- each its own trouble ----


@pytest.mark.parametrize(
    ("becomes", "said"),
    [
        (lambda api: lambda *pod: api.replace(*pod, ready=False), "a-again came in its place and is not Ready"),
        (lambda api: lambda *pod: api.pods.pop(pod), "nothing came in its place"),
        (lambda _: lambda *_: None, "it is still there"),
    ],
    ids=["not ready", "no successor", "a finalizer"],
)
def test_a_pod_that_is_not_replaced_ends_the_evictions_in_its_namespace_and_in_no_other(api, order, becomes, said):
    api.add_network("lan", NETWORK, namespace="other")
    for name in "abc":
        api.add_pod(name, "lan")
    api.add_pod("z", "lan", namespace="other")
    broken = becomes(api)
    api.after_eviction = lambda namespace, name: (broken if namespace == "default" else api.replace)(namespace, name)
    log = Log()
    assert pods.run(order(), log, no_pause)
    assert api.evicted == [("default", "a"), ("other", "z")]
    assert f"pod default/a (default/lan) was evicted, and {said}" in log.text()
    assert log.text().count("in its namespace an evicted pod was not replaced by one that is Ready") == 2


def test_when_no_pod_comes_back_in_three_namespaces_nothing_more_is_evicted(api, order):
    for namespace in "abcd":
        api.add_network("lan", NETWORK, namespace=namespace)
        api.add_pod(f"of-{namespace}", "lan", namespace=namespace)
    api.after_eviction = lambda *pod: api.replace(*pod, ready=False)
    log = Log()
    assert pods.run(order(), log, no_pause)
    assert [namespace for namespace, _ in api.evicted] == ["a", "b", "c"]
    assert "d/of-d (d/lan) lacks networks and is left as it is: in 3 namespaces (a, b, c)" in log.text()


def test_nothing_more_is_evicted_once_nobody_waits_for_it(api, order):
    for name in "ab":
        api.add_pod(name, "lan")
    api.after_eviction = lambda *_: None
    assert not pods.run(order(), Log(), lambda _: True)
    assert evicted(api) == ["a"]


def test_a_webhook_that_refuses_one_eviction_keeps_no_other_pod_from_its_networks(api, order):
    for name in "abc":
        api.add_pod(name, "lan")
    api.refused_by_webhook["default", "b"] = 'admission webhook "x" denied the request: \x1b[31mnot\nthis one'
    log = Log()
    assert pods.run(order(), log, no_pause)
    assert evicted(api) == ["a", "c"]
    assert "pod default/b (default/lan) lacks networks and is left as it is: its eviction is refused: 403" in log.text()
    assert "\\x1b[31mnot\\nthis one" in log.text()
    assert "ClusterRole" not in log.text()


def test_a_quota_on_events_in_one_namespace_keeps_no_other_pod_from_its_event(api, order, monkeypatch):
    for namespace in ("default", "full", "shop"):
        api.add_pod("a", "lan", namespace=namespace)
    write = api._event
    exceeded = (403, {"message": "exceeded quota: events"})
    monkeypatch.setattr(api, "_event", lambda ns, body: exceeded if ns == "full" else write(ns, body))
    log = Log()
    assert pods.run(order("report"), log, no_pause)
    assert sorted(namespace for namespace, _ in api.events) == ["default", "shop"]
    assert "no Event on pods that lack networks: full/a (full/lan): 403 exceeded quota" in log.text()


@pytest.mark.parametrize(
    ("right", "rule"),
    [
        (("create", "pods/eviction"), "resources: [pods/eviction], verbs: [create]"),
        (("get", "network-attachment-definitions"), "resources: [network-attachment-definitions], verbs: [get]"),
    ],
)
def test_a_right_that_is_missing_is_told_apart_from_a_refusal_of_one_pod(api, order, right, rule):
    api.denied.add(right)
    for name in "ab":
        api.add_pod(name, "lan")
    log = Log()
    assert not pods.run(order(), log, no_pause)
    assert rule in log.text()


# ---- what tenants write ----


@pytest.mark.parametrize(
    "asked",
    [
        ",".join(["lan"] * 40_000),
        json.dumps([{"name": f"n{number}"} for number in range(5_000)]),
        json.dumps([{"name": "lan\n\x1b[31m2026 error: all is lost"}]),
        json.dumps([{"name": "lan", "namespace": "\x1b[2J"}]),
        json.dumps([{"name": "x" * 254}]),
    ],
    ids=["40,000 names", "5,000 objects", "control characters", "a namespace", "a long name"],
)
def test_what_no_pod_can_be_given_is_neither_evicted_for_nor_quoted(api, order, asked):
    api.add_pod("odd", asked)
    api.add_pod("well", "lan")
    for mode in ("report", "delete"):
        log = Log()
        assert pods.run(order(mode), log, no_pause)
        assert "odd" not in log.text()
        assert len(log.text()) < 1000
    assert [event["involvedObject"]["name"] for event in api.events.values()] == ["well"]
    assert evicted(api) == ["well"]


def test_of_many_networks_some_are_named_and_the_rest_counted(api, order):
    api.add_pod("a", ",".join(f"n{number}" for number in range(90)))
    log = Log()
    assert pods.run(order("report"), log, no_pause)
    (event,) = api.events.values()
    assert event["message"].count("default/n") == 5
    assert "default/n4 and 85 more" in event["message"]
    assert log.text().endswith("default/a (default/n0, default/n1, default/n2, default/n3, default/n4 and 85 more)")


def test_of_many_pods_some_are_named_and_the_rest_counted(api, order):
    for number in range(25):
        api.add_pod(f"pod-{number:02}", "lan")
    log = Log()
    assert pods.run(order("report"), log, no_pause)
    assert "default/pod-19 (default/lan) and 5 more" in log.text()
