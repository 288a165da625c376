"""The timekeeper: calls at their times, in their order, and nothing that was taken back."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest

from flows.clock import monotonic
from flows.timekeeper import Timekeeper
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def timekeeper() -> Iterator[Timekeeper]:
    timekeeper = Timekeeper(logging.getLogger("test"))
    yield timekeeper
    timekeeper.stop()


def nothing() -> None:
    pass


def broken() -> None:
    raise ValueError("no number")


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_calls_are_made_in_the_order_of_their_times(timekeeper: Timekeeper) -> None:
    made: list[str] = []
    done = threading.Event()
    now_s = monotonic()
    timekeeper.call_at(now_s + 0.06, done.set)
    timekeeper.call_at(now_s + 0.04, lambda: made.append("later"))
    timekeeper.call_at(now_s + 0.02, lambda: made.append("sooner"))
    timekeeper.call_at(now_s - 1, lambda: made.append("at once"))
    assert done.wait(10)
    assert made == ["at once", "sooner", "later"]
    assert monotonic() >= now_s + 0.06


def test_there_is_no_thread_before_a_call_is_asked_for(timekeeper: Timekeeper) -> None:
    assert "flows-timekeeper" not in names()
    timekeeper.call_at(monotonic() + 3600, nothing)
    assert "flows-timekeeper" in names()
    timekeeper.stop()
    assert "flows-timekeeper" not in names()


def test_a_call_that_was_taken_back_is_not_made(timekeeper: Timekeeper) -> None:
    made: list[str] = []
    done = threading.Event()
    now_s = monotonic()
    alarm = timekeeper.call_at(now_s + 0.01, lambda: made.append("taken back"))
    timekeeper.call_at(now_s + 0.02, done.set)
    timekeeper.drop(alarm)
    timekeeper.drop(alarm)
    assert done.wait(10)
    assert made == []


def test_a_call_that_raises_costs_no_other(
    timekeeper: Timekeeper, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()
    timekeeper.call_at(monotonic(), broken)
    timekeeper.call_at(monotonic(), done.set)
    assert done.wait(10)
    assert "a deadline could not be kept" in caplog.text


def test_calls_taken_back_do_not_pile_up(timekeeper: Timekeeper) -> None:
    kept = [timekeeper.call_at(monotonic() + 3600, nothing) for _ in range(10)]
    for _ in range(10_000):
        timekeeper.drop(timekeeper.call_at(monotonic() + 3600, nothing))
    assert timekeeper.waiting < 1000
    assert all(alarm.act is not None for alarm in kept)


def test_a_call_sooner_than_all_others_ends_the_wait(timekeeper: Timekeeper) -> None:
    timekeeper.call_at(monotonic() + 3600, nothing)
    wait_until(lambda: timekeeper.waiting == 1, what="the thread waits")
    done = threading.Event()
    timekeeper.call_at(monotonic() + 0.01, done.set)
    assert done.wait(10)
