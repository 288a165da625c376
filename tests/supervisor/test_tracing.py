"""Spans of supervised processes: each has a provider of its own, and sends what it holds."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from opentelemetry.sdk.trace import TracerProvider

from flows.client import Client
from flows.supervisor.exits import ExitCode
from tests.waiting import wait_until

if TYPE_CHECKING:
    from flows.ids import RunKey
    from tests.supervisor.conftest import StartSource
    from tests.supervisor.harness import Supervised

PAGE = Path(__file__).parents[2] / "docs" / "tracing.md"
SURVIVOR = Path(__file__).with_name("traced.py")


def spans_of(supervised: Supervised, key: RunKey, written: Path) -> list[dict[str, Any]]:
    """Wait until a run is over, stop the supervisor, and return what its processes have sent."""
    with psycopg.connect(supervised.dsn, autocommit=True) as tx:
        wait_until(
            lambda: Client().get_run_status_tx(tx, key).status == "completed",
            what="the run is over",
        )
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    return [json.loads(line) for line in written.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_trace_of_a_run_goes_on_after_the_death_of_its_process(
    supervise: StartSource, tmp_path: Path, method: str
) -> None:
    written = tmp_path / "spans"
    supervised = supervise(
        SURVIVOR.read_text("utf-8"),
        "--start-method",
        method,
        prefix=("env", f"SPANS={written}"),
    )
    supervised.expect_said("worker survivor ready")
    tracer = TracerProvider().get_tracer("the caller")
    with psycopg.connect(supervised.dsn) as tx, tracer.start_as_current_span("request") as request:
        key = Client().begin_tx(tx, "survivor", str(tmp_path / "flag"))
    spans = spans_of(supervised, key, written)
    context = request.get_span_context()
    assert {span["context"]["trace_id"] for span in spans} == {f"0x{context.trace_id:032x}"}
    # The first process died with what it had not sent: the attempt that slept, and the step.
    (step,) = (span for span in spans if span["name"] == "step die_once")
    (attempt,) = (span for span in spans if span["name"] == "run survivor")
    assert step["parent_id"] == attempt["context"]["span_id"]
    assert attempt["parent_id"] == f"0x{context.span_id:016x}"
    assert attempt["attributes"]["flows.outcome"] == "completed"


def test_the_application_on_the_page_writes_its_spans(
    supervise: StartSource, tmp_path: Path
) -> None:
    application, caller = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    written = tmp_path / "spans"
    supervised = supervise(application, prefix=("env", f"SPANS={written}"))
    supervised.expect_said("worker ship ready")
    names: dict[str, Any] = {}
    exec(caller, names)
    key, trace_id = names["order"](supervised.dsn, "a lamp")
    spans = spans_of(supervised, key, written)
    assert [span["name"] for span in spans] == ["ask the bank", "step charge", "run ship"]
    assert {span["context"]["trace_id"] for span in spans} == {f"0x{trace_id}"}


def test_a_provider_that_was_there_before_the_fork_sends_what_it_holds(
    supervise: StartSource, tmp_path: Path
) -> None:
    # As `opentelemetry-instrument` has it, with the batches of the SDK.
    source = SURVIVOR.read_text("utf-8")
    source = source.replace(
        "registry = Registry(lifespan=traced)",
        "entered = traced()\nentered.__enter__()\nregistry = Registry()",
    )
    written = tmp_path / "spans"
    supervised = supervise(source, prefix=("env", f"SPANS={written}"))
    supervised.expect_said("worker survivor ready")
    assert "threads" not in supervised.stderr
    flag = tmp_path / "flag"
    flag.touch()
    with psycopg.connect(supervised.dsn) as tx:
        key = Client().begin_tx(tx, "survivor", str(flag))
    spans = spans_of(supervised, key, written)
    assert [span["name"] for span in spans].count("run survivor") == 2


def test_what_a_lifespan_raises_is_told(supervise: StartSource) -> None:
    source = SURVIVOR.read_text("utf-8").replace(
        "    with open(", "    raise OSError('no room')\n    with open("
    )
    supervised = supervise(source)
    supervised.expect_said("flows: worker survivor: OSError: no room")
    supervised.expect_said("workflow survivor is broken")
