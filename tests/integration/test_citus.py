"""Citus: how the tables are distributed, where statements are sent, and who hears notifications."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flows import (
    CITUS_SCHEMA_SQL,
    SCHEMA_SQL,
    Client,
    Context,
    DBConfig,
    Registry,
    RunID,
    RunKey,
    check_version,
    citus_schema_sql_for,
    migrate,
    schema_sql_for,
    sql,
)
from flows.database import configure, listen, take_notifications
from flows.schema import SCHEMA_VERSION
from tests import citus
from tests.integration.command import told
from tests.running import Runs
from tests.statement_marks import ANY_SHARD, ONE_SHARD, WHOLE_TABLE
from tests.statement_values import values_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    citus.given_dsn() is None, reason=f"needs a Citus: {citus.VARIABLE} names none"
)

CHANNEL = "flows_run_wakeup"
RARELY = {"poll_interval": timedelta(hours=1), "max_poll_interval": timedelta(hours=1)}

TABLES = """
    SELECT table_name::text, coalesce(nullif(distribution_column, '<none>'), ''), shard_count > 1
    FROM citus_tables ORDER BY 1
"""
RUN_TABLES = ("cancellations", "crashes", "events", "random", "runs", "steps", "waits")
WHOLE_TABLES = ("migrations", "schedules", "workers")


def distributed(schema: str = "flows") -> list[tuple[str, str, bool]]:
    """Return what the tables of a schema should be: name, column, whether there are many shards."""
    prefix = f'"{schema}"' if schema != schema.lower() else schema
    column = "workflow_name_shard"
    return sorted(
        [(f"{prefix}.{name}", column, True) for name in RUN_TABLES]
        + [(f"{prefix}.{name}", "", False) for name in WHOLE_TABLES]
    )


@pytest.fixture
def commands(flows_dsn: str) -> Iterator[tuple[psycopg.Connection[Any], list[str]]]:
    """A connection of the engine's kind, and the commands that Citus sends to nodes for it."""
    sent: list[str] = []
    with psycopg.connect(flows_dsn, autocommit=True, prepare_threshold=0) as connection:
        configure(connection)
        connection.execute("SET citus.log_remote_commands = on")
        connection.add_notice_handler(
            lambda notice: (
                sent.append((notice.message_primary or "").removeprefix("issuing "))
                if (notice.message_primary or "").startswith("issuing ")
                else None
            )
        )
        yield connection, sent


def test_the_tables_are_distributed_once_by_either_way(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(2):
            for statement in sql.statements_of(SCHEMA_SQL):
                connection.execute(statement.encode())
            connection.execute(CITUS_SCHEMA_SQL)
            assert connection.execute(TABLES).fetchall() == distributed()
        assert migrate(connection, citus=True) == []
        connection.execute("DROP SCHEMA flows CASCADE")
        for expected in (list(range(1, SCHEMA_VERSION + 1)), []):
            assert migrate(connection, citus=True) == expected
            assert connection.execute(TABLES).fetchall() == distributed()


def test_the_tables_of_runs_are_colocated(flows_dsn: str) -> None:
    with psycopg.connect(flows_dsn) as connection:
        query = """
            SELECT count(DISTINCT colocation_id) FROM citus_tables
            WHERE distribution_column = 'workflow_name_shard'
        """
        assert connection.execute(query).fetchone() == (1,)


def test_the_command_distributes_and_prints_how(dsn: str) -> None:
    done = "schema 'MixedCase' of the database of --dsn is distributed"
    for _ in range(2):
        printed = told("migrate", "--citus", "--schema", "MixedCase", "--dsn", dsn)
        assert printed.splitlines()[-1] == done
        with psycopg.connect(dsn) as connection:
            assert connection.execute(TABLES).fetchall() == distributed("MixedCase")
    printed = told("migrate", "--print", "--citus", "--schema", "by_hand")
    assert printed == schema_sql_for("by_hand") + "\n" + citus_schema_sql_for("by_hand")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute('DROP SCHEMA "MixedCase" CASCADE')
        connection.execute(printed.encode())
        check_version(connection, DBConfig(schema="by_hand"))
        assert connection.execute(TABLES).fetchall() == distributed("by_hand")


def test_a_distributed_schema_is_migrated_and_new_tables_join_it(dsn: str) -> None:
    migrations = sql.migration_files()
    newer = r",\s*'flows\.(?:crashes|cancellations)'::regclass"
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _, migration in migrations[:2]:
            for statement in sql.statements_of(migration):
                connection.execute(statement.encode())
        connection.execute(re.sub(newer, "", sql.citus_file()).encode())
        run = RunKey("demo_0", RunID(UUID(int=1)))
        connection.execute(
            "INSERT INTO flows.runs"
            " (workflow_name_shard, run_id, workflow_name, status, input_json)"
            " VALUES (%s, %s, 'demo', 'queued', '1')",
            run,
        )
        assert migrate(connection) == [number for number, _ in migrations[2:]]
        check_version(connection)
        assert connection.execute(TABLES).fetchall() == distributed()
        Client().cancel_run_tx(connection, run)
        assert Client().get_run_status_tx(connection, run).status == "cancelled"


def test_runs_that_were_there_before_move_to_the_nodes(dsn: str) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context, number: int) -> int:
        value: int = wf.execute("double/v1", lambda: 2 * number)
        return value + int(wf.wait_for_event("number/v1", "Number", int))

    with psycopg.connect(dsn) as connection:
        migrate(connection)
    runs = Runs(dsn, DBConfig(shard_count=4))
    keys = [runs.begin(demo, number) for number in range(8)]
    runs.execute_due(registry)
    with psycopg.connect(dsn) as connection:
        migrate(connection, citus=True)
        left = connection.execute("SELECT pg_relation_size('flows.runs'::regclass)").fetchone()
        assert left == (0,)
    for key in keys:
        runs.publish(key, "Number", 1)
    runs.execute_due(registry)
    assert [runs.output(key) for key in keys] == [2 * number + 1 for number in range(8)]
    runs.close()


