"""Plans are kept from statement to statement, and made anew before the tables outgrow them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flows import Context, Registry
from tests.citus import not_on_citus
from tests.running import Runs
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = not_on_citus("no plans are kept")

MANY = 20_000
LATER = """
INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, next_wake_at)
SELECT 'count_0', gen_random_uuid(), 'count', 'sleeping', now() + interval '1 day'
FROM generate_series(1, %s)
"""


@pytest.fixture
def runs(flows_dsn: str) -> Iterator[Runs]:
    """Runs on a database that no test has used: its statistics decide on plans."""
    runs = Runs(flows_dsn)
    yield runs
    runs.close()


@pytest.fixture
def registry() -> Registry:
    registry = Registry()

    @registry.workflow("count")
    def count(wf: Context, number: int) -> int:
        return wf.execute("next/v1", lambda: number + 1)

    @registry.workflow("book")
    def book(wf: Context, number: int) -> int:
        wf.tx.execute("SELECT 1")
        return number

    return registry


@pytest.fixture
def slow_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a statement took, its plan may be why."""
    monkeypatch.setattr("flows.plans.SLOW_S", 0.0)
    monkeypatch.setattr("flows.plans.AGAIN_S", 0.0)


@pytest.mark.usefixtures("slow_at_once")
def test_plans_for_empty_tables_are_not_kept_when_they_have_grown(
    runs: Runs, registry: Registry
) -> None:
    # Until the server analyzes a table, it keeps the plans for it. Those of 17 and later are good
    # for either size; before, one for few rows reads all of the shard.
    runs.connection.execute("ALTER TABLE flows.runs SET (autovacuum_enabled = false)")
    # Of the making of the database that this one is a copy of, and of the tests before this one.
    wait_until_told(runs)
    before = rows_read(runs)
    running = runs.start(registry)
    for number in range(7):
        runs.wait_for(runs.begin("count", number), "completed")
        runs.wait_for(runs.begin("book", number), "completed")
    runs.connection.execute(LATER, (MANY,))
    runs.connection.execute(LATER.replace("count", "book"), (MANY,))
    for number in range(5):
        runs.wait_for(runs.begin("count", number), "completed")
        runs.wait_for(runs.begin("book", number), "completed")
    running.stop()
    wait_until_told(runs)
    assert 0 < rows_read(runs) - before < MANY


def rows_read(runs: Runs) -> int:
    query = """
        SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
        FROM pg_stat_all_tables WHERE relid = 'flows.runs'::regclass
    """
    ((read,),) = runs.rows(query)
    return int(read)


def wait_until_told(runs: Runs) -> None:
    """A session tells what it has read when it ends, at the latest."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = %s"
    )
    told = [(0,)]
    wait_until(lambda: runs.rows(query, "client backend") == told, what="the sessions have ended")
