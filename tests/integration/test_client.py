"""Beginning runs: what is stored, for whom, and what is refused before it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import pytest

from flows import Client, Context, DBConfig, MsgspecCodec, Registry, RunKey
from flows.errors import ConfigError, DecodeError, EncodeError, SchemaError
from flows.shard import shard_for_run
from tests.running import Runs
from tests.waiting import DEADLINE_S

CHANNEL = "flows_run_wakeup"
QUEUED = """
    SELECT workflow_name_shard, run_id, workflow_name, status, input_json, codec, attempts
    FROM flows.runs
"""


@dataclass
class Job:
    scene: str
    frames: int = 1


class Render:
    name = "render"

    def run(self, wf: Context, job: Job) -> str:
        return f"{job.scene}: {job.frames}"


registry = Registry()
render = registry.register(Render())


@registry.workflow("packed", codec=MsgspecCodec())
def packed(wf: Context, job: Job) -> Job:
    return job


@registry.workflow("nightly")
def nightly(wf: Context) -> str:
    return "done"


def test_a_run_is_queued_with_its_input_under_the_key_that_is_returned(runs: Runs) -> None:
    key = runs.begin(render, Job("sea", 3))
    assert isinstance(key, RunKey)
    assert key.run_id.version == 7
    stored = {"scene": "sea", "frames": 3}
    assert runs.rows(QUEUED) == [("render_0", key.run_id, "render", "queued", stored, None, 0)]


@pytest.mark.parametrize("workflow", [render, Render(), "render"], ids=["handle", "object", "name"])
def test_a_workflow_is_given_as_handle_object_or_name(runs: Runs, workflow: Any) -> None:
    key = runs.begin(workflow, {"scene": "sea"} if isinstance(workflow, str) else Job("sea"))
    runs.execute_due(registry)
    assert runs.output(key) == "sea: 1"


def test_a_run_may_have_no_input(runs: Runs) -> None:
    key = runs.client.begin_tx(runs.connection, nightly)
    runs.execute_due(registry)
    assert runs.output(key) == "done"


def test_a_handle_brings_the_codec_of_its_workflow(runs: Runs) -> None:
    key = runs.begin(packed, Job("sea"))
    [(document, binary, codec)] = runs.rows("SELECT input_json, input_bytes, codec FROM flows.runs")
    assert (document, codec) == (None, "msgpack")
    assert msgspec.msgpack.decode(binary) == {"scene": "sea", "frames": 1}
    runs.execute_due(registry)
    assert runs.output(key, Job) == Job("sea")


def test_a_name_is_begun_with_the_codec_of_the_client(runs: Runs) -> None:
    client = Client(codec=MsgspecCodec())
    key = client.begin_tx(runs.connection, "render", {"scene": "sea"})
    assert runs.rows("SELECT codec FROM flows.runs") == [("msgpack",)]
    runs.execute_due(registry)
    assert runs.output(key) == "sea: 1"


def test_many_runs_are_begun_in_the_order_of_their_inputs(runs: Runs) -> None:
    jobs = [Job("sea", n) for n in range(5)]
    keys = runs.client.begin_many_tx(runs.connection, packed, (job for job in jobs))
    assert len(set(keys)) == 5
    assert runs.execute_due(registry) == 5
    assert [runs.output(key, Job) for key in keys] == jobs


def test_many_runs_are_spread_over_the_shards(flows_dsn: str) -> None:
    runs = Runs(flows_dsn, DBConfig(shard_count=3))
    keys = runs.client.begin_many_tx(runs.connection, "render", [{"scene": "sea"}] * 40)
    assert {key.workflow_name_shard for key in keys} == {"render_0", "render_1", "render_2"}
    for key in keys:
        assert key.workflow_name_shard == shard_for_run("render", str(key.run_id), 3)
    stored = runs.rows("SELECT workflow_name_shard, run_id FROM flows.runs")
    assert sorted(stored) == sorted(tuple(key) for key in keys)
    runs.close()


def test_no_inputs_begin_no_runs(runs: Runs) -> None:
    assert runs.client.begin_many_tx(runs.connection, render, []) == []
    assert runs.rows(QUEUED) == []


def test_workers_are_told_of_the_shard_when_the_caller_commits(runs: Runs) -> None:
    runs.connection.execute(f"LISTEN {CHANNEL}")
    with psycopg.connect(runs.dsn) as tx:
        for _ in range(3):
            runs.client.begin_tx(tx, render, Job("sea"))
        runs.client.begin_many_tx(tx, nightly, [None, None])
        assert list(runs.connection.notifies(timeout=0)) == []
    told = [each.payload for each in runs.connection.notifies(timeout=DEADLINE_S, stop_after=2)]
    assert told == ["render_0", "nightly_0"]
    assert list(runs.connection.notifies(timeout=0)) == []


def test_a_client_may_tell_nobody_or_use_another_channel(runs: Runs) -> None:
    for channel in (CHANNEL, "elsewhere"):
        runs.connection.execute(f"LISTEN {channel}")
    Client(disable_notify=True).begin_tx(runs.connection, render, Job("sea"))
    Client(notify_channel="elsewhere").begin_tx(runs.connection, render, Job("sea"))
    [told] = runs.connection.notifies(timeout=DEADLINE_S, stop_after=1)
    assert (told.channel, told.payload) == ("elsewhere", "render_0")
    assert list(runs.connection.notifies(timeout=0)) == []


def test_a_client_may_be_given_the_time(runs: Runs) -> None:
    instant = datetime(2030, 1, 1, tzinfo=UTC)
    client = Client(now=lambda: instant)
    [one] = client.begin_many_tx(runs.connection, render, [Job("sea")])
    other = client.begin_tx(runs.connection, render, Job("sea"))
    assert runs.status(one).created_at == runs.status(other).created_at == instant


@pytest.mark.parametrize("value", [Job("a\0b"), Job(float("nan"))])  # type: ignore[arg-type]
def test_an_input_that_cannot_be_kept_is_refused_with_its_path(runs: Runs, value: Job) -> None:
    with runs.connection.transaction():
        with pytest.raises(EncodeError, match=r"\$\.scene"):
            runs.begin("render", value)
        with pytest.raises(EncodeError, match=r"\$\.scene"):
            runs.client.begin_many_tx(runs.connection, "render", [Job("sea"), value])
        # The transaction goes on, and not even the input that can be kept has begun a run.
        assert runs.rows(QUEUED) == []


def test_an_input_of_another_type_than_the_workflow_takes_is_refused(runs: Runs) -> None:
    wrong: Any = {"scene": 5}
    with runs.connection.transaction():
        with pytest.raises(DecodeError, match=r"\$\.scene"):
            runs.begin(render, wrong)
        with pytest.raises(DecodeError, match=r"\$\.scene"):
            runs.client.begin_many_tx(runs.connection, render, [Job("sea"), wrong])
        assert runs.rows(QUEUED) == []


@pytest.mark.parametrize("workflow", [None, 5, lambda wf, job: job, "", "a\0b", "x" * 1001])
def test_what_is_no_workflow_is_refused(runs: Runs, workflow: Any) -> None:
    with runs.connection.transaction():
        with pytest.raises(ConfigError):
            runs.begin(workflow, 1)
        assert runs.rows(QUEUED) == []


@pytest.mark.parametrize("channel", ["", "a b", "x" * 64, 'a"b'])
def test_a_channel_that_cannot_work_is_refused(channel: str) -> None:
    if channel:
        with pytest.raises(ConfigError, match="notify_channel"):
            Client(notify_channel=channel)
    else:
        # No text is no other channel.
        Client(notify_channel=channel)


def test_without_tables_the_error_names_the_command(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for schema in ("flows", "other"):
            client = Client(db_config=DBConfig(schema=schema))
            with pytest.raises(SchemaError, match=f"'{schema}' has no flows tables.*migrate"):
                client.begin_tx(connection, "render", 1)
