"""SQL statements and migrations, kept as text.

`queries/verb_noun.sql` holds one statement a file, with `%(name)s` parameters and a header of
three facts: what it does, what it locks, which index it uses. Tables are written `flows.<table>`;
for another schema the prefix is replaced when the statement is loaded, never by search_path.

Lock order, for every statement and transaction: rows of runs first, by run id, then their steps,
waits, random values and events, then workers. A statement that takes a run from another process
skips locked rows; one that answers a client never waits for a running attempt.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from flows.config import DEFAULT_SCHEMA

__all__ = ["citus_file", "load", "migration_files", "numbered", "statements_of", "with_schema"]

_TABLE_PREFIX = re.compile(r"(?<![\w.'\"])flows\.(?=[a-z_]+)")
_TABLE_CONSTANT = re.compile(r"(?<=')flows(?=\.[a-z_]+'::regclass)")
_SCHEMA_NAME = re.compile(r"(?<=SCHEMA IF NOT EXISTS )flows\b")
_END_OF_STATEMENT = re.compile(r";\s*(?:\n|\Z)")
_PARAMETER = re.compile(r"%\((?P<name>\w+)\)s")
_COMMENT_LINE = re.compile(r"^--[^\n]*\n", re.MULTILINE)


def with_schema(text: str, schema: str) -> str:
    """Return a statement whose tables live in `schema`, a checked identifier."""
    text = _TABLE_CONSTANT.sub(f'"{schema}"', _TABLE_PREFIX.sub(f'"{schema}".', text))
    return _SCHEMA_NAME.sub(f'"{schema}"', text)


@cache
def load(name: str, schema: str = DEFAULT_SCHEMA) -> bytes:
    """Return the statement `queries/<name>.sql`, without its header, for the tables in `schema`."""
    text = resources.files(__name__).joinpath("queries", f"{name}.sql").read_text("utf-8")
    return with_schema(_COMMENT_LINE.sub("", text), schema).strip().encode()


@cache
def numbered(name: str, schema: str = DEFAULT_SCHEMA) -> tuple[bytes, tuple[str, ...]]:
    """Return the same with parameters $1, $2 and so on, as the server has them, and their names."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match["name"] not in names:
            names.append(match["name"])
        return f"${names.index(match['name']) + 1}"

    text = _PARAMETER.sub(number, load(name, schema).decode())
    return text.encode(), tuple(names)


def migration_files() -> list[tuple[int, str]]:
    """Return number and text of every migration, in order; each records itself when applied."""
    folder = resources.files(__name__).joinpath("migrations")
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        number, _, _ = entry.name.partition("_")
        found.append((int(number), entry.read_text("utf-8")))
    return found


def statements_of(migration: str) -> list[str]:
    """Return the statements of a migration, one by one, without the comments between them."""
    pieces = _END_OF_STATEMENT.split(_COMMENT_LINE.sub("", migration))
    return [piece.strip() for piece in pieces if piece.strip()]


def citus_file() -> str:
    """Return the text that distributes the tables over a Citus cluster."""
    return resources.files(__name__).joinpath("citus.sql").read_text("utf-8")
