"""Races, each arranged: somebody is held in the middle while the other side goes on."""

from __future__ import annotations

import re
import select
import threading
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Client, Context, DBConfig, DecodeError, Registry, RunKey, leases, sql
from flows.claims import Claimed, claim_runs
from flows.clock import monotonic
from flows.database import Connection, connect
from flows.dispatcher import Dispatcher
from tests.crash.holds import Hold
from tests.running import Gate
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.running import Runs

FOREVER = timedelta(hours=1)
ONLY_NOTIFIED = {"poll_interval": FOREVER, "max_poll_interval": FOREVER}
ONLY_POLLING = {"poll_interval": timedelta(milliseconds=20), "disable_notify": True}
UNTOLD = {"poll_interval": FOREVER, "max_poll_interval": FOREVER, "disable_notify": True}


def wait_until_rechecked(runs: Runs, *, has_transaction: bool) -> None:
    """Wait until whoever committed a yield has looked for the event, in vain."""
    name = "flows transaction" if has_transaction else "flows committer"

    def is_idle_again() -> list[tuple[Any, ...]]:
        # A transaction's session closes the look with a COMMIT of its own.
        return runs.rows(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = %s AND state = 'idle'"
            " AND (query LIKE '%%waiting_event%%' OR query = 'COMMIT')",
            name,
        )

    wait_until(is_idle_again, what="the event was looked for")


@pytest.mark.parametrize("has_transaction", [False, True], ids=["memos", "wf.tx"])
@pytest.mark.parametrize(
    "options", [ONLY_NOTIFIED, ONLY_POLLING], ids=["notifications", "only-polling"]
)
def test_an_event_whose_publisher_commits_after_the_yield_wakes_its_run(
    runs: Runs, *, options: dict[str, Any], has_transaction: bool
) -> None:
    registry = Registry()
    gate = Gate()

    @registry.workflow("waiter")
    def waiter(wf: Context) -> int:
        if has_transaction:
            wf.tx.execute("SELECT 1")
        gate.pass_through()
        return wf.wait_for_event("wait/v1", "number", int)

    client = Client(disable_notify=options.get("disable_notify", False))
    key = runs.begin(waiter)
    runs.start(registry, **options)
    gate.wait_for_arrival()
    with psycopg.connect(runs.dsn) as publisher:
        client.publish_event_tx(publisher, key, "number", 7)
        gate.open()
        runs.wait_for(key, "waiting_event")
        wait_until_rechecked(runs, has_transaction=has_transaction)
        assert runs.status(key).status == "waiting_event"
    runs.wait_for(key, "completed")
    assert runs.output(key) == 7


@pytest.mark.parametrize("has_transaction", [False, True], ids=["memos", "wf.tx"])
def test_an_event_published_between_the_read_and_the_commit_of_the_yield_wakes_its_run(
    runs: Runs, *, has_transaction: bool
) -> None:
    registry = Registry()

    @registry.workflow("waiter")
    def waiter(wf: Context) -> int:
        if has_transaction:
            wf.tx.execute("SELECT 1")
        return wf.wait_for_event("wait/v1", "number", int)

    key = runs.begin(waiter)
    with Hold(runs.dsn, "NEW.status = 'waiting_event'") as hold:
        runs.start(registry, **UNTOLD)
        hold.wait_for_arrival()
        runs.publish(key, "number", 7)
    runs.wait_for(key, "completed")
    assert runs.output(key) == 7


