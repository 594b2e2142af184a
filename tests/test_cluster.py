"""The client's wrapper and the removal of the startup taint, against an API server that refuses as real ones do."""

import errno
import itertools
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest

from entrypoint.cluster import client as cluster
from entrypoint.errands import child, patience, taint
from entrypoint.settings import Taint
from tests.errand import Log, no_pause
from tests.fake_api import BareCA, FakeCluster, authority, other_authority, pem, serving
from tests.waiting import BOUND, until

KEY = "multus.example/not-ready"
MINE = {"key": KEY, "effect": "NoSchedule"}
MINE_EXECUTE = {"key": KEY, "effect": "NoExecute", "value": "x"}
OTHER = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}


@pytest.fixture
def order(account):
    return taint.Order(**account, key=KEY, effect=None)


# ---- which taints stay ----


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


# ---- the wrapper ----


def access(api, **changes):
    return cluster.Access(
        **{"server": api.url, "token": "good-token", "certificate_authority": pem(authority()), **changes}
    )


def test_a_certificate_of_another_ca_is_named_as_the_reason(api):
    client = cluster.Api(access(api, certificate_authority=pem(other_authority())))
    with pytest.raises(cluster.UnreachableError, match="its certificate is not trusted"):
        client.request("GET", "/version", timeout=60)


@pytest.fixture
def strict(monkeypatch):
    """Verify as Python 3.13 does, whatever runs the tests: there urllib3 asks for key identifiers."""
    monkeypatch.setattr("urllib3.util.ssl_.sys", SimpleNamespace(version_info=(3, 13)))


def test_a_ca_without_key_identifiers_is_trusted_as_multus_trusts_it(strict):
    old = BareCA()
    with serving(FakeCluster(), ca=old) as served:
        client = cluster.Api(access(served, certificate_authority=pem(old)))
        assert client.request("GET", "/version", timeout=60).ok


def test_the_chain_and_the_host_name_are_verified_all_the_same(strict):
    old, other = BareCA(), BareCA()
    with serving(FakeCluster(), ca=old) as served:
        with pytest.raises(cluster.UnreachableError, match="its certificate is not trusted"):
            cluster.Api(access(served, certificate_authority=pem(other))).request("GET", "/version", timeout=60)
    with serving(FakeCluster(), ca=old, hosts=("10.96.0.1", "other.example")) as served:
        with pytest.raises(cluster.UnreachableError, match="IP address mismatch"):
            cluster.Api(access(served, certificate_authority=pem(old))).request("GET", "/version", timeout=60)


def test_a_ca_that_is_no_certificate_is_an_answer_and_no_traceback(api):
    client = cluster.Api(access(api, certificate_authority="nonsense"))
    with pytest.raises(cluster.UnreachableError):
        client.request("GET", "/version", timeout=60)


def test_without_a_ca_the_certificate_is_not_verified(api, recwarn):
    client = cluster.Api(access(api, certificate_authority=None))
    assert client.request("GET", "/version", timeout=60).ok
    assert not recwarn.list


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_asked(api):
    api.silent.set()  # until this test has ended
    with pytest.raises(cluster.UnreachableError, match=r"no answer within 0\.3 s"):
        cluster.Api(access(api)).request("GET", "/version", timeout=0.3)
    assert len(api.requests) == 1


@pytest.mark.filterwarnings("ignore:URLs without a scheme")
@pytest.mark.parametrize("server", ["https://127.0.0.1:1", "https://127.0.0.1:notaport", "ftp://x", "", "https://["])
def test_a_server_address_that_leads_nowhere_is_unreachable(server):
    with pytest.raises(cluster.UnreachableError):
        cluster.Api(cluster.Access(server, "t", None)).request("GET", "/version", timeout=2)


def test_a_token_that_cannot_stand_in_a_header_is_unreachable(api):
    with pytest.raises(cluster.UnreachableError):
        cluster.Api(access(api, token="two\nlines")).request("GET", "/version", timeout=2)


def test_a_proxy_of_the_containers_environment_is_not_used(api, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert cluster.Api(access(api)).request("GET", "/version", timeout=60).ok


def test_the_token_is_not_in_the_representation_of_an_access(api):
    assert "good-token" not in repr(access(api))


# ---- the process ----


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.INFO, "entrypoint")
    return caplog


