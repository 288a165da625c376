"""What every attempt of a worker shares."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    import psycopg
    from psycopg_pool import ConnectionPool

    from flows.awaited import Awaited
    from flows.client import Client
    from flows.committer import Committer
    from flows.meter import Meter
    from flows.timekeeper import Timekeeper

__all__ = ["Engine"]


@dataclass(slots=True)
class Engine:
    """What every attempt of a worker shares.

    Attributes:
        schema: where the tables are.
        committer: persists memos and outcomes in groups.
        pool: connections for `wf.tx`, in nobody's transaction.
        client: for workflows that begin runs of their own, on the same tables.
        logger: for life-cycle events.
        notify_channel: where other workers are told, None for nowhere.
        on_queued: told of a shard that has a run due.
        on_failure: told of an error that ends the worker.
        is_pooled: whether the database is reached through a pooler, where an open transaction
            may hold the session that the committer waits for.
        interruptions: how often each of the runs interrupted last was interrupted here.
        timekeeper: ends attempts at their time.
        timeout_grace_s: how long user code may take to end once its time is up, before its thread
            is given up.
        on_stuck: told of an attempt whose thread was given up.
        meter: counts what is done here; None where nobody wants to know.
        awaited: the runs for whose end somebody waits, None where nobody asks.
        abandoned: set when attempts that still run must stop at their next primitive.
        sends_directly: whether transactions of attempts are begun and committed by `direct`.
    """

    schema: str
    committer: Committer
    pool: ConnectionPool[psycopg.Connection[Any]]
    client: Client
    logger: logging.Logger
    notify_channel: str | None
    on_queued: Callable[[str], None]
    on_failure: Callable[[BaseException], None]
    timekeeper: Timekeeper
    timeout_grace_s: float
    on_stuck: Callable[[str], None]
    is_pooled: bool = False
    meter: Meter | None = None
    awaited: Awaited | None = None
    interruptions: Counter[str] = field(default_factory=Counter)
    abandoned: threading.Event = field(default_factory=threading.Event)
    sends_directly: bool = True
