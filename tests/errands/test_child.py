"""Short-lived processes and who follows them; the removal of the startup taint is the example."""

import errno
import json
import logging
import signal
import subprocess
import sys
import threading

import pytest

from entrypoint.errands import child, taint
from tests.waiting import BOUND, until

KEY = "multus.example/not-ready"
MINE = {"key": KEY, "effect": "NoSchedule"}


@pytest.fixture
def order(account):
    return taint.Order(**account, key=KEY, effect=None)


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