@pytest.mark.parametrize("name", sorted(ONE_SHARD | WHOLE_TABLE))
def test_a_statement_is_one_command_to_one_node(
    commands: tuple[psycopg.Connection[Any], list[str]], name: str
) -> None:
    connection, sent = commands
    # The plans of later executions are made otherwise than the first.
    for _ in range(1 if name.startswith("insert") else 7):
        sent.clear()
        connection.execute(sql.load(name), values_of(name))
        if name == "insert_runs":
            # From values alone rows are copied, and committed in two phases: still on one node.
            assert [command.partition(" ")[0] for command in sent] == [
                *("BEGIN", "COPY", "PREPARE", "COMMIT")
            ]
        elif name in {"disable_schedule", "enable_schedule"}:
            # The time goes ahead as a result of its own; for a person, now and then.
            assert [command.partition(" ")[0] for command in sent] == [
                *("BEGIN", "COPY", "UPDATE", "COMMIT")
            ]
        else:
            assert len(sent) == 1, sent


@pytest.mark.parametrize("name", sorted(ANY_SHARD))
def test_a_statement_of_any_shard_is_accepted(
    commands: tuple[psycopg.Connection[Any], list[str]], name: str
) -> None:
    connection, sent = commands
    for _ in range(7):
        connection.execute(sql.load(name), values_of(name)).fetchall()
    assert sent


def test_who_holds_runs_is_read_before_who_lives(
    commands: tuple[psycopg.Connection[Any], list[str]],
) -> None:
    connection, sent = commands
    connection.execute(sql.load("read_orphaned_workers"))
    reads = [command for command in sent if command.startswith("SELECT")]
    of_workers = ["flows.workers_" in command for command in reads]
    assert of_workers == sorted(of_workers)
    assert any(of_workers)


@pytest.mark.parametrize("shard_count", [1, 4])
def test_all_that_is_told_is_heard_at_the_coordinator(flows_dsn: str, shard_count: int) -> None:
    runs = Runs(flows_dsn, DBConfig(shard_count=shard_count))
    with psycopg.connect(flows_dsn, autocommit=True) as listener:
        listen(listener, CHANNEL)

        def heard() -> list[str]:
            listener.execute("SELECT 1")
            return [payload for payload, _ in take_notifications(listener)]

        with runs.connection.transaction():
            key = runs.begin("demo")
            assert heard() == []
        assert heard() == [key.workflow_name_shard]
        with runs.connection.transaction(force_rollback=True):
            runs.begin("demo")
        assert heard() == []
        keys = runs.client.begin_many_tx(runs.connection, "demo", [None] * 20)
        assert set(heard()) == {key.workflow_name_shard for key in keys}
        runs.publish(key, "Number", 1)
        assert heard() == [str(key)]
    runs.close()


def test_a_worker_is_woken_by_everything_that_concerns_it(flows_dsn: str) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> Any:
        shard = wf.run_key.workflow_name_shard
        statement = "INSERT INTO ledger VALUES (%s, 1)"
        wf.execute("book/v1", lambda: wf.tx.execute(statement, (shard,)).rowcount)
        salt = wf.random_uint64("salt/v1")
        wf.sleep("nap/v1", timedelta(milliseconds=50))
        assert wf.random_uint64("salt/v1") == salt
        return wf.wait_for_event("number/v1", "Number")

    runs = Runs(flows_dsn, DBConfig(shard_count=4))
    runs.connection.execute("CREATE TABLE ledger (shard text, entry int)")
    runs.connection.execute(
        "SELECT create_distributed_table('ledger', 'shard', colocate_with => 'flows.runs')"
    )
    runs.start(registry, **RARELY)
    keys = [runs.begin(demo) for _ in range(8)]
    for key in keys:
        runs.wait_for(key, "waiting_event")
        runs.publish(key, "Number", 3)
        runs.wait_for(key, "completed")
    assert [runs.output(key) for key in keys] == [3] * 8
    assert runs.rows("SELECT count(*) FROM ledger") == [(8,)]
    runs.close()


def test_any_node_can_be_asked(flows_dsn: str) -> None:
    registry = Registry()
    registry.workflow("demo")(lambda wf, number: number + 1)
    name = conninfo_to_dict(flows_dsn)["dbname"]
    coordinator = citus.given_dsn()
    assert coordinator is not None
    for number, node in enumerate(citus.nodes(coordinator)):
        runs = Runs(make_conninfo(node, dbname=name), DBConfig(shard_count=4))
        key = runs.execute(registry, "demo", number)
        assert runs.output(key) == number + 1
        runs.close()
