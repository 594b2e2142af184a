"""The removal of the startup taint, against an API server that refuses as real ones do."""

import itertools
import socket
import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest

from entrypoint.cluster import client as cluster
from entrypoint.errands import patience, taint
from entrypoint.settings import Taint
from tests.errand import Log, no_pause
from tests.fake_api import FakeCluster, serving

KEY = "multus.example/not-ready"
MINE = {"key": KEY, "effect": "NoSchedule"}
MINE_EXECUTE = {"key": KEY, "effect": "NoExecute", "value": "x"}
OTHER = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}


@pytest.fixture
def order(account):
    return taint.Order(**account, key=KEY, effect=None)


# ---- which taints stay ----


def test_a_taint_of_another_kind_is_no_traceback():
    assert taint.of({"spec": {"taints": [MINE, None, 5, {"key": KEY, "effect": []}]}}) == [
        MINE,
        {"key": KEY, "effect": []},
    ]
    assert taint.without([{"key": KEY, "effect": []}], Taint(KEY, "NoSchedule")) == [{"key": KEY, "effect": []}]


def test_a_key_without_effect_names_every_taint_of_that_key():
    assert taint.without([MINE, OTHER, MINE_EXECUTE], Taint(KEY, None)) == [OTHER]


def test_a_key_with_effect_leaves_the_other_effects_of_the_key():
    assert taint.without([MINE, OTHER, MINE_EXECUTE], Taint(KEY, "NoSchedule")) == [OTHER, MINE_EXECUTE]


def test_delays_grow_to_thirty_seconds_and_are_never_in_step():
    runs = [list(itertools.islice(patience.delays(), 12)) for _ in range(5)]
    assert all(delay <= 30 for run in runs for delay in run)
    assert all(1 <= run[0] <= 2 and run[-1] >= 15 for run in runs)
    assert len({run[-1] for run in runs}) > 1


# ---- removing ----


def test_the_taint_goes_and_everything_else_of_the_node_stays(api, order):
    api.add_node("node-1", MINE, OTHER, MINE_EXECUTE)
    log = Log()
    assert taint.remove(order, log, no_pause)
    assert api.taints("node-1") == [OTHER]
    assert api.nodes["node-1"]["spec"]["podCIDR"] == "10.244.0.0/24"
    assert log == [("INFO", f"removed the taint {KEY} from node node-1")]


def test_the_last_taint_of_a_node_can_be_removed(api, order):
    api.add_node("node-1", MINE)
    assert taint.remove(order, Log(), no_pause)
    assert "taints" not in api.nodes["node-1"]["spec"]


def test_a_taint_that_is_not_there_is_done_without_a_write(api, order):
    api.add_node("node-1", OTHER)
    log = Log()
    assert taint.remove(order, log, no_pause)
    assert [method for method, _ in api.requests] == ["GET"]
    assert "does not have the taint" in log.text()


def test_a_taint_that_someone_adds_meanwhile_is_not_lost(api, order):
    api.add_node("node-1", MINE)
    api.before_patch.append(lambda: api.change("node-1", [MINE, OTHER]))
    assert taint.remove(order, Log(), no_pause)
    assert api.taints("node-1") == [OTHER]
    assert [method for method, _ in api.requests] == ["GET", "PATCH", "GET", "PATCH"]


def test_a_node_that_never_stands_still_is_tried_again_later(api, order):
    api.add_node("node-1", MINE)
    api.before_patch += [lambda: api.change("node-1", [MINE, OTHER])] * 7
    pauses = []
    assert taint.remove(order, Log(), pauses.append)
    assert api.taints("node-1") == [OTHER]
    assert len(pauses) == 1


def test_a_refusal_is_said_once_with_the_rule_to_add_and_ends_when_the_rule_is_there(api, order):
    api.add_node("node-1", MINE)
    api.denied.add(("patch", "nodes"))
    log, pauses = Log(), []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 4:
            api.denied.clear()

    assert taint.remove(order, log, pause)
    refusals = [message for level, message in log if level == "ERROR"]
    assert len(refusals) == 1
    assert "resources: [nodes], verbs: [get, patch]" in refusals[0]
    assert 'cannot patch resource "nodes"' in refusals[0]


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [("40", 40, 60), ("7", 7, 10.5), ("99999", 120, 180), ("Wed, 21 Oct 2026 07:28:00 GMT", 1, 2), ("-5", 1, 2)],
)
def test_an_overloaded_api_server_is_left_alone_for_as_long_as_it_asks(api, order, said, least, most):
    api.add_node("node-1", MINE)
    api.failures.append(429)
    api.retry_after = said
    pauses = []
    assert taint.remove(order, Log(), pauses.append)
    (paused,) = pauses
    assert least <= paused <= most


def test_an_unknown_node_is_told_with_where_its_name_comes_from(api, order):
    log = Log()
    assert not taint.remove(order, log, lambda _: True)
    assert 'nodes "node-1" not found' in log.text()
    assert "spec.nodeName" in log.text()


def test_a_token_that_kubelet_rotates_between_two_tries_is_read_again(api, order, tmp_path):
    api.add_node("node-1", MINE)
    api.tokens = {"next-token"}
    log = Log()

    def rotate(_seconds):
        (tmp_path / "token").write_text("next-token")

    assert taint.remove(order, log, rotate)
    assert "not accepted" in log.text()
    assert api.taints("node-1") == []


def test_a_token_file_that_is_missing_for_a_moment_is_waited_for(api, order, tmp_path):
    api.add_node("node-1", MINE)
    (tmp_path / "token").unlink()
    log = Log()
    assert taint.remove(order, log, lambda _: (tmp_path / "token").write_text("good-token") and False)
    assert "cannot read" in log.text()


def test_an_api_server_that_is_down_is_tried_until_it_is_back(order):
    down = FakeCluster()
    down.add_node("node-1", MINE)
    log, pauses = Log(), []
    with ExitStack() as stack, socket.socket() as reserved:  # bound and not listening: nobody else gets this port
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        order = replace(order, server=f"https://127.0.0.1:{port}")

        def pause(seconds):
            pauses.append(seconds)
            if len(pauses) == 3:
                stack.enter_context(serving(down, port=port))

        assert taint.remove(order, log, pause)
    assert down.taints("node-1") == []
    assert sum("Connection refused" in message for _, message in log) == 1


def test_server_errors_are_tried_again(api, order):
    api.add_node("node-1", MINE)
    api.failures = [500, 503]
    assert taint.remove(order, Log(), no_pause)
    assert api.taints("node-1") == []


def test_a_container_too_small_for_the_client_is_told_so_instead_of_being_killed(api, order, monkeypatch):
    monkeypatch.setattr(cluster, "room", lambda: cluster.Room(limit=50 << 20, available=20 << 20))
    monkeypatch.delitem(sys.modules, "kubernetes.client.api_client", raising=False)
    log = Log()
    assert not taint.remove(order, log, lambda _: True)
    assert "the memory limit of 50 MiB leaves 20 MiB" in log.text()
    assert "set a limit of at least" in log.text()
    assert api.requests == []
