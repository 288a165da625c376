"""Who hangs, and whose time is over: decided from what a board says."""

from __future__ import annotations

import os
from typing import Any

import pytest

from flows.board import BoardState, Executing
from flows.supervisor.hangs import HangLimits, HangWatch, Incident
from flows.supervisor.jobs import WorkflowPlan
from flows.supervisor.recycling import Lifetime, resident_bytes

LIMITS = HangLimits(heartbeat_s=10.0, database_s=30.0, step_s=600.0)


def state(
    heartbeat_s: float = 100.0, database_since_s: float = 0.0, *runs: Executing | None
) -> BoardState:
    return BoardState(heartbeat_s, database_since_s, runs, 0)


def watch(kill_after_s: float | None = None) -> HangWatch:
    return HangWatch(kill_after_s, LIMITS)


def test_a_process_that_has_not_begun_does_not_hang() -> None:
    assert watch(1.0).look(state(0.0), 1000.0) == []


def test_a_heartbeat_that_stays_away_is_told_once_with_what_was_running() -> None:
    watching = watch()
    run = Executing("r1", 1, 1, 50.0, "encode", 60.0)
    assert watching.look(state(100.0, 0.0, run), 109.9) == []
    assert watching.look(state(100.0, 0.0, run, None), 110.0) == [
        Incident("no Python has run for 10 s, during r1 (step encode)", wants_stacks=True)
    ]
    assert watching.look(state(100.0, 0.0, run), 500.0) == []
    # Another one is another incident.
    assert len(watching.look(state(500.0, 0.0), 511.0)) == 1


def test_only_where_it_is_configured_a_hanging_process_is_killed() -> None:
    assert not any(each.kill for each in watch().look(state(100.0), 10_000.0))
    watching = watch(30.0)
    assert [each.kill for each in watching.look(state(100.0), 129.9)] == [False]
    assert [each.kill for each in watching.look(state(100.0), 130.0)] == [True]
    # Shorter than what is told otherwise.
    assert [each.kill for each in watch(2.0).look(state(100.0), 102.0)] == [True]


def test_a_busy_step_is_told_and_never_killed() -> None:
    watching = watch(1.0)
    run = Executing("r1", 1, 1, 0.0, "encode", 100.0)
    assert watching.look(state(699.5, 0.0, run), 699.9) == []
    assert watching.look(state(699.5, 0.0, run), 700.0) == [
        Incident("step encode of run r1 has run for 600 s", wants_stacks=True)
    ]
    assert watching.look(state(800.0, 0.0, run), 800.5) == []


def test_a_process_that_is_deaf_over_a_deadline_is_killed() -> None:
    limits = HangLimits(grace_s=5.0, deaf_s=7.0)
    run = Executing("r1", 1, 1, 100.0, "encode", 100.0, 103.0)

    def kills(heartbeat_s: float, now_s: float, *runs: Executing | None) -> bool:
        incidents = HangWatch(None, limits).look(state(heartbeat_s, 0.0, *runs), now_s)
        return any(each.kill for each in incidents)

    assert kills(102.9, 109.9, None, run)
    # Not before it is deaf, nor within the grace, nor where it could act since.
    assert not kills(102.9, 109.8, None, run)
    assert not kills(100.0, 107.9, None, run)
    assert kills(100.0, 108.0, None, run)
    assert not kills(103.0, 200.0, None, run)
    assert not kills(100.0, 200.0, Executing("r1", 1, 1, 100.0, "encode", 100.0))
    [incident] = HangWatch(None, limits).look(state(100.0, 0.0, run), 110.0)
    text = "no Python has run since the time of step encode of run r1 was up, 7 s ago"
    assert incident == Incident(text, kill=True)


def test_the_nearest_deadline_is_told_with_the_grace() -> None:
    watching = HangWatch(None, HangLimits(grace_s=5.0))
    runs = [Executing("r1", 1, 1, 0.0, None, 0.0, at_s) for at_s in (0.0, 30.0, 20.0)]
    assert watching.next_deadline_s(state(1.0, 0.0, *runs, None)) == 25.0
    assert watching.next_deadline_s(state(1.0, 0.0, runs[0], None)) is None


def test_a_run_between_steps_is_not_a_busy_step() -> None:
    assert watch().look(state(9999.0, 0.0, Executing("r1", 1, 1, 0.0, None, 0.0)), 10_000.0) == []


def test_a_database_that_does_not_answer_is_told_apart() -> None:
    watching = watch(5.0)
    assert watching.look(state(129.0, 100.0), 129.9) == []
    assert watching.look(state(129.5, 100.0), 130.0) == [
        Incident("has waited for the database for 30 s")
    ]
    assert watching.look(state(139.5, 100.0), 140.0) == []


@pytest.mark.parametrize(
    ("limits", "seen", "why"),
    [
        ({"max_runs": 100}, (0.0, 89, None), None),
        ({"max_runs": 100}, (0.0, 90, None), "has finished 90 runs"),
        ({"max_runs": 1}, (0.0, 0, None), None),
        ({"max_runs": 1}, (0.0, 1, None), "has finished 1 runs"),
        ({"max_age_s": 100.0}, (89.9, 0, None), None),
        ({"max_age_s": 100.0}, (90.0, 0, None), "is 90 s old"),
        ({"max_rss": 2**30}, (1e9, 10**9, 2**30), None),
        ({"max_rss": 2**30}, (0.0, 0, 2**30 + 1), "holds 1024 MiB of memory"),
        ({"max_rss": 2**30}, (0.0, 0, None), None),
    ],
)
def test_a_process_is_replaced_when_its_time_is_over(
    limits: dict[str, Any], seen: tuple[float, int, int | None], why: str | None
) -> None:
    assert Lifetime(**limits, shorter=0.1).is_over(*seen) == why


def test_a_workflow_without_limits_keeps_its_processes() -> None:
    assert Lifetime.of(WorkflowPlan("render")) is None
    lifetimes = {Lifetime.of(WorkflowPlan("render", max_age_s=10.0)) for _ in range(20)}
    assert all(each is not None and 0.0 <= each.shorter < 0.1 for each in lifetimes)
    assert len(lifetimes) > 1


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")  # noqa: PTH110
def test_the_memory_of_a_process_is_told() -> None:
    held = resident_bytes(os.getpid())
    assert held is not None
    assert 2**20 < held < 2**36
    assert resident_bytes(2**22 + 1) is None
