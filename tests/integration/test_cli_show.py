"""`flows runs show`: a page for people, JSON for programs."""

from __future__ import annotations

import json
import os
import pty
import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Client, Context, Registry, RunKey, Worker
from flows.clock import StopSignal
from flows.supervisor.exits import ExitCode
from tests.integration.cli_app import Job, priced, registry
from tests.integration.command import flows, refused, start_flows, told
from tests.postgres import new_database
from tests.waiting import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = "demo_0:0190f0f0-0000-7000-8000-000000000000"
PIECES = 90
SHOWN_JOB = {"name": "lamp", "price": "9.50", "count": PIECES}


def work_off(dsn: str) -> None:
    with Worker(registry, dsn) as worker:
        while worker.process_one():
            pass


def begin(dsn: str, workflow: Any, value: Any = None) -> RunKey:
    with psycopg.connect(dsn) as connection:
        return Client().begin_tx(connection, workflow, value)


@pytest.fixture(scope="module")
def shared_dsn(server_dsn: str, migrated_template: str) -> Iterator[str]:
    """A database for tests that look at nothing but runs of their own."""
    with new_database(server_dsn, template=migrated_template) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def completed(shared_dsn: str) -> RunKey:
    """A run that has used every primitive and is over."""
    key = begin(shared_dsn, priced, Job("lamp", Decimal("9.50"), PIECES))
    work_off(shared_dsn)
    with psycopg.connect(shared_dsn) as connection:
        Client().publish_event_tx(connection, key, "Answer", 42)
    work_off(shared_dsn)
    return key


def page(dsn: str, key: RunKey) -> list[str]:
    """Return the page, with every time and duration as `~`."""
    text = told("runs", "show", str(key), "--dsn", dsn)
    assert "\x1b" not in text
    folded, _, _ = text.partition("\nTraceback")
    assert max(map(len, folded.splitlines())) <= 80
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", "~", text)
    return re.sub(r"\d+(\.\d)? m?s\b", "~", text).splitlines()


def test_a_page_tells_what_the_run_is_and_what_happened_in_it(
    shared_dsn: str, completed: RunKey
) -> None:
    lines = page(shared_dsn, completed)
    assert lines[:5] == [
        str(completed),
        "status    completed",
        "begun     ~",
        "started   ~, after ~",
        "finished  ~, after ~",
    ]
    values = " ".join(" ".join(lines[5 : lines.index("")]).split())
    given, _, returned = values.partition(" output ")
    assert json.loads(given.removeprefix("input ")) == SHOWN_JOB
    assert {**json.loads(returned), "salt": 0} == {
        "answer": 42,
        "pieces": PIECES,
        "raw": "AP8=",
        "salt": 0,
    }
    table = [" ".join(line.split()) for line in lines[lines.index("") + 1 :]]
    assert table[0] == "at what status tries took key and value"
    happened = [line for line in table if line.startswith("+")]
    assert happened == [
        "+~ step completed 2 ~ order/v1",
        "+~ sleep satisfied ~ rest/v1",
        "+~ uuid uid/v1",
        "+~ uint64 salt/v1",
        "+~ wait satisfied ~ answer/v1 for Answer",
        "+~ event Answer",
    ]
    assert '["piece 0", "piece 1",' in " ".join(table)
    assert "whole with --json)" in " ".join(table)
    assert table[-1] == "42"


def test_steps_stand_in_their_order_however_late_they_are_written(shared_dsn: str) -> None:
    registry = Registry()

    @registry.workflow("slow")
    def slow(wf: Context) -> None:
        # From here on everything is written together, at the end.
        wf.tx.execute("SELECT 1")
        wf.execute("z, the first/v1", lambda: 1)
        wf.execute("m, which takes longer/v1", lambda: StopSignal().wait(0.2))
        wf.execute("a, the last/v1", lambda: 3)

    key = begin(shared_dsn, slow)
    with Worker(registry, shared_dsn) as worker:
        assert worker.process_one()
    run = json.loads(told("runs", "show", str(key), "--json", "--dsn", shared_dsn))
    assert [step["key"][0] for step in run["steps"]] == ["z", "m", "a"]
    first, longer, last = run["steps"]
    assert longer["seconds"] >= 0.2
    assert max(first["seconds"], last["seconds"]) < 0.2
    began = [datetime.fromisoformat(step["started_at"]) for step in run["steps"]]
    assert began[2] - began[1] >= timedelta(seconds=longer["seconds"])
    assert began[0] >= datetime.fromisoformat(run["started_at"])


