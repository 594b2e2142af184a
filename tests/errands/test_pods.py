"""`--repair-pods` where tenants, webhooks, quotas and broken networks are in the way."""

import json
import re

import pytest

from entrypoint.cluster import pods as podnetworks
from entrypoint.errands import patience, pods

NETWORK = {"cniVersion": "0.3.1", "type": "macvlan"}
BUDGET = 429, "Cannot evict pod as it would violate the pod's disruption budget."
HUGE = "y" * (5 << 20)
HASH = {"labels": {"pod-template-hash": "h"}}


@pytest.fixture
def repair(api, account, tmp_path, do):
    """Do about the pods of node-1 what `mode` says; it has the plugin of the one network, which `names` lack."""
    (tmp_path / "macvlan").write_text("#!/bin/sh\n")
    (tmp_path / "macvlan").chmod(0o755)
    api.add_network("lan", NETWORK)

    def run(mode="delete", names="", **more):
        for name in names:
            api.add_pod(name, "lan")
        return do(pods.run, patience.Order(**account, repair_pods=mode, bin_dirs=[str(tmp_path)]), **more)

    return run


@pytest.fixture
def replica_set(api):
    def add(*names, **more):
        for name in names:
            api.add_pod(name, "lan", None, owner_uid="set", metadata=HASH, **more)

    return add


def evicted(api):
    return [name for _, name in api.evicted]


# ---- report ----


def test_a_report_is_one_event_on_each_pod_however_often_it_is_made(api, repair):
    api.add_pod("a", "lan")
    api.add_pod("b", "lan", namespace="shop", owner=None)
    api.add_pod("well", "lan", ["default/lan"])
    for _ in range(2):
        log = repair("report")
    assert sorted((namespace, event["involvedObject"]["name"]) for (namespace, _), event in api.events.items()) == [
        ("default", "a"),
        ("shop", "b"),
    ]
    event = next(iter(api.events.values()))
    assert (event["type"], event["reason"], event["source"]["host"]) == ("Warning", "NetworksMissing", "node-1")
    assert "lacks default/lan" in event["message"]
    assert event["involvedObject"]["uid"] == "uid-a"
    said = "wrote an Event on pods that lack networks which they ask for: default/a (default/lan), shop/b (shop/lan)"
    assert log == [("INFO", said)]
    assert api.evicted == []


@pytest.mark.parametrize("name", ["a", "a" * 253, f"{'a' * 228}-.-{'b' * 20}"])
def test_the_name_of_an_event_is_one_that_the_api_server_takes(name):
    pod = podnetworks.Pod("default", name, "u", ("default/lan",), None)
    given = pods.event(pod, "node-1")["metadata"]["name"]
    assert len(given) <= 253
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", label) for label in given.split("."))


@pytest.mark.parametrize("mode", ["report", "delete"])
def test_a_node_on_which_all_is_well_is_told_so(api, repair, mode):
    api.add_pod("well", "lan", ["default/lan"])
    log = repair(mode)
    assert log == [("INFO", "every pod of this node has the networks that it asks for")]


# ---- delete ----


def test_pods_that_a_controller_makes_again_are_evicted_and_no_others(api, repair):
    for owner in ("ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController", "Job", "Node", None):
        api.add_pod(f"of-{owner}".lower(), "lan", owner=owner)
    machine = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "controller": True}
    for name, metadata in {"machine": {"ownerReferences": [machine]}, "mirror": {}}.items():
        mirror = {"kubernetes.io/config.mirror": "x"} if name == "mirror" else {}
        annotations = {podnetworks.ASKED: "lan", **mirror}
        api.add_pod(name, metadata={"annotations": annotations, **metadata})
    api.add_pod("well", "lan", ["default/lan"])
    log = repair()
    assert sorted(evicted(api)) == ["of-daemonset", "of-replicaset", "of-replicationcontroller", "of-statefulset"]
    job, another, mirror, static, bare = sorted(log.at("WARNING"), key=lambda said: said.split()[1].replace("of-", ""))
    assert "default/of-job (default/lan) lacks networks and is left as it is: it is not known that its Job.batch" in job
    assert "machine" in another
    assert "mirror" in mirror
    assert "it is a static pod" in mirror
    assert "it is a static pod" in static
    assert "nothing would make it again; make it again yourself" in bare
    assert log[-1] == ("INFO", "evicted 4 pods that lacked networks")


