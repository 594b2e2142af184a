"""The removal of the startup taint, against an API server that refuses as real ones do."""

import sys
from dataclasses import replace

import pytest

from entrypoint.cluster import client as cluster
from entrypoint.errands import patience, taint
from entrypoint.settings import Taint

KEY = "multus.example/not-ready"
MINE = {"key": KEY, "effect": "NoSchedule"}
MINE_EXECUTE = {"key": KEY, "effect": "NoExecute", "value": "x"}
OTHER = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}
ODD = {"key": KEY, "effect": []}


@pytest.fixture
def remove(account, do):
    return lambda *pause, **more: do(taint.remove, patience.Order(**account, taint=(KEY, None)), *pause, **more)


@pytest.mark.parametrize(
    ("effect", "stay"), [(None, [OTHER]), ("NoSchedule", [OTHER, MINE_EXECUTE, ODD]), ("NoExecute", [MINE, OTHER, ODD])]
)
def test_a_key_names_all_its_taints_or_those_of_one_effect(effect, stay):
    taints = taint.of({"spec": {"taints": [MINE, OTHER, MINE_EXECUTE, None, 5, ODD]}})
    assert taint.without(taints, Taint(KEY, effect)) == stay


@pytest.mark.parametrize("others", [[OTHER], []])
def test_the_taint_goes_and_everything_else_of_the_node_stays(api, remove, others):
    api.add_node("node-1", MINE, *others, MINE_EXECUTE)
    log = remove()
    assert api.nodes["node-1"]["spec"] == {"podCIDR": "10.244.0.0/24", **({"taints": others} if others else {})}
    assert log == [("INFO", f"removed the taint {KEY} from node node-1")]


def test_a_taint_that_is_not_there_is_done_without_a_write(api, remove):
    api.add_node("node-1", OTHER)
    log = remove()
    assert [method for method, _ in api.requests] == ["GET"]
    assert "does not have the taint" in log.text()


@pytest.mark.parametrize(("changes", "pauses"), [(1, 0), (7, 1)], ids=["once", "again and again"])
def test_a_taint_that_someone_adds_meanwhile_is_not_lost(api, remove, changes, pauses):
    api.add_node("node-1", MINE)
    api.before_patch += [lambda: api.change("node-1", [MINE, OTHER])] * changes
    paused = []
    remove(paused.append)
    assert api.taints("node-1") == [OTHER]
    assert [method for method, _ in api.requests] == ["GET", "PATCH"] * (changes + 1)
    assert len(paused) == pauses


def test_a_refusal_is_said_once_with_the_rule_to_add_and_ends_when_the_rule_is_there(api, remove):
    api.add_node("node-1", MINE)
    api.denied.add(("patch", "nodes"))
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 4:
            api.denied.clear()

    log = remove(pause)
    (refusal,) = log.at("ERROR")
    assert "resources: [nodes], verbs: [get, patch]" in refusal
    assert 'cannot patch resource "nodes"' in refusal


def test_it_is_tried_after_longer_and_longer_up_to_half_a_minute_and_never_in_step_with_other_nodes(api, remove):
    api.denied.add(("get", "nodes"))
    runs = []
    for _ in range(5):
        pauses = []
        remove(lambda seconds, pauses=pauses: pauses.append(seconds) or len(pauses) == 12, done=False)
        runs.append(pauses)
    assert all(1 <= run[0] <= 2 and 15 <= run[-1] <= 30 and max(run) <= 30 for run in runs)
    assert len({run[-1] for run in runs}) > 1


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [("40", 40, 60), ("7", 7, 10.5), ("99999", 120, 180), ("Wed, 21 Oct 2026 07:28:00 GMT", 1, 2), ("-5", 1, 2)],
)
def test_an_overloaded_api_server_is_left_alone_for_as_long_as_it_asks(api, remove, said, least, most):
    api.add_node("node-1", MINE)
    api.failures.append(429)
    api.headers["Retry-After"] = said
    pauses = []
    remove(pauses.append)
    (paused,) = pauses
    assert least <= paused <= most


def test_an_unknown_node_is_told_with_where_its_name_comes_from(remove):
    log = remove(lambda _: True, done=False)
    assert 'nodes "node-1" not found' in log.text()
    assert "spec.nodeName" in log.text()


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("last-token", "token is not accepted"),
        (None, "No such file or directory"),
        ("", "must hold a token"),
        ("two words", "must hold a token"),
        ("t\xf6ken", "must hold a token"),
    ],
)
def test_a_token_that_cannot_be_used_is_read_again_for_the_next_try(api, remove, tmp_path, token, said):
    api.add_node("node-1", MINE)
    (tmp_path / "token").unlink()
    if token is not None:
        (tmp_path / "token").write_text(token, "latin-1")
    log = remove(lambda _: (tmp_path / "token").write_text("good-token") and False)
    assert said in log.text()
    assert str(tmp_path / "token") in log.text()
    assert api.taints("node-1") == []


def test_of_token_and_ca_the_one_at_fault_is_named(account, do, tmp_path):
    ca = tmp_path / "ca.crt"
    ca.write_text("")
    order = patience.Order(**account, taint=(KEY, None))
    said = do(taint.remove, replace(order, ca_file=str(ca)), lambda _: True, done=False).text()
    assert f": {ca} must hold the cluster's CA" in said and order.token_file not in said
    (tmp_path / "token").write_text("")
    said = do(taint.remove, replace(order, ca_file=None), lambda _: True, done=False).text()
    assert f": {order.token_file} must hold a token" in said and "CA" not in said


def test_trouble_of_the_api_server_is_waited_out_and_each_kind_told_once(api, remove, monkeypatch):
    api.add_node("node-1", MINE)
    api.failures = [500, 503, 500]
    resets = [False] * 3
    monkeypatch.setattr(api, "admit", lambda: resets.pop() if resets else True)
    log = remove()
    assert api.taints("node-1") == []
    assert len(set(log)) == len(log)
    assert "no answer of the API server that can be used: " in log.text()
    assert "500 etcdserver: request timed out; look at the API server's log" in log.text()


def test_a_container_too_small_for_the_client_is_told_so_instead_of_being_killed(api, remove, monkeypatch):
    monkeypatch.setattr(cluster, "room", lambda: cluster.Room(limit=50 << 20, available=20 << 20))
    monkeypatch.delitem(sys.modules, "kubernetes.client.api_client", raising=False)
    log = remove(lambda _: True, done=False)
    assert "the memory limit of 50 MiB leaves 20 MiB" in log.text()
    assert "set a limit of at least" in log.text()
    assert api.requests == []
