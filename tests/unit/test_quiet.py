"""Quiet: a worker asks for it where runs come in crowds, and wants to be told once they do not."""

from __future__ import annotations

import pytest

from flows.quiet import AGAIN_S, FEW, MANY, MOST_SHARDS, WINDOW_S, Quiet, quiet_key

NOW_S = 0.0
"""From which sums are exact."""


@pytest.fixture
def quiet() -> Quiet:
    """Of a worker that is told."""
    return told(MOST_SHARDS)


def told(shards: int) -> Quiet:
    quiet = Quiet(shards)
    quiet.ended(NOW_S)
    return quiet


@pytest.fixture
def asked(quiet: Quiet) -> Quiet:
    """Of one that has asked for quiet."""
    quiet.asked(NOW_S, is_granted=True)
    return quiet


def hear(quiet: Quiet, notifications: int, looks: int) -> bool:
    """Have a window pass, and return whether it is to ask for quiet."""
    for _ in range(notifications):
        quiet.told()
    for _ in range(looks):
        quiet.looked(1, is_full=False)
    return quiet.should_ask(NOW_S + WINDOW_S)


def find(quiet: Quiet, runs: int, *, is_full: bool = False) -> bool:
    """Have a window pass, and return whether it is to be told again."""
    quiet.looked(runs, is_full=is_full)
    return quiet.should_end(NOW_S + WINDOW_S)


def test_it_begins_as_one_that_is_to_be_told() -> None:
    quiet = Quiet(1)
    assert quiet.should_end(NOW_S + WINDOW_S)
    # And goes on to be if that cannot be had at once.
    assert not quiet.should_ask(NOW_S + WINDOW_S)
    assert not quiet.is_told
    quiet.ended(NOW_S)
    assert quiet.is_told
    assert not quiet.should_end(NOW_S + WINDOW_S)


def test_a_crowd_is_a_reason_to_ask(quiet: Quiet) -> None:
    assert hear(quiet, MANY, MANY // 2)


def test_some_are_no_crowd(quiet: Quiet) -> None:
    assert not hear(quiet, MANY - 1, 1)


def test_however_fast_they_come_one_for_each_look_is_no_crowd(quiet: Quiet) -> None:
    assert not hear(quiet, 10 * MANY, 10 * MANY)


def test_who_has_no_room_to_look_does_not_ask(quiet: Quiet) -> None:
    assert not hear(quiet, MANY, 0)


def test_whoever_has_many_shards_does_not_ask() -> None:
    assert not hear(told(MOST_SHARDS + 1), MANY, 1)


def test_it_is_asked_once_a_window_and_each_counts_by_itself(quiet: Quiet) -> None:
    for _ in range(MANY):
        quiet.told()
    quiet.looked(1, is_full=False)
    assert not quiet.should_ask(NOW_S + WINDOW_S / 2)
    assert quiet.should_ask(NOW_S + WINDOW_S)
    assert not quiet.should_ask(NOW_S + 2 * WINDOW_S)


def test_a_crowd_ends_with_a_window_in_which_few_are_found(asked: Quiet) -> None:
    assert not find(asked, FEW)
    asked.ended(NOW_S)
    asked.asked(NOW_S, is_granted=True)
    assert find(asked, FEW - 1)


def test_who_leaves_runs_behind_need_not_be_told_of_more(asked: Quiet) -> None:
    assert not find(asked, 1, is_full=True)


def test_who_has_no_room_to_look_any_more_is_told_again(asked: Quiet) -> None:
    asked.looked(MANY, is_full=True)
    assert not asked.should_end(NOW_S + WINDOW_S)
    assert asked.should_end(NOW_S + 2 * WINDOW_S)


def test_the_lock_of_another_worker_is_asked_for_again_after_a_while(quiet: Quiet) -> None:
    quiet.asked(NOW_S, is_granted=False)
    assert not quiet.should_ask(NOW_S + AGAIN_S / 2)
    assert quiet.should_ask(NOW_S + AGAIN_S)
    quiet.asked(NOW_S + AGAIN_S, is_granted=True)
    assert not quiet.should_ask(NOW_S + 3 * AGAIN_S)


def test_asking_again_puts_off_no_end(quiet: Quiet) -> None:
    quiet.asked(NOW_S, is_granted=False)
    for pass_s in (0.01, 0.02, 0.03, 0.04):
        quiet.asked(NOW_S + pass_s, is_granted=False)
    assert find(quiet, 0)


def test_each_workflow_channel_and_schema_has_locks_of_its_own() -> None:
    keys = {
        quiet_key("flows", "a", "b"),
        quiet_key("flows", "b", "a"),
        quiet_key("other", "a", "b"),
        quiet_key("flows", "ab", ""),
    }
    assert len(keys) == 4
    assert all(key % 4 == 0 and -(2**63) <= key < 2**63 - 2 for key in keys)