def test_a_pod_that_is_made_again_and_lacks_its_networks_again_is_not_evicted_without_end(api, repair):
    api.add_pod("db-0", "lan", owner="StatefulSet")
    api.add_pod("held", "lan")
    api.refusals["eviction", "default", "held"] = [BUDGET] * 3
    api.after_eviction = lambda _, name: api.add_pod(name, "lan", owner="StatefulSet", metadata={"uid": "another"})
    repair()
    assert evicted(api) == ["db-0", "held"]


@pytest.mark.parametrize("refusal", [BUDGET, (500, "more than one PodDisruptionBudget")], ids=["one", "two"])
def test_a_disruption_budget_holds_and_other_pods_do_not_wait_for_it(api, repair, refusal):
    api.refusals["eviction", "default", "a"] = [refusal] * 2
    api.add_pod("bare", "lan", owner=None)
    pauses = []
    log = repair(pause=pauses.append, names="ab")
    assert evicted(api) == ["b", "a"]
    assert len(pauses) == 2
    (held,) = log.at("ERROR")
    assert "not evicted yet: default/a (default/lan): {} {}".format(*refusal) in held
    assert len(log.at("WARNING")) == 1  # of the bare pod, and not at each try


def test_a_disruption_budget_that_never_lets_go_is_given_up_after_a_while(api, repair, monkeypatch):
    monkeypatch.setattr(pods, "_HELD", 0.0)
    api.refusals["eviction", "default", "a"] = [BUDGET] * 99
    log = repair(done=False, names="a")
    assert "still not evicted: default/a (default/lan): 429 Cannot evict" in log.text()
    assert "delete them yourself; restart the entrypoint's pod to have it tried again" in log.text()


def test_a_pod_that_is_gone_or_another_before_its_eviction_is_no_failure(api, repair):
    answered = api.answer

    def answer(method, path, headers, body):
        if path.endswith("/eviction"):
            api.pods.pop(("default", "a"), None)
        return answered(method, path, headers, body)

    api.answer = answer
    repair(names="a")
    assert api.evicted == []


@pytest.mark.parametrize("patient", [True, False])
def test_of_pods_with_other_addresses_than_multus_told_those_are_evicted_whose_kubelet_has_not_to_report(
    api, repair, patient
):
    """After a reboot: Multus told of such a pod with an address that it has no more, or not yet."""
    for name, was in {"a": "10.244.0.4", "b": "10.244.0.9"}.items():
        got = [{"name": "cbr0", "ips": [was], "default": True}, {"name": "default/lan", "ips": ["10.222.0.7"]}]
        api.add_pod(name, metadata={"annotations": {podnetworks.ASKED: "lan", podnetworks.GOT: json.dumps(got)}})
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        api.pods["default", "b"]["status"]["podIP"] = "10.244.0.9"
        return not patient

    repair(pause=pause, done=patient)
    assert evicted(api) == (["a"] if patient else [])
    assert pauses[0] == pods.SETTLED


# ---- refusals ----


