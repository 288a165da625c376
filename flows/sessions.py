"""What statements of users do to the session and the transaction that they are executed in.

The sessions of `wf.tx` go from one attempt to the next. What is set in one, a temporary table, a
lock that outlives its transaction: the next attempt must not find it. So a session is cleaned where
a statement may have left something. What is told from its text and its command tag is what it says
itself: functions that set something unseen are not told from others.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.sql import Composable

from flows.database import notice_loss

if TYPE_CHECKING:
    import psycopg

__all__ = ["Traits", "clean", "forgets", "leaves_something", "take_back", "traits_of"]

_HARMLESS = ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "LOCK")
"""Command tags."""

_REMEMBERING = (*_HARMLESS, "SET")
"""After these a session still knows the statements that it has prepared."""

_LONGEST = 10_000
"""Characters; longer texts are not searched."""

_ending = re.compile(
    r"\s*(?:commit|end|abort|prepare\s+transaction"
    r"|rollback(?!\s+(?:work\s+|transaction\s+)?to\b|\s+prepared\b))\b(?!\s+prepared\b)",
    re.IGNORECASE,
).match
_leaving = re.compile(
    # Our own begins see whether a lock is held, and give it back.
    r"\btemp(?:orary)?\b|set_config|advisory_lock(?!(?:_shared)?\(%\(quiet_key\)s::bigint)|\bhold\b|;\s*\S",
    re.IGNORECASE,
).search

_TAKE_BACK = """
    RESET SESSION AUTHORIZATION;
    RESET ROLE;
    SET LOCAL statement_timeout TO DEFAULT;
    SET LOCAL lock_timeout TO DEFAULT;
    SET LOCAL client_encoding TO DEFAULT
"""

_CLEAN = """
    CLOSE ALL;
    RESET SESSION AUTHORIZATION;
    RESET ALL;
    RESET ROLE;
    UNLISTEN *;
    DISCARD TEMP;
    SELECT pg_catalog.pg_advisory_unlock_all()
"""


class Traits(NamedTuple):
    """What the text of a statement says.

    Attributes:
        ends: whether it ends the transaction.
        leaves: whether it may leave something in the session.
    """

    ends: bool
    leaves: bool


def traits_of(query: Any) -> Traits:
    """Return what the text of a statement says, in whatever form psycopg takes it."""
    if isinstance(query, Composable):
        query = query.as_string(None)
    elif isinstance(query, bytes):
        query = query.decode(errors="replace")
    if not isinstance(query, str):
        return Traits(False, True)
    if len(query) > _LONGEST:
        return Traits(_ending(query) is not None, True)
    return _read(query)


@lru_cache(maxsize=256)
def _read(text: str) -> Traits:
    return Traits(_ending(text) is not None, _leaving(text) is not None)


def leaves_something(traits: Traits, tag: str | None) -> bool:
    """Tell whether a statement may have left something in the session.

    Args:
        traits: what its text says.
        tag: the command tag of the server, None if there was none.
    """
    return traits.leaves or tag is None or not tag.startswith(_HARMLESS)


def forgets(tag: str | None) -> bool:
    """Tell whether the session may have forgotten what it had prepared, after a command tag."""
    return tag is None or not tag.startswith(_REMEMBERING)


def take_back(connection: psycopg.Connection[Any]) -> None:
    """Undo what a transaction of the user's has set for itself that would hinder ours at its end.

    Raises:
        psycopg.Error: it is lost.
    """
    connection.execute(_TAKE_BACK, prepare=False)


def clean(connection: psycopg.Connection[Any]) -> None:
    """Make a session of ours, in no transaction, as new, but for what it has prepared.

    Raises:
        psycopg.Error: it is lost.
    """
    connection.execute(_CLEAN, prepare=False)
    notice_loss(connection)