def test_the_json_has_everything_in_full(shared_dsn: str, completed: RunKey) -> None:
    run = json.loads(told("runs", "show", str(completed), "--json", "--dsn", shared_dsn))
    assert run["run_key"] == str(completed)
    assert (run["status"], run["attempts"], run["crashes"]) == ("completed", 0, 0)
    assert run["created_at"] <= run["started_at"] <= run["finished_at"] <= run["read_at"]
    assert run["input"] == {
        "codec": "msgpack",
        "size": 29,
        "value": SHOWN_JOB,
        "undecodable": None,
    }
    (step,) = run["steps"]
    assert (step["key"], step["status"], step["attempts"]) == ("order/v1", "completed", 2)
    assert step["output"]["value"] == [f"piece {number}" for number in range(PIECES)]
    assert (step["input"]["value"], step["error"]) == (PIECES, None)
    assert [wait["type"] for wait in run["waits"]] == ["sleep", "event"]
    assert run["waits"][1]["payload"]["value"] == 42
    assert [event["name"] for event in run["events"]] == ["Answer"]
    uid, salt = run["random"]
    assert (uid["kind"], uid["value"][14]) == ("uuidv7", "7")
    assert salt["value"] == run["output"]["value"]["salt"]


def test_a_number_is_shown_as_the_workflow_saw_it_not_as_its_column_keeps_it(
    shared_dsn: str,
) -> None:
    key = begin(shared_dsn, "demo")
    with psycopg.connect(shared_dsn) as connection:
        connection.execute(
            "INSERT INTO flows.random (workflow_name_shard, run_id, rand_key, kind, value_bigint)"
            " VALUES (%s, %s, 'salt', 'uint64', -1)",
            key,
        )
    run = json.loads(told("runs", "show", str(key), "--json", "--dsn", shared_dsn))
    assert run["random"][0]["value"] == 2**64 - 1


def test_a_failed_run_is_shown_with_its_whole_error_made_harmless(shared_dsn: str) -> None:
    key = begin(shared_dsn, "rejecting", "it")
    work_off(shared_dsn)
    lines = page(shared_dsn, key)
    assert lines[1:3] == ["status    failed", "attempts  1 failed"]
    assert r"ValueError: not \x1b[2J this: it" in lines
    assert "Traceback (most recent call last):" in lines
    assert re.search(r"\+~ +step +failed +1 +~ +reject/v1", "\n".join(lines))


def test_a_sleeping_run_is_shown_with_the_time_it_wakes(shared_dsn: str) -> None:
    key = begin(shared_dsn, "resting")
    work_off(shared_dsn)
    lines = page(shared_dsn, key)
    assert lines[1] == "status   sleeping"
    assert "wakes    ~, in 1 d 6 h" in lines
    assert lines[-1].strip() == "~, in 1 d 6 h"
    assert re.search(r"\+~ +sleep +open +long/v1", lines[-2])


def test_a_waiting_run_and_its_open_wait_are_shown(shared_dsn: str) -> None:
    key = begin(shared_dsn, "asking")
    work_off(shared_dsn)
    lines = page(shared_dsn, key)
    assert lines[1] == "status   waiting_event"
    assert re.search(r"\+~ +wait +open +answer/v1 for Answer", lines[-1])


