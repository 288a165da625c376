"""Places: what is made now stands where the code is, between what it has passed and what comes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from flows.places import GAP, MemoKind, Places


def known(*keys: str) -> dict[tuple[MemoKind, str], int]:
    """Return the places of steps that an earlier attempt has made, in this order."""
    places = Places({})
    return {("step", key): places.take("step", key) for key in keys}


def test_a_first_attempt_counts() -> None:
    places = Places({})
    kinds: tuple[MemoKind, ...] = ("step", "wait", "random")
    assert [places.take(kind, "a") for kind in kinds] == [GAP, 2 * GAP, 3 * GAP]


def test_a_resumed_attempt_goes_on_behind_what_it_has_passed() -> None:
    places = Places(known("a", "b"))
    places.pass_by("step", "a")
    places.pass_by("step", "b")
    assert places.take("step", "c") == 3 * GAP


def test_what_has_its_memo_and_comes_again_does_not_lead_back() -> None:
    places = Places(known("a", "b"))
    for key in "ab", "a":
        for one in key:
            places.pass_by("step", one)
    assert places.take("step", "c") == 3 * GAP


def test_what_was_not_counted_leaves_the_place_as_it_is() -> None:
    places = Places(known("a"))
    places.pass_by("step", "a")
    places.pass_by("wait", "of the reference package")
    assert places.take("step", "b") == 2 * GAP


def test_a_wait_that_was_open_ends_in_its_own_place() -> None:
    places = Places({("step", "a"): GAP, ("wait", "a"): 2 * GAP, ("step", "z"): 3 * GAP})
    places.pass_by("step", "a")
    assert places.take("wait", "a") == 2 * GAP
    assert places.take("random", "a") == 2 * GAP + 1


def test_a_step_that_had_failed_is_executed_again_in_its_place() -> None:
    memos = known("a", "failed", "b")
    place = memos.pop(("step", "failed"))
    places = Places(memos)
    places.pass_by("step", "a")
    assert places.take("step", "failed") == place


@pytest.mark.parametrize("count", [1, 2, GAP - 1])
def test_steps_that_code_was_given_later_stand_between_those_that_were_there(count: int) -> None:
    places = Places(known("a", "b", "c"))
    places.pass_by("step", "a")
    new = [places.take("step", f"new {number}") for number in range(count)]
    assert all(before < after for before, after in pairwise([GAP, *new, 2 * GAP]))
    for key in "bc":
        places.pass_by("step", key)
    assert places.take("step", "d") == 4 * GAP


def test_more_than_have_room_stand_in_their_order_still() -> None:
    places = Places(known("a", "of a branch that is not taken any more"))
    places.pass_by("step", "a")
    taken = [places.take("step", f"new {number}") for number in range(3 * GAP)]
    assert all(before < after for before, after in pairwise([GAP, *taken]))


def test_what_has_moved_down_is_behind_what_it_comes_after() -> None:
    places = Places({("wait", "open"): GAP, ("step", "a"): 2 * GAP})
    places.pass_by("step", "a")
    assert places.take("wait", "open") == 3 * GAP
