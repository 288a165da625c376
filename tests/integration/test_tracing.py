"""Spans of attempts and steps, in the trace that the run was begun in."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from flows import tracing
from flows.async_client import AsyncClient
from flows.client import Client
from flows.context import Context
from flows.errors import TerminalError
from flows.registry import Registry
from flows.retry import RetryPolicy, RunRetryPolicy
from tests.running import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Runs


class Spans:
    """What was traced, in the order in which it ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("the caller")

    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    found = Spans()
    # It may be set once in a process only.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", found.provider)
    return found


def outcome(span: ReadableSpan) -> Any:
    return (span.attributes or {})["flows.outcome"]


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def ids(span: Any) -> tuple[int, int]:
    found = span.get_span_context()
    return found.trace_id, found.span_id


def test_an_attempt_and_its_steps_are_spans_of_the_trace_the_run_was_begun_in(
    runs: Runs, spans: Spans
) -> None:
    registry = Registry()

    def pack(item: str) -> str:
        with spans.tracer.start_as_current_span("wrapping"):
            return item.upper()

    @registry.workflow("ship")
    def ship(wf: Context, item: str) -> str:
        return wf.execute("pack/v1", pack, item)

    with spans.tracer.start_as_current_span("request") as request:
        key = runs.begin(ship, "a lamp")
    runs.execute_due(registry)
    attempt, step = spans.one("run ship"), spans.one("step pack")
    assert parent(attempt) == ids(request)
    assert parent(step) == ids(attempt)
    assert parent(spans.one("wrapping")) == ids(step)
    assert attempt.kind is SpanKind.CONSUMER
    assert dict(attempt.attributes or {}) == {
        "flows.workflow": "ship",
        "flows.run.id": str(key.run_id),
        "flows.run.shard": key.workflow_name_shard,
        "flows.run.attempt": 1,
        "flows.outcome": "completed",
    }
    assert dict(step.attributes or {}) == {
        "flows.workflow": "ship",
        "flows.run.id": str(key.run_id),
        "flows.run.attempt": 1,
        "flows.step.key": "pack/v1",
        "flows.outcome": "completed",
    }
    assert attempt.status.status_code is StatusCode.UNSET
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_sleep_ends_the_span_and_the_next_attempt_is_in_the_same_trace(
    runs: Runs, spans: Spans
) -> None:
    registry = Registry()

    @registry.workflow("nap")
    def nap(wf: Context) -> None:
        wf.execute("before/v1", lambda: None)
        wf.sleep("sleep/v1", timedelta(microseconds=1))
        wf.wait_for_event("go/v1", "Go")

    with spans.tracer.start_as_current_span("request") as request:
        key = runs.begin(nap)
    runs.execute_due(registry)
    runs.publish(key, "Go")
    runs.execute_due(registry)
    attempts = spans.named("run nap")
    assert [outcome(span) for span in attempts] == ["sleeping", "waiting_event", "completed"]
    assert {parent(span) for span in attempts} == {ids(request)}
    assert {span.status.status_code for span in attempts} == {StatusCode.UNSET}
    # A step that answers from its memo is no work.
    assert len(spans.named("step <lambda>")) == 1


def test_a_failure_is_recorded_and_its_retry_is_in_the_same_trace(runs: Runs, spans: Spans) -> None:
    registry = Registry()

    def charge() -> None:
        raise LookupError("no card")

    @registry.workflow("pay", run_retry=RunRetryPolicy(max_attempts=2))
    def pay(wf: Context) -> None:
        wf.execute("charge/v1", charge, retry=RetryPolicy(max_retries=2))

    with spans.tracer.start_as_current_span("request") as request:
        runs.begin(pay)
    runs.execute_due(registry)
    first, second = spans.named("run pay")
    assert [outcome(first), outcome(second)] == ["retrying", "failed"]
    assert (first.attributes or {})["flows.run.attempt"] == 1
    assert (second.attributes or {})["flows.run.attempt"] == 2
    assert parent(first) == parent(second) == ids(request)
    for span in (first, second, *spans.named("step charge")):
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "LookupError: no card"
        assert (span.attributes or {})["error.type"] == "LookupError"
    (_, step) = spans.named("step charge")
    assert [event.name for event in step.events] == ["exception"] * 3
    assert (step.attributes or {})["flows.step.retries"] == 2
    assert [event.name for event in second.events] == ["exception"]


def test_every_way_to_begin_a_run_carries_the_context(runs: Runs, spans: Spans) -> None:
    registry = Registry()

    @registry.workflow("ship")
    def ship(wf: Context) -> None:
        assert baggage.get_baggage("customer") == "7"

    async def begin_asynchronously() -> None:
        async with AsyncClient.connect(runs.dsn, db_config=runs.config) as client:
            await client.begin(ship)
            await client.begin_many(ship, [None, None])

    with spans.tracer.start_as_current_span("request") as request:
        token = context.attach(baggage.set_baggage("customer", "7"))
        with Client.connect(runs.dsn, db_config=runs.config) as client:
            client.begin(ship, idempotency_key="one")
            client.begin_many(ship, [None, None])
        asyncio.run(begin_asynchronously())
        runs.begin(ship)
        context.detach(token)
    runs.execute_due(registry)
    attempts = spans.named("run ship")
    assert [outcome(span) for span in attempts] == ["completed"] * 7
    assert {parent(span) for span in attempts} == {ids(request)}


