"""`max_payload`: what is too large is refused where it is made, before the database sees it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import (
    Client,
    Codec,
    ConfigError,
    Context,
    JSONCodec,
    MsgspecCodec,
    PayloadSizeError,
    Registry,
    RetryPolicy,
    every,
)
from flows.config import DEFAULT_MAX_PAYLOAD, LARGEST_PAYLOAD
from tests.running import Runs

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 1000
CODECS = [JSONCodec(), JSONCodec(storage="bytea"), MsgspecCodec(), MsgspecCodec(format="json")]
PLACES = {
    "step input": "the input of step 'keep/v1'",
    "step value": "what step 'keep/v1' returned",
    "output": "what workflow 'limited' returned",
}


def echo(wf: Context, text: str) -> str:
    return text


def of_size(codec: Codec, size: int) -> str:
    """Return a text that takes so many bytes with this codec."""
    return "x" * (size - len(codec.encode("x" * size)) + size)


def limited(codec: Codec) -> tuple[Registry, Any]:
    registry = Registry()

    @registry.workflow("limited", codec=codec, max_payload=LIMIT)
    def limited(wf: Context, given: dict[str, int]) -> Any:
        def text(place: str) -> str:
            return of_size(codec, given.get(place, 10))

        wf.execute("keep/v1", lambda _: text("step value"), text("step input"))
        return text("output")

    return registry, limited


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: f"{codec.name}-{codec.storage}")
@pytest.mark.parametrize("place", PLACES)
def test_what_a_run_makes_is_kept_up_to_the_limit_and_refused_beyond_it(
    runs: Runs, place: str, codec: Codec
) -> None:
    registry, workflow = limited(codec)
    allowed = runs.execute(registry, workflow, {place: LIMIT})
    refused = runs.execute(registry, workflow, {place: LIMIT + 1})
    assert runs.status(allowed).status == "completed"
    headline = runs.error(refused).partition("\n")[0]
    assert headline == (
        f"flows.errors.PayloadSizeError: {PLACES[place]}:"
        " 1,001 bytes encoded, more than max_payload allows (1,000)"
    )


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: f"{codec.name}-{codec.storage}")
def test_inputs_and_events_are_refused_before_the_transaction_sees_them(
    runs: Runs, codec: Codec
) -> None:
    registry = Registry()
    handle = registry.workflow("limited", codec=codec, max_payload=LIMIT)(echo)
    client = Client(codec=codec, max_payload=LIMIT)
    tx = runs.connection
    allowed, large = of_size(codec, LIMIT), of_size(codec, LIMIT + 1)
    key = client.begin_tx(tx, handle, allowed)
    client.begin_tx(tx, "limited", allowed)
    client.publish_event_tx(tx, key, "Told", allowed)
    attempts: dict[str, list[Callable[[], object]]] = {
        "the input of workflow 'limited'": [
            lambda: client.begin_tx(tx, handle, large),
            lambda: client.begin_tx(tx, "limited", large),
            lambda: client.begin_many_tx(tx, handle, [allowed, large]),
            lambda: client.schedule_tx(tx, handle, large, "id", every(timedelta(hours=1))),
        ],
        "the payload of event 'Told'": [lambda: client.publish_event_tx(tx, key, "Told", large)],
    }
    for of, refused in attempts.items():
        for attempt in refused:
            with pytest.raises(PayloadSizeError) as caught:
                attempt()
            assert str(caught.value).startswith(f"{of}: 1,001 bytes encoded, ")
            assert (caught.value.size, caught.value.limit) == (LIMIT + 1, LIMIT)
    assert runs.rows("SELECT count(*) FROM flows.runs") == [(2,)]
    assert runs.rows("SELECT count(*) FROM flows.schedules") == [(0,)]


def test_a_handle_brings_its_own_limit_and_a_name_takes_the_clients(runs: Runs) -> None:
    handle = Registry().workflow("roomy", max_payload=2 * LIMIT)(echo)
    client = Client(max_payload=LIMIT)
    text = of_size(JSONCodec(), 2 * LIMIT)
    client.begin_tx(runs.connection, handle, text)
    with pytest.raises(PayloadSizeError, match=r"max_payload allows \(1,000\)"):
        client.begin_tx(runs.connection, "roomy", text)


def test_a_step_whose_value_is_too_large_is_not_tried_again(runs: Runs) -> None:
    registry = Registry()
    calls = []

    def large() -> str:
        calls.append(LIMIT)
        return "x" * LIMIT

    @registry.workflow("limited", max_payload=LIMIT)
    def workflow(wf: Context) -> None:
        wf.execute("a", large, retry=RetryPolicy(max_retries=3))

    key = runs.execute(registry, workflow)
    assert "what step 'a' returned" in runs.error(key)
    assert len(calls) == 1


@pytest.mark.parametrize("mebibytes", [1, 8])
def test_large_memos_are_committed_with_the_transaction(runs: Runs, mebibytes: int) -> None:
    registry = Registry()
    size = mebibytes * 1024 * 1024

    @registry.workflow("large")
    def large(wf: Context) -> int:
        wf.tx.execute("SELECT 1")
        return len(wf.execute("a", lambda: "x" * size)) + len(wf.execute("b", lambda: "y" * size))

    key = runs.execute(registry, large)
    assert runs.output(key) == 2 * size


@pytest.mark.parametrize("size", [0, -1, LARGEST_PAYLOAD + 1, 1.5, True, "1", None])
def test_a_limit_that_cannot_be_kept_is_refused(size: Any) -> None:
    with pytest.raises(ConfigError, match=r"workflow 'a': max_payload must be"):
        Registry().workflow("a", max_payload=size)
    with pytest.raises(ConfigError, match=r"a client: max_payload must be"):
        Client(max_payload=size)


def test_the_edges_of_what_a_limit_may_be() -> None:
    for size in (1, LARGEST_PAYLOAD):
        handle = Registry().workflow("a", max_payload=size)(lambda wf: None)
        assert handle.max_payload == size
        Client(max_payload=size)
    assert Registry().workflow("a")(lambda wf: None).max_payload == DEFAULT_MAX_PAYLOAD
