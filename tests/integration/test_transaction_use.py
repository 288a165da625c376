"""`wf.tx` as user code sees it: a connection of psycopg's, but for what the engine does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from psycopg.rows import dict_row

from flows import Context, ContextError, Registry
from tests.integration.ledger import ENTRIES, enter, entries, execute
from tests.running import Runs

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("ledger")


def test_rows_can_be_read_as_with_any_connection(runs: Runs) -> None:
    seen: list[Any] = []

    def reads(wf: Context) -> None:
        for entry in ("a", "b"):
            enter(wf, entry)
        seen.append(wf.tx.execute(ENTRIES).fetchall())
        with wf.tx.cursor(row_factory=dict_row) as cursor:
            seen.append(cursor.execute(ENTRIES).fetchone())
            cursor.executemany("INSERT INTO ledger VALUES (%s)", [("c",), ("d",)])
            seen.append(list(cursor.stream("SELECT count(*) AS n FROM ledger")))
            with cursor.copy("COPY ledger FROM STDIN") as copy:
                copy.write_row(["e"])

    key = execute(runs, reads)
    assert runs.status(key).status == "completed"
    assert seen == [[("a",), ("b",)], {"entry": "a"}, [{"n": 4}]]
    assert entries(runs) == ["a", "b", "c", "d", "e"]


def test_a_workflow_begins_runs_and_publishes_events_in_its_transaction(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("child")
    def child(wf: Context) -> Any:
        return wf.wait_for_event("number/v1", "Number")

    @registry.workflow("parent")
    def parent(wf: Context, fails: bool) -> str:
        def begin() -> str:
            key = wf.client.begin_tx(wf.tx, child)
            [other] = wf.client.begin_many_tx(wf.tx, child, [None])
            for each in (key, other):
                wf.client.publish_event_tx(wf.tx, each, "Number", 3)
            assert wf.client.get_run_status_tx(wf.tx, key).status == "queued"
            wf.client.cancel_run_tx(wf.tx, other)
            if fails:
                raise ValueError("no")
            return str(key)

        return wf.execute("begin/v1", begin)

    key = runs.execute(registry, parent, False)
    assert runs.output(runs.output(key)) == 3
    failed = runs.execute(registry, parent, True)
    assert runs.status(failed).status == "failed"
    statuses = runs.rows("SELECT status FROM flows.runs WHERE workflow_name = 'child' ORDER BY 1")
    assert statuses == [("cancelled",), ("completed",)]


@pytest.mark.parametrize(
    "misuse",
    [
        lambda wf: wf.tx.commit(),
        lambda wf: wf.tx.rollback(),
        lambda wf: wf.tx.close(),
        lambda wf: setattr(wf.tx, "autocommit", True),
        lambda wf: wf.tx.cursor("named"),
        lambda wf: wf.tx.cursor(name="named"),
    ],
)
def test_what_belongs_to_the_engine_is_refused(
    runs: Runs, misuse: Callable[[Context], Any]
) -> None:
    def function(wf: Context) -> str:
        enter(wf, "kept")
        assert wf.tx.autocommit is False
        with pytest.raises(ContextError, match=r"wf\.tx"):
            misuse(wf)
        return "went on"

    assert runs.output(execute(runs, function)) == "went on"
    assert entries(runs) == ["kept"]


def test_a_cursor_kept_over_the_end_of_the_attempt_is_refused(runs: Runs) -> None:
    kept: list[Any] = []

    def function(wf: Context) -> None:
        kept.extend([wf.tx.cursor(), wf.tx])
        kept[0].execute("SELECT 1")

    execute(runs, function)
    for use in ("execute", "executemany"):
        with pytest.raises(ContextError, match="has ended"):
            getattr(kept[0], use)("SELECT 1", [])
    with pytest.raises(ContextError, match="has ended"):
        next(kept[0].stream("SELECT 1"))
    with pytest.raises(ContextError, match="has ended"), kept[0].copy("COPY ledger TO STDOUT"):
        pass
    with pytest.raises(ContextError, match="has ended"):
        kept[1].execute("SELECT 1")
