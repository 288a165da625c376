"""Events: a latch per run and name, and no wake-up that is lost."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Client, Context, DecodeError, MsgspecCodec, Registry, RunKey, UnknownRunError
from flows.ids import RunID, uuid7
from tests.running import Gate, Runs
from tests.waiting import wait_for_lock_wait, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

MS = timedelta(milliseconds=1)
RARELY = {"poll_interval": timedelta(hours=1), "max_poll_interval": timedelta(hours=1)}


def waiter(*keys: str, before: Callable[[Context], Any] = lambda wf: None) -> tuple[Registry, Any]:
    """Return a registry of one workflow that waits for "Number" under each key, and its handle."""
    registry = Registry()

    @registry.workflow("demo", concurrency=2)
    def demo(wf: Context) -> list[Any]:
        before(wf)
        return [wf.wait_for_event(key, "Number") for key in keys]

    return registry, demo


def test_a_run_waits_until_its_event_is_published(runs: Runs) -> None:
    registry, demo = waiter("number/v1")
    key = runs.execute(registry, demo)
    assert runs.status(key).status == "waiting_event"
    assert runs.execute_due(registry) == 0
    runs.publish(key, "Number", {"n": 3})
    assert runs.status(key).status == "queued"
    assert runs.execute_due(registry) == 1
    assert runs.output(key) == [{"n": 3}]


def test_an_event_published_before_the_run_begins_is_taken_at_once(runs: Runs) -> None:
    registry, demo = waiter("number/v1")
    key = runs.begin(demo)
    runs.publish(key, "Number", 3)
    assert runs.execute_due(registry) == 1
    assert runs.output(key) == [3]


def test_an_event_published_while_the_run_executes_is_taken_at_once(runs: Runs) -> None:
    registry, demo = waiter("number/v1", before=lambda wf: runs.publish(wf.run_key, "Number", 3))
    key = runs.begin(demo)
    assert runs.execute_due(registry) == 1
    assert runs.output(key) == [3]


def test_the_last_publish_before_the_wait_wins(runs: Runs) -> None:
    registry, demo = waiter("number/v1", before=lambda wf: runs.publish(wf.run_key, "Number", 3))
    key = runs.begin(demo)
    for number in (1, 2):
        runs.publish(key, "Number", number)
    runs.execute_due(registry)
    assert runs.output(key) == [3]
    assert runs.rows("SELECT event_name, payload_json FROM flows.events") == [("Number", 3)]


def test_the_last_publish_wins_also_for_a_run_that_has_yielded_before(runs: Runs) -> None:
    def go_then_publish(wf: Context) -> None:
        wf.wait_for_event("go/v1", "Go")
        runs.publish(wf.run_key, "Number", 2)

    registry, demo = waiter("number/v1", before=go_then_publish)
    key = runs.execute(registry, demo)
    runs.publish(key, "Number", 1)
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert runs.output(key) == [2]


def test_a_later_publish_does_not_change_what_a_wait_has_returned(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> list[Any]:
        first = wf.wait_for_event("number/v1", "Number")
        wf.wait_for_event("go/v1", "Go")
        return [first, wf.wait_for_event("number/v1", "Number")]

    key = runs.execute(registry, demo)
    runs.publish(key, "Number", 1)
    runs.execute_due(registry)
    runs.publish(key, "Number", 2)
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert runs.output(key) == [1, 1]


def test_a_second_wait_key_on_the_same_event_returns_the_stored_payload(runs: Runs) -> None:
    registry, demo = waiter("number/v1", "number/v2")
    key = runs.execute(registry, demo)
    runs.publish(key, "Number", 3)
    assert runs.execute_due(registry) == 1
    assert runs.output(key) == [3, 3]


def test_an_event_reaches_its_own_run_only(runs: Runs) -> None:
    registry, demo = waiter("number/v1")
    one, other = runs.begin(demo), runs.begin(demo)
    runs.execute_due(registry)
    runs.publish(one, "Number", 3)
    runs.publish(other, "Something", 4)
    assert runs.execute_due(registry) == 1
    assert [runs.status(key).status for key in (one, other)] == ["completed", "waiting_event"]


def test_a_payload_may_be_left_out(runs: Runs) -> None:
    registry, demo = waiter("number/v1")
    key = runs.execute(registry, demo)
    runs.client.publish_event_tx(runs.connection, str(key), "Number")
    runs.execute_due(registry)
    assert runs.output(key) == [None]


def test_a_payload_is_decoded_by_the_codec_that_wrote_it(runs: Runs) -> None:
    registry, demo = waiter("number/v1")
    key = runs.execute(registry, demo)
    packed = Client(codec=MsgspecCodec())
    packed.publish_event_tx(runs.connection, key, "Number", [1, "two"])
    runs.execute_due(registry)
    assert runs.output(key) == [[1, "two"]]
    [(written, taken)] = runs.rows(
        "SELECT events.codec, waits.codec FROM flows.events"
        " JOIN flows.waits USING (workflow_name_shard, run_id)"
    )
    assert (written, taken) == ("msgpack", "msgpack")


def test_a_payload_of_another_type_than_awaited_fails_the_run(runs: Runs) -> None:
    registry, refused = Registry(), []

    @registry.workflow("demo")
    def demo(wf: Context) -> int:
        try:
            return wf.wait_for_event("number/v1", "Number", int)
        except DecodeError as error:
            refused.append(error)
            raise

    key = runs.execute(registry, demo)
    runs.publish(key, "Number", "three")
    runs.execute_due(registry)
    expected = "DecodeError: the payload of event 'Number': codec 'json' cannot decode into int"
    assert expected in runs.error(key)
    assert len(refused) == 1


def test_an_event_for_a_run_that_does_not_exist_is_refused(runs: Runs) -> None:
    unknown = RunKey("demo_0", RunID(uuid7()))
    with runs.connection.transaction():
        with pytest.raises(UnknownRunError, match=str(unknown)):
            runs.publish(unknown, "Number", 3)
        assert runs.rows("SELECT count(*) FROM flows.events") == [(0,)]


def test_publishing_to_a_run_that_is_over_changes_nothing(runs: Runs) -> None:
    registry, demo = waiter()
    key = runs.execute(registry, demo)
    runs.publish(key, "Number", 3)
    assert runs.status(key).status == "completed"
    assert runs.execute_due(registry) == 0


def test_a_waiting_run_is_woken_at_once_by_the_notification(runs: Runs) -> None:
    registry, demo = waiter("number/v1")
    runs.start(registry, **RARELY)
    key = runs.begin(demo)
    runs.wait_for(key, "waiting_event")
    runs.publish(key, "Number", 3)
    runs.wait_for(key, "completed")


def test_an_event_wakes_a_run_even_when_no_notification_comes(runs: Runs) -> None:
    registry, demo = waiter("number/v1")
    runs.start(registry, poll_interval=20 * MS, disable_notify=True)
    key = runs.begin(demo)
    runs.wait_for(key, "waiting_event")
    Client(disable_notify=True).publish_event_tx(runs.connection, key, "Number", 3)
    runs.wait_for(key, "completed")


@pytest.mark.parametrize("has_transaction", [False, True])
def test_an_event_committed_while_the_run_is_yielding_does_not_strand_it(
    runs: Runs, has_transaction: bool
) -> None:
    gate, registry = Gate(), Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> Any:
        if has_transaction:
            wf.tx.execute("SELECT 1")
        try:
            return wf.wait_for_event("number/v1", "Number")
        finally:
            gate.pass_through()

    key = runs.begin(demo)
    runs.start(registry, **RARELY)
    gate.wait_for_arrival()
    # The workflow has found no event and is going to wait, and now there is one.
    Client(disable_notify=True).publish_event_tx(runs.connection, key, "Number", 3)
    assert runs.status(key).status == "running"
    gate.open()
    runs.wait_for(key, "completed")
    assert runs.output(key) == 3


def test_a_publisher_that_commits_after_the_yield_does_not_strand_the_run(runs: Runs) -> None:
    gate = Gate()
    registry, demo = waiter("number/v1", before=lambda wf: gate.pass_through())
    key = runs.begin(demo)
    runs.start(registry, poll_interval=20 * MS, max_poll_interval=20 * MS)
    gate.wait_for_arrival()
    with psycopg.connect(runs.dsn) as tx:
        # Seen running, so the publisher wakes nobody; not committed, so the yield sees nothing.
        Client(disable_notify=True).publish_event_tx(tx, key, "Number", 3)
        gate.open()
        runs.wait_for(key, "waiting_event")
    runs.wait_for(key, "completed")


def test_such_a_publisher_wakes_the_run_at_once_by_its_notification(runs: Runs) -> None:
    gate = Gate()
    registry, demo = waiter("number/v1", before=lambda wf: gate.pass_through())
    key = runs.begin(demo)
    runs.start(registry, **RARELY)
    gate.wait_for_arrival()
    with psycopg.connect(runs.dsn) as tx:
        runs.client.publish_event_tx(tx, key, "Number", 3)
        gate.open()
        runs.wait_for(key, "waiting_event")
    runs.wait_for(key, "completed")


def test_a_yield_that_is_held_up_sees_the_event_that_overtook_it(runs: Runs) -> None:
    gate = Gate()
    registry, demo = waiter("number/v1", before=lambda wf: gate.pass_through())
    key = runs.begin(demo)
    runs.start(registry, **RARELY)
    gate.wait_for_arrival()
    with psycopg.connect(runs.dsn) as holder:
        holder.execute(
            "SELECT 1 FROM flows.runs WHERE workflow_name_shard = 'demo_0' FOR NO KEY UPDATE"
        )
        gate.open()
        wait_for_lock_wait(runs.dsn)
        # The outcome is on its way; the publisher does not wait for it and sees the run running.
        Client(disable_notify=True).publish_event_tx(runs.connection, key, "Number", 3)
    runs.wait_for(key, "completed")


def test_a_publisher_does_not_wait_for_a_running_attempt(runs: Runs) -> None:
    gate = Gate()

    def with_transaction(wf: Context) -> None:
        wf.tx.execute("SELECT 1")
        gate.pass_through()

    registry, demo = waiter("number/v1", before=with_transaction)
    key = runs.begin(demo)
    runs.start(registry)
    gate.wait_for_arrival()
    with runs.connection.transaction():
        runs.connection.execute("SET LOCAL lock_timeout = '100 ms'")
        runs.publish(key, "Number", 3)
    gate.open()
    runs.wait_for(key, "completed")


def test_waits_are_recorded_with_what_they_took(runs: Runs) -> None:
    registry, demo = waiter("number/v1")
    key = runs.execute(registry, demo)
    waits = """
        SELECT wait_key, wait_type, event_name, payload_json, satisfied_at IS NOT NULL, wake_at
        FROM flows.waits
    """
    assert runs.rows(waits) == [("number/v1", "event", "Number", None, False, None)]
    runs.publish(key, "Number", 3)
    # As the workers of the reference package expect.
    assert runs.rows(waits) == [("number/v1", "event", "Number", 3, True, None)]
    runs.execute_due(registry)
    assert runs.rows(waits) == [("number/v1", "event", "Number", 3, True, None)]
    wait_until(lambda: runs.output(key) == [3], what="the payload is the output")
