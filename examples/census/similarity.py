"""Find near-duplicate functions: every pair above a similarity, without comparing every pair.

A function is a set of shingles, its runs of five tokens (A. Broder, "On the resemblance and
containment of documents", SEQUENCES 1997); the n-th occurrence of a shingle is an element of its
own, so that saying a thing ten times is not the same as saying it once. Two functions are as
similar as their sets: size of the intersection over size of the union (Jaccard).

The join is exact, unlike hashing into bands: no pair above the threshold is missed and none below
it is reported. It rests on prefix filtering (S. Chaudhuri, V. Ganti, R. Kaushik, "A primitive
operator for similarity joins in data cleaning", ICDE 2006; R. Bayardo, Y. Ma, R. Srikant, "Scaling
up all pairs similarity search", WWW 2007), which finds code clones at scale in SourcererCC (H.
Sajnani et al., ICSE 2016). With the elements of all sets in one order, two sets that share at
least `a` elements share one among the first `size - a + 1` of each. With rare elements first,
those prefixes meet seldom, and only functions that meet there are compared. Two sets whose sizes
differ too much cannot be similar at all; that also cuts the join into parts by size.

Shingles are compared by their 61-bit polynomial hash (R. Karp, M. Rabin, IBM Journal of Research
and Development 31(2), 1987): among a million different ones, two collide with a chance of 1 in
four million.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

import msgspec

__all__ = [
    "Family",
    "Fingerprint",
    "Key",
    "Link",
    "Part",
    "families",
    "links",
    "parts",
    "shingles",
    "spanning_forest",
]

SHINGLE_TOKENS = 5

_PRIME = (1 << 61) - 1
_BASE = 0x1B873593CC9E2D51 % _PRIME
_BASE_TO_LAST = pow(_BASE, SHINGLE_TOKENS - 1, _PRIME)
_NTH = 0x9E3779B97F4A7C15 % _PRIME


def shingles(tokens: Sequence[str]) -> bytes:
    """Return the shingles of a function, ascending, as little-endian numbers of 8 bytes."""
    values = [_token_value(token) for token in tokens]
    seen: Counter[int] = Counter()
    elements = []
    rolling = 0
    for index, value in enumerate(values):
        if index >= SHINGLE_TOKENS:
            rolling -= values[index - SHINGLE_TOKENS] * _BASE_TO_LAST
        rolling = (rolling * _BASE + value) % _PRIME
        if index >= SHINGLE_TOKENS - 1:
            elements.append((rolling + seen[rolling] * _NTH) % _PRIME)
            seen[rolling] += 1
    elements.sort()
    return struct.pack(f"<{len(elements)}Q", *elements)


@functools.lru_cache(maxsize=100_000)
def _token_value(token: str) -> int:
    # hash() differs from process to process; a replay on another host must see the same values.
    digest = hashlib.blake2b(token.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % _PRIME


Key = tuple[str, int]
"""A function: the path of its file and its line."""


class Fingerprint(NamedTuple):
    """A function to compare and its packed shingles."""

    key: Key
    shingles: bytes

    @property
    def size(self) -> int:
        """Number of shingles."""
        return len(self.shingles) // 8

    def elements(self) -> tuple[int, ...]:
        """Return the shingles as numbers."""
        return struct.unpack(f"<{self.size}Q", self.shingles)


class Link(NamedTuple):
    """Two near-duplicates and their similarity, from 0 to 1."""

    similarity: float
    first: Key
    second: Key


class Part(msgspec.Struct, frozen=True):
    """One part of the join: it owns the pairs whose larger set has `low` to `high` elements.

    Its partner may be as small as `smallest`.
    """

    smallest: int
    low: int
    high: int


def parts(sizes: Iterable[int], count: int, percent: int) -> list[Part]:
    """Cut a join into at most `count` parts of about equal work, by the sizes of the sets."""
    ordered = sorted(sizes)
    total = sum(ordered)
    cut: list[Part] = []
    low = passed = 0
    for size, following in zip_longest(ordered, ordered[1:]):
        low = low or size
        passed += size
        # Sets of one size stay together: a part owns whole sizes.
        if following is None or (size != following and passed * count >= total * (len(cut) + 1)):
            cut.append(Part(_at_least(percent, low), low, size))
            low = 0
    return cut


def _at_least(percent: int, size: int) -> int:
    """Return how many elements a set of `size` must share with one that is similar enough."""
    return -(-size * percent // 100)


def links(fingerprints: Iterable[Fingerprint], part: Part, percent: int) -> list[Link]:
    """Return every pair of a part that is `percent` similar or more.

    Args:
        fingerprints: all sets of `part.smallest` to `part.high` elements.
        part: which pairs to look for.
        percent: the least similarity, in whole percent so that the bounds are exact.
    """
    ordered = sorted(fingerprints, key=lambda item: (item.size, item.key))
    sets = [item.elements() for item in ordered]
    frequency = Counter(element for elements in sets for element in elements)
    meeting: defaultdict[int, list[int]] = defaultdict(list)
    found: list[Link] = []
    for index, elements in enumerate(sets):
        size = len(elements)
        rare_first = sorted(elements, key=lambda element: (frequency[element], element))
        prefix = rare_first[: size - _at_least(percent, size) + 1]
        if size >= part.low:
            met = {other for element in prefix for other in meeting[element]}
            found += _similar(index, met, ordered, sets, percent)
        for element in prefix:
            meeting[element].append(index)
    return found


def _similar(
    index: int,
    others: Iterable[int],
    ordered: Sequence[Fingerprint],
    sets: Sequence[tuple[int, ...]],
    percent: int,
) -> Iterator[Link]:
    mine = set(sets[index])
    needed = _at_least(percent, len(mine))
    for other in others:
        if len(sets[other]) < needed:
            continue
        shared = len(mine.intersection(sets[other]))
        union = len(mine) + len(sets[other]) - shared
        if shared * 100 >= union * percent:
            first, second = sorted((ordered[index].key, ordered[other].key))
            yield Link(shared / union, first, second)


class _Groups:
    """Disjoint groups of keys, each known by its least member (union-find)."""

    def __init__(self) -> None:
        self._parents: dict[Key, Key] = {}

    def of(self, key: Key) -> Key:
        while key in self._parents:
            above = self._parents[key]
            # Halve the way for the next who asks.
            self._parents[key] = self._parents.get(above, above)
            key = above
        return key

    def join(self, first: Key, second: Key) -> bool:
        """Make one group of two; False if they are one already."""
        low, high = sorted((self.of(first), self.of(second)))
        if low == high:
            return False
        self._parents[high] = low
        return True


def spanning_forest(found: Iterable[Link]) -> list[Link]:
    """Keep the strongest links that connect what all links connect.

    J. B. Kruskal's forest (Proceedings of the AMS 7(1), 1956), strongest first. The forest of
    several forests is the forest of all their links: parts may be reduced before they are joined.
    """
    groups = _Groups()
    strongest = sorted(found, key=lambda link: (-link.similarity, link.first, link.second))
    return [link for link in strongest if groups.join(link.first, link.second)]


class Family(NamedTuple):
    """Functions connected by links, ordered, and the weakest of the links that connect them."""

    members: list[Key]
    similarity: float


def families(found: Iterable[Link]) -> list[Family]:
    """Return the families that links connect, by their first member."""
    forest = spanning_forest(found)
    groups = _Groups()
    for link in forest:
        groups.join(link.first, link.second)
    members: defaultdict[Key, set[Key]] = defaultdict(set)
    weakest: dict[Key, float] = {}
    for link in forest:
        group = groups.of(link.first)
        members[group].update((link.first, link.second))
        weakest[group] = link.similarity  # they come strongest first
    return [Family(sorted(members[group]), weakest[group]) for group in sorted(members)]
