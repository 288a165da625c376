"""The result of a census, read from its tables."""

from __future__ import annotations

import itertools
from operator import itemgetter
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from .similarity import Family, Key, Link, families

if TYPE_CHECKING:
    from .tables import Transaction

__all__ = ["CensusResult", "places", "report"]

PLACES = 4
"""How many members of a family are named."""


class Package(msgspec.Struct, frozen=True):
    """The files below one folder of the root, or those directly in it."""

    package: str
    files: int
    lines: int
    functions: int
    mean_complexity: float
    max_complexity: int


class ComplexFunction(msgspec.Struct, frozen=True):
    """A function and its cyclomatic complexity."""

    complexity: int
    lines: int
    function: str
    where: str


class NearDuplicate(msgspec.Struct, frozen=True):
    """A family of functions that are alike.

    Attributes:
        copies: how many functions.
        extra_lines: lines that would go if only the longest of them were kept.
        similarity: of the weakest link that holds the family together.
        function: the name of the first.
        where: the places of the first few.
    """

    copies: int
    extra_lines: int
    similarity: float
    function: str
    where: str


class NotMeasured(msgspec.Struct, frozen=True):
    """A file that is not Python, or could not be read."""

    file: str
    reason: str


class CensusResult(msgspec.Struct, frozen=True):
    """What a census found: totals, then the first rows of each list."""

    root: str
    files: int
    files_not_measured: int
    code_lines: int
    functions: int
    mean_complexity: float
    near_duplicate_families: int
    near_duplicate_extra_lines: int
    packages: list[Package]
    most_complex: list[ComplexFunction]
    near_duplicates: list[NearDuplicate]
    not_measured: list[NotMeasured]


_TOTALS = """
SELECT files, not_measured, code_lines, functions, coalesce(complexity, 0)
FROM (SELECT count(*) AS files, count(error) AS not_measured, sum(code_lines) AS code_lines
      FROM census_files WHERE census_id = %(census)s) AS file,
     (SELECT count(*) AS functions, sum(complexity) AS complexity
      FROM census_functions WHERE census_id = %(census)s) AS function"""

_PACKAGES = """
WITH file AS (
    SELECT CASE strpos(path, '/') WHEN 0 THEN '(top level)' ELSE split_part(path, '/', 1) END
               AS package,
           count(*) AS files, sum(code_lines) AS code_lines
    FROM census_files WHERE census_id = %(census)s GROUP BY 1
), function AS (
    SELECT CASE strpos(path, '/') WHEN 0 THEN '(top level)' ELSE split_part(path, '/', 1) END
               AS package,
           count(*) AS functions, sum(complexity) AS complexity, max(complexity) AS highest
    FROM census_functions WHERE census_id = %(census)s GROUP BY 1
)
SELECT package, files, code_lines, coalesce(functions, 0), coalesce(complexity, 0),
       coalesce(highest, 0)
FROM file LEFT JOIN function USING (package)
ORDER BY code_lines DESC, package COLLATE "C" LIMIT %(top)s"""

_MOST_COMPLEX = """
SELECT complexity, lines, name, path, line FROM census_functions WHERE census_id = %(census)s
ORDER BY complexity DESC, path, line LIMIT %(top)s"""

_NOT_MEASURED = """
SELECT path, error FROM census_files WHERE census_id = %(census)s AND error IS NOT NULL
ORDER BY path LIMIT %(top)s"""

_LINKS = """
SELECT similarity, path, line, other_path, other_line FROM census_links
WHERE census_id = %(census)s"""

_LINKED_FUNCTIONS = """
SELECT path, line, name, lines FROM census_functions
WHERE census_id = %(census)s AND (path, line) IN (
    SELECT path, line FROM census_links WHERE census_id = %(census)s
    UNION SELECT other_path, other_line FROM census_links WHERE census_id = %(census)s)"""


def report(tx: Transaction, census_id: UUID, root: str, top: int) -> CensusResult:
    """Read the result of a census whose stages are done; the same rows give the same result."""
    values = {"census": census_id, "top": top}
    totals = tx.execute(_TOTALS, values).fetchone()
    if totals is None:  # two aggregates without GROUP BY: always one row
        raise LookupError(f"no totals for census {census_id}")
    files, not_measured, code_lines, functions, complexity = map(int, totals)
    duplicates = _near_duplicates(tx, census_id)
    return CensusResult(
        root=root,
        files=files,
        files_not_measured=not_measured,
        code_lines=code_lines,
        functions=functions,
        mean_complexity=_mean(complexity, functions),
        near_duplicate_families=len(duplicates),
        near_duplicate_extra_lines=sum(family.extra_lines for family in duplicates),
        packages=[
            Package(name, files, int(lines), functions, _mean(int(total), functions), highest)
            for name, files, lines, functions, total, highest in tx.execute(_PACKAGES, values)
        ],
        most_complex=[
            ComplexFunction(complexity, lines, name, f"{path}:{line}")
            for complexity, lines, name, path, line in tx.execute(_MOST_COMPLEX, values)
        ],
        near_duplicates=duplicates[:top],
        not_measured=[NotMeasured(*row) for row in tx.execute(_NOT_MEASURED, values)],
    )


def _mean(total: int, count: int) -> float:
    return round(total / count, 2) if count else 0.0


def _near_duplicates(tx: Transaction, census_id: UUID) -> list[NearDuplicate]:
    """Return all families, those with most lines to save first."""
    values = {"census": census_id}
    links = [
        Link(similarity, (path, line), (other_path, other_line))
        for similarity, path, line, other_path, other_line in tx.execute(_LINKS, values)
    ]
    known = {
        (path, line): (name, lines)
        for path, line, name, lines in tx.execute(_LINKED_FUNCTIONS, values)
    }
    found = [_near_duplicate(family, known) for family in families(links)]
    return sorted(found, key=lambda item: (-item.extra_lines, item.where))


def _near_duplicate(family: Family, known: dict[tuple[str, int], tuple[str, int]]) -> NearDuplicate:
    lengths = [known[member][1] for member in family.members]
    return NearDuplicate(
        copies=len(family.members),
        extra_lines=sum(lengths) - max(lengths),
        similarity=round(family.similarity, 2),
        function=known[family.members[0]][0],
        where=places(family.members),
    )


def places(members: list[Key]) -> str:
    """Return where the first few of some functions are: `a.py:1, 20; b.py:3; 5 more`."""
    shown = itertools.groupby(members[:PLACES], key=itemgetter(0))
    texts = [f"{path}:{', '.join(str(line) for _, line in keys)}" for path, keys in shown]
    if len(members) > PLACES:
        texts.append(f"{len(members) - PLACES} more")
    return "; ".join(texts)
