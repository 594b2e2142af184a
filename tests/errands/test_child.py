"""Short-lived processes and who follows them; the removal of the startup taint is the example."""

import errno
import json
import logging
import subprocess
import sys
import threading
from dataclasses import asdict

import pytest

from entrypoint.errands import child, patience
from tests.waiting import BOUND, until

KEY = "multus.example/not-ready"
TAINT = "entrypoint.errands.taint"


@pytest.fixture
def order(account):
    return asdict(patience.Order(**account, taint=(KEY, None)))


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.INFO, "entrypoint")
    return caplog


@pytest.mark.process
def test_a_child_that_is_told_to_stop_before_it_has_started_never_starts():
    process = child.Child(TAINT, {}, "remove the taint")
    process.stop()
    process.start()
    until(lambda: not any(thread.name == "remove the taint" for thread in threading.enumerate()))
    assert process._process is None


@pytest.mark.process
def test_a_child_that_is_killed_is_started_again_and_its_words_reach_our_log(api, order, logged, monkeypatch):
    monkeypatch.setattr(child, "RESTART_AFTER", 0.01)
    api.add_node("node-1", {"key": KEY, "effect": "NoSchedule"})
    api.silent.set()
    process = child.Child(TAINT, order, "remove the taint")
    process.start()
    api.wait_for_requests(1)
    assert "good-token" not in " ".join(process._process.args)
    process._process.kill()
    api.silent.clear()
    until(lambda: "removed the taint" in logged.text)
    assert "was killed (signal 9), mostly for want of memory: raise the container's memory limit" in logged.text


def test_a_child_that_cannot_be_started_is_not_called_killed(logged, monkeypatch):
    def exhausted(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", exhausted)
    process = child.Child(TAINT, {}, "remove the taint")
    process.start()
    until(lambda: "Trying again in 30 s" in logged.text)
    process.stop()
    assert "could not be started: Too many open files" in logged.text
    assert "killed" not in logged.text
    assert process.ended.wait(BOUND)


@pytest.mark.process
def test_a_persistent_child_that_meets_the_unforeseen_is_started_again_and_others_are_not(logged, monkeypatch, capfd):
    monkeypatch.setattr(child, "RESTART_AFTER", 0.01)
    once = child.Child(TAINT, {}, "do what cannot be done")
    once.start()
    assert once.ended.wait(BOUND)
    assert logged.text.count("internal error: TypeError") == 1
    again = child.Child(TAINT, {}, "remove the taint", persistent=True)
    again.start()
    until(lambda: logged.text.count("that was to remove the taint failed, for the reason above. Trying again") >= 2)
    again.stop()
    assert again.ended.wait(BOUND)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.process
def test_a_child_whose_parent_is_gone_ends_by_itself(order):
    command = [sys.executable, "-m", TAINT, json.dumps({**order, "server": "https://127.0.0.1:1"})]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert b"Connection refused" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(BOUND) == 1
    process.stdout.close()
