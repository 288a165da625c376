"""Leases: how long the claims of a worker hold without a sign of life.

A worker process is a row in `workers`. Under a supervisor the maintenance process renews the rows
of all its children in one statement, so that a step which holds the interpreter's lock cannot
lose the lease; a worker alone renews its own. A child's death is known to its supervisor at once
and its runs are released at once; leases are for hosts that are lost.

    live ──renewed──> live        live ──stopped, or lease over──> stopped: its runs are released
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from flows import sql
from flows.clock import seconds
from flows.config import DEFAULT_NOTIFY_CHANNEL

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    import psycopg

    from flows.config import DBConfig

__all__ = [
    "LEASE",
    "RENEW_INTERVAL",
    "WorkerIdentity",
    "is_live",
    "register_worker",
    "release_worker",
    "renew_supervised",
    "renew_worker",
    "rescue_expired",
]

LEASE = timedelta(seconds=15)
RENEW_INTERVAL = timedelta(seconds=5)


class WorkerIdentity(NamedTuple):
    """Who holds a lease.

    Attributes:
        worker_id: of the worker process; its claims carry it.
        supervisor_id: of the supervisor whose maintenance process renews it, None for a worker
            that renews its own.
        workflow_names: which workflows it runs.
    """

    worker_id: UUID
    supervisor_id: UUID | None
    workflow_names: tuple[str, ...]


def register_worker(
    connection: psycopg.Connection[Any],
    config: DBConfig,
    identity: WorkerIdentity,
    lease: timedelta = LEASE,
) -> None:
    """Insert the worker's row with a fresh lease, unless it is there; commits in autocommit."""
    connection.execute(
        sql.load("insert_worker", config.schema),
        {
            "worker_id": identity.worker_id,
            "supervisor_id": identity.supervisor_id,
            "workflow_names": list(identity.workflow_names),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "lease_s": seconds(lease),
        },
    )


def renew_worker(
    connection: psycopg.Connection[Any], config: DBConfig, worker_id: UUID, lease: timedelta = LEASE
) -> bool:
    """Renew one worker's lease.

    Returns:
        False if the worker was judged dead in the meantime: its claims are gone.
    """
    values = {"worker_id": worker_id, "lease_s": seconds(lease)}
    return connection.execute(sql.load("renew_worker", config.schema), values).rowcount == 1


def renew_supervised(
    connection: psycopg.Connection[Any],
    config: DBConfig,
    supervisor_id: UUID,
    dead: Collection[UUID],
    lease: timedelta = LEASE,
) -> None:
    """Renew the leases of all live workers of one supervisor; not of those known to be `dead`."""
    values = {"supervisor_id": supervisor_id, "lease_s": seconds(lease), "dead": list(dead)}
    connection.execute(sql.load("renew_supervised", config.schema), values)


def is_live(connection: psycopg.Connection[Any], config: DBConfig, worker_id: UUID) -> bool:
    """Tell whether the worker still holds its lease."""
    row = connection.execute(
        sql.load("read_lease", config.schema), {"worker_id": worker_id}
    ).fetchone()
    return row is not None and bool(row[0])


def release_worker(
    connection: psycopg.Connection[Any],
    config: DBConfig,
    worker_id: UUID,
    notify_channel: str | None = DEFAULT_NOTIFY_CHANNEL,
    suspects: Sequence[str] = (),
) -> int:
    """Mark a worker as stopped and give its running runs back to the queue, all but `suspects`.

    Runs that an open transaction of the worker still holds are left; call again for them, or
    leave them to `rescue_expired`. Tells the other workers.

    Returns:
        How many runs were released.
    """
    connection.execute(sql.load("stop_worker", config.schema), {"worker_id": worker_id})
    shards = connection.execute(
        sql.load("read_worker_shards", config.schema), {"worker_id": worker_id}
    ).fetchall()
    return sum(
        _release(connection, config, shard, worker_id, notify_channel, suspects)
        for (shard,) in shards
    )


def rescue_expired(
    connection: psycopg.Connection[Any],
    config: DBConfig,
    notify_channel: str | None = DEFAULT_NOTIFY_CHANNEL,
    now: datetime | None = None,
) -> int:
    """Mark workers whose lease ran out as stopped, and release the runs of all stopped workers.

    Returns:
        How many runs were released.
    """
    connection.execute(sql.load("stop_expired_workers", config.schema), {"now": now})
    orphaned: Sequence[tuple[str, UUID]] = connection.execute(
        sql.load("read_orphaned_workers", config.schema)
    ).fetchall()
    return sum(
        _release(connection, config, shard, worker_id, notify_channel)
        for shard, worker_id in orphaned
    )


def _release(
    connection: psycopg.Connection[Any],
    config: DBConfig,
    shard: str,
    worker_id: UUID,
    notify_channel: str | None,
    suspects: Sequence[str] = (),
) -> int:
    released = connection.execute(
        sql.load("release_runs", config.schema),
        {"shard": shard, "worker_id": worker_id, "suspects": list(suspects)},
    ).rowcount
    if released and notify_channel is not None:
        connection.execute(
            sql.load("notify", config.schema), {"channel": notify_channel, "payload": shard}
        )
    return released
