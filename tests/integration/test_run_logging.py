"""Records say of which run they are, without the application doing anything."""

from __future__ import annotations

import contextvars
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import run_logging
from flows.context import Context
from flows.registry import Registry
from flows.retry import RetryPolicy, RunRetryPolicy
from tests.waiting import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Runs

log = logging.getLogger("shop.orders")


class Kept(logging.Handler):
    """Keeps what each record says of its run."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[Any, ...]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == log.name:
            self.said.append(
                (record.getMessage(), *(getattr(record, name) for name in run_logging.FIELDS))
            )


@pytest.fixture
def kept() -> Iterator[Kept]:
    factory = logging.getLogRecordFactory()
    handler = Kept()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    logging.setLogRecordFactory(factory)


def test_records_of_a_run_carry_its_workflow_id_attempt_and_step(runs: Runs, kept: Kept) -> None:
    registry = Registry()

    def step() -> None:
        log.info("in a step")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, log.info, "in a thread").result()
            pool.submit(log.info, "in a thread without context").result()

    @registry.workflow("order", run_retry=RunRetryPolicy(max_attempts=2))
    def order(wf: Context) -> None:
        log.info("before")
        wf.execute("pack/v1", step)
        log.info("after")
        if len(kept.said) < 6:
            raise ValueError("once more")

    key = runs.execute(registry, "order")
    log.info("outside")
    mine = ("order", str(key.run_id))
    assert kept.said == [
        ("before", *mine, 1, None),
        ("in a step", *mine, 1, "pack/v1"),
        ("in a thread", *mine, 1, "pack/v1"),
        ("in a thread without context", None, None, None, None),
        ("after", *mine, 1, None),
        ("before", *mine, 2, None),
        ("after", *mine, 2, None),
        ("outside", None, None, None, None),
    ]


def test_runs_that_are_executed_at_once_are_not_mixed_up(runs: Runs, kept: Kept) -> None:
    registry = Registry()
    together = threading.Barrier(4)

    @registry.workflow("order", concurrency=4)
    def order(wf: Context, number: int) -> None:
        together.wait(DEADLINE_S)
        log.info(str(wf.run_id))
        together.wait(DEADLINE_S)
        wf.execute(f"step-{number}", lambda: log.info(str(wf.run_id)))

    keys = [runs.begin("order", number) for number in range(4)]
    runs.start(registry)
    for key in keys:
        runs.wait_for(key, "completed")
    assert len(kept.said) == 8
    assert all(message == run_id for message, _, run_id, _, _ in kept.said)


def test_a_record_factory_of_the_application_is_kept(runs: Runs, kept: Kept) -> None:
    before = logging.getLogRecordFactory()

    def mine(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.workflow = "said by the application"
        return record

    logging.setLogRecordFactory(mine)
    registry = Registry()

    @registry.workflow("order")
    def order(wf: Context) -> None:
        log.info("hello")

    key = runs.execute(registry, "order")
    assert kept.said == [("hello", "said by the application", str(key.run_id), 1, None)]


def test_at_debug_an_attempt_tells_what_it_does_and_no_payload(
    runs: Runs, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    tried: list[int] = []

    def unsure(given: str) -> str:
        tried.append(1)
        if len(tried) == 1:
            raise ValueError("not yet")
        return f"secret {given}"

    @registry.workflow("order")
    def order(wf: Context, name: str) -> str:
        wf.execute("pack/v1", unsure, name, retry=RetryPolicy(max_retries=1))
        wf.wait_for_event("paid/v1", "Paid")
        wf.sleep("rest/v1", timedelta(hours=1))
        return f"secret {name}"

    caplog.set_level(logging.DEBUG, logger="flows")
    key = runs.execute(registry, "order", "secret")
    runs.publish(key, "Paid", "secret")
    runs.execute_due(registry)

    records = [each for each in caplog.records if each.levelno == logging.DEBUG]
    said = [re.sub(r"\d+\.\d+", "N", each.getMessage()) for each in records]
    assert said == [
        f"run {key.run_id}: {line}"
        for line in (
            "attempt 1 of order begins, with 0 memos",
            "step 'pack/v1' failed after N ms, try 1: ValueError: not yet",
            "step 'pack/v1' completed after N ms",
            "wait 'paid/v1' is for event 'Paid'",
            "attempt ends after N ms: waiting_event",
            "attempt 1 of order begins, with 2 memos",
            "step 'pack/v1' has its memo",
            "sleep 'rest/v1' has N s to go",
            "attempt ends after N ms: sleeping",
        )
    ]
    mine = ("order", str(key.run_id), 1)
    assert {
        (r.__dict__["workflow"], r.__dict__["run_id"], r.__dict__["attempt"]) for r in records
    } == {mine}
    assert "secret" not in caplog.text


def test_a_worker_tells_when_it_is_ready_and_when_it_has_stopped(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()

    @registry.workflow("order")
    def order(wf: Context) -> None: ...

    caplog.set_level(logging.INFO, logger="flows")
    running = runs.start(registry)
    key = runs.begin("order")
    runs.wait_for(key, "completed")
    worker = running.worker.worker_id
    running.stop()
    said = [record.getMessage() for record in caplog.records if record.name == "flows"]
    assert said == [f"worker {worker} ready", f"worker {worker} stopped"]