@pytest.mark.parametrize(
    ("mode", "right", "rule"),
    [
        ("report", ("list", "pods"), "resources: [pods], verbs: [get, list]"),
        ("delete", ("get", "pods"), "resources: [pods], verbs: [get, list]"),
        ("report", ("create", "events"), "resources: [events], verbs: [create]"),
        ("delete", ("create", "pods/eviction"), "resources: [pods/eviction], verbs: [create]"),
        ("delete", ("get", "network-attachment-definitions"), "[network-attachment-definitions], verbs: [get]"),
    ],
)
def test_a_right_that_is_missing_is_told_with_the_rule_and_not_asked_for_again(api, repair, mode, right, rule):
    api.denied.add(right)
    log = repair(mode, done=False, names="ab")
    ((level, message),) = log
    assert level == "ERROR"
    assert message.startswith(f"--repair-pods={mode} is not done: 403 ")
    assert rule in message
    assert len([path for _, path in api.requests if path.startswith("/api/v1/pods?")]) == 1


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
        ({"config": json.dumps({"type": "macvlan", "x": HUGE})}, "too large to be looked at"),
    ],
)
def test_a_pod_whose_networks_cannot_be_had_is_left_as_it_is(api, repair, replica_set, network, why):
    if network:
        api.add_network("lan", **network)
    else:
        del api.networks["default", "lan"]
    replica_set("a", "b")
    api.add_network("san", NETWORK)
    api.add_pod("of-two", "san, lan")
    log = repair()
    assert api.evicted == []
    assert log.text().count(why) == 3


def test_a_plugin_that_is_a_link_out_of_the_directory_counts_as_there(api, repair, tmp_path):
    (tmp_path / "macvlan").unlink()
    (tmp_path / "macvlan").symlink_to("/var/lib/rancher/k3s/data/0123/bin/cni")
    repair(names="a")
    assert evicted(api) == ["a"]


# ---- one after the other ----


def test_the_next_pod_waits_until_the_one_before_is_gone_and_its_successor_ready(api, repair, replica_set):
    replica_set("a", "b")
    seen = []

    def going(namespace, name):
        api.pods[namespace, name]["metadata"]["deletionTimestamp"] = "2026-11-24T00:00:00Z"
        replica_set(f"{name}-again", ready=False, node="node-2")

    def pause(_seconds):
        seen.append(evicted(api))
        if api.evicted and len(seen) % 3 == 0:
            namespace, name = api.evicted[-1]
            ready = api.pods[namespace, f"{name}-again"]["status"]["conditions"][0]
            if ready["status"] == "True":
                api.pods.pop((namespace, name), None)
            ready["status"] = "True"

    api.after_eviction = going
    repair(pause=pause)
    assert evicted(api) == ["a", "b"]
    assert seen.count(["a"]) >= 4  # until its successor was Ready, and then until it was gone


def test_a_pod_waits_while_another_of_its_controller_is_being_made_on_another_node(api, repair, replica_set):
    replica_set("a")
    replica_set("new", node="node-2", ready=False, podIP="")
    pauses = []

    def pause(_seconds):
        pauses.append(list(api.evicted))
        if len(pauses) == 4:
            api.pods["default", "new"]["status"]["conditions"][0]["status"] = "True"

    log = repair(pause=pause)
    assert not any(pauses[:4])
    assert evicted(api) == ["a"]
    held = "not evicted yet: default/a (default/lan): other pods of its ReplicaSet.apps are not Ready: new"
    assert held in log.text()


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("also-unwell", {"ready": False}),
        ("evicted-by-kubelet", {"phase": "Failed", "ready": False}),
        ("on-a-node-that-is-down", {"status": ["default/lan"], "node": "node-9", "ready": False, "owner": "DaemonSet"}),
    ],
)
def test_a_pod_does_not_wait_for_others_that_cannot_become_ready(api, repair, name, more):
    """They lack the same network, have come to their end, or are a DaemonSet's on a node that is down."""
    for each, made in {"a": {"owner": more.get("owner", "ReplicaSet")}, name: more}.items():
        api.add_pod(each, "lan", **{"status": None, **made}, owner_uid="set", metadata=HASH)
    repair()
    assert evicted(api)[0] == "a"


