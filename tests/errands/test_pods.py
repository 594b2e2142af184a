"""`--repair-pods` where tenants, webhooks, quotas and broken networks are in the way."""

import json
import re

import pytest

from entrypoint.cluster import pods as podnetworks
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


def lists_of_pods(api):
    return [path for _, path in api.requests if path.startswith("/api/v1/pods?")]


# ---- report ----


def test_a_report_is_an_event_on_each_pod(api, order):
    api.add_pod("a", "lan")
    api.add_pod("b", "lan", namespace="shop", owner=None)
    api.add_pod("well", "lan", ["default/lan"])
    log = Log()
    assert pods.run(order("report"), log, no_pause)
    assert sorted((namespace, event["involvedObject"]["name"]) for (namespace, _), event in api.events.items()) == [
        ("default", "a"),
        ("shop", "b"),
    ]
    event = next(iter(api.events.values()))
    assert (event["type"], event["reason"], event["source"]["host"]) == ("Warning", "NetworksMissing", "node-1")
    assert "lacks default/lan" in event["message"]
    assert event["involvedObject"]["uid"] == "uid-a"
    assert log == [
        (
            "INFO",
            "wrote an Event on pods that lack networks which they ask for: default/a (default/lan), shop/b (shop/lan)",
        )
    ]
    assert api.evicted == []


def test_a_second_run_writes_no_second_event(api, order):
    api.add_pod("a", "lan")
    for _ in range(2):
        assert pods.run(order("report"), Log(), no_pause)
    assert len(api.events) == 1


@pytest.mark.parametrize("name", ["a", "a" * 253, f"{'a' * 228}-.-{'b' * 20}"])
def test_the_name_of_an_event_is_one_that_the_api_server_takes(name):
    pod = podnetworks.Pod("default", name, "u", ("default/lan",), None, False)
    given = pods.event(pod, "node-1")["metadata"]["name"]
    assert len(given) <= 253
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", label) for label in given.split("."))


def test_a_node_on_which_all_is_well_is_told_so(api, order):
    api.add_pod("well", "lan", ["default/lan"])
    for mode in ("report", "delete"):
        log = Log()
        assert pods.run(order(mode), log, no_pause)
        assert log == [("INFO", "every pod of this node has the networks that it asks for")]


def test_a_pod_in_a_namespace_that_is_going_is_passed_over(api, order, monkeypatch):
    api.add_pod("a", "lan")
    document = {
        "message": "forbidden: because it is being terminated",
        "details": {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]},
    }
    monkeypatch.setattr(api, "_event", lambda namespace, body: (403, document))
    assert pods.run(order("report"), Log(), no_pause)


# ---- delete ----


def test_pods_that_a_controller_makes_again_are_evicted_and_no_others(api, order):
    for owner in ("ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController", "Job", "Node", None):
        api.add_pod(f"of-{owner}".lower(), "lan", owner=owner)
    api.add_pod("of-a-machine", "lan", metadata={
        "ownerReferences": [{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "controller": True}],
        "annotations": {"k8s.v1.cni.cncf.io/networks": "lan"},
    })  # fmt: skip
    api.add_pod("mirror", "lan", metadata={
        "annotations": {"k8s.v1.cni.cncf.io/networks": "lan", "kubernetes.io/config.mirror": "x"}
    })  # fmt: skip
    api.add_pod("well", "lan", ["default/lan"])
    log = Log()
    assert pods.run(order("delete"), log, no_pause)
    assert sorted(name for _, name in api.evicted) == [
        "of-daemonset", "of-replicaset", "of-replicationcontroller", "of-statefulset",
    ]  # fmt: skip
    left = [message for level, message in log if level == "WARNING"]
    assert len(left) == 5
    assert "pod default/of-none (default/lan) lacks networks and is left as it is: nothing would make it again" in left
    assert any("of-job" in each and "Job.batch" in each for each in left)
    assert any("mirror" in each and "static" in each for each in left)
    assert log[-1] == ("INFO", "evicted 4 pods that lacked networks")


def test_when_no_pod_may_be_evicted_that_is_said(api, order):
    api.add_pod("bare", "lan", owner=None)
    log = Log()
    assert pods.run(order("delete"), log, no_pause)
    assert log[-1] == ("INFO", "no pod that lacks networks may be evicted")


def test_a_pod_that_is_made_again_under_its_own_name_is_gone_too(api, order):
    api.add_pod("db-0", "lan", owner="StatefulSet")

    def again(_namespace, name):
        api.add_pod(name, "lan", ["default/lan"], owner="StatefulSet", metadata={"uid": "another"})

    api.after_eviction = again
    assert pods.run(order("delete"), Log(), no_pause)
    assert len(api.evicted) == 1


def test_a_pod_that_is_made_again_and_lacks_its_networks_again_is_not_evicted_without_end(api, order):
    api.add_pod("db-0", "lan", owner="StatefulSet")
    api.add_pod("held", "lan")
    api.budgets["default", "held"] = 3
    api.after_eviction = lambda _, name: api.add_pod(name, "lan", owner="StatefulSet", metadata={"uid": "another"})
    assert pods.run(order("delete"), Log(), no_pause)
    assert [name for _, name in api.evicted] == ["db-0", "held"]


