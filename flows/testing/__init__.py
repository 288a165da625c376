"""What tests of workflows need: a database to throw away, and a workbench that executes runs.

    with Workbench(dsn, registry) as bench:
        key = bench.client.begin(charge, order)
        bench.drain()                        # executes what is due, in this process
        bench.advance(timedelta(days=3))     # what sleeps until then is due
        bench.crash_at("book/v1")            # a process executes the step, and dies

Tests with pytest get the database from the fixture `flows_dsn`.
"""

from __future__ import annotations

from flows.testing.databases import new_database, throwaway_server
from flows.testing.workbench import StepMemo, Workbench

__all__ = ["StepMemo", "Workbench", "new_database", "throwaway_server"]
