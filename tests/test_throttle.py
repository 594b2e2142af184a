from pathlib import Path

import pytest
from entrypoint.node.values import Remove, Write
from entrypoint.telling.throttle import Throttle
from hypothesis import given
from hypothesis import strategies as st

FILE = Path("/n/00-multus.conf")
WRITE = Write(FILE, b"a", 0o600)


@pytest.mark.parametrize("changing", [False, True], ids=["the same again", "something new each time"])
def test_a_file_is_written_five_times_in_any_five_seconds(changing):
    throttle = Throttle()
    for number in range(5):
        step = Write(FILE, b"%d" % (number if changing else 0), 0o600)
        assert throttle.held_until(step, 10.0 + number / 10) is None
        throttle.done(step, 10.0 + number / 10)
    for step in (WRITE, Write(FILE, b"new", 0o600), Remove(FILE, "")):
        assert throttle.held_until(step, 10.5) == 15.0
        assert throttle.held_until(step, 15.0) is None
    throttle.done(WRITE, 15.0)
    assert throttle.held_until(WRITE, 15.0) == 15.1


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 2)), max_size=60))
def test_whatever_is_wanted_no_five_seconds_see_more_than_five_writes(events):
    throttle, now, written = Throttle(), 0.0, []
    for pause, content in events:
        now += pause
        step = Write(FILE, b"%d" % content, 0o600)
        if throttle.held_until(step, now) is None:
            throttle.done(step, now)
            written.append(now)
    assert all(later - earlier >= 5.0 for earlier, later in zip(written, written[5:], strict=False))


def test_other_files_are_not_held_back():
    throttle = Throttle()
    for _ in range(5):
        throttle.done(WRITE, 10.0)
    assert throttle.held_until(Write(Path("/n/x"), b"a", 0o600), 10.0) is None


def test_the_fifth_repair_in_a_minute_is_a_warning_that_names_the_file_once():
    throttle = Throttle()
    warnings = [throttle.done(WRITE, float(second)) for second in range(20)]
    assert [second for second, warning in enumerate(warnings) if warning] == [5]
    assert str(FILE) in warnings[5]


def test_repairs_spread_over_more_than_a_minute_are_none():
    throttle = Throttle()
    assert not any(throttle.done(WRITE, second * 20.0) for second in range(20))


def test_a_failing_step_is_tried_again_ever_later_up_to_thirty_seconds():
    throttle = Throttle()
    now, waits = 0.0, []
    for _ in range(8):
        until = throttle.failed(WRITE, now)
        assert throttle.held_until(WRITE, now) == until
        waits.append(until - now)
        now = until
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    other = Write(FILE, b"b", 0o600)
    assert throttle.held_until(other, now) is None
    assert throttle.failed(other, now) == now + 1


def test_success_after_failures_is_no_repair_and_ends_the_back_off():
    throttle = Throttle()
    throttle.failed(WRITE, 0.0)
    throttle.failed(WRITE, 1.0)
    assert throttle.done(WRITE, 3.0) is None
    assert throttle.held_until(WRITE, 4.0) is None
    assert throttle.failed(WRITE, 5.0) == 6.0


def test_a_directory_that_was_made_again_starts_anew(tmp_path):
    throttle = Throttle()
    step = Write(tmp_path / "x", b"a", 0o600)
    for _ in range(5):
        throttle.done(step, 10.0)
    throttle.forget({"/elsewhere"})
    assert throttle.held_until(step, 10.1) is not None
    throttle.forget({str(tmp_path)})
    assert throttle.held_until(step, 10.1) is None


def test_repairs_of_a_fight_that_was_told_of_are_known_and_other_steps_are_not():
    throttle = Throttle()
    known = []
    for second in range(8):
        throttle.done(WRITE, float(second))
        known.append(throttle.known_fight(WRITE, float(second)))
    assert known == [False] * 5 + [True] * 3
    assert not throttle.known_fight(WRITE, 5.0 + 60.0)
    other = Write(FILE, b"b", 0o600)
    throttle.done(other, 9.0)
    assert not throttle.known_fight(other, 9.0)


def test_a_repair_is_one_whatever_file_it_takes_the_place_of():
    throttle = Throttle()
    repairs = [WRITE._replace(over=(1, number, number)) for number in range(6)]
    said = [throttle.done(step, 10.0 * number) for number, step in enumerate(repairs)]
    assert [bool(message) for message in said] == [False] * 5 + [True]
    assert throttle.known_fight(repairs[-1], 51.0)
