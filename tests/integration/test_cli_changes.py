"""`flows runs cancel`, `retry` and `fork`: one run by its key, many by a filter."""

from __future__ import annotations

import os
import pty
import signal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, Registry, RunKey
from flows.cli.run_changes import BATCH
from flows.supervisor.exits import ExitCode
from tests.integration.command import flows, refused, start_flows, told
from tests.waiting import DEADLINE_S, wait_for_lock_wait

if TYPE_CHECKING:
    from tests.running import Runs

NOBODY = "demo_0:0190f0f0-0000-7000-8000-000000000000"


def statuses(runs: Runs) -> dict[str, int]:
    return dict(runs.rows("SELECT status, count(*) FROM flows.runs GROUP BY status"))


def many(runs: Runs, count: int, status: str, workflow: str = "demo") -> list[RunKey]:
    keys = runs.client.begin_many_tx(runs.connection, workflow, [None] * count)
    runs.connection.execute(
        "UPDATE flows.runs SET status = %s, error_text = 'ValueError: why' WHERE run_id = ANY(%s)",
        (status, [key.run_id for key in keys]),
    )
    return keys


class Unsure:
    """A workflow of three steps, the second of which fails until it is mended."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.is_mended = False
        self.registry = Registry()
        self.registry.workflow("unsure")(self.run)

    def step(self, name: str) -> str:
        self.calls.append(name)
        if name == "second" and not self.is_mended:
            raise ValueError("not mended")
        return name

    def run(self, wf: Context, salt: int) -> list[Any]:
        first = wf.execute("first/v1", self.step, "first")
        number = wf.random_uint64("number/v1")
        answer = wf.wait_for_event("answer/v1", "Answer", int)
        second = wf.execute("second/v1", self.step, "second")
        third = wf.execute("third/v1", self.step, "third")
        return [salt, first, number, answer, second, third]


def failed_unsure(runs: Runs, unsure: Unsure) -> RunKey:
    key = runs.execute(unsure.registry, "unsure", 5)
    runs.publish(key, "Answer", 42)
    runs.execute_due(unsure.registry)
    assert runs.status(key).status == "failed"
    assert unsure.calls == ["first", "second"]
    return key


def test_a_failed_run_is_tried_again_from_the_step_that_failed(runs: Runs) -> None:
    unsure = Unsure()
    key = failed_unsure(runs, unsure)
    assert told("runs", "retry", str(key), "--dsn", runs.dsn) == "1 queued again\n"
    assert runs.status(key)[:3] == ("queued", None, 0)
    unsure.is_mended = True
    runs.execute_due(unsure.registry)
    assert unsure.calls == ["first", "second", "second", "third"]
    assert runs.output(key)[0] == 5
    assert runs.output(key)[3:] == [42, "second", "third"]


def test_a_run_whose_deadline_and_crashes_failed_it_gets_new_ones(runs: Runs) -> None:
    (key,) = many(runs, 1, "failed")
    runs.connection.execute(
        "UPDATE flows.runs SET crashes = 3, started_at = now() - interval '1 day',"
        " deadline = now() - interval '1 hour', finished_at = now()"
    )
    told("runs", "retry", str(key), "--dsn", runs.dsn)
    row = runs.rows("SELECT crashes, is_suspect, started_at, deadline, finished_at FROM flows.runs")
    assert row == [(0, True, None, None, None)]


def test_a_cancelled_run_that_is_tried_again_is_not_cancelled_once_more(runs: Runs) -> None:
    registry = Registry()
    registry.workflow("demo")(lambda wf: None)
    (key,) = many(runs, 1, "cancelled")
    runs.connection.execute(
        "INSERT INTO flows.cancellations (workflow_name_shard, run_id) VALUES (%s, %s)", key
    )
    told("runs", "retry", str(key), "--dsn", runs.dsn)
    runs.execute_due(registry)
    assert runs.status(key).status == "completed"


def test_a_fork_has_what_was_done_before_the_step_and_nothing_else(runs: Runs) -> None:
    unsure = Unsure()
    key = failed_unsure(runs, unsure)
    told("runs", "retry", str(key), "--dsn", runs.dsn)
    unsure.is_mended = True
    runs.execute_due(unsure.registry)
    unsure.calls.clear()
    done = flows("runs", "fork", str(key), "--from-step", "second/v1", "--dsn", runs.dsn)
    assert done.stderr == "flows: steps that are not executed again: first/v1\n"
    forked = RunKey.parse(done.stdout.strip())
    assert forked != key
    runs.execute_due(unsure.registry)
    assert unsure.calls == ["second", "third"]
    assert runs.output(forked) == runs.output(key)
    assert "before" in told("runs", "show", str(forked), "--dsn", runs.dsn)


def test_steps_of_one_commit_are_forked_in_their_order(runs: Runs) -> None:
    registry = Registry()
    calls: list[int] = []

    @registry.workflow("quick")
    def quick(wf: Context) -> None:
        for number in range(12):
            wf.execute(f"step-{11 - number}/v1", calls.append, number)

    key = runs.execute(registry, quick)
    calls.clear()
    done = flows("runs", "fork", str(key), "--from-step", "step-4/v1", "--dsn", runs.dsn)
    assert done.returncode == 0, done.stderr
    runs.execute_due(registry)
    assert calls == [7, 8, 9, 10, 11]


def test_a_fork_from_the_first_step_draws_its_random_values_anew_or_again(runs: Runs) -> None:
    unsure = Unsure()
    key = failed_unsure(runs, unsure)
    unsure.is_mended = True
    unsure.calls.clear()
    forked = RunKey.parse(
        flows("runs", "fork", str(key), "--from-step", "first/v1", "--dsn", runs.dsn).stdout.strip()
    )
    runs.execute_due(unsure.registry)
    assert unsure.calls == ["first"], "the event came after the first step"
    runs.publish(forked, "Answer", 43)
    runs.execute_due(unsure.registry)
    assert runs.output(forked)[3] == 43


def test_a_fork_from_a_step_that_is_not_there_names_those_that_are(runs: Runs) -> None:
    key = failed_unsure(runs, Unsure())
    code, error = refused("runs", "fork", str(key), "--from-step", "none/v1", "--dsn", runs.dsn)
    assert code == ExitCode.FAILED
    assert error == f"run {key} has no step 'none/v1'; its steps: 'first/v1', 'second/v1'\n"
    code, error = refused("runs", "fork", NOBODY, "--from-step", "none/v1", "--dsn", runs.dsn)
    assert (code, error) == (ExitCode.FAILED, f"no run {NOBODY} in the database of --dsn\n")


def test_a_run_is_cancelled_by_its_key(runs: Runs) -> None:
    (key,) = many(runs, 1, "sleeping")
    assert told("runs", "cancel", str(key), "--dsn", runs.dsn) == "1 cancelled\n"
    assert runs.status(key).status == "cancelled"
    code, error = refused("runs", "cancel", str(key), "--dsn", runs.dsn)
    assert (code, error) == (
        ExitCode.FAILED,
        f"run {key} is cancelled: it cannot be cancelled\n",
    )
    code, error = refused("runs", "cancel", NOBODY, "--dsn", runs.dsn)
    assert (code, error) == (ExitCode.FAILED, f"no run {NOBODY} in the database of --dsn\n")


def test_a_run_that_is_executed_is_asked_to_end_and_not_waited_for(runs: Runs) -> None:
    keys = many(runs, 2, "running")
    with psycopg.connect(runs.dsn) as attempt:
        # FOR NO KEY UPDATE is what an attempt holds; a key share passes it.
        attempt.execute(
            "SELECT 1 FROM flows.runs WHERE workflow_name_shard = %s AND run_id = %s"
            " FOR NO KEY UPDATE",
            keys[0],
        )
        said = told("runs", "cancel", "--workflow", "demo", "--yes", "--dsn", runs.dsn)
    assert said == "0 cancelled, 2 being executed asked to end\n"
    assert runs.rows("SELECT count(*) FROM flows.cancellations") == [(2,)]


def test_many_runs_are_changed_by_a_filter_in_batches(runs: Runs) -> None:
    many(runs, BATCH * 2 + 7, "failed")
    others = many(runs, 3, "failed", "other")
    completed = many(runs, 2, "completed")
    said = told("runs", "retry", "--workflow", "demo", "--yes", "--dsn", runs.dsn)
    assert said == f"{BATCH * 2 + 7} queued again\n"
    assert {runs.status(key).status for key in others} == {"failed"}
    assert {runs.status(key).status for key in completed} == {"completed"}
    said = told("runs", "cancel", "--newer-than", "1h", "--yes", "--dsn", runs.dsn)
    assert said == f"{BATCH * 2 + 7} cancelled\n"
    assert statuses(runs) == {"cancelled": BATCH * 2 + 7, "failed": 3, "completed": 2}
    said = told("runs", "cancel", "--newer-than", "1h", "--yes", "--dsn", runs.dsn)
    assert said == "no run is chosen\n"


def test_many_runs_are_not_changed_without_being_asked(runs: Runs) -> None:
    many(runs, 3, "queued")
    code, error = refused("runs", "cancel", "--workflow", "demo", "--dsn", runs.dsn)
    assert (code, error) == (ExitCode.FAILED, "this would cancel 3 runs; give --yes\n")
    assert statuses(runs) == {"queued": 3}


@pytest.mark.parametrize(("answer", "status"), [(b"n\n", "queued"), (b"y\n", "cancelled")])
def test_a_person_at_a_terminal_is_asked(runs: Runs, answer: bytes, status: str) -> None:
    many(runs, 3, "queued")
    master, slave = pty.openpty()
    from subprocess import Popen  # noqa: PLC0415

    from tests.integration.command import FLOWS  # noqa: PLC0415

    command = [*FLOWS, "runs", "cancel", "--workflow", "demo", "--dsn", runs.dsn]
    with Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as process:
        os.close(slave)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(master, 4096)
        assert b"cancel 3 runs?" in shown
        os.write(master, answer)
        try:
            while True:
                os.read(master, 4096)
        except OSError:  # what Linux says when the other end has gone
            pass
        assert process.wait(DEADLINE_S) == (0 if status == "cancelled" else ExitCode.FAILED)
    os.close(master)
    assert statuses(runs) == {status: 3}


def test_ctrl_c_ends_between_batches_and_says_how_far_it_got(runs: Runs) -> None:
    keys = many(runs, BATCH * 3, "failed")
    newest_of_the_second_batch = sorted(keys, key=lambda key: key.run_id)[BATCH * 2 - 1]
    # The second batch waits for this when it forgets what was asked of its runs.
    runs.connection.execute(
        "INSERT INTO flows.cancellations (workflow_name_shard, run_id) VALUES (%s, %s)",
        newest_of_the_second_batch,
    )
    with psycopg.connect(runs.dsn) as holder:
        holder.execute(
            "SELECT 1 FROM flows.cancellations WHERE workflow_name_shard = %s FOR UPDATE",
            (keys[0].workflow_name_shard,),
        )
        process = start_flows("runs", "retry", "--workflow", "demo", "--yes", "--dsn", runs.dsn)
        wait_for_lock_wait(runs.dsn)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == ExitCode.INTERRUPTED
    assert out == b""
    assert err.decode() == (
        f"flows: ended early: {BATCH * 2} queued again of {BATCH * 3}; the others are as they were;"
        " the same command goes on with them\n"
    )
    assert statuses(runs) == {"queued": BATCH * 2, "failed": BATCH}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give the keys of runs, or options that choose runs: such as --workflow NAME"),
        ([NOBODY, "--workflow", "demo"], "give the keys of runs, or options that choose runs: not"),
        (["--status", "completed"], "runs that are completed cannot be chosen here"),
        (["nonsense"], "'nonsense' is not a run key"),
    ],
)
@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_what_names_no_runs_is_refused(
    runs: Runs, verb: str, arguments: list[str], said: str
) -> None:
    code, error = refused("runs", verb, *arguments, "--dsn", runs.dsn)
    assert code == ExitCode.CONFIG
    assert error.startswith(said)


def test_a_run_that_was_tried_again_stands_behind_those_that_are_due(runs: Runs) -> None:
    (old,) = many(runs, 1, "failed")
    runs.connection.execute("UPDATE flows.runs SET created_at = now() - interval '1 day'")
    young = runs.begin("demo")
    told("runs", "retry", str(old), "--dsn", runs.dsn)
    order = runs.rows("SELECT run_id FROM flows.runs ORDER BY coalesce(next_wake_at, created_at)")
    assert order == [(young.run_id,), (old.run_id,)]
