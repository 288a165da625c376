"""Records that cannot be written: they cost their own run and no other."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import Codec, Context, Registry, register_codec

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running import Runs

TEXT = "text that is not bytes"
BROKEN = b'{"no": json'


class NonsenseCodec(Codec):
    """Keeps its promises, but for the value "text" and the value "broken"."""

    name = "nonsense"
    storage = "jsonb"

    def encode(self, value: Any) -> bytes:
        nonsense: Any = {"text": TEXT, "broken": BROKEN}.get(value)
        return nonsense or json.dumps(value).encode()

    def decode(self, data: Any, type: Any) -> Any:  # noqa: A002  as in the base class
        return data if data in (TEXT, BROKEN) else json.loads(data)


register_codec(NonsenseCodec())


def in_a_step(wf: Context, n: int, value: str) -> Any:
    wf.execute("step/v1", lambda given: value if given == 7 else "fine", n)


def in_a_step_of_a_run_that_sleeps(wf: Context, n: int, value: str) -> Any:
    in_a_step(wf, n, value)
    wf.sleep("cooldown/v1", timedelta(milliseconds=1))


def in_the_output(wf: Context, n: int, value: str) -> Any:
    return value if n == 7 else "fine"


@pytest.mark.parametrize("value", ["text", "broken"])
@pytest.mark.parametrize("where", [in_a_step, in_a_step_of_a_run_that_sleeps, in_the_output])
def test_a_value_that_postgres_refuses_fails_its_run_and_the_others_commit(
    runs: Runs, where: Callable[[Context, int, str], Any], value: str
) -> None:
    registry = Registry()

    @registry.workflow("demo", codec=NonsenseCodec(), concurrency=4)
    def demo(wf: Context, n: int) -> Any:
        return where(wf, n, value)

    keys = runs.client.begin_many_tx(runs.connection, demo, range(20))
    runs.start(registry)
    for n, key in enumerate(keys):
        runs.wait_for(key, "failed" if n == 7 else "completed")
    reason = "TypeError" if value == "text" else "InvalidTextRepresentation"
    assert reason in runs.error(keys[7])


def test_a_sleep_without_end_fails_its_run(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context, is_endless: bool) -> None:
        wf.sleep("cooldown/v1", timedelta.max if is_endless else timedelta())

    runs.start(registry)
    endless, other = (runs.begin(demo, is_endless) for is_endless in (True, False))
    runs.wait_for(endless, "failed")
    runs.wait_for(other, "completed")
    assert "at most a thousand years" in runs.error(endless)


def test_a_sleep_without_end_fails_its_run_with_an_open_transaction_too(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        wf.tx.execute("SELECT 1")
        wf.sleep("cooldown/v1", timedelta.max)

    runs.start(registry)
    key = runs.begin(demo)
    runs.wait_for(key, "failed")
    assert "at most a thousand years" in runs.error(key)
