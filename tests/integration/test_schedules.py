"""Schedules on a real database: created by clients, fired by workers."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import (
    Client,
    ConfigError,
    Context,
    DBConfig,
    DecodeError,
    MsgspecCodec,
    Registry,
    SchemaError,
    UnknownScheduleError,
    every,
    parse_cron,
)
from flows.config import DEFAULT_NOTIFY_CHANNEL
from flows.database import connect
from flows.firing import fire_due, next_due_s
from flows.schedules import jitter_of, tick_run_id
from tests.running import Gate
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from flows.firing import Fired
    from tests.running import Runs

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOBODY = DBConfig(schema="nobody_has_it")

registry = Registry()


@registry.workflow("report")
def report(wf: Context, n: int) -> int:
    return n + 1


@registry.workflow("packed", codec=MsgspecCodec())
def packed(wf: Context, n: int) -> int:
    return n + 1


def at(hours: float) -> datetime:
    return NOON + hours * HOUR


def client_at(when: datetime, **options: Any) -> Client:
    return Client(now=lambda: when, **options)


def fire(
    runs: Runs, now: datetime, *names: str, config: DBConfig | None = None, channel: str = ""
) -> Fired:
    with connect(runs.dsn) as connection:
        return fire_due(
            connection, config or runs.config, names or ("report",), channel or None, now=now
        )


def column(runs: Runs, what: str, where: str = "true") -> list[Any]:
    rows = runs.connection.execute(f"SELECT {what} FROM flows.runs WHERE {where} ORDER BY run_id")
    return [row[0] for row in rows]


def stored(runs: Runs, what: str = "*") -> tuple[Any, ...]:
    row = runs.connection.execute(f"SELECT {what} FROM flows.schedules").fetchone()
    assert row is not None
    return row


def test_a_schedule_is_stored_as_the_reference_package_stores_it(runs: Runs) -> None:
    key = client_at(NOON).schedule_tx(
        runs.connection, report, 41, "hourly", parse_cron("0 * * * *")
    )
    assert key is None
    reference = "schedule_id, workflow_name, cron_expr, input_json, enabled, last_run_at"
    assert stored(runs, reference) == ("hourly", "report", "0 * * * *", 41, True, None)
    assert stored(runs, "next_run_at, created_at, updated_at") == (at(1), NOON, NOON)


def test_its_id_is_the_name_of_the_workflow_by_default(runs: Runs) -> None:
    client_at(NOON).schedule_tx(runs.connection, "report", 1, None, every(HOUR))
    assert stored(runs, "schedule_id, cron_expr, next_run_at") == ("report", "@every 1h0m0s", at(1))


def test_a_due_schedule_begins_a_run_and_is_due_again(runs: Runs) -> None:
    client_at(NOON).schedule_tx(runs.connection, report, 41, "hourly", every(HOUR))
    assert fire(runs, at(0.9)).schedules == 0
    assert fire(runs, at(1.001)) == (1, 1, [])
    assert fire(runs, at(1.001)) == (0, 0, [])
    assert stored(runs, "last_run_at, next_run_at, last_run_id") == (
        at(1.001),
        at(2),
        tick_run_id("hourly", at(1)),
    )
    assert column(runs, "run_id") == [tick_run_id("hourly", at(1))]
    key = runs.connection.execute("SELECT last_shard, last_run_id FROM flows.schedules").fetchone()
    assert key is not None
    runs.execute_due(registry)
    assert runs.client.get_run_output_tx(runs.connection, f"{key[0]}:{key[1]}", int) == 42


def test_the_input_is_kept_by_the_codec_of_the_workflow(runs: Runs) -> None:
    client_at(NOON).schedule_tx(runs.connection, packed, 41, "packed", every(HOUR))
    fire(runs, at(1), "packed")
    assert column(runs, "codec") == ["msgpack"]
    runs.execute_due(registry)
    assert column(runs, "status") == ["completed"]


def test_an_input_that_does_not_fit_is_refused(runs: Runs) -> None:
    unfit: Any = "x"
    with pytest.raises(DecodeError):
        runs.client.schedule_tx(runs.connection, report, unfit, "hourly", every(HOUR))


def test_run_now_begins_a_run_in_the_same_transaction(runs: Runs) -> None:
    with psycopg.connect(runs.dsn) as tx:
        key = runs.client.schedule_tx(tx, report, 1, "hourly", every(HOUR), run_now=True)
        assert key is not None
        tx.rollback()
    assert column(runs, "run_id") == []
    key = runs.client.schedule_tx(runs.connection, report, 1, "hourly", every(HOUR), run_now=True)
    assert key is not None
    assert column(runs, "run_id") == [key.run_id]
    assert stored(runs, "last_run_id, last_run_at IS NOT NULL") == (key.run_id, True)


def test_a_tick_that_was_fired_is_never_fired_again(runs: Runs) -> None:
    client_at(NOON).schedule_tx(runs.connection, report, 1, "hourly", every(HOUR))
    fire(runs, at(1))
    runs.connection.execute("UPDATE flows.schedules SET next_run_at = %s", (at(1),))
    assert fire(runs, at(1.5)).schedules == 1
    assert column(runs, "run_id") == [tick_run_id("hourly", at(1))]


@pytest.mark.parametrize(
    ("catch_up", "hours"), [("skip", []), ("latest", [4]), ("all", [1, 2, 3, 4])]
)
def test_after_a_downtime(runs: Runs, catch_up: Any, hours: list[int]) -> None:
    client = client_at(NOON)
    client.schedule_tx(runs.connection, report, 1, "h", every(HOUR), catch_up=catch_up)
    fire(runs, at(4.5))
    assert column(runs, "run_id") == [tick_run_id("h", at(hour)) for hour in hours]
    assert stored(runs, "next_run_at") == (at(5),)
    assert stored(runs, "last_run_at IS NULL") == (not hours,)


def test_no_run_begins_while_the_one_before_is_unfinished(runs: Runs) -> None:
    client = client_at(NOON)
    client.schedule_tx(runs.connection, report, 1, "h", every(HOUR), overlap="skip", catch_up="all")
    assert fire(runs, at(3)).runs == 1
    assert fire(runs, at(4)) == (1, 0, [])
    runs.execute_due(registry)
    assert fire(runs, at(5)).runs == 1
    assert column(runs, "run_id") == [tick_run_id("h", at(3)), tick_run_id("h", at(5))]


def test_jitter_puts_a_run_off_and_no_tick(runs: Runs) -> None:
    client_at(NOON).schedule_tx(
        runs.connection, report, 1, "h", every(HOUR), jitter=timedelta(minutes=30)
    )
    fire(runs, at(1))
    offset = jitter_of("h", at(1), timedelta(minutes=30))
    assert column(runs, "status") == ["sleeping"]
    assert column(runs, "next_wake_at") == [at(1) + offset]
    assert stored(runs, "next_run_at") == (at(2),)
    # Where it is fired late, that counts.
    fire(runs, at(2.5))
    assert column(runs, "status") == ["sleeping", "queued"]


def test_replacing_a_schedule_keeps_its_next_time_unless_its_rule_is_another(runs: Runs) -> None:
    tx = runs.connection
    client_at(NOON).schedule_tx(tx, report, 1, "h", every(2 * HOUR))
    client_at(at(1)).schedule_tx(tx, report, 2, "h", every(2 * HOUR), catch_up="all")
    assert stored(runs, "next_run_at, input_json, catch_up") == (at(2), 2, "all")
    client_at(at(1)).schedule_tx(tx, packed, 2, "h", every(3 * HOUR))
    assert stored(runs, "next_run_at, workflow_name, codec") == (at(4), "packed", "msgpack")
    client_at(at(1)).schedule_tx(tx, report, 2, "h", parse_cron("0 14 * * *"))
    client_at(at(1)).schedule_tx(tx, report, 2, "h", parse_cron("0 14 * * *", "Asia/Tokyo"))
    assert stored(runs, "timezone, next_run_at") == ("Asia/Tokyo", at(17))
    assert stored(runs, "created_at") == (NOON,)


def test_a_paused_schedule_is_silent_and_what_it_missed_is_not_made_up_for(runs: Runs) -> None:
    client = client_at(at(0))
    client.schedule_tx(runs.connection, report, 1, "h", every(HOUR), catch_up="all")
    client.pause_schedule_tx(runs.connection, "h")
    assert fire(runs, at(3)).schedules == 0
    late = client_at(at(3.5))
    late.resume_schedule_tx(runs.connection, "h")
    assert stored(runs, "enabled, next_run_at") == (True, at(4))
    assert fire(runs, at(3.9)).schedules == 0
    assert fire(runs, at(4)).runs == 1
    # Resuming what was never paused changes nothing.
    client_at(at(6)).resume_schedule_tx(runs.connection, "h")
    assert stored(runs, "next_run_at") == (at(5),)


def test_creating_a_paused_schedule_again_resumes_it(runs: Runs) -> None:
    client = client_at(NOON)
    client.schedule_tx(runs.connection, report, 1, "h", every(HOUR))
    client.pause_schedule_tx(runs.connection, "h")
    client_at(at(9)).schedule_tx(runs.connection, report, 1, "h", every(HOUR))
    assert stored(runs, "enabled, next_run_at") == (True, at(10))


def test_a_deleted_schedule_is_gone_and_its_runs_stay(runs: Runs) -> None:
    client = client_at(NOON)
    client.schedule_tx(runs.connection, report, 1, "h", every(HOUR))
    fire(runs, at(1))
    client.delete_schedule_tx(runs.connection, "h")
    assert fire(runs, at(9)).schedules == 0
    assert len(column(runs, "run_id")) == 1


@pytest.mark.parametrize("what", ["pause_schedule_tx", "resume_schedule_tx", "delete_schedule_tx"])
def test_an_unknown_schedule_is_told_and_the_transaction_goes_on(runs: Runs, what: str) -> None:
    with psycopg.connect(runs.dsn) as tx:
        with pytest.raises(UnknownScheduleError, match="no schedule 'nobody'"):
            getattr(runs.client, what)(tx, "nobody")
        assert tx.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("schedule_id", ["", "x\0", 7, "x" * 1001, "\ud800"])
def test_an_id_that_cannot_be_stored_is_refused(runs: Runs, schedule_id: Any) -> None:
    with pytest.raises(ConfigError, match="a schedule's id"):
        runs.client.schedule_tx(runs.connection, report, 1, schedule_id, every(HOUR))


class Odd:
    """A schedule of somebody's own."""

    def __init__(self, text: str, interval: timedelta = HOUR) -> None:
        self.text = text
        self.interval = interval

    def next(self, after: datetime) -> datetime:
        return after + self.interval

    def __str__(self) -> str:
        return self.text


