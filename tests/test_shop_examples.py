"""The web services of examples/shop take orders once, and the orders are shipped."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from examples.shop import registry
from flows import RunKey, Worker
from tests.source_tree import ROOT
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNKNOWN = "ship_0:0198c0de-7a11-7f00-8000-000000000000"


def order_and_pay(ask: Callable[..., tuple[int, Any]], dsn: str) -> None:
    """Use the service as a customer does, and work the run.

    Args:
        ask: sends a request, given method, path, body and idempotency key; returns status and
            answer.
        dsn: the service's database.
    """
    status, placed = ask("POST", "/orders", {"item": "lamp"}, "1")
    assert status == 201
    assert ask("POST", "/orders", {"item": "lamp"}, "1") == (201, placed)
    assert ask("POST", "/orders", {"item": "chair"}, "2") != (201, placed)
    path = f"/orders/{placed['order']}"
    waiting = {"item": "lamp", "state": "placed", "run": "queued"}
    assert ask("GET", path) == (200, waiting)
    assert ask("POST", f"{path}/payment", {"amount": 12})[0] == 204
    with Worker(registry, dsn) as worker:
        while worker.process_one():
            pass
    assert ask("GET", path) == (200, {"item": "lamp", "state": "sent", "run": "completed"})
    assert RunKey.parse(placed["order"]).workflow_name == "ship"
    assert ask("GET", f"/orders/{UNKNOWN}")[0] == 404
    assert ask("POST", f"/orders/{UNKNOWN}/payment", {"amount": 1})[0] == 404
    assert ask("POST", "/orders/nonsense/payment", {"amount": 1})[0] == 404


def test_the_service_of_fastapi(flows_dsn: str) -> None:
    command = [sys.executable, "-m", "uvicorn", "examples.shop.with_fastapi:app"]
    with (
        tempfile.TemporaryDirectory() as folder,
        running([*command, "--uds", f"{folder}/socket"], flows_dsn),
        httpx.Client(
            transport=httpx.HTTPTransport(uds=f"{folder}/socket"), base_url="http://shop"
        ) as service,
    ):

        def ask(
            method: str, path: str, body: Any = None, key: str | None = None
        ) -> tuple[int, Any]:
            headers = {"Idempotency-Key": key} if key else {}
            answer = service.request(method, path, json=body, headers=headers)
            return answer.status_code, answer.json() if answer.content else None

        wait_until(lambda: accepts(Path(folder, "socket")), what="the service listens")
        order_and_pay(ask, flows_dsn)


def accepts(path: Path) -> bool:
    """Tell whether a socket takes connections: it is there a moment before it does."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextlib.contextmanager
def running(command: list[str], dsn: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Have a service run, and end as asked in the end."""
    environment = {**os.environ, "FLOWS_DATABASE_URL": dsn}
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


DJANGO = """
import json, sys
from examples.shop.with_django import settings
from django.test import Client
service = Client()
for line in sys.stdin:
    method, path, body, key = json.loads(line)
    headers = {"Idempotency-Key": key} if key else {}
    answer = service.generic(method, path, json.dumps(body), headers=headers)
    print(json.dumps([answer.status_code, answer.json() if answer.content else None]), flush=True)
"""


def test_the_service_of_django(flows_dsn: str) -> None:
    # A process of its own: Django has one configuration in each.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running([sys.executable, "-c", DJANGO], flows_dsn, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(
            method: str, path: str, body: Any = None, key: str | None = None
        ) -> tuple[int, Any]:
            stdin.write(json.dumps([method, path, body, key]) + "\n")
            stdin.flush()
            status, answer = json.loads(stdout.readline())
            return status, answer

        order_and_pay(ask, flows_dsn)
