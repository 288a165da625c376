"""The code on the page about clients runs as it stands there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy.orm

from flows import Client, Context, Registry

if TYPE_CHECKING:
    from tests.running import Runs

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_a_run_is_begun_with_a_row_and_another_is_waited_for(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("ship")
    def ship(wf: Context, item: str) -> str:
        paid = wf.wait_for_event("paid/v1", "Paid")
        return f"{item} for {paid['amount']}"

    runs.connection.execute("CREATE TABLE public.orders (item text, run text)")
    names: dict[str, Any] = {}
    for block in re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    ):
        exec(block, names)
    runs.start(registry)
    assert names["ship_and_wait"](runs.dsn) == "a lamp for 12"
    assert asyncio.run(names["ship_and_wait_async"](runs.dsn)) == "a table for 7"
    key = names["place"](runs.dsn, "a chair")
    assert runs.rows("SELECT item, run FROM public.orders") == [("a chair", str(key))]
    with psycopg.connect(runs.dsn) as tx:
        Client().publish_event_tx(tx, key, "Paid", {"amount": 5})
    runs.wait_for(key, "completed")
    assert runs.output(key) == "a chair for 5"
    with psycopg.connect(runs.dsn) as tx:
        assert names["charge"](tx, 1) == names["charge"](tx, 1)
        names["render_all"](tx, 7, ["a", "b"])
        urgent = names["refund"](tx, 1)
    query = "SELECT tags FROM flows.runs WHERE workflow_name = 'render'"
    assert runs.rows(query) == [(["batch", "customer:7"],)] * 2
    query = "SELECT priority FROM flows.runs WHERE run_id = %s"
    assert runs.rows(query, urgent.run_id) == [(5,)]
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(runs.dsn)
    )
    with sqlalchemy.orm.Session(engine) as session:
        key = names["place_with_sqlalchemy"](session, "a bed")
        session.commit()
    engine.dispose()
    assert runs.wait_for(key, "waiting_event")
