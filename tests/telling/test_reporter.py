import logging

import pytest

from entrypoint.telling.reporter import Reporter, Verdict


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage().partition(" (")[0] for record in caplog.records]


def test_what_lasts_is_said_once_and_what_comes_back_is_said_again(said):
    reporter = Reporter()
    for messages in (["a"], ["a"], ["a", "b"], ["b"], ["a", "b"]):
        assert reporter.told(Verdict(ready=False, errors=messages), 0.0) is None
    assert said() == ["a", "b", "a"]


def test_the_verdict_is_said_when_it_changes_with_its_level(caplog):
    caplog.set_level(logging.INFO)
    reporter = Reporter()
    for ready in (False, True, True, False):
        reporter.told(Verdict(ready, ["broken"], ["odd"]), 0.0)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "odd"),
        ("ERROR", "broken"),
        ("INFO", "the node is configured"),
        ("INFO", "the node is not configured any more"),
    ]


def test_what_flips_is_said_ten_times_a_minute_and_in_the_end_as_it_is_then(said):
    reporter = Reporter()
    for number in range(1000):
        odd = bool(number % 2)
        again = reporter.told(
            Verdict(not odd, ["rival"] if odd else [], ["odd"] if odd else [], "waiting" if odd else None), number / 100
        )
    assert len(said()) == 50
    assert 60.0 < again < 60.1
    assert said().count("the node is configured") == said().count("the node is not configured any more") == 10
    assert reporter.told(Verdict(ready=True, errors=["rival"], waits="waiting"), 61.0) == 91.0
    assert said()[50:] == ["rival", "the node is configured", "waiting"]


def test_the_last_time_says_that_it_is_the_last_for_a_while(caplog):
    reporter = Reporter()
    for number in range(40):
        reporter.told(Verdict(ready=False, errors=["rival"] if number % 2 else []), number)
    texts = [record.getMessage() for record in caplog.records]
    assert texts == ["rival"] * 9 + ["rival (it comes and goes: not said again for a minute)"]


def test_what_is_waited_for_is_said_every_half_minute_without_an_end(said):
    reporter, now = Reporter(), 0.0
    for _ in range(20):
        now = reporter.told(Verdict(ready=False, waits="waiting"), now)
    assert said() == ["waiting"] * 20
    assert now == 600.0
