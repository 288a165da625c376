"""Holding a session of the engine in the middle of a statement, until the test lets it go on."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Self

import psycopg
import pytest
from psycopg import sql

from tests import citus
from tests.waiting import wait_until

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Hold"]

_numbers = itertools.count(1)


class Hold:
    """Stops whoever updates a run so that `condition` holds, in the middle of the statement.

    The condition is of a row trigger: `NEW.status = 'completed'`. Leaving the block lets go.
    """

    def __init__(
        self, dsn: str, condition: str, *, table: str = "runs", on: str = "UPDATE"
    ) -> None:
        if citus.given_dsn() is not None:
            pytest.skip("on Citus distributed tables have no triggers")
        self._key = next(_numbers)
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._connection.execute("SELECT pg_advisory_lock(%s)", (self._key,))
        name = sql.Identifier(f"hold_{self._key}")
        self._connection.execute(
            sql.SQL(
                "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN PERFORM pg_advisory_xact_lock_shared({key}); RETURN NEW; END'"
            ).format(name=name, key=self._key)
        )
        self._connection.execute(
            sql.SQL(
                "CREATE TRIGGER {name} BEFORE {on} ON {table}"
                " FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION {name}()"
            ).format(
                name=name,
                on=sql.SQL(on),
                table=sql.Identifier("flows", table),
                condition=sql.SQL(condition),
            )
        )

    def wait_for_arrival(self) -> int:
        """Wait until a session is held, and return its backend's pid."""

        def held() -> int | None:
            row = self._connection.execute(
                "SELECT pid FROM pg_locks"
                " WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                (self._key,),
            ).fetchone()
            return None if row is None else int(row[0])

        pid = wait_until(held, what="a session is held")
        assert pid is not None
        return pid

    def release(self) -> None:
        """Let go, for good; may be called again."""
        if not self._connection.closed:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
