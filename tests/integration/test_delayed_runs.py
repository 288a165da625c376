"""Runs that are begun now and start later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from flows import Client, ConfigError, Context, Registry
from tests.integration.command import flows, told

if TYPE_CHECKING:
    from tests.running import Runs

HOUR = timedelta(hours=1)
UNTOLD: dict[str, Any] = {"poll_interval": HOUR, "max_poll_interval": HOUR}
MAKE_DUE = "UPDATE flows.runs SET next_wake_at = now() RETURNING 1"
WAITED = "SELECT started_at - created_at FROM flows.runs"

registry = Registry()


@registry.workflow("double")
def double(wf: Context, number: int) -> int:
    return wf.execute("double/v1", lambda: 2 * number)


def test_a_delayed_run_sleeps_and_then_starts(runs: Runs) -> None:
    key = runs.client.begin_tx(runs.connection, double, 4, delay=3 * HOUR)
    status = runs.status(key)
    assert status.status == "sleeping"
    assert status.next_wake_at == status.created_at + 3 * HOUR
    assert runs.execute_due(registry) == 0
    runs.rows(MAKE_DUE)
    assert runs.execute_due(registry) == 1
    assert runs.output(key) == 8


def test_an_idle_worker_starts_it_when_its_time_has_come(runs: Runs) -> None:
    runs.start(registry, **UNTOLD)
    delay = timedelta(milliseconds=300)
    key = runs.client.begin_tx(runs.connection, double, 4, delay=delay)
    runs.wait_for(key, "completed")
    [(waited,)] = runs.rows(WAITED)
    # On an idle machine a few milliseconds later; without being told, nobody looks for an hour.
    assert delay <= waited < delay + timedelta(seconds=5)


def test_a_run_starts_at_an_instant_of_any_time_zone(runs: Runs) -> None:
    [(now,)] = runs.rows("SELECT now()")
    at = (now + HOUR).astimezone(timezone(timedelta(hours=-7)))
    key = runs.client.begin_tx(runs.connection, double, 4, start_at=at)
    assert runs.status(key).next_wake_at == at
    passed = runs.client.begin_tx(runs.connection, double, 5, start_at=now - HOUR)
    assert runs.execute_due(registry) == 1
    assert runs.output(passed) == 10
    assert runs.status(key).status == "sleeping"


def test_no_delay_is_none(runs: Runs) -> None:
    key = runs.client.begin_tx(runs.connection, double, 4, delay=timedelta())
    assert runs.status(key).status == "queued"
    runs.execute_due(registry)
    assert runs.output(key) == 8


def test_many_are_delayed_together(runs: Runs) -> None:
    keys = runs.client.begin_many_tx(runs.connection, double, range(3), delay=HOUR)
    states = [runs.status(key) for key in keys]
    assert {(state.status, state.next_wake_at) for state in states} == {
        ("sleeping", states[0].created_at + HOUR)
    }
    runs.rows(MAKE_DUE)
    assert runs.execute_due(registry) == 3
    assert [runs.output(key) for key in keys] == [0, 2, 4]


def test_a_connected_client_delays_them_too(runs: Runs) -> None:
    at = datetime(2125, 1, 1, tzinfo=UTC)
    with Client.connect(runs.dsn) as client:
        key = client.begin(double, 4, start_at=at)
        [other] = client.begin_many(double, [5], delay=HOUR)
        assert client.status(key).next_wake_at == at
        assert client.status(other).status == "sleeping"


def test_a_delay_counts_by_the_clock_that_a_client_was_given(runs: Runs) -> None:
    now = datetime(2025, 6, 1, tzinfo=UTC)
    client = Client(now=lambda: now)
    key = client.begin_tx(runs.connection, double, 4, delay=HOUR)
    assert runs.status(key).next_wake_at == now + HOUR


def test_a_delayed_run_is_cancelled_at_once(runs: Runs) -> None:
    key = runs.client.begin_tx(runs.connection, double, 4, delay=HOUR)
    runs.client.cancel_run_tx(runs.connection, key)
    assert runs.status(key).status == "cancelled"


def test_a_run_whose_deadline_is_before_its_start_fails_unstarted(runs: Runs) -> None:
    deadline = timedelta(milliseconds=300)
    key = runs.client.begin_tx(runs.connection, double, 4, delay=HOUR, deadline=deadline)
    runs.start(registry, **UNTOLD)
    assert runs.wait_for(key, "failed").attempts == 0
    assert "RunTimeoutError" in runs.error(key)
    assert runs.rows("SELECT started_at FROM flows.runs") == [(None,)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay": -HOUR}, "a delay is a timedelta of 0 s to a thousand years"),
        ({"delay": 60}, "a delay is a timedelta"),
        ({"delay": timedelta.max}, "a delay is a timedelta"),
        ({"deadline": timedelta.max}, "a deadline is a positive timedelta"),
        ({"start_at": datetime(2125, 1, 1)}, "start_at is a datetime with a time zone"),  # noqa: DTZ001
        ({"start_at": HOUR}, "start_at is a datetime with a time zone"),
        ({"start_at": datetime(2125, 1, 1, tzinfo=UTC), "delay": HOUR}, "give one of them"),
    ],
)
def test_times_that_cannot_be_are_refused_before_a_statement(
    runs: Runs, options: dict[str, Any], message: str
) -> None:
    with runs.connection.transaction():
        with pytest.raises(ConfigError, match=message):
            runs.client.begin_tx(runs.connection, double, 4, **options)
        with pytest.raises(ConfigError, match=message):
            runs.client.begin_many_tx(runs.connection, double, [4], **options)
        # The caller's transaction is as it was.
        runs.begin(double, 4)
    assert runs.rows("SELECT count(*) FROM flows.runs") == [(1,)]


def test_the_farthest_times_that_are_taken_can_be_kept(runs: Runs) -> None:
    longest = timedelta(days=365_250)
    runs.client.begin_tx(runs.connection, double, 4, delay=longest, deadline=longest)
    runs.client.begin_tx(runs.connection, double, 4, start_at=datetime.max.replace(tzinfo=UTC))
    assert runs.execute_due(registry) == 0


def test_the_command_delays_a_run(runs: Runs) -> None:
    told("begin", "double", "4", "--dsn", runs.dsn, "--delay", "1h30m")
    told("begin", "double", "4", "--dsn", runs.dsn, "--start-at", "2125-01-31T09:00+01:00")
    [(delay, _), (_, at)] = runs.rows(
        "SELECT next_wake_at - created_at, next_wake_at FROM flows.runs ORDER BY next_wake_at"
    )
    assert delay == timedelta(hours=1.5)
    assert at == datetime(2125, 1, 31, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        (2, ("--start-at", "tomorrow"), "'tomorrow' is no time"),
        (2, ("--start-at", "2125-01-31"), "'2125-01-31' has no offset from UTC"),
        (2, ("--delay", "soon"), "'soon'"),
        (3, ("--delay", "1h", "--start-at", "2125-01-31T09:00Z"), "give one of them"),
    ],
)
def test_the_command_refuses_what_is_no_time(
    runs: Runs, code: int, options: tuple[str, ...], message: str
) -> None:
    done = flows("begin", "double", "4", "--dsn", runs.dsn, *options)
    assert done.returncode == code
    assert message in done.stderr
    assert runs.rows("SELECT count(*) FROM flows.runs") == [(0,)]
