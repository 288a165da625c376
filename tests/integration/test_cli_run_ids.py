"""A run is named on the command line by its key, or by its id alone, as logs and `top` print it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from flows import DBConfig, RunKey
from flows.cli.run_list import all_shards
from flows.sql import load
from flows.supervisor.exits import ExitCode
from tests.citus import not_on_citus
from tests.integration.cli_app import registry
from tests.integration.command import flows, refused, told
from tests.running import Runs

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = "tests.integration.cli_app:registry"
NOBODY = "0190f0f0-0000-7000-8000-000000000000"


@pytest.fixture
def sharded(flows_dsn: str) -> Iterator[Runs]:
    """A database with runs in several shards of several workflows."""
    runs = Runs(flows_dsn, DBConfig(shard_count=4))
    for name in ("alpha", "demo", "omega"):
        runs.client.begin_many_tx(runs.connection, name, [None] * 12)
    yield runs
    runs.close()


def begin(runs: Runs, name: str = "demo") -> RunKey:
    key = runs.client.begin_tx(runs.connection, name)
    assert isinstance(key, RunKey)
    return key


def test_a_run_is_shown_by_its_id_in_whatever_shard_it_is(sharded: Runs) -> None:
    for name in ("alpha", "demo", "omega"):
        key = begin(sharded, name)
        for given in (str(key.run_id), str(key.run_id).upper()):
            shown = told("runs", "show", given, "--json", "--dsn", sharded.dsn)
            assert json.loads(shown)["run_key"] == str(key)


def test_runs_are_changed_by_their_ids(sharded: Runs) -> None:
    one, other = begin(sharded), begin(sharded, "alpha")
    said = told("runs", "cancel", str(one.run_id), str(other), "--dsn", sharded.dsn)
    assert said == "2 cancelled\n"
    said = told("runs", "retry", str(one.run_id), "--dsn", sharded.dsn)
    assert said == "1 queued again\n"
    assert sharded.status(one).status == "queued"
    assert sharded.status(other).status == "cancelled"


def test_an_id_that_no_run_has_changes_none_of_the_others(sharded: Runs) -> None:
    key = begin(sharded)
    code, error = refused("runs", "cancel", str(key), NOBODY, "--dsn", sharded.dsn)
    assert (code, error) == (ExitCode.FAILED, f"no run {NOBODY} in the database of --dsn\n")
    assert sharded.status(key).status == "queued"


def test_a_page_goes_on_after_a_run_of_that_id(sharded: Runs) -> None:
    page = json.loads(told("runs", "list", "--limit", "5", "--json", "--dsn", sharded.dsn))
    last = RunKey.parse(page["next"])
    options = ("--limit", "5", "--json", "--dsn", sharded.dsn)
    following = [
        json.loads(told("runs", "list", "--after", after, *options))["runs"]
        for after in (str(last), str(last.run_id))
    ]
    assert following[0] == following[1]
    assert following[0]


def test_an_event_is_published_to_a_run_of_that_id(sharded: Runs) -> None:
    key = begin(sharded)
    assert told("publish", str(key.run_id), "Answer", "1", "--dsn", sharded.dsn) == ""
    assert sharded.rows("SELECT run_id FROM flows.events") == [(key.run_id,)]


def test_a_run_is_forked_and_replayed_by_its_id(runs: Runs) -> None:
    key = runs.execute(registry, "rejecting", "it")
    where = ("--dsn", runs.dsn)
    forked = flows("runs", "fork", str(key.run_id), "--from-step", "reject/v1", *where)
    assert (forked.returncode, forked.stdout[: len("rejecting_0:")]) == (0, "rejecting_0:")
    replayed = flows("replay", APP, str(key.run_id), *where)
    assert replayed.stdout.startswith("the code still does what the run did: it came to step rej")


def test_an_id_that_two_workflows_have_is_refused_with_both_keys(sharded: Runs) -> None:
    keys = [f"{shard}:{NOBODY}" for shard in ("alpha_0", "demo_1")]
    for key in keys:
        sharded.connection.execute(
            "INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status)"
            " VALUES (%s, %s, 'x', 'queued')",
            key.split(":"),
        )
    code, error = refused("runs", "show", NOBODY, "--dsn", sharded.dsn)
    expected = f"several runs have the id {NOBODY}, give the key of one: {', '.join(keys)}\n"
    assert (code, error) == (ExitCode.FAILED, expected)


def test_what_is_neither_a_key_nor_an_id_is_refused_with_both_forms(sharded: Runs) -> None:
    for text in ("nonsense", NOBODY.replace("-", ""), f"{{{NOBODY}}}", f"{NOBODY}0"):
        code, error = refused("runs", "show", text, "--dsn", sharded.dsn)
        assert code == ExitCode.CONFIG
        assert error == (
            f"{text!r} is not a run key: expected <workflow>_<shard>:<run id>,"
            " or the run id alone\n"
        )


@not_on_citus("a plan is one node's")
def test_looking_for_an_id_costs_an_entry_of_each_shard(sharded: Runs) -> None:
    sharded.connection.execute(
        "INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status)"
        " SELECT 'demo_' || n % 50, gen_random_uuid(), 'demo', 'completed'"
        " FROM generate_series(1, 20000) AS n"
    )
    shards = list(all_shards(sharded.connection, "flows"))
    assert len(shards) > 50
    for analyzed in (False, True):
        if analyzed:
            sharded.connection.execute("ANALYZE flows.runs")
        explain = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + load("find_run")
        values = {"shards": shards, "run_id": NOBODY}
        ((plan,),) = sharded.connection.execute(explain, values).fetchall()
        assert plan[0]["Plan"]["Shared Hit Blocks"] < 6 * len(shards)
        assert "Seq Scan" not in json.dumps(plan)
