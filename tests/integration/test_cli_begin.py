"""`flows begin` and `flows publish`: from the command line into a run."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from flows import Client, DBConfig, RunKey, Worker, payloads
from flows.schema import migrate
from flows.supervisor.exits import ExitCode
from tests.citus import not_on_citus
from tests.integration.cli_app import Job, registry
from tests.integration.command import flows, refused, start_flows, told
from tests.postgres import new_database
from tests.waiting import DEADLINE_S, wait_for_lock_wait

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = "tests.integration.cli_app:registry"
NOBODY = "demo_0:0190f0f0-0000-7000-8000-000000000000"


def key_in(output: str) -> RunKey:
    """Check that a run key is all there is, and return it."""
    assert output.count("\n") == 1
    return RunKey.parse(output.removesuffix("\n"))


def stored_input(dsn: str, key: RunKey) -> tuple[Any, ...]:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT workflow_name, status, input_json, input_bytes, codec FROM flows.runs"
            " WHERE workflow_name_shard = %s AND run_id = %s",
            key,
        ).fetchone()
    assert row is not None
    return row


@pytest.fixture(scope="module")
def shared_dsn(server_dsn: str, migrated_template: str) -> Iterator[str]:
    """A database for tests that look at nothing but runs of their own."""
    with new_database(server_dsn, template=migrated_template) as dsn:
        yield dsn


@pytest.mark.parametrize(
    ("arguments", "stdin", "value"),
    [
        (("demo",), "", None),
        (("demo", '{"a": [1, "é"]}'), "", {"a": [1, "é"]}),
        (("demo", "-"), '\ufeff{"a":\n 2}\n', {"a": 2}),
        (("--", "demo", "-5"), "", -5),
    ],
)
def test_the_key_is_printed_alone_and_the_run_is_queued(
    shared_dsn: str, arguments: tuple[str, ...], stdin: str, value: Any
) -> None:
    key = key_in(told("begin", "--dsn", shared_dsn, *arguments, stdin=stdin))
    assert stored_input(shared_dsn, key) == ("demo", "queued", value, None, None)


def test_an_app_brings_its_codec_and_its_types_and_its_noise_stays_out(shared_dsn: str) -> None:
    done = flows(
        "begin", "priced", '{"name": "x", "price": 1.10}', "--target", APP, "--dsn", shared_dsn
    )
    assert (done.returncode, done.stderr) == (ExitCode.OK, "imported\n")
    name, status, document, binary, codec = stored_input(shared_dsn, key_in(done.stdout))
    assert (name, status, document, codec) == ("priced", "queued", None, "msgpack")
    decoded = payloads.decode(payloads.Payload(None, binary, codec), Job)
    assert decoded == Job("x", Decimal("1.10"))


def test_schema_and_shards_are_those_asked_for(dsn: str) -> None:
    config = DBConfig(schema="other", shard_count=64)
    with psycopg.connect(dsn) as connection:
        migrate(connection, config)
    options = ("--dsn", dsn, "--schema", "other", "--shards", "64")
    keys = {key_in(told("begin", "demo", *options)) for _ in range(3)}
    assert {key.workflow_name_shard for key in keys} != {"demo_0"}
    with psycopg.connect(dsn) as connection:
        for key in keys:
            assert Client(db_config=config).get_run_status_tx(connection, key).status == "queued"


def test_the_option_counts_before_the_variables_and_ours_before_the_general_one(
    shared_dsn: str,
) -> None:
    wrong = "dbname=nowhere host=/nowhere"
    both = {"FLOWS_DATABASE_URL": wrong, "DATABASE_URL": wrong}
    key_in(told("begin", "demo", "--dsn", shared_dsn, env=both))
    key_in(told("begin", "demo", env={**both, "FLOWS_DATABASE_URL": shared_dsn}))
    _, error = refused("begin", "demo", env={**both, "DATABASE_URL": shared_dsn})
    assert error.endswith("\ncheck FLOWS_DATABASE_URL: host=/nowhere dbname=nowhere\n")


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (None, "schema 'flows' has no flows tables; run: flows migrate\n"),
        (0, "schema 'flows' is of version 0, this code needs "),
        (99, "schema 'flows' is of version 99, newer than this code "),
    ],
)
def test_tables_that_do_not_suit_are_told(
    dsn: str, flows_dsn: str, version: int | None, said: str
) -> None:
    if version is not None:
        dsn = flows_dsn
        with psycopg.connect(dsn) as connection:
            statement = (
                "UPDATE flows.migrations"
                " SET version = version - (SELECT max(version) FROM flows.migrations) + %s"
            )
            connection.execute(statement, (version,))
    code, error = refused("begin", "demo", "--dsn", dsn)
    assert code == ExitCode.SCHEMA
    assert error.startswith(said)


def test_a_value_that_the_codec_cannot_keep_begins_nothing(shared_dsn: str) -> None:
    code, error = refused("begin", "spoilt", r'{"text": "\u0000"}', "--dsn", shared_dsn)
    assert code == ExitCode.CONFIG
    assert "$.text" in error
    with psycopg.connect(shared_dsn) as connection:
        names = connection.execute("SELECT DISTINCT workflow_name FROM flows.runs").fetchall()
    assert ("spoilt",) not in names


def test_a_database_that_is_not_there_is_told(server_dsn: str) -> None:
    code, error = refused("begin", "demo", "--dsn", make_conninfo(server_dsn, dbname="nowhere"))
    assert code == ExitCode.DATABASE
    assert 'database "nowhere" does not exist' in error
    assert "\ncheck --dsn: " in error


@pytest.fixture
def reader_dsn(shared_dsn: str) -> Iterator[str]:
    """The database, used as a role that may read."""
    role = f"reader_{os.getpid()}"
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role}".encode())
        connection.execute(f"GRANT USAGE ON SCHEMA flows TO {role}".encode())
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA flows TO {role}".encode())
        yield f"{shared_dsn} options='-c role={role}'"
        connection.execute(f"DROP OWNED BY {role}".encode())
        connection.execute(f"DROP ROLE {role}".encode())


@not_on_citus("a role that cannot log in reaches no node")
def test_a_role_that_may_only_read_can_look_and_not_begin(reader_dsn: str) -> None:
    code, error = refused("begin", "demo", "--dsn", reader_dsn)
    assert code == ExitCode.DATABASE
    assert error.startswith("permission denied for table runs\nconnect as a role that may")
    code, _ = refused("runs", "show", NOBODY, "--dsn", reader_dsn)
    assert code == ExitCode.FAILED


def test_a_published_event_lets_the_run_go_on(flows_dsn: str) -> None:
    with (
        Worker(registry, flows_dsn) as worker,
        psycopg.connect(flows_dsn, autocommit=True) as connection,
    ):
        client = Client()
        key = client.begin_tx(connection, "asking")
        assert worker.process_one()
        assert client.get_run_status_tx(connection, key).status == "waiting_event"
        assert told("publish", str(key), "Answer", '{"n": 42}', "--dsn", flows_dsn) == ""
        assert worker.process_one()
        assert client.get_run_output_tx(connection, key) == {"n": 42}


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_an_event_of_a_run_that_is_over_says_that_nobody_reads_it(
    shared_dsn: str, status: str
) -> None:
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        key = Client().begin_tx(connection, "demo")
        connection.execute(
            "UPDATE flows.runs SET status = %s WHERE workflow_name_shard = %s AND run_id = %s",
            (status, *key),
        )
        done = flows("publish", str(key), "Answer", "--dsn", shared_dsn)
        assert (done.returncode, done.stdout) == (0, "")
        unless = "" if status == "completed" else ", unless it is retried"
        assert done.stderr == f"flows: the run is {status}: nobody will read it{unless}\n"
        rows = connection.execute("SELECT 1 FROM flows.events WHERE run_id = %s", (key.run_id,))
        assert rows.fetchone() == (1,)


def test_an_event_of_a_run_that_is_not_there_is_refused(shared_dsn: str) -> None:
    code, error = refused("publish", NOBODY, "Answer", "1", "--dsn", shared_dsn)
    assert (code, error) == (ExitCode.FAILED, f"no run {NOBODY} in the database of --dsn\n")


def test_a_connection_that_is_lost_says_that_the_outcome_is_not_known(shared_dsn: str) -> None:
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        key = Client().begin_tx(connection, "demo")
        with connection.transaction():
            connection.execute(
                "SELECT 1 FROM flows.runs WHERE workflow_name_shard = %s FOR UPDATE",
                (key.workflow_name_shard,),
            )
            process = start_flows("publish", str(key), "Answer", "--dsn", shared_dsn)
            wait_for_lock_wait(shared_dsn)
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'flows command' AND datname = current_database()"
            )
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == ExitCode.DATABASE
    assert err.decode().startswith("flows: error: the connection to the database was lost; ")
    assert len(err.splitlines()) == 1
