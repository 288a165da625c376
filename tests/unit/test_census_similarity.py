"""The similarity join against all pairs compared one by one."""

from __future__ import annotations

import struct
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.census.similarity import (
    Family,
    Fingerprint,
    Link,
    Part,
    families,
    links,
    parts,
    shingles,
    spanning_forest,
)


def fingerprint(number: int, elements: set[int]) -> Fingerprint:
    return Fingerprint((f"{number}.py", 1), struct.pack(f"<{len(elements)}Q", *sorted(elements)))


def all_pairs(fingerprints: list[Fingerprint], percent: int) -> list[Link]:
    found = []
    for one, other in combinations(sorted(fingerprints), 2):
        mine, theirs = set(one.elements()), set(other.elements())
        shared, union = len(mine & theirs), len(mine | theirs)
        if shared * 100 >= percent * union:
            found.append(Link(shared / union, one.key, other.key))
    return sorted(found)


def numbers(packed: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(packed) // 8}Q", packed))


def test_shingles_are_runs_of_five_tokens() -> None:
    assert len(numbers(shingles(list("abcdefg")))) == 3
    assert numbers(shingles(list("abcd"))) == []
    shared = set(numbers(shingles(list("abcdefg")))) & set(numbers(shingles(list("xbcdefg"))))
    assert len(shared) == 2


def test_the_order_of_tokens_matters() -> None:
    assert shingles(list("abcde")) != shingles(list("abced"))


def test_the_nth_occurrence_of_a_shingle_is_an_element_of_its_own() -> None:
    once, thrice = numbers(shingles(["a"] * 5)), numbers(shingles(["a"] * 7))
    assert len(once) == 1
    assert len(set(thrice)) == 3
    assert set(once) < set(thrice)


def test_shingles_are_the_same_in_every_process_and_version() -> None:
    # Stored values: another value would make functions of one run unlike those of another.
    assert numbers(shingles(["If", "name", "Return", "name x", "Pass"])) == [1444707210283892052]


def test_the_similarity_of_two_sets_by_hand() -> None:
    fingerprints = [
        fingerprint(1, set(range(10))),
        fingerprint(2, set(range(8))),  # 8 of 10
        fingerprint(3, set(range(2, 12))),  # 8 of 12 with the first
        fingerprint(4, set(range(100, 110))),
    ]
    part = Part(1, 1, 100)
    assert links(fingerprints, part, 80) == [Link(0.8, ("1.py", 1), ("2.py", 1))]
    assert links(fingerprints, part, 81) == []
    assert sorted(links(fingerprints, part, 66)) == [
        Link(8 / 12, ("1.py", 1), ("3.py", 1)),
        Link(0.8, ("1.py", 1), ("2.py", 1)),
    ]


@st.composite
def functions(draw: st.DrawFn) -> list[Fingerprint]:
    """Sets that are often alike: a few originals, each copied with a few elements changed."""
    elements = st.sets(st.integers(0, 40), min_size=1, max_size=25)
    originals = draw(st.lists(elements, min_size=1, max_size=4))
    change = st.tuples(st.sampled_from(originals), st.sets(st.integers(0, 60), max_size=4))
    copies = [original ^ changed for original, changed in draw(st.lists(change, max_size=16))]
    sets = [one for one in originals + copies if one]
    return [fingerprint(number, one) for number, one in enumerate(sets)]


@given(functions(), st.integers(50, 100), st.integers(1, 5))
def test_the_parts_of_the_join_find_every_pair_once(
    fingerprints: list[Fingerprint], percent: int, count: int
) -> None:
    found = []
    for part in parts([one.size for one in fingerprints], count, percent):
        needed = [one for one in fingerprints if part.smallest <= one.size <= part.high]
        found += links(needed, part, percent)
    assert sorted(found) == all_pairs(fingerprints, percent)


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 8), st.integers(50, 100))
def test_every_size_is_of_one_part_and_reaches_down_to_its_partners(
    sizes: list[int], count: int, percent: int
) -> None:
    cut = parts(sizes, count, percent)
    assert len(cut) <= count
    assert all(sum(part.low <= size <= part.high for part in cut) == 1 for size in sizes)
    assert all(one.high < following.low for one, following in pairwise(cut))
    assert all((part.smallest - 1) * 100 < part.low * percent for part in cut)
    assert all(part.smallest * 100 >= part.low * percent for part in cut)


def test_work_is_cut_into_about_equal_parts() -> None:
    cut = parts(list(range(1, 101)), 4, 80)
    work = [sum(range(part.low, part.high + 1)) for part in cut]
    assert len(cut) == 4
    assert max(work) < 1.2 * 5050 / 4


def a_link(similarity: float, first: str, second: str) -> Link:
    return Link(similarity, (first, 1), (second, 1))


CHAIN = [
    a_link(0.9, "a", "b"),
    a_link(0.8, "b", "c"),
    a_link(0.85, "a", "c"),
    a_link(1.0, "x", "y"),
]


def test_a_forest_keeps_the_strongest_links() -> None:
    assert spanning_forest(CHAIN) == [CHAIN[3], CHAIN[0], CHAIN[2]]


def test_a_family_is_as_alike_as_the_weakest_link_it_needs() -> None:
    assert families(CHAIN) == [
        Family([("a", 1), ("b", 1), ("c", 1)], 0.85),
        Family([("x", 1), ("y", 1)], 1.0),
    ]
    assert families([]) == []


@given(functions(), st.integers(1, 4))
def test_families_are_the_same_from_forests_of_parts(
    fingerprints: list[Fingerprint], count: int
) -> None:
    found = all_pairs(fingerprints, 50)
    forests = [link for start in range(count) for link in spanning_forest(found[start::count])]
    assert families(forests) == families(found)


@pytest.mark.parametrize("seed", range(3))
def test_families_do_not_depend_on_the_order_of_links(seed: int) -> None:
    rotated = CHAIN[seed + 1 :] + CHAIN[: seed + 1]
    assert families(rotated) == families(CHAIN)
