"""The committer's plans: kept from group to group, and made anew before the tables outgrow them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows import Context, Registry
from tests.waiting import wait_until

if TYPE_CHECKING:
    import pytest

    from tests.running import Runs

MANY = 20_000
LATER = """
INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, next_wake_at)
SELECT 'count_0', gen_random_uuid(), 'count', 'sleeping', now() + interval '1 day'
FROM generate_series(1, %s)
"""


def test_a_plan_for_empty_tables_is_not_kept_when_they_have_grown(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.committer.PLANS_S", 0.0)
    registry = Registry()

    @registry.workflow("count")
    def count(wf: Context, number: int) -> int:
        return wf.execute("next/v1", lambda: number + 1)

    # Until the server analyzes a table, it keeps the plans for it. Those of 17 and later are good
    # for either size; before, one for few rows reads all of the shard.
    runs.connection.execute("ALTER TABLE flows.runs SET (autovacuum_enabled = false)")
    # Of the making of the database that this one is a copy of.
    before = rows_read(runs)
    running = runs.start(registry)
    runs.wait_for(runs.begin("count", 0), "completed")
    runs.connection.execute(LATER, (MANY,))
    for number in range(5):
        runs.wait_for(runs.begin("count", number), "completed")
    running.stop()
    # A session tells what it has read when it ends, at the latest.
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'flows committer'"
    wait_until(lambda: runs.rows(sessions) == [(0,)], what="the committer's session has ended")
    assert 0 < rows_read(runs) - before < MANY


def rows_read(runs: Runs) -> int:
    query = """
        SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
        FROM pg_stat_all_tables WHERE relid = 'flows.runs'::regclass
    """
    ((read,),) = runs.rows(query)
    return int(read)