def test_a_running_run_is_shown_with_its_process(shared_dsn: str) -> None:
    key = begin(shared_dsn, "demo")
    with psycopg.connect(shared_dsn) as connection:
        connection.execute(
            "WITH w AS (INSERT INTO flows.workers"
            " (worker_id, workflow_names, host, pid, lease_expires_at)"
            " VALUES (gen_random_uuid(), '{demo}', 'far.example', 77, now()) RETURNING worker_id)"
            " UPDATE flows.runs SET status = 'running', worker_id = w.worker_id FROM w"
            " WHERE run_id = %s",
            (key.run_id,),
        )
    assert "worker  process 77 on far.example" in page(shared_dsn, key)


def test_a_payload_that_cannot_be_decoded_here_is_told_by_its_size(shared_dsn: str) -> None:
    key = begin(shared_dsn, "demo")
    with psycopg.connect(shared_dsn) as connection:
        connection.execute(
            "UPDATE flows.runs SET input_json = NULL, input_bytes = '\\x0102', codec = 'theirs'"
            " WHERE run_id = %s",
            (key.run_id,),
        )
        connection.execute(
            "INSERT INTO flows.events"
            " (workflow_name_shard, run_id, event_name, payload_bytes, codec)"
            " VALUES (%s, %s, 'Broken', '\\xc1', 'msgpack')",
            key,
        )
    words = " ".join(" ".join(page(shared_dsn, key)).split())
    assert "input 2 bytes written by codec 'theirs': no codec of that name is registered" in words
    assert "Broken 1 byte written by codec 'msgpack': codec 'msgpack' cannot decode" in words
    run = json.loads(told("runs", "show", str(key), "--json", "--dsn", shared_dsn))
    assert (run["input"]["codec"], run["input"]["size"]) == ("theirs", 2)
    assert run["input"]["undecodable"] == "no codec of that name is registered here"
    assert "msgpack" in run["events"][0]["payload"]["undecodable"]


def test_a_run_that_is_not_there_is_refused(shared_dsn: str) -> None:
    code, error = refused("runs", "show", NOBODY, "--dsn", shared_dsn)
    assert (code, error) == (ExitCode.FAILED, f"no run {NOBODY} in the database of --dsn\n")
    done = flows("runs", "show", NOBODY, "--dsn", shared_dsn, "--debug")
    assert "Traceback" in done.stderr
    assert done.stderr.endswith(f"flows: error: {error}")


@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_gets_its_width_and_colours_unless_it_wants_none(
    shared_dsn: str, completed: RunKey, colour: bool
) -> None:
    master, slave = pty.openpty()
    env = {"TERM": "xterm", "COLUMNS": "60", **({} if colour else {"NO_COLOR": "1"})}
    process = start_flows(
        "runs", "show", str(completed), "--dsn", shared_dsn, stdout=slave, env=env
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            shown += os.read(master, 65536)
        except OSError:  # what Linux says when the other end has gone
            break
    os.close(master)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == ExitCode.OK
    text = shown.decode()
    assert ("\x1b[32mcompleted" in text) is colour
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert plain[0] == str(completed)
    assert 50 < max(len(line.rstrip()) for line in plain[1:]) <= 60


def test_characters_that_stdout_has_not_are_written_as_escapes(shared_dsn: str) -> None:
    key = begin(shared_dsn, "demo", "漢")
    env = {"PYTHONIOENCODING": "ascii"}
    shown = told("runs", "show", str(key), "--dsn", shared_dsn, env=env)
    assert r'input   "\u6f22"' in shown.splitlines()


def test_a_queued_run_says_why_it_is_not_running(shared_dsn: str) -> None:
    first, second = begin(shared_dsn, "unheard"), begin(shared_dsn, "unheard")
    lines = page(shared_dsn, second)
    assert "why     queued behind 1 run of its shard due before it; 0 being executed" in lines
    assert "        no live worker executes workflow 'unheard': start one" in lines
    run = json.loads(told("runs", "show", str(first), "--json", "--dsn", shared_dsn))
    assert run["why"][0] == "it is the next of its shard; 0 being executed"
