"""Quiet: begins tell nobody while every worker looks by itself, and nothing is left lying."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from flows import AsyncClient, Client, Context, DBConfig, Registry, quiet, round_trip, sql
from flows.claims import Claimed, claim_runs
from flows.clock import monotonic
from flows.database import connect
from flows.ids import uuid7
from flows.quiet import MOST_SHARDS, quiet_key
from flows.sessions import traits_of
from flows.shard import shard_for_run
from tests.crash.holds import Hold
from tests.running import Gate, Runs
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows import RunKey

CHANNEL = "flows_run_wakeup"
KEY = quiet_key("flows", CHANNEL, "demo")
HOUR = timedelta(hours=1)
SHARDS = MOST_SHARDS
RARELY = {"poll_interval": HOUR, "max_poll_interval": HOUR}
RING = "SELECT pg_advisory_lock(hashtextextended(%s, %s))"
HELD = """
    SELECT ((classid::bigint << 32) + objid::bigint)::numeric - %s AS number, mode FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
ASKED = (0, "ExclusiveLock")
TOLD = (1, "ShareLock")
LATE = (2, "ShareLock")


@pytest.fixture
def registry() -> Registry:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context, value: Any) -> Any:
        return value

    return registry


@pytest.fixture
def sharded(runs: Runs) -> Iterator[Runs]:
    """The same database with many shards."""
    sharded = Runs(runs.dsn, DBConfig(shard_count=SHARDS))
    yield sharded
    sharded.close()


@pytest.fixture
def other(runs: Runs) -> Iterator[psycopg.Connection[Any]]:
    """The session of a worker, say, that takes locks."""
    with psycopg.connect(runs.dsn, autocommit=True) as connection:
        yield connection


def held(runs: Runs) -> set[tuple[int, str]]:
    """Return which of the locks of `demo` are held, and how."""
    return {(number, mode) for number, mode in runs.rows(HELD, KEY) if number in {0, 1, 2}}