def as_order(order):
    return {name: getattr(order, name) for name in taint.Order.__dataclass_fields__}


@pytest.mark.process
def test_the_child_process_removes_the_taint_and_its_words_reach_our_log(api, order, logged):
    api.add_node("node-1", MINE)
    process = child.Child("entrypoint.errands.taint", as_order(order), "remove the taint")
    process.start()
    until(lambda: "removed the taint" in logged.text)
    assert api.taints("node-1") == []


@pytest.mark.process
def test_a_child_at_work_is_killed(api, order):
    api.add_node("node-1", MINE)
    api.silent.set()
    process = child.Child("entrypoint.errands.taint", as_order(order), "remove the taint")
    process.start()
    api.wait_for_requests(1)
    process.stop()
    assert process.ended.wait(BOUND)
    assert process._process.returncode == -signal.SIGKILL


@pytest.mark.process
def test_a_child_that_is_told_to_stop_before_it_has_started_never_starts():
    process = child.Child("entrypoint.errands.taint", {}, "remove the taint")
    process.stop()
    process.start()
    until(lambda: not any(thread.name == "remove the taint" for thread in threading.enumerate()))
    assert process._process is None


@pytest.mark.process
def test_a_child_that_is_killed_is_started_again(api, order, logged, monkeypatch):
    monkeypatch.setattr(child, "RESTART_AFTER", 0.01)
    api.add_node("node-1", MINE)
    api.silent.set()
    process = child.Child("entrypoint.errands.taint", as_order(order), "remove the taint")
    process.start()
    api.wait_for_requests(1)
    process._process.kill()
    api.silent.clear()
    until(lambda: "removed the taint" in logged.text)
    assert "was killed (signal 9)" in logged.text


def test_a_child_that_cannot_be_started_is_not_called_killed(logged, monkeypatch):
    def exhausted(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", exhausted)
    process = child.Child("entrypoint.errands.taint", {}, "remove the taint")
    process.start()
    until(lambda: "Trying again in 30 s" in logged.text)
    process.stop()
    assert "could not be started: Too many open files" in logged.text
    assert "killed" not in logged.text
    assert process.ended.wait(BOUND)


@pytest.mark.process
def test_a_persistent_child_that_meets_the_unforeseen_is_started_again_and_others_are_not(logged, monkeypatch):
    monkeypatch.setattr(child, "RESTART_AFTER", 0.01)
    once = child.Child("entrypoint.errands.taint", {}, "do what cannot be done")
    once.start()
    assert once.ended.wait(BOUND)
    assert logged.text.count("internal error: TypeError") == 1
    again = child.Child("entrypoint.errands.taint", {}, "remove the taint", persistent=True)
    again.start()
    until(lambda: logged.text.count("that was to remove the taint failed. Trying again") >= 2)
    again.stop()
    assert again.ended.wait(BOUND)


@pytest.mark.process
def test_a_child_whose_parent_is_gone_ends_by_itself(order):
    command = [
        sys.executable,
        "-m",
        "entrypoint.errands.taint",
        json.dumps({**as_order(order), "server": "https://127.0.0.1:1"}),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert b"Connection refused" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(BOUND) == 1
    process.stdout.close()


@pytest.mark.process
def test_the_token_is_neither_on_the_command_line_nor_in_the_output(order, api):
    api.add_node("node-1", MINE)
    process = child.Child("entrypoint.errands.taint", as_order(order), "remove the taint")
    assert "good-token" not in " ".join(process._command)


@pytest.mark.process
def test_a_fault_of_ours_in_the_child_is_a_message_and_no_traceback():
    process = subprocess.run(
        [sys.executable, "-m", "entrypoint.errands.taint", '{"odd": 1}'], stdin=subprocess.DEVNULL, capture_output=True
    )
    assert process.returncode == 1
    assert json.loads(process.stdout)["level"] == "ERROR"
    assert process.stderr == b""


def test_the_command_line_and_the_resident_process_load_neither_the_client_nor_jeepney():
    assert loaded_by("entrypoint.cli.commands") == []


def loaded_by(modules):
    heavy = ["ssl", "kubernetes", "urllib3", "jeepney", "yaml", "entrypoint.errands.taint"]
    code = f"import sys, {modules}; print(*(name for name in {heavy} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