def test_a_disruption_budget_holds_and_other_pods_do_not_wait_for_it(api, order):
    for name in "ab":
        api.add_pod(name, "lan")
    api.budgets["default", "a"] = 2
    log, pauses = Log(), []
    assert pods.run(order("delete"), log, pauses.append)
    assert api.evicted == [("default", "b"), ("default", "a")]
    assert len(pauses) == 2
    (held,) = [message for level, message in log if level == "ERROR"]
    assert "not evicted yet: default/a (default/lan): 429 Cannot evict pod as it would violate" in held


def test_a_disruption_budget_that_never_lets_go_is_given_up_after_a_while(api, order, monkeypatch):
    monkeypatch.setattr(pods, "_HELD", 0.0)
    api.add_pod("a", "lan")
    api.budgets["default", "a"] = 99
    log = Log()
    assert not pods.run(order("delete"), log, no_pause)
    assert "still not evicted: default/a (default/lan): 429 Cannot evict" in log.text()
    assert "Delete them yourself, or start this pod again" in log.text()


def test_a_pod_that_is_gone_or_another_before_its_eviction_is_no_failure(api, order):
    api.add_pod("a", "lan")
    answered = api.answer

    def answer(method, path, headers, body):
        if path.endswith("/eviction"):
            api.pods.pop(("default", "a"), None)
        return answered(method, path, headers, body)

    api.answer = answer
    assert pods.run(order("delete"), Log(), no_pause)
    assert api.evicted == []


def test_an_eviction_that_the_api_server_cannot_do_holds_up_no_other_pod(api, order, monkeypatch):
    """So it is with a pod that two disruption budgets cover."""
    for name in "ab":
        api.add_pod(name, "lan")
    evict = api._evict

    def covered_twice(namespace, name, body):
        return (500, {"message": "more than one PodDisruptionBudget"}) if name == "a" else evict(namespace, name, body)

    api._evict = covered_twice
    log = Log()
    assert not pods.run(order("delete"), log, lambda _: True)
    assert api.evicted == [("default", "b")]
    assert "default/a (default/lan): 500 more than one PodDisruptionBudget" in log.text()


# ---- after a reboot ----


def rebooted(api, name, was="10.244.0.4"):
    """Add a pod of which Multus told with an address that it has no more."""
    got = [{"name": "cbr0", "ips": [was], "default": True}, {"name": "default/lan", "ips": ["10.222.0.7"]}]
    annotations = {podnetworks.ASKED: "lan", podnetworks.GOT: json.dumps(got)}
    api.add_pod(name, "lan", metadata={"annotations": annotations})


def test_a_pod_that_has_another_address_than_multus_told_is_evicted_when_it_stays_so(api, order):
    rebooted(api, "a")
    pauses = []
    assert pods.run(order("delete"), Log(), pauses.append)
    assert api.evicted == [("default", "a")]
    assert pauses[0] == pods.SETTLED


def test_a_pod_whose_new_address_kubelet_has_only_not_reported_yet_is_left_alone(api, order):
    rebooted(api, "a", was="10.244.0.9")
    rebooted(api, "b")

    def pause(_seconds):
        api.pods["default", "a"]["status"]["podIP"] = "10.244.0.9"

    assert pods.run(order("delete"), Log(), pause)
    assert api.evicted == [("default", "b")]


def test_what_is_not_certain_is_left_alone_when_nobody_waits_any_more(api, order):
    rebooted(api, "a")
    assert pods.run(order("delete"), Log(), lambda _: True)
    assert api.evicted == []


# ---- refusals ----


@pytest.mark.parametrize(
    ("mode", "right", "rule"),
    [
        ("report", ("list", "pods"), "resources: [pods], verbs: [get, list]"),
        ("delete", ("get", "pods"), "resources: [pods], verbs: [get, list]"),
        ("report", ("create", "events"), "resources: [events], verbs: [create]"),
        ("delete", ("create", "pods/eviction"), "resources: [pods/eviction], verbs: [create]"),
    ],
)
def test_a_right_that_is_missing_is_told_with_the_rule_and_not_asked_for_again(api, order, mode, right, rule):
    api.add_pod("a", "lan")
    api.denied.add(right)
    log = Log()
    assert not pods.run(order(mode), log, no_pause)
    ((level, message),) = log
    assert level == "ERROR"
    assert message.startswith(f"--repair-pods={mode} is not done: 403 ")
    assert rule in message
    assert len(lists_of_pods(api)) == 1


def test_trouble_of_the_api_server_is_waited_out(api, order):
    api.add_pod("a", "lan")
    api.failures = [500, 503]
    log, pauses = Log(), []
    assert pods.run(order("delete"), log, pauses.append)
    assert api.evicted == [("default", "a")]
    assert len(pauses) == 2


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


def test_a_tenant_whose_pods_are_too_large_to_be_read_keeps_no_other_from_its_networks(api, order):
    api.add_network("lan", NETWORK, namespace="odd")
    api.add_pod("a", "lan", namespace="odd")
    api.add_pod("huge", namespace="odd", node="node-2", spec={"nodeName": "node-2", "x": "y" * (5 << 20)})
    api.add_pod("also-huge", "lan", namespace="odd", spec={"nodeName": "node-1", "x": "y" * (5 << 20)})
    api.add_pod("z", "lan")
    log = Log()
    assert pods.run(order(), log, no_pause)
    assert evicted(api) == ["z"]
    assert (
        "pod odd/a (odd/lan) lacks networks and is left as it is: the pods of its namespace are too large" in log.text()
    )


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
