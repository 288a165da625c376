"""Policies: which can work, and how long a backoff waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flows import RetryPolicy, RunRetryPolicy, exponential_backoff
from flows.clock import LONGEST
from flows.errors import ConfigError

SECOND = timedelta(seconds=1)


def test_nothing_is_tried_again_by_default() -> None:
    assert RetryPolicy() == RetryPolicy(max_retries=0, backoff=None, step_timeout=None)
    assert RunRetryPolicy() == RunRetryPolicy(max_attempts=1, backoff=None)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
        ({"backoff": SECOND}, "backoff"),
        ({"step_timeout": timedelta()}, "step_timeout"),
        ({"step_timeout": -SECOND}, "step_timeout"),
        ({"step_timeout": 10}, "step_timeout"),
        ({"step_timeout": LONGEST + SECOND}, "step_timeout"),
    ],
)
def test_a_step_policy_that_cannot_work_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        RetryPolicy(**options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": "3"}, "max_attempts"),
        ({"backoff": 1.0}, "backoff"),
    ],
)
def test_a_run_policy_that_cannot_work_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        RunRetryPolicy(**options)


def test_a_backoff_of_runs_begins_with_its_base_at_failure_1_and_doubles() -> None:
    backoff = exponential_backoff(SECOND, timedelta(seconds=10))
    assert [backoff(n) / SECOND for n in (1, 2, 3, 4, 5, 6, 100)] == [1, 2, 4, 8, 10, 10, 10]


def test_a_backoff_of_steps_begins_with_its_base_at_failure_0() -> None:
    assert exponential_backoff(SECOND, timedelta(minutes=1))(0) == SECOND


def test_a_maximum_on_the_way_is_reached_and_kept() -> None:
    backoff = exponential_backoff(SECOND, timedelta(seconds=8))
    assert [backoff(n) / SECOND for n in (3, 4, 5)] == [4, 8, 8]


def test_a_backoff_may_be_constant_or_without_a_bound() -> None:
    assert exponential_backoff(SECOND, SECOND)(7) == SECOND
    # None is longer than what the database can add to its time.
    assert exponential_backoff(SECOND, timedelta.max)(10_000) == LONGEST
    assert exponential_backoff(LONGEST + SECOND, timedelta.max)(1) == LONGEST


@pytest.mark.parametrize(
    ("base", "maximum"),
    [(timedelta(), SECOND), (-SECOND, SECOND), (2 * SECOND, SECOND)],
)
def test_a_backoff_that_would_not_grow_is_refused(base: timedelta, maximum: timedelta) -> None:
    with pytest.raises(ConfigError, match="0 < base <= maximum"):
        exponential_backoff(base, maximum)
