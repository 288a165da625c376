"""The reference package's programs, as far as the database can tell: the statements they send."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from flows import RunID, RunKey
from flows.ids import uuid7
from flows.shard import shard_for_run

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CHANNEL", "ReferenceAttempt", "ReferenceClient", "reference_attempt"]

CHANNEL = "flows_run_wakeup"

_BEGIN = """
    INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json,
        created_at, updated_at)
    VALUES (%s, %s, %s, 'queued', %s, now(), now())
"""
_EVENT = """
    INSERT INTO flows.events (workflow_name_shard, run_id, event_name, payload_json)
    VALUES (%s, %s, %s, %s)
    ON CONFLICT (workflow_name_shard, run_id, event_name)
    DO UPDATE SET payload_json = EXCLUDED.payload_json
"""
_SATISFY = """
    UPDATE flows.waits SET payload_json = %s, satisfied_at = now(), updated_at = now()
    WHERE workflow_name_shard = %s AND run_id = %s AND wait_type = 'event' AND event_name = %s
      AND satisfied_at IS NULL
"""
_WAKE = """
    UPDATE flows.runs SET status = 'queued', updated_at = now()
    WHERE workflow_name_shard = %s AND run_id = %s AND status = 'waiting_event'
"""
_CANCEL = """
    UPDATE flows.runs SET status = 'cancelled', error_text = 'cancelled by user', updated_at = now()
    WHERE workflow_name_shard = %s AND run_id = %s
      AND status IN ('queued', 'sleeping', 'waiting_event')
"""
_STATUS = """
    SELECT status, error_text, attempts, created_at, updated_at, next_wake_at
    FROM flows.runs WHERE workflow_name_shard = %s AND run_id = %s
"""
_OUTPUT = """
    SELECT status, output_json FROM flows.runs WHERE workflow_name_shard = %s AND run_id = %s
"""
_SCHEDULE = """
    INSERT INTO flows.schedules (schedule_id, workflow_name, cron_expr, input_json, enabled,
        next_run_at, created_at, updated_at)
    VALUES (%(id)s, %(name)s, %(rule)s, %(input)s, true, now() + %(wait)s, now(), now())
    ON CONFLICT (schedule_id) DO UPDATE SET
        workflow_name = EXCLUDED.workflow_name, cron_expr = EXCLUDED.cron_expr,
        input_json = EXCLUDED.input_json, enabled = EXCLUDED.enabled,
        next_run_at = CASE WHEN schedules.cron_expr != EXCLUDED.cron_expr
            THEN EXCLUDED.next_run_at ELSE schedules.next_run_at END,
        updated_at = EXCLUDED.updated_at
"""
_ENABLE = "UPDATE flows.schedules SET enabled = %s, updated_at = now() WHERE schedule_id = %s"
_DELETE = "DELETE FROM flows.schedules WHERE schedule_id = %s"
_CLAIM = """
    SELECT r.run_id, r.input_json, r.attempts FROM flows.runs AS r
    WHERE r.workflow_name_shard = %(shard)s AND r.workflow_name = %(name)s
      AND (r.status = 'queued'
        OR (r.status = 'sleeping' AND r.next_wake_at IS NOT NULL AND r.next_wake_at <= now())
        OR (r.status = 'waiting_event' AND EXISTS (
            SELECT 1 FROM flows.waits AS w JOIN flows.events AS e
              ON e.workflow_name_shard = %(shard)s AND e.run_id = w.run_id
              AND e.event_name = w.event_name
            WHERE w.workflow_name_shard = %(shard)s AND w.run_id = r.run_id
              AND w.wait_type = 'event' AND w.satisfied_at IS NULL)))
    ORDER BY r.created_at FOR UPDATE SKIP LOCKED LIMIT 1
"""
_RUNNING = """
    UPDATE flows.runs SET status = 'running', updated_at = now()
    WHERE workflow_name_shard = %s AND run_id = %s
"""
_STEP = """
    INSERT INTO flows.steps (workflow_name_shard, run_id, step_key, status, input_json,
        output_json, attempts, updated_at)
    VALUES (%s, %s, %s, 'completed', 'null', %s, 1, now())
    ON CONFLICT (workflow_name_shard, run_id, step_key) DO UPDATE SET status = EXCLUDED.status,
        input_json = EXCLUDED.input_json, output_json = EXCLUDED.output_json,
        attempts = EXCLUDED.attempts, updated_at = EXCLUDED.updated_at
"""
_MEMO = """
    SELECT status, output_json FROM flows.steps
    WHERE workflow_name_shard = %s AND run_id = %s AND step_key = %s
"""
_WAIT_STATE = """
    SELECT wake_at, payload_json, satisfied_at FROM flows.waits
    WHERE workflow_name_shard = %s AND run_id = %s AND wait_key = %s AND wait_type = %s
"""
_SLEEP = """
    INSERT INTO flows.waits (workflow_name_shard, run_id, wait_key, wait_type, wake_at, updated_at)
    VALUES (%s, %s, %s, 'sleep', clock_timestamp(), now())
    ON CONFLICT (workflow_name_shard, run_id, wait_key)
    DO UPDATE SET wake_at = EXCLUDED.wake_at, updated_at = EXCLUDED.updated_at
"""
_SLEEPING = """
    UPDATE flows.runs SET status = 'sleeping', next_wake_at = clock_timestamp(), updated_at = now()
    WHERE workflow_name_shard = %s AND run_id = %s
