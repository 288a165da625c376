"""Runs whose input or memos are too heavy to come along with their claim."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Codec, Context, JSONCodec, MsgspecCodec, Registry
from flows.claims import claim_runs

if TYPE_CHECKING:
    from tests.running import Runs

CODECS: list[Codec] = [JSONCodec(), JSONCodec(storage="bytea"), MsgspecCodec()]
LIGHT, HEAVY = 10_000, 1_000_000


def noise(size: int) -> str:
    """Return text that Postgres cannot compress much."""
    text = "".join(uuid.uuid5(uuid.NAMESPACE_OID, str(n)).hex for n in range(size // 32 + 1))
    return text[:size]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: f"{codec.name}-{codec.storage}")
@pytest.mark.parametrize("size", [10, LIGHT, 70_000, HEAVY])
@pytest.mark.parametrize("make", [noise, lambda size: "x" * size], ids=["noise", "same"])
def test_a_run_sees_the_same_however_heavy_it_is(
    runs: Runs, codec: Codec, size: int, make: Any
) -> None:
    registry = Registry()
    calls: list[str] = []

    @registry.workflow("weighed", codec=codec)
    def weighed(wf: Context, text: str) -> list[Any]:
        def step(given: str) -> str:
            calls.append(given)
            return given[::-1]

        uid, number = wf.random_uuidv7("uid"), wf.random_uint64("number")
        value = wf.execute("step", step, text)
        wf.sleep("nap", timedelta(microseconds=1))
        told = wf.wait_for_event("wait", "Told", str)
        return [value == text[::-1], told == text, str(uid), number]

    text = make(size)
    key = runs.execute(registry, weighed, text)
    runs.execute_due(registry)
    runs.publish(key, "Told", text)
    runs.execute_due(registry)
    output = runs.output(key)
    assert output[:2] == [True, True]
    (uid,) = runs.rows("SELECT value_text FROM flows.random WHERE kind = 'uuidv7'")
    (number,) = runs.rows("SELECT value_bigint FROM flows.random WHERE kind = 'uint64'")
    assert output[2:] == [uid[0], number[0] % 2**64]
    assert calls == [text]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: f"{codec.name}-{codec.storage}")
@pytest.mark.parametrize("make", [noise, lambda size: "x" * size], ids=["noise", "same"])
def test_a_claim_brings_light_inputs_and_leaves_heavy_ones(
    runs: Runs, codec: Codec, make: Any
) -> None:
    handle = Registry().workflow("weighed", codec=codec)(lambda wf, text: text)  # type: ignore[var-annotated]
    for size in (10, LIGHT, HEAVY):
        runs.begin(handle, make(size))
    with psycopg.connect(runs.dsn, autocommit=True) as connection:
        claimed = claim_runs(connection, "flows", ["weighed_0"], 3, uuid.uuid4())
    sizes = [run.prefetched == "" for run in claimed.runs]
    assert sizes == [False, False, True]
    assert claimed.runs[2].input.size == 0
    assert None not in {run.input.json or run.input.binary for run in claimed.runs[:2]}


def test_memos_of_more_than_a_gigabyte_do_not_stop_the_claim(runs: Runs) -> None:
    runs.begin("weighed", "x")
    runs.connection.execute("UPDATE flows.runs SET claim = 1")
    insert = """
        INSERT INTO flows.steps (workflow_name_shard, run_id, step_key, status, output_json)
        SELECT workflow_name_shard, run_id, 'step/' || number, 'completed', {}
        FROM flows.{}, generate_series({}, {}) AS number
    """
    runs.rows(insert.format("to_jsonb(repeat('x', 60000000))", "runs", 0, 0) + "RETURNING 1")
    # Copied as it is stored, compressed.
    runs.rows(insert.format("output_json", "steps", 1, 20) + "RETURNING 1")
    with psycopg.connect(runs.dsn, autocommit=True) as connection:
        claimed = claim_runs(connection, "flows", ["weighed_0"], 1, uuid.uuid4())
    assert [run.prefetched for run in claimed.runs] == [""]
