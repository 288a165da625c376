"""Look-ahead: how many runs are claimed, by how fast they are executed."""

from __future__ import annotations

import math

import pytest

from flows.lookahead import HORIZON_S, MAX_AHEAD, LookAhead


def measured(runs_per_s: float, *, was_busy: bool = True) -> LookAhead:
    """Return a look-ahead that has seen a steady rate for long enough to believe it."""
    look_ahead = LookAhead()
    for tick in range(200):
        now_s = tick * 0.1
        look_ahead.observe(now_s, round(runs_per_s * now_s), was_busy=was_busy)
    return look_ahead


def test_the_first_claim_fills_the_executors_and_no_more() -> None:
    assert LookAhead().wanted(free=4, waiting=0) == 4


def test_long_runs_are_claimed_one_at_a_time() -> None:
    look_ahead = measured(9.0)
    assert look_ahead.ahead == 0
    assert look_ahead.wanted(free=1, waiting=0) == 1
    assert not look_ahead.should_claim(free=0, waiting=0)


def test_short_runs_are_claimed_by_the_hundred() -> None:
    look_ahead = measured(10_000.0)
    assert abs(look_ahead.ahead - 10_000 * HORIZON_S) <= 1
    assert look_ahead.wanted(free=2, waiting=0) == look_ahead.ahead + 2


def test_there_is_a_bound() -> None:
    assert measured(1e6).ahead == MAX_AHEAD


def test_what_waits_already_is_not_claimed_again() -> None:
    look_ahead = measured(1000.0)
    ahead = look_ahead.ahead
    assert look_ahead.wanted(free=1, waiting=10) == ahead + 1 - 10
    assert look_ahead.wanted(free=0, waiting=ahead + 5) == 0


def test_a_claim_is_worth_it_once_half_is_used_up() -> None:
    look_ahead = measured(1000.0)
    half = look_ahead.ahead // 2
    assert not look_ahead.should_claim(free=0, waiting=half + 1)
    assert look_ahead.should_claim(free=0, waiting=half)


def test_a_starving_executor_is_always_worth_a_claim() -> None:
    look_ahead = measured(1000.0)
    half = look_ahead.ahead // 2
    assert look_ahead.should_claim(free=half + 2, waiting=half + 1)


def test_a_rate_measured_while_executors_starved_does_not_lower_the_estimate() -> None:
    look_ahead = measured(1000.0)
    before = look_ahead.ahead
    for tick in range(50):
        look_ahead.observe(20.0 + tick, 19_900, was_busy=False)
    assert look_ahead.ahead == before


def test_a_rate_measured_under_load_does() -> None:
    look_ahead = measured(1000.0)
    finished = 19_900
    for tick in range(50):
        finished += 10
        look_ahead.observe(20.0 + tick, finished, was_busy=True)
    assert look_ahead.ahead == 1


def test_executors_that_are_busy_for_long_have_nothing_claimed_ahead_for_now() -> None:
    look_ahead = measured(1000.0)
    before = look_ahead.ahead
    look_ahead.observe(20.0, 19_900, was_busy=False, busy_since_s=19.9)
    assert look_ahead.ahead == 0
    assert not look_ahead.should_claim(free=0, waiting=0)
    look_ahead.observe(20.001, 19_901, was_busy=False)
    assert look_ahead.ahead == before


@pytest.mark.parametrize(("busy_s", "ahead"), [(0.09, 100), (0.125, 6), (0.25, 3), (1.0, 0)])
def test_what_several_executors_can_do_at_most_is_bounded_by_how_long_they_are_busy(
    busy_s: float, ahead: int
) -> None:
    look_ahead = LookAhead(1000.0, executors=8)
    look_ahead.claimed()
    look_ahead.observe(2.0, 0, was_busy=False, busy_since_s=2.0 - busy_s)
    assert look_ahead.ahead == ahead


def test_a_rate_of_the_past_is_given_up_and_measured_anew() -> None:
    look_ahead = measured(1000.0)
    look_ahead.begin_anew()
    assert (look_ahead.ahead, look_ahead.rate) == (0, 0.0)
    assert look_ahead.wanted(free=1, waiting=0) == 1
    look_ahead.observe(25.0, 20_000, was_busy=False)
    # What was finished before says nothing.
    assert look_ahead.ahead == 0
    look_ahead.observe(25.125, 20_100, was_busy=False)
    assert look_ahead.ahead == 24


def test_an_interval_too_short_to_measure_is_kept_for_the_next() -> None:
    look_ahead = LookAhead()
    look_ahead.observe(0.0, 0, was_busy=True)
    look_ahead.observe(HORIZON_S / 100, 50, was_busy=True)
    assert look_ahead.ahead == 0
    look_ahead.observe(0.1, 1000, was_busy=True)
    assert look_ahead.ahead > 0


def test_an_inherited_rate_counts_once_a_claim_has_found_runs() -> None:
    look_ahead = LookAhead(5000.0)
    assert look_ahead.wanted(free=10, waiting=0) == 10
    assert look_ahead.rate == 5000.0
    look_ahead.claimed()
    assert look_ahead.ahead == 500
    assert look_ahead.wanted(free=10, waiting=0) == 510


def test_an_inherited_rate_that_is_wrong_is_corrected() -> None:
    look_ahead = LookAhead(10_000.0)
    look_ahead.claimed()
    for tick in range(50):
        look_ahead.observe(tick * 0.1, tick, was_busy=True)
    assert look_ahead.ahead == 1


def test_a_higher_rate_than_the_inherited_one_is_kept() -> None:
    look_ahead = LookAhead(100.0)
    look_ahead.observe(0.0, 0, was_busy=True)
    look_ahead.observe(1.0, 10_000, was_busy=True)
    look_ahead.claimed()
    assert look_ahead.ahead == 300


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -1.0])
def test_an_inherited_rate_that_is_no_rate_is_none(nonsense: float) -> None:
    look_ahead = LookAhead(nonsense)
    look_ahead.claimed()
    assert look_ahead.rate == 0.0
