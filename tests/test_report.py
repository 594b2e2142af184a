import logging

import pytest

from entrypoint.telling.reporter import Reporter


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage().partition(" (")[0] for record in caplog.records]


def test_what_lasts_is_said_once_and_what_comes_back_is_said_again(said):
    reporter = Reporter()
    for messages in (["a"], ["a"], ["a", "b"], ["b"], ["a", "b"]):
        reporter.errors(messages, 0.0)
    assert said() == ["a", "b", "a"]
    assert reporter.held_until is None


def test_what_flips_is_said_ten_times_a_minute_and_in_the_end_as_it_is_then(said):
    reporter = Reporter()
    for number in range(1000):
        reporter.errors(["rival"] if number % 2 else [], number / 100)
        reporter.warnings(["odd"] if number % 2 else [], number / 100)
        reporter.configured(configured=number % 2 == 0, now=number / 100)
        reporter.waiting("waiting" if number % 2 else None, number / 100)
    assert len(said()) == 50
    assert 60.0 < reporter.held_until < 60.1
    assert said().count("the node is configured") == said().count("the node is not configured any more") == 10
    reporter.errors(["rival"], 61.0)
    reporter.warnings([], 61.0)
    reporter.configured(configured=True, now=61.0)
    assert reporter.waiting("waiting", 61.0) == 91.0
    assert said()[50:] == ["rival", "the node is configured", "waiting"]
    assert reporter.held_until is None


def test_the_last_time_says_that_it_is_the_last_for_a_while(caplog):
    reporter = Reporter()
    for number in range(40):
        reporter.errors(["rival"] if number % 2 else [], number)
    texts = [record.getMessage() for record in caplog.records]
    assert texts == ["rival"] * 9 + ["rival (it comes and goes: not said again for a minute)"]


def test_what_is_waited_for_is_said_every_half_minute_without_an_end(said):
    reporter, now = Reporter(), 0.0
    for _ in range(20):
        now = reporter.waiting("waiting", now)
    assert said() == ["waiting"] * 20
    assert now == 600.0
