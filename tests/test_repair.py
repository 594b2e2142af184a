"""`--repair-pods` against a server that refuses as real ones do."""

import json
import re
import sys

import pytest

from entrypoint.cluster import client as cluster
from entrypoint.cluster import pods as podnetworks
from entrypoint.errands import pods as repair
from tests.errand import Log, no_pause


@pytest.fixture
def order(api, account, tmp_path):
    """An order for a node that has what the networks need."""
    (tmp_path / "macvlan").write_text("#!/bin/sh\n")
    (tmp_path / "macvlan").chmod(0o755)
    api.add_network("lan", {"type": "macvlan"})
    return lambda mode: repair.Order(**account, mode=mode, bin_dirs=[str(tmp_path)])


def lists_of_pods(api):
    return [path for _, path in api.requests if path.startswith("/api/v1/pods?")]


# ---- report ----


def test_a_report_is_an_event_on_each_pod(api, order):
    api.add_pod("a", "lan")
    api.add_pod("b", "lan", namespace="shop", owner=None)
    api.add_pod("well", "lan", ["default/lan"])
    log = Log()
    assert repair.run(order("report"), log, no_pause)
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
        assert repair.run(order("report"), Log(), no_pause)
    assert len(api.events) == 1


@pytest.mark.parametrize("name", ["a", "a" * 253, f"{'a' * 228}-.-{'b' * 20}"])
def test_the_name_of_an_event_is_one_that_the_api_server_takes(name):
    pod = podnetworks.Pod("default", name, "u", ("default/lan",), None, False)
    given = repair.event(pod, "node-1")["metadata"]["name"]
    assert len(given) <= 253
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", label) for label in given.split("."))


def test_a_node_on_which_all_is_well_is_told_so(api, order):
    api.add_pod("well", "lan", ["default/lan"])
    for mode in ("report", "delete"):
        log = Log()
        assert repair.run(order(mode), log, no_pause)
        assert log == [("INFO", "every pod of this node has the networks that it asks for")]


def test_a_pod_in_a_namespace_that_is_going_is_passed_over(api, order, monkeypatch):
    api.add_pod("a", "lan")
    document = {
        "message": "forbidden: because it is being terminated",
        "details": {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]},
    }
    monkeypatch.setattr(api, "_event", lambda namespace, body: (403, document))
    assert repair.run(order("report"), Log(), no_pause)


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
    assert repair.run(order("delete"), log, no_pause)
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
    assert repair.run(order("delete"), log, no_pause)
    assert log[-1] == ("INFO", "no pod that lacks networks may be evicted")


def test_a_pod_that_is_made_again_under_its_own_name_is_gone_too(api, order):
    api.add_pod("db-0", "lan", owner="StatefulSet")

    def again(_namespace, name):
        api.add_pod(name, "lan", ["default/lan"], owner="StatefulSet", metadata={"uid": "another"})

    api.after_eviction = again
    assert repair.run(order("delete"), Log(), no_pause)
    assert len(api.evicted) == 1


def test_a_pod_that_is_made_again_and_lacks_its_networks_again_is_not_evicted_without_end(api, order):
    api.add_pod("db-0", "lan", owner="StatefulSet")
    api.add_pod("held", "lan")
    api.budgets["default", "held"] = 3
    api.after_eviction = lambda _, name: api.add_pod(name, "lan", owner="StatefulSet", metadata={"uid": "another"})
    assert repair.run(order("delete"), Log(), no_pause)
    assert [name for _, name in api.evicted] == ["db-0", "held"]


def test_a_disruption_budget_holds_and_other_pods_do_not_wait_for_it(api, order):
    for name in "ab":
        api.add_pod(name, "lan")
    api.budgets["default", "a"] = 2
    log, pauses = Log(), []
    assert repair.run(order("delete"), log, pauses.append)
    assert api.evicted == [("default", "b"), ("default", "a")]
    assert len(pauses) == 2
    (held,) = [message for level, message in log if level == "ERROR"]
    assert "not evicted yet: default/a (default/lan): 429 Cannot evict pod as it would violate" in held


def test_a_disruption_budget_that_never_lets_go_is_given_up_after_a_while(api, order, monkeypatch):
    monkeypatch.setattr(repair, "_HELD", 0.0)
    api.add_pod("a", "lan")
    api.budgets["default", "a"] = 99
    log = Log()
    assert not repair.run(order("delete"), log, no_pause)
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
    assert repair.run(order("delete"), Log(), no_pause)
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
    assert not repair.run(order("delete"), log, lambda _: True)
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
    assert repair.run(order("delete"), Log(), pauses.append)
    assert api.evicted == [("default", "a")]
    assert pauses[0] == repair.SETTLED


def test_a_pod_whose_new_address_kubelet_has_only_not_reported_yet_is_left_alone(api, order):
    rebooted(api, "a", was="10.244.0.9")
    rebooted(api, "b")

    def pause(_seconds):
        api.pods["default", "a"]["status"]["podIP"] = "10.244.0.9"

    assert repair.run(order("delete"), Log(), pause)
    assert api.evicted == [("default", "b")]


def test_what_is_not_certain_is_left_alone_when_nobody_waits_any_more(api, order):
    rebooted(api, "a")
    assert repair.run(order("delete"), Log(), lambda _: True)
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
    assert not repair.run(order(mode), log, no_pause)
    ((level, message),) = log
    assert level == "ERROR"
    assert message.startswith(f"--repair-pods={mode} is not done: 403 ")
    assert rule in message
    assert len(lists_of_pods(api)) == 1


def test_trouble_of_the_api_server_is_waited_out(api, order):
    api.add_pod("a", "lan")
    api.failures = [500, 503]
    log, pauses = Log(), []
    assert repair.run(order("delete"), log, pauses.append)
    assert api.evicted == [("default", "a")]
    assert len(pauses) == 2


def test_a_token_that_is_rotated_meanwhile_is_read_again(api, order, tmp_path):
    api.add_pod("a", "lan")
    api.tokens = {"next-token"}
    assert repair.run(order("report"), Log(), lambda _: (tmp_path / "token").write_text("next-token") and False)
    assert len(api.events) == 1


def test_nothing_more_is_done_once_nobody_waits_for_it(api, order):
    api.add_pod("a", "lan")
    api.budgets["default", "a"] = 99
    assert not repair.run(order("delete"), Log(), lambda _: True)
    assert len(lists_of_pods(api)) == 1


def test_a_container_too_small_for_the_client_is_told_so(api, order, monkeypatch):
    monkeypatch.setattr(cluster, "room", lambda: cluster.Room(limit=50 << 20, available=20 << 20))
    monkeypatch.delitem(sys.modules, "kubernetes.client.api_client", raising=False)
    log = Log()
    assert not repair.run(order("report"), log, lambda _: True)
    assert "the memory limit of 50 MiB leaves 20 MiB" in log.text()
    assert api.requests == []
