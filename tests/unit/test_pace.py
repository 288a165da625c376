"""Pace: when one more executor would be of no help, and when a process uses a core up."""

from __future__ import annotations

import pytest

from flows.pace import HOLD_S, SHORT_S, Load, Pace


class Steady:
    """A steady load, in looks of 10 ms."""

    def __init__(self, took_s: float, cores: float, *, since_begun_s: float = 0.0001) -> None:
        """A run takes so long, and all of the process so much of the processor."""
        self.pace = Pace()
        self.now_s = self.cpu_s = 0.0
        self.took_s, self.cores, self.since_begun_s = took_s, cores, since_begun_s

    def look(self, *, ended: int = 100) -> bool:
        """Let time pass in which so many runs end, and look."""
        self.now_s += 0.01
        self.cpu_s += 0.01 * self.cores
        for _ in range(ended):
            self.pace.ended(self.took_s)
        return self.pace.is_kept(self.now_s, self.cpu_s, self.now_s - self.since_begun_s)


def test_short_runs_that_keep_the_interpreter_busy_need_no_help() -> None:
    load = Steady(SHORT_S / 4, cores=0.9)
    assert [load.look() for _ in range(10)] == [True] * 10


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(Steady(SHORT_S / 4, cores=0.5), id="short ones that leave time"),
        pytest.param(Steady(SHORT_S * 2, cores=0.9), id="longer ones"),
        pytest.param(Steady(0.0001, cores=0.9, since_begun_s=1.0), id="the last one goes on"),
    ],
)
def test_others_do(load: Steady) -> None:
    assert [load.look() for _ in range(10)] == [False] * 10


def test_nothing_is_known_at_first() -> None:
    assert not Steady(SHORT_S / 4, cores=1.0).look(ended=0)


def test_a_few_that_take_longer_change_nothing() -> None:
    load = Steady(SHORT_S / 4, cores=0.9)
    load.look()
    for _ in range(10):
        load.pace.ended(1.0)
        assert load.look(ended=5)


def test_a_process_that_falls_idle_is_noticed_at_the_next_look() -> None:
    load = Steady(SHORT_S / 4, cores=0.9)
    assert load.look()
    assert not load.pace.is_kept(load.now_s + 2 * HOLD_S, load.cpu_s, load.now_s + HOLD_S)


def test_between_two_looks_the_last_answer_stands() -> None:
    load = Steady(SHORT_S / 4, cores=0.9)
    assert load.look()
    assert load.pace.is_kept(load.now_s + HOLD_S / 2, load.cpu_s, load.now_s)


@pytest.mark.parametrize(
    ("cpu_s", "is_full"),
    [
        pytest.param(0.5, False, id="half of a core"),
        pytest.param(0.95, True, id="all but the pauses of its threads"),
        pytest.param(2.0, True, id="two cores"),
    ],
)
def test_a_process_that_uses_a_core_up_is_full(cpu_s: float, is_full: bool) -> None:
    load = Load()
    load.is_full(100.0, 7.0)
    assert load.is_full(101.0, 7.0 + cpu_s) is is_full


def test_a_load_is_what_has_been_since_the_last_look() -> None:
    load = Load()
    load.is_full(100.0, 7.0)
    assert load.is_full(101.0, 8.0)
    assert not load.is_full(102.0, 8.0)
    assert load.is_full(103.0, 9.0)


def test_a_load_is_not_full_at_the_first_look() -> None:
    assert not Load().is_full(0.5, 0.5)