def test_a_schedule_of_ones_own_is_stored_if_its_text_says_the_same(runs: Runs) -> None:
    runs.client.schedule_tx(runs.connection, report, 1, "own", Odd("@every 60m"))
    assert stored(runs, "cron_expr") == ("@every 60m",)


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        (Odd("whenever it suits"), "has 3 fields, not 5"),
        (Odd("@every 2h"), "read back, its text gives"),
        (Odd("@every 1h", timedelta.max), "is never due"),
        (every(timedelta(days=999_999_999)), "is never due"),
        ("0 * * * *", "is no schedule"),
        (None, "is no schedule"),
    ],
)
def test_a_schedule_that_cannot_be_read_back_is_refused(
    runs: Runs, schedule: Any, reason: str
) -> None:
    with psycopg.connect(runs.dsn) as tx:
        with pytest.raises(ConfigError, match=reason):
            runs.client.schedule_tx(tx, report, 1, "odd", schedule)
        assert tx.execute("SELECT count(*) FROM flows.schedules").fetchone() == (0,)


def test_without_tables_the_remedy_is_named(runs: Runs) -> None:
    with pytest.raises(SchemaError, match="flows migrate"):
        Client(db_config=NOBODY).schedule_tx(runs.connection, report, 1, "h", every(HOUR))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("cron_expr = 'every now and then'", "has 4 fields"),
        ("cron_expr = '0 0 30 2 *'", "never matches"),
        ("cron_expr = '@every 0s'", "must be positive"),
        ("cron_expr = '0 * * * *', timezone = 'Mars/Olympus'", "unknown here"),
        ("overlap = 'perhaps'", "overlap must be one of"),
        ("cron_expr = '@every 87600000h'", "date value out of range"),
    ],
)
def test_a_schedule_that_cannot_be_fired_is_disabled_and_the_others_go_on(
    runs: Runs, broken: str, reason: str
) -> None:
    for name in ("a", "b", "c"):
        client_at(NOON).schedule_tx(runs.connection, report, 1, name, every(HOUR))
    runs.connection.execute(f"UPDATE flows.schedules SET {broken} WHERE schedule_id = 'b'")
    fired = fire(runs, at(1))
    assert (fired.schedules, fired.runs) == (3, 2)
    assert fired.disabled[0][0] == "b"
    assert reason in fired.disabled[0][1]
    row = runs.connection.execute(
        "SELECT enabled, error_text FROM flows.schedules WHERE schedule_id = 'b'"
    ).fetchone()
    assert row == (False, fired.disabled[0][1])
    # Whoever repairs it with a new rule has it fired again.
    client_at(at(2)).schedule_tx(runs.connection, report, 1, "b", every(HOUR))
    assert stored(runs, "count(*) FILTER (WHERE enabled AND error_text IS NULL)") == (3,)


