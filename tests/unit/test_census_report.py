"""How the result of a census names places."""

from __future__ import annotations

from examples.census.report import places


def test_places_in_one_file_share_its_path() -> None:
    assert places([("a.py", 1), ("a.py", 20), ("b/c.py", 3)]) == "a.py:1, 20; b/c.py:3"


def test_places_past_the_fourth_are_counted() -> None:
    members = [("a.py", line) for line in range(1, 5)]
    assert places(members) == "a.py:1, 2, 3, 4"
    assert places([*members, ("b.py", 1), ("c.py", 2)]) == "a.py:1, 2, 3, 4; 2 more"