def test_a_lost_wake_up_is_found_under_a_load_that_never_pauses(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    done = threading.Event()

    @registry.workflow("both", concurrency=2)
    def both(wf: Context, role: str) -> int:
        if role == "waiter":
            return wf.wait_for_event("wait/v1", "number", int)
        naps = 0
        while not done.is_set():
            wf.sleep(f"nap/{naps}", timedelta(milliseconds=2))
            naps += 1
        return naps

    waiter = runs.begin(both, "waiter")
    load = runs.begin(both, "load")
    monkeypatch.setattr(Dispatcher, "_wait", wait_without_polling)
    runs.start(registry, poll_interval=timedelta(seconds=0.5), disable_notify=True)
    runs.wait_for(waiter, "waiting_event")
    publish_unheard(runs, waiter, 7)
    try:
        runs.wait_for(waiter, "completed")
    finally:
        done.set()
    runs.wait_for(load, "completed")


def wait_without_polling(dispatcher: Dispatcher, connection: Connection) -> None:
    """Wait as a dispatcher does under such a load, however slow the machine: never for a poll."""
    timeout_s = max(0.001, dispatcher._wait_until() - monotonic())
    if dispatcher._wake_up.wait(timeout_s, connection.fileno()):
        dispatcher._drain(connection)


def test_a_publisher_that_keeps_its_transaction_open_holds_up_no_other_run(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("both")
    def both(wf: Context, role: str) -> int:
        return wf.wait_for_event("wait/v1", "number", int) if role == "waiter" else 1

    waiter = runs.begin(both, "waiter")
    runs.execute_due(registry)
    publish_unheard(runs, waiter, 7)
    with psycopg.connect(runs.dsn) as publisher:
        runs.client.publish_event_tx(publisher, waiter, "number", 8)
        # Its first idle look goes over all waiting runs, and this one's event is there.
        running = runs.start(registry, **ONLY_POLLING)
        wait_until_swept(runs)
        other = runs.begin(both, "other")
        runs.wait_for(other, "completed")
        publisher.rollback()
    runs.wait_for(waiter, "completed")
    running.stop()
    assert runs.output(waiter) == 7


def wait_until_swept(runs: Runs) -> None:
    """Wait until a dispatcher looks for lost events, or has looked."""
    statement = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'flows dispatcher' AND query LIKE '%%infinity%%'"
    )
    wait_until(lambda: runs.rows(statement), what="a dispatcher sweeps")


def publish_unheard(runs: Runs, key: RunKey, payload: int) -> None:
    """Leave what a lost wake-up leaves: the event is there, and its run waits."""
    runs.connection.execute(
        "INSERT INTO flows.events (workflow_name_shard, run_id, event_name, payload_json)"
        " VALUES (%s, %s, 'number', to_jsonb(%s::int))",
        (*key, payload),
    )


def test_a_wait_that_is_over_wakes_its_run_no_more(runs: Runs) -> None:
    registry = Registry()
    attempts: list[int] = []

    @registry.workflow("waiter")
    def waiter(wf: Context) -> str:
        attempts.append(wf.attempt)
        try:
            return str(wf.wait_for_event("wait/v1", "number", int))
        except DecodeError:
            return wf.wait_for_event("instead/v1", "text", str)

    key = runs.begin(waiter)
    runs.execute_due(registry)
    runs.connection.execute(
        "INSERT INTO flows.events (workflow_name_shard, run_id, event_name, payload_json)"
        " VALUES (%s, %s, 'number', '\"seven\"')",
        key,
    )
    for _ in range(5):
        runs.worker(registry).process_one()
    assert runs.status(key).status == "waiting_event"
    assert len(attempts) == 2
    runs.publish(key, "text", "eight")
    runs.execute_due(registry)
    assert runs.output(key) == "eight"


def claim_in_thread(runs: Runs, shard: str) -> tuple[threading.Thread, list[Claimed]]:
    """Claim two runs, in a thread that may be held up."""
    claimed: list[Claimed] = []

    def claim() -> None:
        with connect(runs.dsn) as connection:
            claimed.append(claim_runs(connection, "flows", [shard], 2, uuid.uuid4()))

    thread = threading.Thread(target=claim)
    thread.start()
    return thread, claimed


@pytest.mark.parametrize(("part", "priority"), [("urgent", 5), ("ordinary", 0)])
def test_a_claim_sees_what_was_executed_since_it_began_to_look(
    runs: Runs, part: str, priority: int
) -> None:
    registry = Registry()

    @registry.workflow("waiter")
    def waiter(wf: Context) -> int:
        wf.execute("step/v1", lambda: 1)
        return wf.wait_for_event("wait/v1", "number", int)

    key = runs.client.begin_tx(runs.connection, waiter, priority=priority)
    claim = sql.load("claim_runs").decode().replace(" - (SELECT count(*) FROM urgent)", "")
    found = re.search(rf"\b{part} AS \((.*?)\n\),", claim, re.DOTALL)
    assert found is not None
    values = {"shard": key.workflow_name_shard, "limit": 2, "now": None, "from_s": None}
    with psycopg.connect(runs.dsn) as connection, connection.cursor("due") as due:
        # It has seen the run as it is now; before it takes it, another worker executes it.
        due.execute(found[1].encode(), values)
        assert runs.execute_due(registry) == 1
        runs.publish(key, "number", 7)
        assert due.fetchall() == [(key.run_id, False, False, None)]
    with connect(runs.dsn) as connection:
        claimed = claim_runs(connection, "flows", [key.workflow_name_shard], 2, uuid.uuid4())
    (run,) = claimed.runs
    assert run.prefetched is not None
    assert "step/v1" in run.prefetched


def test_a_sleep_that_ends_while_a_claim_is_under_way_is_not_overlooked(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("sleeper")
    def sleeper(wf: Context, nap_s: float) -> None:
        wf.sleep("nap/v1", timedelta(seconds=nap_s))

    asleep = runs.begin(sleeper, 0.3)
    runs.execute_due(registry)
    first = runs.begin(sleeper, 0.0)
    with Hold(runs.dsn, f"NEW.run_id = '{first.run_id}'") as hold:
        thread, claimed = claim_in_thread(runs, first.workflow_name_shard)
        hold.wait_for_arrival()
        is_due = "SELECT 1 FROM flows.runs WHERE run_id = %s AND next_wake_at < clock_timestamp()"
        wait_until(lambda: runs.rows(is_due, asleep.run_id), what="the sleep is over")
    thread.join()
    taken = [run.run_id for run in claimed[0].runs]
    assert (
        str(asleep.run_id) in taken or claimed[0].next_due_s[first.workflow_name_shard] is not None
    )


def test_a_released_run_does_not_take_its_late_sleep_for_over(runs: Runs) -> None:
    registry = Registry()
    is_judged_dead = [True]

    @registry.workflow("sleeper")
    def sleeper(wf: Context) -> None:
        if is_judged_dead.pop():
            ((worker_id,),) = runs.rows("SELECT worker_id FROM flows.runs")
            assert leases.release_worker(runs.connection, DBConfig(), worker_id) == 1
        wf.sleep("night/v1", timedelta(hours=8))

    key = runs.begin(sleeper)
    is_judged_dead.insert(0, False)
    worker = runs.worker(registry)
    assert worker.process_one()
    assert runs.status(key).status == "queued"
    assert worker.process_one()
    ((left_s,),) = runs.rows(
        "SELECT extract(epoch FROM next_wake_at - statement_timestamp())::float8 FROM flows.runs"
    )
    assert runs.status(key).status == "sleeping"
    assert left_s > timedelta(hours=7, minutes=59).total_seconds()
    worker.stop()


def test_two_workers_on_one_queue_execute_every_run_once(runs: Runs) -> None:
    executed: list[int] = []
    registry = Registry()

    @registry.workflow("number", concurrency=3)
    def number(wf: Context, number: int) -> int:
        executed.append(number)
        return wf.execute("step/v1", lambda value: value, number)

    workers = [runs.start(registry) for _ in range(2)]
    with runs.connection.transaction():
        runs.client.begin_many_tx(runs.connection, number, range(500))
    wait_until(
        lambda: runs.rows(
            "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM flows.runs WHERE status <> 'completed')"
        ),
        what="all runs are completed",
    )
    for worker in workers:
        worker.stop()
    assert sorted(executed) == list(range(500))
    assert runs.rows("SELECT DISTINCT claim, attempts FROM flows.runs") == [(1, 0)]


def test_a_notification_that_was_read_along_with_an_answer_is_heard(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    keys: list[RunKey] = []

    @registry.workflow("number")
    def number(wf: Context, number: int) -> int:
        return number

    def claim_and_read_on(connection: Any, *args: Any, **how: Any) -> Claimed:
        claimed = claim_runs(connection, *args, **how)
        if not keys:
            keys.append(runs.begin(number, 7))
            # An answer that comes while psycopg still sends is read without a look at what
            # follows it: the notification stays in libpq, and nothing more comes after it.
            assert select.select([connection.fileno()], [], [], 10)[0]
            connection.pgconn.consume_input()
        return claimed

    monkeypatch.setattr("flows.dispatcher.claim_runs", claim_and_read_on)
    runs.start(registry, **ONLY_NOTIFIED)
    wait_until(lambda: keys, what="a run is begun")
    runs.wait_for(keys[0], "completed")


def test_a_dispatcher_sleeps_while_runs_are_due_and_executors_busy(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    gate = Gate()
    looks: list[None] = []
    drain = Dispatcher._drain

    def look(dispatcher: Dispatcher, connection: Any) -> None:
        looks.append(None)
        drain(dispatcher, connection)

    @registry.workflow("busy")
    def busy(wf: Context) -> None:
        gate.pass_through()

    monkeypatch.setattr(Dispatcher, "_drain", look)
    runs.start(registry, **ONLY_NOTIFIED)
    keys = [runs.begin(busy)]
    gate.wait_for_arrival()
    looks.clear()
    keys += [runs.begin(busy) for _ in range(50)]
    # It hears of each of them, and has nothing to do but to remember it.
    assert len(looks) <= 3 * len(keys)
    gate.open()
    for key in keys:
        runs.wait_for(key, "completed")
