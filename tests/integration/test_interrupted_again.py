"""A run that something interrupts every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows import Context, Registry

if TYPE_CHECKING:
    from tests.running import Runs


def test_a_run_that_is_interrupted_each_time_is_done_again_once_and_then_pauses(
    runs: Runs,
) -> None:
    registry = Registry()
    executed: list[int] = []

    @registry.workflow("lost")
    def lost(wf: Context) -> None:
        executed.append(wf.attempt)
        wf.tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    key = runs.begin(lost)
    # Ends when nothing is due: it would never, if the run were due again at once.
    runs.execute_due(registry)
    status = runs.status(key)
    assert (status.status, status.attempts) == ("queued", 0)
    assert executed == [1, 1]
    ((pause_s,),) = runs.rows(
        "SELECT extract(epoch FROM next_wake_at - updated_at)::float8 FROM flows.runs"
    )
    assert 0.2 < pause_s < 0.3