def test_schedules_of_workflows_that_are_not_run_here_are_left_alone(runs: Runs) -> None:
    client_at(NOON).schedule_tx(runs.connection, "elsewhere", 1, "h", every(HOUR))
    assert fire(runs, at(5), "report", "packed") == (0, 0, [])
    assert stored(runs, "enabled, next_run_at") == (True, at(1))
    with connect(runs.dsn) as connection:
        assert next_due_s(connection, runs.config, ["report"], at(5)) is None
        assert next_due_s(connection, runs.config, ["elsewhere"], at(0.5)) == 1800


def test_runs_of_ticks_are_spread_over_the_shards(runs: Runs) -> None:
    config = DBConfig(shard_count=8)
    for index in range(64):
        client_at(NOON, db_config=config).schedule_tx(
            runs.connection, report, index, f"h{index}", every(HOUR)
        )
    fire(runs, at(1), config=config)
    assert set(column(runs, "workflow_name_shard")) == {f"report_{index}" for index in range(8)}


def test_two_processes_fire_each_tick_once(runs: Runs) -> None:
    for index in range(300):
        client_at(NOON).schedule_tx(runs.connection, report, index, f"h{index}", every(HOUR))
    with connect(runs.dsn) as one, connect(runs.dsn) as other:
        # The other looks while the rows are claimed: it skips them and does not wait.
        with one.transaction():
            mine = fire_due(one, runs.config, ["report"], None, at(1))
            assert fire_due(other, runs.config, ["report"], None, at(1)) == (0, 0, [])
        assert mine.runs == 300
        assert fire_due(other, runs.config, ["report"], None, at(1)) == (0, 0, [])
    assert len(column(runs, "run_id")) == 300


