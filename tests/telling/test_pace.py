import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.telling.pace import Backoff, Pace, earliest


def test_five_times_in_any_five_seconds_and_a_single_one_at_once():
    pace = Pace(5, 5.0)
    for number in range(5):
        assert pace.free_at(10.0 + number / 10) is None
        assert pace.took(10.0 + number / 10) is (number == 4)
    assert pace.free_at(10.5) == 15.0
    assert pace.free_at(15.0) is None
    assert pace.took(15.0)
    assert (pace.free_at(15.0), pace.last()) == (15.1, 15.0)


@given(st.lists(st.floats(0, 3), max_size=60))
def test_whatever_is_wanted_no_five_seconds_see_more_than_five(pauses):
    pace, now, done = Pace(5, 5.0), 0.0, []
    for pause in pauses:
        now += pause
        if pace.free_at(now) is None:
            pace.took(now)
            done.append(now)
    assert all(later - earlier >= 5.0 for earlier, later in zip(done, done[5:], strict=False))


def test_what_was_never_done_is_free_and_long_ago():
    assert (Pace(1, 9.0).free_at(0.0), Pace(1, 9.0).last()) == (None, float("-inf"))


def test_what_fails_is_tried_again_ever_later_up_to_a_last_number_and_begins_anew_after_a_success():
    retry, now, waits = Backoff(1.0, 30.0), 0.0, []
    for _ in range(8):
        at = retry.failed(now)
        waits.append(at - now)
        assert retry.at == at
        now = at
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    retry.succeeded()
    assert retry.at is None
    assert retry.failed(now) == now + 1


@pytest.mark.parametrize(("times", "first"), [((), None), ((None, None), None), ((3.0, None, 2.0), 2.0)])
def test_the_earliest_of_what_is_wanted(times, first):
    assert earliest(*times) == first
