"""Settings of the database, the server and the environment that the engine does not depend on."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from flows import Context, Registry
from tests.citus import not_on_citus
from tests.running import Runs

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = "größer 🎈 \u2028"


@pytest.fixture
def settled(flows_dsn: str, request: pytest.FixtureRequest) -> Iterator[Runs]:
    """Runs on a database with a setting of its own."""
    name, value = request.param
    with psycopg.connect(flows_dsn, autocommit=True) as connection:
        alter = sql.SQL("ALTER DATABASE {} SET {} = {}").format(
            sql.Identifier(connection.info.dbname), sql.Identifier(name), sql.Literal(value)
        )
        connection.execute(alter)
    runs = Runs(flows_dsn)
    yield runs
    runs.close()


def traced(n: int) -> list[Any]:
    return [n, TEXT]


def everything() -> Registry:
    """Return a registry of one workflow that uses every primitive."""
    registry = Registry()

    @registry.workflow("demo", concurrency=4)
    def demo(wf: Context, n: int) -> list[Any]:
        step = wf.execute("schlüssel", traced, n)
        wf.tx.execute("INSERT INTO public.ledger VALUES (%s)", (n,))
        wf.sleep("schläft", timedelta(milliseconds=1))
        return [step, wf.wait_for_event("wartet", "Größe")]

    return registry


@pytest.mark.parametrize(
    "settled",
    [
        ("default_transaction_isolation", "repeatable read"),
        ("default_transaction_isolation", "serializable"),
        ("TimeZone", "Asia/Kathmandu"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "-15"),
        ("search_path", ""),
        pytest.param(
            ("plan_cache_mode", "force_generic_plan"),
            marks=not_on_citus("most statements are refused"),
        ),
    ],
    indirect=True,
    ids="-".join,
)
def test_runs_complete_whatever_the_database_is_set_to(settled: Runs) -> None:
    # What the caller does in a stricter isolation may conflict, as anything the caller does.
    settled.connection.execute("SET default_transaction_isolation = 'read committed'")
    settled.connection.execute("CREATE TABLE public.ledger (n int)")
    keys = settled.client.begin_many_tx(settled.connection, "demo", range(40))
    for _ in range(2):
        settled.start(everything())
    for key in keys:
        settled.publish(key, "Größe", TEXT)
    for n, key in enumerate(keys):
        settled.wait_for(key, "completed")
        assert settled.output(key) == [[n, TEXT], TEXT]
    # Each attempt that has committed has written, and none has failed.
    assert settled.rows("SELECT max(attempts) FROM flows.runs") == [(0,)]


@not_on_citus("rows are copied to nodes in the caller's encoding, as if it were theirs")
def test_text_is_utf_8_whatever_the_environment_says(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "größer"
    registry = Registry()
    seen: list[str] = []

    @registry.workflow("größe")
    def demo(wf: Context, given: str) -> None:
        seen.extend([given, wf.execute("schlüssel", str, given)])
        seen.append(wf.wait_for_event("wartet", "Größe"))
        raise ValueError(text)

    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with psycopg.connect(runs.dsn, autocommit=True) as tx:
        assert tx.info.encoding == "iso8859-1"
        one = runs.client.begin_tx(tx, demo, text)
        [other] = runs.client.begin_many_tx(tx, demo, [text])
        runs.execute_due(registry)
        for key in (one, other):
            runs.client.publish_event_tx(tx, key, "Größe", text)
        runs.execute_due(registry)
        for key in (one, other):
            error = runs.client.get_run_status_tx(tx, key).error
            assert error is not None
            assert error.startswith("ValueError: größer")
    # Two runs, each executed twice.
    assert seen == [text] * 10
    stored = runs.rows(
        "SELECT r.workflow_name, r.input_json, s.step_key, s.output_json, left(r.error_text, 18)"
        " FROM flows.runs AS r JOIN flows.steps AS s USING (workflow_name_shard, run_id)"
    )
    assert stored == [("größe", text, "schlüssel", text, "ValueError: größer")] * 2
