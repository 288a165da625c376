"""The examples are tested as an application's workflows are: at the workbench."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from examples import cron, simple
from flows import every
from flows.testing import Workbench


def test_the_simple_example_goes_on_where_its_process_died(flows_dsn: str) -> None:
    with Workbench(flows_dsn, simple.registry) as bench:
        key = bench.client.begin(simple.demo, simple.DemoInput("world", sleep_seconds=86_400))
        bench.drain()
        bench.assert_step(key, "first_step/v1", output=len("hello world"))
        bench.client.publish_event(key, simple.EVENT, 3)
        assert bench.drain() == 0
        bench.advance(timedelta(days=1))
        assert bench.crash_at("third_step/v1") == key
        bench.drain()
        assert [(step.key, bench.calls(key, step.key)) for step in bench.steps(key)] == [
            ("first_step/v1", 1),
            ("second_step/v1", 1),
            ("third_step/v1", 2),
        ]
        completed = bench.steps(key)[-1].output
        order_id = UUID(completed.removeprefix("hello "))
        assert order_id.version == 7
        output = bench.client.output(key, simple.DemoOutput)
        assert output.result == f"letters=11 number=3 accepted=True {completed=}"


def test_the_heartbeat_of_the_cron_example_beats(flows_dsn: str) -> None:
    with Workbench(flows_dsn, cron.registry) as bench:
        with bench.client.transaction() as tx:
            order = cron.ReportOrder("often")
            bench.client.schedule_tx(tx, cron.heartbeat, order, None, every(timedelta(hours=1)))
        for _ in range(24):
            bench.advance(timedelta(hours=1))
            assert bench.drain() == 1
        with bench.client.transaction() as tx:
            rows = tx.execute("SELECT status, count(*) FROM flows.runs GROUP BY status").fetchall()
        assert rows == [("completed", 24)]