def test_no_more_than_so_many_pods_are_evicted_in_a_run(api, repair, monkeypatch):
    monkeypatch.setattr(pods, "MOST", 2)
    log = repair(names="abcd")
    assert evicted(api) == ["a", "b"]
    assert log.text().count("a run evicts no more than 2; make it again yourself") == 2


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
def test_a_pod_that_is_not_replaced_ends_the_evictions_in_its_namespace_and_in_no_other(api, repair, becomes, said):
    api.add_network("lan", NETWORK, namespace="other")
    api.add_pod("z", "lan", namespace="other")
    broken = becomes(api)
    api.after_eviction = lambda namespace, name: (broken if namespace == "default" else api.replace)(namespace, name)
    log = repair(names="abc")
    assert api.evicted == [("default", "a"), ("other", "z")]
    assert f"pod default/a (default/lan) was evicted, and {said}" in log.text()
    assert log.text().count("in its namespace an evicted pod was not replaced by one that is Ready") == 2


def test_when_no_pod_comes_back_in_three_namespaces_nothing_more_is_evicted(api, repair):
    for namespace in "abcd":
        api.add_network("lan", NETWORK, namespace=namespace)
        api.add_pod(f"of-{namespace}", "lan", namespace=namespace)
    api.after_eviction = lambda *pod: api.replace(*pod, ready=False)
    log = repair()
    assert [namespace for namespace, _ in api.evicted] == ["a", "b", "c"]
    assert "d/of-d (d/lan) lacks networks and is left as it is: in 3 namespaces (a, b, c)" in log.text()


def test_nothing_more_is_evicted_once_nobody_waits_for_it(api, repair):
    api.after_eviction = lambda *_: None
    repair(pause=lambda _: True, done=False, names="ab")
    assert evicted(api) == ["a"]


def test_a_webhook_that_refuses_one_eviction_keeps_no_other_pod_from_its_networks(api, repair):
    denied = 'admission webhook "x" denied the request: \x1b[31mnot\nthis one'
    api.refusals["eviction", "default", "b"] = [(403, denied)]
    log = repair(names="abc")
    assert evicted(api) == ["a", "c"]
    assert "pod default/b (default/lan) lacks networks and is left as it is: its eviction is refused: 403" in log.text()
    assert "\\x1b[31mnot\\nthis one" in log.text()
    assert "ClusterRole" not in log.text()


def test_a_quota_on_events_in_one_namespace_keeps_no_other_pod_from_its_event(api, repair):
    for namespace in ("default", "full", "shop"):
        api.add_pod("a", "lan", namespace=namespace)
    api.refusals["events", "full", "a"] = [(403, "exceeded quota: events")]
    log = repair("report")
    assert sorted(namespace for namespace, _ in api.events) == ["default", "shop"]
    assert "no Event on pods that lack networks: full/a (full/lan): 403 exceeded quota" in log.text()


def test_a_tenant_whose_pods_are_too_large_to_be_read_keeps_no_other_from_its_networks(api, repair):
    api.add_network("lan", NETWORK, namespace="odd")
    api.add_pod("a", "lan", namespace="odd")
    api.add_pod("huge", namespace="odd", node="node-2", spec={"x": HUGE})
    api.add_pod("also-huge", "lan", namespace="odd", spec={"x": HUGE})
    api.add_pod("z", "lan")
    log = repair()
    assert evicted(api) == ["z"]
    left = "pod odd/a (odd/lan) lacks networks and is left as it is: the pods of its namespace are too large"
    assert left in log.text()


# ---- what tenants write ----


def test_of_many_networks_and_of_many_pods_some_are_named_and_the_rest_counted(api, repair):
    api.add_pod("a", ",".join(f"n{number}" for number in range(90)))
    for number in range(24):
        api.add_pod(f"pod-{number:02}", "lan")
    log = repair("report")
    event = next(each for each in api.events.values() if each["involvedObject"]["name"] == "a")
    assert event["message"].count("default/n") == 5
    assert "default/n4 and 85 more" in event["message"]
    assert "default/a (default/n0, default/n1, default/n2, default/n3, default/n4 and 85 more), default" in log.text()
    assert log.text().endswith("default/pod-18 (default/lan) and 5 more")
