"""Runs that are cancelled, tried again, or begun once more from one of their steps.

Many are changed in batches. Each batch is a transaction that waits for nobody: rows that others
hold are skipped. Between two batches nothing is half done: it may end there, and be run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows import sql
from flows.cli.output import Refusal
from flows.cli.run_list import list_shard, shards
from flows.config import DEFAULT_NOTIFY_CHANNEL
from flows.errors import UnknownRunError
from flows.ids import RunID, RunKey, uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flows.cli.run_filter import RunFilter
    from flows.config import DBConfig
    from flows.database import Connection

    Change = Callable[[Connection, DBConfig, str, Sequence[RunID]], "Changed"]

__all__ = [
    "BATCH",
    "CANCELLABLE",
    "RETRYABLE",
    "Changed",
    "Fork",
    "cancel_batch",
    "change_chosen",
    "fork",
    "retry_batch",
]

BATCH = 500
"""Runs of one transaction: it is over in a fraction of a second."""

CANCELLABLE = ("queued", "running", "sleeping", "waiting_event")
RETRYABLE = ("failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of some runs.

    Attributes:
        done: how many were changed.
        asked: how many are being executed, and were asked to end.
        left: how many are as they were: they have become something else meanwhile.
    """

    done: int = 0
    asked: int = 0
    left: int = 0

    def __add__(self, other: Changed) -> Changed:
        return Changed(self.done + other.done, self.asked + other.asked, self.left + other.left)

    @property
    def seen(self) -> int:
        """How many there were."""
        return self.done + self.asked + self.left


@dataclass(frozen=True, slots=True)
class Fork:
    """A run that was begun from a step of another one.

    Attributes:
        key: of the new run.
        steps: the steps whose memos it has got, in their order.
        others: how many sleeps, waits, random values and events it has got.
    """

    key: RunKey
    steps: list[str]
    others: int


def change_chosen(
    connection: Connection, config: DBConfig, chosen: RunFilter, change: Change
) -> Iterator[Changed]:
    """Change all chosen runs, and yield what became of each batch once it is committed."""
    for shard in shards(connection, config.schema, chosen):
        after: RunKey | None = None
        while True:
            listed = list_shard(connection, config.schema, chosen, shard, BATCH, after)
            if listed:
                keys = [RunKey.parse(run.run_key) for run in listed]
                after = keys[-1]
                yield change(connection, config, shard.name, [key.run_id for key in keys])
            if len(listed) < BATCH:
                break


def cancel_batch(
    connection: Connection, config: DBConfig, shard: str, run_ids: Sequence[RunID]
) -> Changed:
    """Cancel runs of one shard; ask those that are running to end. Commits."""
    values = {"shard": shard, "run_ids": list(run_ids)}
    with connection.transaction():
        done = len(_ids(connection, config, "cancel_chosen", values))
        asked = _ids(connection, config, "request_cancels", values)
        for run_id in asked:
            _notify(connection, config, f"{shard}:{run_id}")
    return Changed(done, len(asked), len(run_ids) - done - len(asked))


def retry_batch(
    connection: Connection, config: DBConfig, shard: str, run_ids: Sequence[RunID]
) -> Changed:
    """Queue runs of one shard again that failed or were cancelled. Commits."""
    with connection.transaction():
        done = _ids(connection, config, "retry_runs", {"shard": shard, "run_ids": list(run_ids)})
        if done:
            query = sql.load("forget_cancellations", config.schema)
            connection.execute(query, {"shard": shard, "run_ids": done})
            _notify(connection, config, shard)
    return Changed(len(done), 0, len(run_ids) - len(done))


def fork(connection: Connection, config: DBConfig, key: RunKey, step_key: str) -> Fork:
    """Begin a run with the input of another one and what that had done before a step. Commits.

    It is of the same shard, where everything is copied by the server.

    Raises:
        UnknownRunError: there is no such run.
        Refusal: it has no such step.
    """
    new_key = RunKey(key.workflow_name_shard, RunID(uuid7()))
    values = {
        "shard": key.workflow_name_shard,
        "run_id": key.run_id,
        "new_id": new_key.run_id,
        "step_key": step_key,
    }
    with connection.transaction():
        if not _ids(connection, config, "fork_run", values):
            raise _no_step(connection, config, key, step_key)
        steps = _ids(connection, config, "fork_steps", values)
        others = [
            _ids(connection, config, query, values)
            for query in ("fork_waits", "fork_events", "fork_random")
        ]
        _notify(connection, config, key.workflow_name_shard)
    return Fork(new_key, steps, sum(map(len, others)))


def _no_step(connection: Connection, config: DBConfig, key: RunKey, step_key: str) -> Exception:
    values = {"shard": key.workflow_name_shard, "run_id": key.run_id}
    if not connection.execute(sql.load("read_run_status", config.schema), values).fetchone():
        return UnknownRunError(str(key))
    rows = connection.execute(sql.load("show_steps", config.schema), values).fetchall()
    steps = ", ".join(repr(row[0]) for row in rows[:20]) or "none"
    return Refusal(f"run {key} has no step {step_key!r}; its steps: {steps}")


def _ids(connection: Connection, config: DBConfig, query: str, values: dict[str, Any]) -> list[Any]:
    return [row[0] for row in connection.execute(sql.load(query, config.schema), values).fetchall()]


def _notify(connection: Connection, config: DBConfig, payload: str) -> None:
    values = {"channel": DEFAULT_NOTIFY_CHANNEL, "payload": payload}
    connection.execute(sql.load("notify", config.schema), values)
