"""What is answered at /metrics, /live and /ready, and to whom."""

from __future__ import annotations

import http.client
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from flows import clock
from flows.config import DBConfig
from flows.metrics import ATTEMPT_SECONDS, BY_NAME, CRASHES, zeros
from flows.supervisor.backlog import Backlog, BacklogWatch
from flows.supervisor.endpoint import Endpoint, _Handler, _Server
from flows.supervisor.measuring import Pulse
from flows.supervisor.messages import Measured, Ready, Standing
from tests.waiting import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

READY = Standing("running", {"demo": {"ready": 1, "broken": 0}})
NOTHING_WAITS = Backlog({"demo": 0}, {"demo": 0.0}, {"demo": 0})


class SeenBacklog(BacklogWatch):
    """A backlog that nobody looks at."""

    def __init__(self, found: Backlog | None = NOTHING_WAITS) -> None:
        super().__init__("", DBConfig(), ())
        self._found = found

    def start(self) -> None:
        """Look at nothing."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def endpoint(listener: socket.socket) -> Endpoint:
    return Endpoint(listener, Pulse(), SeenBacklog())


def values(text: str, parse: Any = text_string_to_metric_families) -> dict[str, dict[str, float]]:
    """Return the values of each family, by name and labels, without the help."""
    return {
        family.name: {
            ",".join([sample.name, *map("=".join, sorted(sample.labels.items()))]): sample.value
            for sample in family.samples
        }
        for family in parse(text)
    }


def test_a_histogram_is_served_as_prometheus_adds_it_up(endpoint: Endpoint) -> None:
    key = (ATTEMPT_SECONDS.name, "demo")
    endpoint.hear(Measured(((key, [1, 0, 2, *[0] * 8, 4, 100.5]),)))
    endpoint.hear(Measured(((key, [1, *[0] * 11, 0.5]),)))
    found = values(endpoint.answer("/metrics").body.decode())["flows_attempt_seconds"]
    assert found["flows_attempt_seconds_bucket,le=0.001,workflow=demo"] == 2
    assert found["flows_attempt_seconds_bucket,le=0.025,workflow=demo"] == 4
    assert found["flows_attempt_seconds_bucket,le=7200.0,workflow=demo"] == 4
    assert found["flows_attempt_seconds_bucket,le=+Inf,workflow=demo"] == 8
    assert found["flows_attempt_seconds_count,workflow=demo"] == 8
    assert found["flows_attempt_seconds_sum,workflow=demo"] == 101


def test_open_metrics_says_the_same_to_those_who_read_it(endpoint: Endpoint) -> None:
    endpoint.hear(READY)
    endpoint.hear(Measured(zeros("demo")))
    endpoint.hear(Measured((((CRASHES.name, "demo"), [2]),)))
    plain = endpoint.answer("/metrics")
    openly = endpoint.answer("/metrics?x=y", "application/openmetrics-text; version=1.0.0")
    assert plain.content_type.startswith("text/plain")
    assert openly.content_type.startswith("application/openmetrics-text")
    assert values(plain.body.decode()) == values(
        openly.body.decode(), openmetrics.text_string_to_metric_families
    )
    assert values(plain.body.decode())["flows_crashes"] == {"flows_crashes_total,workflow=demo": 2}


def test_labels_may_hold_whatever_a_workflow_is_called(endpoint: Endpoint) -> None:
    name = 'a "quoted"\nname \\ with\tall'
    endpoint.hear(Measured((((CRASHES.name, name), [1]),)))
    [family] = [
        each
        for each in text_string_to_metric_families(endpoint.answer("/metrics").body.decode())
        if each.name == "flows_crashes"
    ]
    assert [sample.labels for sample in family.samples] == [{"workflow": name}]


def test_a_database_that_does_not_answer_has_no_queues(listener: socket.socket) -> None:
    endpoint = Endpoint(listener, Pulse(), SeenBacklog(None))
    endpoint.hear(READY)
    found = values(endpoint.answer("/metrics").body.decode())
    assert found["flows_database_up"] == {"flows_database_up": 0}
    assert not {"flows_queue_runs", "flows_queue_oldest_seconds", "flows_schedules_late"} & set(
        found
    )
    assert endpoint.answer("/ready") == (
        503,
        b"the database has not answered\n",
        "text/plain; charset=utf-8",
    )


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        (READY, None),
        (Standing("running", {"demo": {"ready": 2}, "other": {"ready": 0}}), "workflow other: "),
        (Standing("stopping", {"demo": {"ready": 1}}), "the supervisor is stopping\n"),
    ],
)
def test_it_is_ready_while_every_workflow_has_a_process(
    endpoint: Endpoint, standing: Standing, said: str | None
) -> None:
    assert endpoint.answer("/ready").status == 503
    endpoint.hear(standing)
    answer = endpoint.answer("/ready")
    assert answer.status == (200 if said is None else 503)
    assert answer.body.decode().startswith(said or "ready")


@pytest.mark.parametrize(("silent_s", "status"), [(29, 200), (31, 503)])
def test_it_is_live_while_the_loop_of_the_supervisor_runs(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, silent_s: float, status: int
) -> None:
    later_s = clock.monotonic() + silent_s
    monkeypatch.setattr(clock, "monotonic", lambda: later_s)
    assert endpoint.answer("/live").status == status


def test_what_is_not_about_numbers_is_not_heard(endpoint: Endpoint) -> None:
    before = endpoint.answer("/metrics")
    endpoint.hear(Ready())
    assert endpoint.answer("/metrics") == before
    assert before.status == 200


def test_a_client_that_says_nothing_holds_nobody_up(
    endpoint: Endpoint, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long it may say nothing.
    monkeypatch.setattr(_Handler, "timeout", None)
    server = _Server(listener, endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        host, port = listener.getsockname()
        with socket.create_connection((host, port)), socket.create_connection((host, port)) as left:
            left.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            left.close()
            for method, status in (("GET", 200), ("POST", 501)):
                connection = http.client.HTTPConnection(host, port, timeout=DEADLINE_S)
                connection.request(method, "/live")
                assert connection.getresponse().status == status
                connection.close()
    finally:
        server.shutdown()
        thread.join()


def test_every_metric_says_what_it_is() -> None:
    for name, metric in BY_NAME.items():
        assert metric.help.endswith("."), name
        assert name.startswith("flows_")
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert bool(metric.bounds) == (metric.kind == "histogram"), name
        assert list(metric.bounds) == sorted(metric.bounds)
