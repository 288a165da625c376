from __future__ import annotations

import pytest

from flows.supervisor.restart import Backoff, RestartBudget, RestartPolicy

POLICY = RestartPolicy(base_s=1.0, maximum_s=10.0, healthy_s=5.0, budget=3, window_s=60.0)


def without_jitter() -> float:
    return 0.0


def waits(backoff: Backoff, *lived_s: float) -> list[float]:
    return [backoff.next_s(each) for each in lived_s]


def test_the_first_restart_is_immediate_and_later_ones_double_up_to_the_maximum() -> None:
    backoff = Backoff(POLICY, without_jitter)
    assert waits(backoff, 0, 0, 0, 0, 0, 0, 0) == [0, 1, 2, 4, 8, 10, 10]


def test_a_healthy_life_clears_the_count_and_one_just_too_short_does_not() -> None:
    backoff = Backoff(POLICY, without_jitter)
    assert waits(backoff, 0, 0, 4.999, 5.0, 0) == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(("drawn", "expected"), [(0.0, 4.0), (0.5, 3.0), (1.0, 2.0)])
def test_jitter_shortens_a_wait_by_up_to_half(drawn: float, expected: float) -> None:
    backoff = Backoff(POLICY, lambda: drawn)
    assert waits(backoff, 0, 0, 0, 0)[-1] == expected


def test_the_real_jitter_differs_between_two_processes() -> None:
    one, other = Backoff(POLICY), Backoff(POLICY)
    assert waits(one, 0, 0, 0, 0)[1:] != waits(other, 0, 0, 0, 0)[1:]


def test_a_thousand_deaths_in_a_row_still_wait_the_maximum() -> None:
    backoff = Backoff(POLICY, without_jitter)
    assert waits(backoff, *[0.0] * 1000)[-1] == 10


def test_the_budget_is_spent_by_the_allowed_number_of_restarts() -> None:
    budget = RestartBudget(POLICY)
    assert [budget.spend(now_s) for now_s in (0, 1, 2, 3)] == [True, True, True, False]


def test_a_restart_leaves_the_budget_when_the_window_has_passed_it() -> None:
    budget = RestartBudget(POLICY)
    for now_s in (0, 1, 2):
        assert budget.spend(now_s)
    assert not budget.spend(59.999)
    assert budget.spend(60)
    assert not budget.spend(60.5)
    assert budget.spend(61)


def test_a_refused_restart_is_not_charged() -> None:
    budget = RestartBudget(POLICY)
    for now_s in (0, 0, 0, 30, 31, 32):
        budget.spend(now_s)
    assert [budget.spend(60) for _ in range(4)] == [True, True, True, False]
