"""Opening `wf.tx`: a connection of the pool, in a transaction that has locked its run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from flows import direct, plans, sql
from flows.database import is_lost, pipeline
from flows.suspension import ClaimLost, Interrupted

if TYPE_CHECKING:
    from flows.engine import Engine
    from flows.records import RunRecord

__all__ = ["Fenced", "open_fenced"]

_Connection = psycopg.Connection[Any]


class Fenced(NamedTuple):
    """A transaction that has begun, and whether `direct` did it and can end it."""

    connection: _Connection
    is_direct: bool


def open_fenced(engine: Engine, run: RunRecord, *, savepoint: bool) -> Fenced:
    """Begin a transaction that locks the run, and set the savepoint of a step if asked to.

    Raises:
        ClaimLost: another worker has the run.
        Interrupted: no connection can be had.
        psycopg.Error: it failed otherwise.
    """
    try:
        return _open(engine, run, savepoint=savepoint)
    except psycopg.Error as error:
        if not is_lost(error):
            raise
    # Connections of the pool may be from before the server restarted: try a new one once.
    try:
        engine.pool.check()
        return _open(engine, run, savepoint=savepoint)
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise Interrupted(f"no connection for wf.tx: {error}") from error


def _open(engine: Engine, run: RunRecord, *, savepoint: bool) -> Fenced:
    # Otherwise at the end this may wait for the committer, and that for a session of the pooler,
    # all of which are held by transactions that wait for it.
    if engine.is_pooled and not engine.committer.settle(run):
        raise Interrupted("earlier memos could not be committed")
    try:
        connection = engine.pool.getconn()
    except (PoolTimeout, PoolClosed) as error:
        raise Interrupted(f"no connection for wf.tx: {error}") from error
    is_direct = engine.sends_directly and not engine.is_pooled
    begin = direct.begin if is_direct else _begin
    try:
        plans.renew(connection)
        is_ours = begin(connection, engine.schema, run, savepoint=savepoint)
    except BaseException:
        engine.pool.putconn(connection)
        raise
    if not is_ours:
        connection.rollback()
        engine.pool.putconn(connection)
        raise ClaimLost(f"run {run.run_id} was taken by another worker")
    return Fenced(connection, is_direct)


def _begin(connection: _Connection, schema: str, run: RunRecord, *, savepoint: bool) -> bool:
    """Do what `direct.begin` does, by psycopg."""
    values = {"shard": run.shard, "run_id": run.run_id, "claim": run.claim}
    with pipeline(connection):
        connection.execute("BEGIN", prepare=False)
        fence = connection.execute(sql.load("fence_run", schema), values)
        if savepoint:
            connection.execute("SAVEPOINT flows_step")
    return fence.fetchone() is not None