def test_a_run_that_a_run_begins_is_a_child_of_its_attempt(runs: Runs, spans: Spans) -> None:
    registry = Registry()

    @registry.workflow("parent")
    def begins(wf: Context) -> None:
        wf.client.begin_tx(wf.tx, "child")

    @registry.workflow("child")
    def child(wf: Context) -> None:
        pass

    runs.execute(registry, "parent")
    assert parent(spans.one("run parent")) is None
    assert parent(spans.one("run child")) == ids(spans.one("run parent"))


def test_a_run_begun_outside_of_a_trace_begins_one_with_each_attempt(
    runs: Runs, spans: Spans
) -> None:
    registry = Registry()
    registry.workflow("ship")(lambda wf: None)
    key = runs.begin("ship")
    assert runs.rows("SELECT trace_context FROM flows.runs") == [(None,)]
    with spans.tracer.start_as_current_span("whoever executes it"):
        runs.execute_due(registry)
    assert parent(spans.one("run ship")) is None
    assert runs.status(key).status == "completed"


def test_what_ends_a_run_from_outside_ends_its_spans(runs: Runs, spans: Spans) -> None:
    registry = Registry()
    gate = Gate()

    def stuck() -> None:
        gate.pass_through()

    @registry.workflow("stuck")
    def hang(wf: Context) -> None:
        wf.execute("stuck/v1", stuck, retry=RetryPolicy(step_timeout=timedelta(milliseconds=20)))

    key = runs.begin(hang)
    runs.start(registry, timeout_grace=timedelta(milliseconds=50))
    runs.wait_for(key, "failed")
    step, attempt = spans.all()
    assert (step.name, attempt.name) == ("step stuck", "run stuck")
    assert outcome(step) == outcome(attempt) == "failed"
    assert (attempt.attributes or {})["error.type"] == "flows.errors.StepTimeoutError"
    gate.open()


def test_a_cancelled_run_and_one_past_its_deadline_say_so(runs: Runs, spans: Spans) -> None:
    registry = Registry()

    @registry.workflow("late", run_timeout=timedelta(microseconds=1))
    def late(wf: Context) -> None:
        wf.execute("step/v1", lambda: None)

    runs.execute(registry, late)
    span = spans.one("run late")
    assert outcome(span) == "failed"
    assert (span.attributes or {})["error.type"] == "flows.errors.RunTimeoutError"


def test_what_a_processor_raises_costs_a_span_and_no_run(
    runs: Runs, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            raise OSError("no room")

        def on_end(self, span: Any) -> None:
            raise OSError("no room")

    spans.provider.add_span_processor(Broken())
    registry = Registry()

    @registry.workflow("ship")
    def ship(wf: Context) -> int:
        return wf.execute("pack/v1", lambda: 1)

    key = runs.execute(registry, ship)
    assert runs.output(key) == 1
    assert "a span was lost: OSError: no room" in caplog.messages


@pytest.mark.parametrize("stored", ["", "no JSON", "[1]", '{"traceparent": 1}', '{"a": "b"}'])
def test_what_others_have_written_for_a_context_costs_nothing(
    runs: Runs, spans: Spans, stored: str
) -> None:
    registry = Registry()
    registry.workflow("ship")(lambda wf: None)
    key = runs.begin("ship")
    runs.connection.execute("UPDATE flows.runs SET trace_context = %s", [stored])
    runs.execute_due(registry)
    assert runs.status(key).status == "completed"
    assert parent(spans.one("run ship")) is None


def test_records_within_a_span_name_it(
    runs: Runs, spans: Spans, kept_records: list[logging.LogRecord]
) -> None:
    registry = Registry()

    def pack() -> None:
        logging.getLogger("shop").warning("in a step")

    @registry.workflow("ship")
    def ship(wf: Context) -> None:
        wf.execute("pack/v1", pack)
        raise TerminalError("over")

    runs.execute(registry, ship)
    logging.getLogger("shop").warning("outside")
    said = {record.getMessage().partition(" ")[0]: vars(record) for record in kept_records}
    trace_id, span_id = ids(spans.one("step pack"))
    assert said["in"]["trace_id"] == f"{trace_id:032x}"
    assert said["in"]["span_id"] == f"{span_id:016x}"
    assert said["run"]["span_id"] == f"{ids(spans.one('run ship'))[1]:016x}"
    assert said["outside"]["trace_id"] is said["outside"]["span_id"] is None


@pytest.fixture
def kept_records() -> Iterator[list[logging.LogRecord]]:
    factory = logging.getLogRecordFactory()
    records: list[logging.LogRecord] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Kept()
    logging.getLogger().addHandler(handler)
    yield records
    logging.getLogger().removeHandler(handler)
    logging.setLogRecordFactory(factory)


def test_a_context_too_large_to_keep_loses_its_baggage(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "MAX_CONTEXT", 200)
    with spans.tracer.start_as_current_span("request"):
        token = context.attach(baggage.set_baggage("key", "x" * 200))
        stored = tracing.read_current()
        context.detach(token)
    assert stored is not None
    assert "traceparent" in stored
    assert "baggage" not in stored
