"""The plans of prepared statements: kept, and made anew before the tables outgrow them.

The server keeps a plan that serves any values, and with it what it knew of the tables: a plan made
for empty ones joins row by row, which is right for a few rows and a hundred times too slow for ten
thousand. It forgets it when it analyzes the tables, a minute or more later. So whoever waits long
for a statement has the session's plans made anew, which takes a few milliseconds.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import psycopg

from flows.clock import monotonic
from flows.database import is_pooled

__all__ = ["keep", "renew", "took"]

SLOW_S = 0.005
AGAIN_S = 1.0
"""Not more often: under load everything takes long, and the plans are good."""

_KEEP = """
    SELECT set_config('plan_cache_mode', 'force_generic_plan', false)
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus')
"""

_Times = WeakKeyDictionary[psycopg.Connection[Any], float]

_slow: _Times = WeakKeyDictionary()
_again_at_s: _Times = WeakKeyDictionary()


def keep(connection: psycopg.Connection[Any]) -> None:
    """Have a session of the engine's keep its plans from the first execution on.

    Planning anew for each claim, for each group of rows, and for each foreign key that is checked,
    costs as much as executing it. Not on Citus, which can make no such plans.
    """
    if not is_pooled(connection):
        connection.execute(_KEEP)


def took(connection: psycopg.Connection[Any], took_s: float) -> None:
    """Note how long the session's statements have taken."""
    if took_s >= SLOW_S and not is_pooled(connection):
        _slow[connection] = took_s


def renew(connection: psycopg.Connection[Any]) -> None:
    """Have the plans made anew if they may be why the last statements took long."""
    if connection not in _slow:
        return
    now_s = monotonic()
    if now_s >= _again_at_s.get(connection, 0.0):
        _again_at_s[connection] = now_s + AGAIN_S
        del _slow[connection]
        connection.execute("DISCARD PLANS")