def ask(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SELECT pg_advisory_lock(%s)", (KEY,))


def be_told(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SELECT pg_advisory_lock_shared(%s)", (KEY + 1,))


def crowd(
    runs: Runs,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    *,
    whatever_happens: bool = False,
) -> None:
    """Start a worker and notify it until it asks for quiet, which it does not end by itself.

    But for want of looks: it has no room for them, or gets no processor for a while.
    """
    runs.start(registry, **RARELY)
    wait_until(lambda: TOLD in held(runs), what="it wants to be told")
    monkeypatch.setattr(quiet, "FEW", 0)
    if whatever_happens:
        monkeypatch.setattr(quiet.Quiet, "should_end", lambda *_: False)
    while TOLD in held(runs):
        # PostgreSQL tells what is the same in one transaction once, so each is of another shard.
        for _ in range(quiet.MANY // SHARDS + 1):
            runs.connection.execute(
                "SELECT pg_notify(%s, 'demo_' || k) FROM generate_series(0, %s) AS k",
                (CHANNEL, SHARDS - 1),
            )


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a worker has looked."""
    looks: list[float] = []

    def look(*args: Any, **how: Any) -> Claimed:
        looks.append(monotonic())
        return claim_runs(*args, **how)

    monkeypatch.setattr("flows.dispatcher.claim_runs", look)
    return looks


def told_of(runs: Runs, keys: list[RunKey]) -> list[str]:
    """Return the payloads of what has been told on the channel, the runs' ids as `run`."""
    # What was told before an own notification comes before it.
    runs.connection.execute("SELECT pg_notify(%s, 'last')", (CHANNEL,))
    payloads: list[str] = []
    for notification in runs.connection.notifies(timeout=DEADLINE_S):
        if notification.payload == "last":
            break
        payloads.append(notification.payload)
    ids = {str(key): "run" for key in keys}
    return [ids.get(payload, payload) for payload in payloads]


def tell_for_others(connection: psycopg.Connection[Any], shard: str = "demo_0") -> None:
    """Be a begin that tells, and is not committed yet."""
    connection.execute(RING, (shard, KEY))


def begin_in_all_ways(runs: Runs) -> list[RunKey]:
    begin, connection = runs.client.begin_tx, runs.connection
    return [
        begin(connection, "demo", 1),
        begin(connection, "demo", 1, priority=1),
        begin(connection, "demo", 1, idempotency_key="once"),
        begin(connection, "demo", 1, deadline=HOUR),
    ]


@pytest.mark.parametrize(
    ("is_asked", "is_told", "heard"),
    [
        (False, False, ["demo_0"] * 3 + ["run"]),
        (False, True, ["demo_0"] * 3 + ["run"]),
        (True, True, ["demo_0"] * 3 + ["run"]),
        # A deadline has to be known of.
        (True, False, ["run"]),
    ],
)
def test_begins_tell_unless_a_worker_asks_for_quiet_and_none_wants_to_be_told(
    runs: Runs,
    other: psycopg.Connection[Any],
    is_asked: bool,
    is_told: bool,
    heard: list[str],
) -> None:
    runs.connection.execute(f"LISTEN {CHANNEL}")
    if is_asked:
        ask(other)
    if is_told:
        be_told(other)
    before = held(runs)
    assert told_of(runs, begin_in_all_ways(runs)) == heard
    assert held(runs) == before


def test_of_begins_that_are_committed_at_once_one_tells_for_all(
    runs: Runs, other: psycopg.Connection[Any]
) -> None:
    runs.connection.execute(f"LISTEN {CHANNEL}")
    tell_for_others(other)
    # One with a key may wait for another transaction, and one with a deadline has to be known of.
    assert told_of(runs, begin_in_all_ways(runs)) == ["demo_0", "run"]
    assert held(runs) == set()
    other.execute("SELECT pg_advisory_unlock_all()")
    assert told_of(runs, [runs.begin("demo", 1)]) == ["demo_0"]


def test_begins_that_are_not_committed_at_once_tell_themselves(
    runs: Runs, other: psycopg.Connection[Any]
) -> None:
    begin, connection = runs.client.begin_tx, runs.connection
    connection.execute(f"LISTEN {CHANNEL}")
    tell_for_others(other)
    with connection.transaction():
        key = begin(connection, "demo", 1)
    assert told_of(runs, [key]) == ["demo_0"]
    with connection.pipeline():
        key = begin(connection, "demo", 1)
    assert told_of(runs, [key]) == ["demo_0"]
    other.execute("SELECT pg_advisory_unlock_all()")
    with psycopg.connect(runs.dsn) as lasting:
        key = begin(lasting, "demo", 1)
        # And nobody else counts on them, who may go on for long.
        assert told_of(runs, [runs.begin("demo", 2)]) == ["demo_0"]
    assert told_of(runs, [key]) == ["demo_0"]


def test_a_begin_that_tells_does_so_for_its_shard_alone(
    sharded: Runs, other: psycopg.Connection[Any]
) -> None:
    sharded.connection.execute(f"LISTEN {CHANNEL}")
    keys = [sharded.begin("demo", 1) for _ in range(3)]
    told_of(sharded, keys)
    tell_for_others(other, keys[0].workflow_name_shard)
    begun = [sharded.begin("demo", 1) for _ in range(50)]
    shards = {key.workflow_name_shard for key in begun}
    assert len(shards) > 1
    assert set(told_of(sharded, begun)) == shards - {keys[0].workflow_name_shard}


@pytest.mark.parametrize("shards", [1, 3])
def test_what_may_come_late_is_asked_before_a_claim_looks(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    sent: list[list[str]] = []
    send = round_trip.execute

    def execute(connection: Any, schema: str, queries: Any, *more: Any) -> Any:
        sent.append([name for name, _ in queries])
        return send(connection, schema, queries, *more)

    monkeypatch.setattr("flows.claims.round_trip.execute", execute)
    names = [f"demo_{number}" for number in range(shards)]
    with connect(runs.dsn, "test claim") as connection:
        claimed = claim_runs(connection, "flows", names, 1, uuid4(), quiet_key=KEY)
        assert not claimed.is_late
        with runs.connection.transaction():
            runs.rows("SELECT pg_advisory_xact_lock_shared(%s)", KEY + 2)
            assert claim_runs(connection, "flows", names, 1, uuid4(), quiet_key=KEY).is_late
    # What is committed after the question would be in neither answer if it came behind.
    assert [queries[0] for queries in sent] == ["find_late"] * 2
    assert [len(queries) for queries in sent] == [max(shards + 1, 3)] * 2


def test_asyncio_clients_ride_along_too(runs: Runs, other: psycopg.Connection[Any]) -> None:
    client = AsyncClient()
    runs.connection.execute(f"LISTEN {CHANNEL}")
    tell_for_others(other)

    async def begin() -> list[RunKey]:
        connect = psycopg.AsyncConnection.connect
        async with await connect(runs.dsn, autocommit=True) as connection:
            key = await client.begin_tx(connection, "demo", 1)
            async with connection.transaction():
                return [key, await client.begin_tx(connection, "demo", 2)]

    # The second has told of itself.
    assert told_of(runs, asyncio.run(begin())) == ["demo_0"]


def test_a_client_with_more_shards_than_workers_look_at_tells_of_each_run(
    runs: Runs, other: psycopg.Connection[Any]
) -> None:
    client = Client(db_config=DBConfig(shard_count=SHARDS + 1))
    runs.connection.execute(f"LISTEN {CHANNEL}")
    for number in range(SHARDS + 1):
        tell_for_others(other, f"demo_{number}")
    key = client.begin_tx(runs.connection, "demo", 1)
    assert told_of(runs, []) == [key.workflow_name_shard]


def test_who_tells_for_others_holds_what_they_hold_too(
    runs: Runs, other: psycopg.Connection[Any]
) -> None:
    with Hold(runs.dsn, "NEW.workflow_name = 'demo'", on="INSERT") as hold:
        beginner = threading.Thread(target=lambda: runs.begin("demo", 1))
        beginner.start()
        hold.wait_for_arrival()
        ring = other.execute("SELECT hashtextextended('demo_0', %s)", (KEY,)).fetchone()
        locks = other.execute(f"{HELD} AND pid = %s", (KEY, runs.connection.info.backend_pid))
        assert ring is not None
        assert set(locks) == {LATE, (ring[0] - KEY, "ExclusiveLock")}
    beginner.join()


@pytest.mark.parametrize("told", [0, 1])
def test_a_worker_finds_runs_that_commit_after_what_it_was_told_of(
    sharded: Runs,
    registry: Registry,
    other: psycopg.Connection[Any],
    looks: list[float],
    monkeypatch: pytest.MonkeyPatch,
    told: int,
) -> None:
    runs, late = sharded, uuid7()
    shard = shard_for_run("demo", str(late), SHARDS)
    # Of its shard, or of another.
    told_shard = f"demo_{(int(shard.removeprefix('demo_')) + told) % SHARDS}"
    monkeypatch.setattr("flows.operations.uuid7", lambda: late)
    runs.start(registry, **RARELY)
    wait_until(lambda: held(runs) == {TOLD} and looks, what="it wants to be told")
    begun: list[RunKey] = []
    tell_for_others(other, shard)
    with Hold(runs.dsn, "NEW.workflow_name = 'demo'", on="INSERT") as hold:
        beginner = threading.Thread(target=lambda: begun.append(runs.begin("demo", 1)))
        beginner.start()
        hold.wait_for_arrival()
        # The begin that tells is committed, and this one is not.
        other.execute("SELECT pg_advisory_unlock_all(), pg_notify(%s, %s)", (CHANNEL, told_shard))
        enough = len(looks) + 22
        wait_until(lambda: len(looks) >= enough, what="it goes on looking")
        # And not ever so often.
        assert looks[-1] - looks[-2] >= quiet.LATE_S
    beginner.join()
    runs.wait_for(begun[0], "completed")


def test_a_worker_that_was_told_polls_soon_for_what_may_have_slipped_through(
    runs: Runs, registry: Registry, looks: list[float]
) -> None:
    running = runs.start(registry, poll_interval=timedelta(milliseconds=20), max_poll_interval=HOUR)
    wait_until(lambda: held(runs) == {TOLD} and looks, what="it wants to be told")
    ((dispatcher, _),) = running.worker._dispatchers
    # As after some hours without a run.
    dispatcher._idle_s = HOUR.total_seconds()
    seen = len(looks)
    runs.connection.execute("SELECT pg_notify(%s, 'demo_0')", (CHANNEL,))
    wait_until(lambda: len(looks) > seen, what="it has looked")
    key = Client(disable_notify=True).begin_tx(runs.connection, "demo", 1)
    runs.wait_for(key, "completed")


def test_quiet_of_one_workflow_is_not_that_of_another(
    runs: Runs, other: psycopg.Connection[Any]
) -> None:
    runs.connection.execute(f"LISTEN {CHANNEL}")
    ask(other)
    assert told_of(runs, [runs.begin("other", 1)]) == ["other_0"]


def test_a_worker_is_told_while_it_has_little_to_do(runs: Runs, registry: Registry) -> None:
    runs.start(registry, **RARELY)
    wait_until(lambda: held(runs) == {TOLD}, what="it wants to be told")
    for value in range(5):
        runs.wait_for(runs.begin("demo", value), "completed")
    assert held(runs) == {TOLD}


def test_in_a_crowd_a_worker_asks_for_quiet_and_finds_all_by_itself(
    sharded: Runs, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(sharded, registry, monkeypatch)
    assert held(sharded) == {ASKED}
    sharded.connection.execute(f"LISTEN {CHANNEL}")
    more = [sharded.begin("demo", 2) for _ in range(3)]
    for key in more:
        sharded.wait_for(key, "completed")
    assert told_of(sharded, more) == []


def test_after_the_crowd_it_is_told_again_and_finds_what_commits_only_then(
    sharded: Runs,
    registry: Registry,
    other: psycopg.Connection[Any],
    looks: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowd(sharded, registry, monkeypatch)
    assert held(sharded) == {ASKED}
    with other.transaction():
        late = sharded.client.begin_tx(other, "demo", "late")
        assert held(sharded) == {ASKED, LATE}
        monkeypatch.setattr(quiet, "FEW", 1)
        wait_until(lambda: TOLD in held(sharded), what="the worker wants to be told again")
        # Twice as long after each look it would take two hours.
        enough = len(looks) + 22
        wait_until(lambda: len(looks) >= enough, what="it goes on looking")
    sharded.wait_for(late, "completed")


def test_a_worker_that_comes_after_the_crowd_finds_what_commits_only_then(
    runs: Runs, registry: Registry, other: psycopg.Connection[Any], looks: list[float]
) -> None:
    ask(runs.connection)
    with other.transaction():
        late = runs.client.begin_tx(other, "demo", "late")
        runs.start(registry, **RARELY)
        wait_until(lambda: TOLD in held(runs) and looks, what="it has looked for the first time")
    runs.wait_for(late, "completed")


def test_who_has_no_room_to_look_does_not_ask_for_quiet(
    sharded: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, registry = Gate(), Registry()

    @registry.workflow("demo")
    def demo(wf: Context, value: Any) -> None:
        gate.pass_through()

    crowd(sharded, registry, monkeypatch)
    assert held(sharded) == {ASKED}
    key = sharded.begin("demo", 1)
    gate.wait_for_arrival()
    wait_until(lambda: held(sharded) == {TOLD}, what="it wants to be told")
    gate.open()
    sharded.wait_for(key, "completed")


def test_a_worker_takes_over_from_one_that_has_asked_before(
    sharded: Runs,
    registry: Registry,
    other: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask(other)
    crowd(sharded, registry, monkeypatch, whatever_happens=True)
    assert held(sharded) == {ASKED}
    other.execute("SELECT pg_advisory_unlock(%s)", (KEY,))
    wait_until(lambda: held(sharded) == {ASKED}, what="it has the lock itself")


def test_a_worker_whose_connection_is_lost_leaves_no_quiet_behind(
    sharded: Runs, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(sharded, registry, monkeypatch)
    assert held(sharded) == {ASKED}
    monkeypatch.undo()
    sharded.rows(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'flows dispatcher' AND datname = current_database()"
    )
    wait_until(lambda: held(sharded) == {TOLD}, what="it wants to be told on the next one")
    sharded.wait_for(sharded.begin("demo", 2), "completed")


@pytest.mark.parametrize("query", ["insert_plain_run", "insert_run", "insert_keyed_run"])
def test_a_begin_leaves_nothing_in_a_session(query: str) -> None:
    assert not traits_of(sql.load(query, "flows")).leaves


def test_locks_of_users_are_seen_all_the_same() -> None:
    assert traits_of("SELECT pg_try_advisory_lock_shared(1)").leaves
    assert traits_of("SELECT pg_try_advisory_lock(%(key)s)").leaves
