"""A shard count other than the runs were written with: more reads them all, fewer is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows import ConfigError, Context, DBConfig, Registry, RunKey, Worker
from tests.integration.command import flows
from tests.running import Runs

if TYPE_CHECKING:
    from collections.abc import Iterator

FOUR = DBConfig(shard_count=4)
REFUSED = (
    "workflow 'demo' has unfinished runs in shard demo_3, which nobody reads with a shard count"
    " of {}; start with --shards 4, or more if there were more, until they are finished"
)


@pytest.fixture
def of_four(flows_dsn: str) -> Iterator[Runs]:
    """Runs over four shards a workflow."""
    runs = Runs(flows_dsn, FOUR)
    yield runs
    runs.close()


def demo_registry(name: str = "demo") -> Registry:
    registry = Registry()

    @registry.workflow(name)
    def demo(wf: Context, how: str) -> None:
        if how == "sleep":
            wf.sleep("nap/v1", timedelta(hours=1))
        if how == "wait":
            wf.wait_for_event("number/v1", "Number")

    return registry


def begin_in_each(runs: Runs, how: str) -> list[RunKey]:
    """Begin runs until there is one in each shard, and keep one of each."""
    found: dict[str, RunKey] = {}
    while len(found) < runs.config.shard_count:
        key = runs.begin("demo", how)
        if key.workflow_name_shard in found:
            runs.connection.execute("DELETE FROM flows.runs WHERE run_id = %s", (key.run_id,))
        found.setdefault(key.workflow_name_shard, key)
    return list(found.values())


def test_more_shards_than_before_read_what_was_written_under_fewer(flows_dsn: str) -> None:
    one = Runs(flows_dsn)
    keys = [one.begin("demo", "go") for _ in range(5)]
    four = Runs(flows_dsn, FOUR)
    assert four.execute_due(demo_registry()) == 5
    assert {one.status(key).status for key in keys} == {"completed"}
    four.close()
    one.close()


@pytest.mark.parametrize("how", ["queued", "sleep", "wait", "running"])
def test_fewer_shards_are_refused_while_runs_in_the_others_are_unfinished(
    of_four: Runs, how: str
) -> None:
    begin_in_each(of_four, how)
    if how in ("sleep", "wait"):
        of_four.execute_due(demo_registry())
    if how == "running":
        of_four.connection.execute("UPDATE flows.runs SET status = 'running', worker_id = run_id")
    registered = "SELECT count(*) FROM flows.workers"
    before = of_four.rows(registered)
    for count in (1, 3):
        worker = Worker(demo_registry(), of_four.dsn, db_config=DBConfig(shard_count=count))
        with pytest.raises(ConfigError) as caught:
            worker.run()
        assert str(caught.value) == REFUSED.format(count)
        with pytest.raises(ConfigError), worker:
            worker.process_one()
    # It was refused before it was anybody.
    assert of_four.rows(registered) == before
    with Worker(demo_registry(), of_four.dsn, db_config=FOUR) as worker:
        worker.process_one()


def test_fewer_shards_do_once_the_others_hold_finished_runs_alone(of_four: Runs) -> None:
    begin_in_each(of_four, "go")
    assert of_four.execute_due(demo_registry()) == 4
    with Worker(demo_registry(), of_four.dsn) as worker:
        assert not worker.process_one()


def test_other_workflows_are_their_own_workers_affair(of_four: Runs) -> None:
    begin_in_each(of_four, "go")
    # Its shard 0 is called as a shard of demo would be.
    with Worker(demo_registry("demo_3"), of_four.dsn) as worker:
        assert not worker.process_one()


def test_the_supervisor_ends_with_one_line_and_the_code_of_a_wrong_configuration(
    of_four: Runs,
) -> None:
    with psycopg.connect(of_four.dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO flows.runs"
            " (workflow_name_shard, run_id, workflow_name, status, input_json)"
            " VALUES ('resting_12', gen_random_uuid(), 'resting', 'queued', 'null')"
        )
    app = "tests.integration.cli_app:registry"
    command = ["supervise", app, "--drain", "--only", "resting", "--dsn", of_four.dsn]
    done = flows(*command, "--shards", "4")
    assert done.returncode == 3, done.stderr
    [error] = [line for line in done.stderr.splitlines() if "shard" in line]
    assert "unfinished runs in shard resting_12" in error
    assert "start with --shards 13" in error
