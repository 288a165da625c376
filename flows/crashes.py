"""Crashes: what runs are charged with when their process dies while it executes them.

The runs that were executed are suspects: one of them may have ended the process, and nobody can
tell which. Each is charged once and executed alone from then on, until an execution of it ends;
so a second crash has one suspect only. After `max_crashes` it fails. What the process had claimed
besides is innocent and simply released.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import msgspec

from flows import sql
from flows.config import DEFAULT_NOTIFY_CHANNEL
from flows.ids import RunKey
from flows.sql.arrays import Int8Array, TextArray, UuidArray

if TYPE_CHECKING:
    from flows.config import DBConfig
    from flows.database import Connection

__all__ = ["Charge", "Charged", "Suspect", "charge"]


class Suspect(msgspec.Struct, frozen=True):
    """A run that was executed when its process died.

    Attributes:
        run_id: as text.
        claim: under which it was executed.
        step: the key of the step whose function was running, None between steps.
    """

    run_id: str
    claim: int
    step: str | None


class Charge(msgspec.Struct, frozen=True):
    """What a worker's death means for its runs.

    Attributes:
        worker_id: who died.
        pid: of its process.
        cause: as in "SIGSEGV".
        suspects: the runs it executed.
        max_crashes: with so many a run fails.
    """

    worker_id: UUID
    pid: int
    cause: str
    suspects: tuple[Suspect, ...]
    max_crashes: int


class Charged(NamedTuple):
    """What has become of suspects.

    Attributes:
        queued: keys of those that are executed again.
        failed: keys of those that are not.
    """

    queued: list[RunKey]
    failed: list[RunKey]


def charge(
    connection: Connection,
    config: DBConfig,
    charge: Charge,
    notify_channel: str | None = DEFAULT_NOTIFY_CHANNEL,
) -> Charged:
    """Charge the suspects that are still the dead worker's, and tell the other workers; commits.

    May be repeated: whoever was charged is the worker's no more. A run that the worker's open
    transaction still holds is left for the next call.
    """
    charged = Charged([], [])
    # The id of a run does not tell its shard: of forked ones, or such that were begun with an
    # idempotency key or with another number of shards.
    query = sql.load("read_worker_shards", config.schema)
    shards = connection.execute(query, {"worker_id": charge.worker_id}).fetchall()
    for (shard,) in sorted(shards):
        _charge_in(connection, config, shard, charge, charged)
        if charged.queued and notify_channel is not None:
            connection.execute(
                sql.load("notify", config.schema), {"channel": notify_channel, "payload": shard}
            )
    return charged


def _charge_in(
    connection: Connection,
    config: DBConfig,
    shard: str,
    charge: Charge,
    charged: Charged,
) -> None:
    suspects = charge.suspects
    causes = [charge.cause + (f" in step {each.step!r}" if each.step else "") for each in suspects]
    with connection.transaction():
        rows = connection.execute(
            sql.load("charge_runs", config.schema),
            {
                "shard": shard,
                "worker_id": charge.worker_id,
                "max_crashes": charge.max_crashes,
                "run_ids": UuidArray([each.run_id for each in suspects]),
                "claims": Int8Array([each.claim for each in suspects]),
                "causes": TextArray(causes),
            },
        ).fetchall()
        status: dict[str, str] = dict(rows)
        found = [each for each in suspects if each.run_id in status]
        if found:
            connection.execute(
                sql.load("insert_crashes", config.schema),
                {
                    "shard": shard,
                    "worker_id": charge.worker_id,
                    "host": socket.gethostname(),
                    "pid": charge.pid,
                    "cause": charge.cause,
                    "run_ids": UuidArray([each.run_id for each in found]),
                    "claims": Int8Array([each.claim for each in found]),
                    "step_keys": TextArray([each.step for each in found]),
                },
            )
    for run_id, became in status.items():
        key = RunKey.parse(f"{shard}:{run_id}")
        (charged.queued if became == "queued" else charged.failed).append(key)