"""
_RETRYING = """
    UPDATE flows.runs SET status = 'sleeping', error_text = %s, attempts = attempts + 1,
        next_wake_at = now() + (0 * interval '1 millisecond'), updated_at = now()
    WHERE workflow_name_shard = %s AND run_id = %s
"""
_COMPLETED = """
    UPDATE flows.runs SET status = 'completed', output_json = %s, error_text = NULL,
        next_wake_at = NULL, updated_at = now()
    WHERE workflow_name_shard = %s AND run_id = %s
"""


class ReferenceStatus(NamedTuple):
    """What a client of the reference reads of a run."""

    status: str
    error: str | None
    attempts: int
    created_at: Any
    updated_at: Any
    next_wake_at: Any


class ReferenceClient:
    """A client of the reference: each call is one committed transaction."""

    def __init__(self, connection: psycopg.Connection[Any], shard_count: int = 1) -> None:
        self._connection = connection
        self._shard_count = shard_count

    def begin(self, workflow: str, document: str, *, tells: bool = True) -> RunKey:
        """Begin a run; `document` is its input as JSON."""
        run_id = uuid7()
        key = RunKey(shard_for_run(workflow, str(run_id), self._shard_count), RunID(run_id))
        with self._connection.transaction():
            self._connection.execute(_BEGIN, (*key, workflow, document))
            if tells:
                self.notify(str(key))
        return key

    def publish(self, key: RunKey, event: str, document: str, *, tells: bool = True) -> None:
        """Publish an event: the run that waits is queued."""
        with self._connection.transaction():
            self._connection.execute(_EVENT, (*key, event, document))
            self._connection.execute(_SATISFY, (document, *key, event))
            self._connection.execute(_WAKE, key)
            if tells:
                self.notify(str(key))

    def cancel(self, key: RunKey) -> bool:
        """Cancel a run; False where it cannot be cancelled."""
        return self._connection.execute(_CANCEL, key).rowcount == 1

    def schedule(
        self, name: str, rule: str, document: str, wait: str = "0 s", *, tells: bool = True
    ) -> None:
        """Create or replace the schedule of a workflow's name, due in `wait`."""
        values = {"id": name, "name": name, "rule": rule, "input": document, "wait": wait}
        with self._connection.transaction():
            self._connection.execute(_SCHEDULE, values)
            if tells:
                self.notify("schedule_refresh")

    def enable(self, name: str, *, enabled: bool) -> bool:
        """Pause or resume a schedule; False where there is none."""
        with self._connection.transaction():
            found = self._connection.execute(_ENABLE, (enabled, name)).rowcount == 1
            self.notify("schedule_refresh")
        return found

    def delete(self, name: str) -> bool:
        """Delete a schedule; False where there is none."""
        return self._connection.execute(_DELETE, (name,)).rowcount == 1

    def status(self, key: RunKey) -> ReferenceStatus:
        """Read a run's state."""
        row = self._connection.execute(_STATUS, key).fetchone()
        assert row is not None
        return ReferenceStatus(*row)

    def output(self, key: RunKey) -> Any:
        """Read the output of a completed run, from its jsonb: SQL's NULL is none at all."""
        row = self._connection.execute(_OUTPUT, key).fetchone()
        assert row is not None
        status, document = row
        assert status == "completed"
        return document

    def notify(self, payload: str) -> None:
        """Tell the workers."""
        self._connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))


class ReferenceAttempt:
    """An attempt of a worker of the reference: one transaction, which holds the run's row.

    Attributes:
        key: the run.
        input: what it was begun with.
    """

    def __init__(self, connection: psycopg.Connection[Any], key: RunKey, input: Any) -> None:  # noqa: A002
        self._connection = connection
        self.key = key
        self.input = input

    def step(self, step_key: str, document: str) -> Any:
        """Return the memo of a step, or memoize `document`."""
        row = self._connection.execute(_MEMO, (*self.key, step_key)).fetchone()
        if row is not None and row[0] == "completed":
            return row[1]
        self._connection.execute(_STEP, (*self.key, step_key, document))
        return document

    def wait_state(self, wait_key: str, wait_type: str) -> tuple[Any, ...] | None:
        """Read a sleep or wait: its time, payload, and when it was satisfied."""
        return self._connection.execute(_WAIT_STATE, (*self.key, wait_key, wait_type)).fetchone()

    def sleep(self, wait_key: str) -> None:
        """Yield until now."""
        self._connection.execute(_SLEEP, (*self.key, wait_key))
        self._connection.execute(_SLEEPING, self.key)

    def retry(self, error: str) -> None:
        """Fail, to be tried again at once."""
        self._connection.execute(_RETRYING, (error, *self.key))

    def complete(self, document: str) -> None:
        """Complete."""
        self._connection.execute(_COMPLETED, (document, *self.key))


@contextlib.contextmanager
def reference_attempt(dsn: str, workflow: str) -> Iterator[ReferenceAttempt | None]:
    """Claim a run of shard 0 as a worker of the reference does; commits at the end.

    Yields None if there is none.
    """
    with psycopg.connect(dsn) as connection:
        shard = f"{workflow}_0"
        row = connection.execute(_CLAIM, {"shard": shard, "name": workflow}).fetchone()
        if row is None:
            yield None
            return
        run_id, document, _ = row
        key = RunKey(shard, RunID(run_id))
        connection.execute(_RUNNING, key)
        yield ReferenceAttempt(connection, key, document)
