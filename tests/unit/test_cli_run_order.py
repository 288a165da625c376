"""The order of a run's page: places before clocks, clocks for what has no place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import NamedTuple

from flows.cli.run_order import in_order

BEGUN = datetime(2026, 3, 1, tzinfo=UTC)


class Made(NamedTuple):
    name: str
    at_s: float
    placed: tuple[int, int] | None = None


def names(*made: Made) -> str:
    """Return the names in their order, which is the same however they are given."""
    found = {
        "".join(each.name for each in in_order(given, at, placed)) for given in permutations(made)
    }
    (one,) = found
    return one


def at(made: Made) -> datetime:
    return BEGUN + timedelta(seconds=made.at_s)


def placed(made: Made) -> tuple[int, int] | None:
    return made.placed


def test_places_decide_whatever_the_clocks_say() -> None:
    made = [Made("a", 3, (1, 1000)), Made("b", 1, (1, 2000)), Made("c", 2, (1, 3000))]
    assert names(*made) == "abc"


def test_a_later_claim_comes_later_whatever_its_place() -> None:
    assert names(Made("a", 2, (2, 1000)), Made("b", 1, (1, 2000))) == "ba"


def test_what_has_no_place_goes_by_its_time() -> None:
    made = [Made("a", 1, (1, 1000)), Made("b", 5, (1, 2000)), Made("c", 4, (1, 3000))]
    assert names(*made, Made("e", 2)) == "aebc"
    assert names(*made, Made("e", 4.5)) == "aebc"
    assert names(*made, Made("e", 6), Made("f", 0)) == "fabce"