def test_a_worker_fires_a_schedule_that_is_created_while_it_waits(runs: Runs) -> None:
    runs.start(registry)
    # Its poll is 30 seconds away: only the notification makes it look.
    runs.client.schedule_tx(runs.connection, report, 1, "soon", every(timedelta(milliseconds=300)))
    wait_until(
        lambda: len(column(runs, "run_id", "status = 'completed'")) >= 3, what="three ticks ran"
    )


def test_a_worker_that_does_not_listen_polls(runs: Runs) -> None:
    runs.start(registry, disable_notify=True, poll_interval=timedelta(milliseconds=20))
    client = Client(disable_notify=True)
    client.schedule_tx(runs.connection, report, 1, "soon", every(timedelta(milliseconds=300)))
    wait_until(lambda: column(runs, "1", "status = 'completed'"), what="a tick ran")


def test_no_tick_is_left_out_and_none_drifts(runs: Runs) -> None:
    runs.start(registry)
    runs.client.schedule_tx(runs.connection, report, 1, "fast", every(timedelta(milliseconds=200)))
    wait_until(lambda: len(column(runs, "1")) >= 15, what="15 ticks were fired")
    # Ids of ticks hold their time in milliseconds.
    due = [run_id.int >> 80 for run_id in column(runs, "run_id")]
    assert all(later - earlier == 200 for earlier, later in itertools.pairwise(due))


