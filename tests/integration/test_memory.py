"""Memory of a worker stays bounded, whatever waits in the queue and however large it is.

A worker process executes small runs first, which makes it claim by the hundred, and then what
is large; its high-water mark tells what that took. `FLOWS_TEST_FULL_SIZE=1` has the sizes of the
last column, which take minutes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.command import ROOT
from tests.waiting import read_line, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.running import Runs

MB = 1 << 20
IS_FULL = bool(os.environ.get("FLOWS_TEST_FULL_SIZE"))
DEADLINE_S = 600.0 if IS_FULL else 100.0

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc"),
    pytest.mark.timeout(900 if IS_FULL else 240),
]


def sized(usual: int, full: int) -> int:
    return full if IS_FULL else usual


class MeasuredWorker:
    """A worker in a process of its own."""

    def __init__(self, runs: Runs, process: subprocess.Popen[bytes]) -> None:
        self._runs = runs
        self._process = process
        self._before = 0

    def high_water(self) -> int:
        """Return the most memory that the process has held so far, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text("ascii")
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def wait_until_idle(self) -> None:
        """Wait until no run is unfinished, and check that none has failed."""
        unfinished = "SELECT 1 FROM flows.runs WHERE finished_at IS NULL LIMIT 1"
        wait_until(
            lambda: not self._runs.rows(unfinished) or self._process.poll() is not None,
            what="all runs have ended",
            timeout_s=DEADLINE_S,
        )
        failed = "SELECT left(error_text, 500) FROM flows.runs WHERE status <> 'completed' LIMIT 1"
        assert self._runs.rows(failed) == []

    def warm_up(self, workflow: str, value: Any) -> None:
        """Have it execute small runs, so many that it claims by the hundred."""
        with self._runs.connection.transaction():
            self._runs.client.begin_many_tx(self._runs.connection, workflow, [value] * 3000)
        self.wait_until_idle()
        self._before = self.high_water()

    def growth(self) -> int:
        """Wait until it is idle, and return how much more memory that has taken, in MB."""
        self.wait_until_idle()
        return (self.high_water() - self._before) // MB


@pytest.fixture
def worker(runs: Runs) -> Iterator[MeasuredWorker]:
    program = Path(__file__).with_name("memory_worker.py")
    with subprocess.Popen(
        [sys.executable, str(program), runs.dsn],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            assert read_line(process.stdout.fileno(), what="the worker is ready") == "ready"
            yield MeasuredWorker(runs, process)
        finally:
            process.kill()


def test_many_large_inputs_wait_in_the_database(runs: Runs, worker: MeasuredWorker) -> None:
    worker.warm_up("swallow", "x")
    count = sized(200, 1000)
    with runs.connection.transaction():
        for _ in range(count // 50):
            runs.client.begin_many_tx(runs.connection, "swallow", ["x" * MB] * 50)
    assert worker.growth() < 100


def test_memos_of_resumed_runs_are_read_one_run_at_a_time(
    runs: Runs, worker: MeasuredWorker
) -> None:
    worker.warm_up("recount", 0)
    steps = sized(2000, 50_000)
    with runs.connection.transaction():
        runs.client.begin_many_tx(runs.connection, "recount", [steps] * sized(40, 20))
        runs.connection.execute("UPDATE flows.runs SET claim = 1 WHERE status = 'queued'")
        runs.connection.execute(
            """
            INSERT INTO flows.steps
                (workflow_name_shard, run_id, step_key, status, input_json, output_json)
            SELECT workflow_name_shard, run_id, 'step/' || number, 'completed', 'null',
                to_jsonb(md5(number::text) || repeat('x', 900))
            FROM flows.runs, generate_series(0, %s - 1) AS number
            WHERE status = 'queued'
            """,
            (steps,),
        )
    # A run's memos are in memory while it is executed, each of them in half a dozen objects.
    assert worker.growth() < 64 + 4 * steps * 1024 // MB


@pytest.mark.parametrize("workflow", ["hoard", "hoard-in-transaction"])
def test_a_run_of_many_steps_holds_their_memos_and_no_more(
    runs: Runs, worker: MeasuredWorker, workflow: str
) -> None:
    worker.warm_up("hoard", [1, 1])
    steps = sized(5000, 50_000)
    key = runs.begin(workflow, [steps, 1000])
    assert worker.growth() < 64 + 6 * steps * 1024 // MB
    assert runs.output(key) == steps * 1000


def test_results_that_come_faster_than_they_are_committed_hold_up_their_makers(
    runs: Runs, worker: MeasuredWorker
) -> None:
    worker.warm_up("emit", 1)
    runs.client.begin_many_tx(runs.connection, "emit", [4 * MB] * sized(50, 400))
    assert worker.growth() < 300


@pytest.mark.parametrize(
    ("workflow", "make"),
    [
        ("carry-text", lambda size: "x" * size),
        ("carry-bytes", lambda size: b"\0\xff" * (size // 2)),
    ],
)
def test_a_large_payload_is_in_memory_a_few_times_and_not_more(
    runs: Runs, worker: MeasuredWorker, workflow: str, make: Callable[[int], Any]
) -> None:
    from tests.integration import memory_worker  # noqa: PLC0415  registers what the process has

    size = sized(32, 200) * MB
    worker.warm_up("swallow", "x")
    # As input, as input and value of a step, and as output.
    runs.begin(memory_worker.registry.get(workflow), make(size))
    assert worker.growth() < 64 + 14 * size // MB


def test_how_many_runs_are_queued_makes_no_difference(runs: Runs, worker: MeasuredWorker) -> None:
    worker.warm_up("swallow", "x")
    count = sized(50_000, 1_000_000)
    runs.connection.execute(
        """
        INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json)
        SELECT 'swallow_0', gen_random_uuid(), 'swallow', 'queued', '"x"'
        FROM generate_series(1, %s)
        """,
        (count,),
    )
    runs.connection.execute("NOTIFY flows_run_wakeup, 'swallow_0'")
    assert worker.growth() < 48