def test_a_schedule_that_somebody_holds_is_fired_when_it_is_let_go(runs: Runs) -> None:
    runs.client.schedule_tx(runs.connection, report, 1, "held", every(HOUR))
    runs.connection.execute("UPDATE flows.schedules SET next_run_at = now()")
    with psycopg.connect(runs.dsn) as holder:
        holder.execute("SELECT 1 FROM flows.schedules FOR UPDATE")
        runs.start(registry)
        wait_until(lambda: sessions(runs, "claim"), what="it has been skipped")
        assert column(runs, "1") == []
    wait_until(lambda: column(runs, "1"), what="it is fired")


def test_the_scheduler_survives_the_loss_of_its_connection(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    runs.start(registry)
    wait_until(lambda: sessions(runs), what="the scheduler waits")
    runs.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'flows scheduler' AND datname = current_database()"
    )
    wait_until(lambda: "cannot fire schedules" in caplog.text, what="it has noticed")
    runs.client.schedule_tx(runs.connection, report, 1, "soon", every(timedelta(milliseconds=100)))
    wait_until(lambda: column(runs, "1", "status = 'completed'"), what="a tick ran")


def sessions(runs: Runs, last_statement: str = "next") -> list[Any]:
    """Return the scheduler's sessions that have come so far."""
    like = {"next": "%min(head.next_run_at)%", "claim": "%SKIP LOCKED%"}[last_statement]
    return runs.rows(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'flows scheduler'"
        " AND datname = current_database() AND (query LIKE %s OR query = 'COMMIT')",
        like,
    )


def test_a_schedule_that_cannot_be_fired_is_logged_by_the_worker(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    runs.client.schedule_tx(runs.connection, report, 1, "odd", every(HOUR))
    runs.connection.execute("UPDATE flows.schedules SET cron_expr = 'x', next_run_at = now()")
    runs.start(registry)
    wait_until(
        lambda: "schedule odd cannot be fired: disabled: cron expression 'x'" in caplog.text,
        what="it is logged",
    )


def test_a_schedule_can_be_kept_within_a_workflow(runs: Runs) -> None:
    own = Registry()
    gate = Gate()

    @own.workflow("parent")
    def parent(wf: Context, n: int) -> None:
        assert threading.current_thread() is not threading.main_thread()
        Client().schedule_tx(wf.tx, report, n, f"child-{n}", every(HOUR))
        gate.pass_through()

    runs.begin("parent", 3)
    runs.start(own)
    gate.wait_for_arrival()
    assert runs.connection.execute("SELECT count(*) FROM flows.schedules").fetchone() == (0,)
    gate.open()
    wait_until(lambda: column(runs, "1", "status = 'completed'"), what="the parent is done")
    assert stored(runs, "schedule_id") == ("child-3",)


def test_workers_are_told_of_the_runs(runs: Runs) -> None:
    client_at(NOON).schedule_tx(runs.connection, report, 1, "h", every(HOUR))
    with psycopg.connect(runs.dsn, autocommit=True) as listener:
        listener.execute(f"LISTEN {DEFAULT_NOTIFY_CHANNEL}")
        fire(runs, at(1), channel=DEFAULT_NOTIFY_CHANNEL)
        told = [each.payload for each in listener.notifies(timeout=DEADLINE_S, stop_after=1)]
    assert told == ["report_0"]
