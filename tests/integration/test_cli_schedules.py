"""`flows schedules`: what it prints, and what it changes."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Client, MsgspecCodec, Registry, Schedule, every, parse_cron
from tests.integration.command import flows, refused, told

if TYPE_CHECKING:
    from flows import Context

registry = Registry()


@registry.workflow("packed", codec=MsgspecCodec())
def packed(wf: Context, n: int) -> int:
    return n


def create(
    dsn: str, name: str, schedule: Schedule, workflow: Any = "report", **options: Any
) -> None:
    with psycopg.connect(dsn) as tx:
        Client().schedule_tx(tx, workflow, 7, name, schedule, **options)


def execute(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_the_list_shows_rule_state_and_what_is_wrong(flows_dsn: str) -> None:
    assert told("schedules", "list", "--dsn", flows_dsn) == "no schedules\n"
    create(flows_dsn, "nightly", parse_cron("30 2 * * *", "Europe/Berlin"))
    create(flows_dsn, "often", every(timedelta(hours=10)), packed)
    create(flows_dsn, "odd", every(timedelta(hours=1)))
    flows("schedules", "pause", "often", "--dsn", flows_dsn)
    execute(
        flows_dsn,
        "UPDATE flows.schedules SET enabled = false, error_text = 'nobody can read it',"
        " last_run_at = now() - interval '2 hours' WHERE schedule_id = 'odd'",
    )
    lines = told("schedules", "list", "--dsn", flows_dsn).splitlines()
    assert lines[0].split() == ["schedule", "workflow", "rule", "state", "next", "last", "run"]
    assert re.fullmatch(
        r"nightly +report +30 2 \* \* \* \(Europe/Berlin\) +on +in .+(h|min|s)( \d+ min)?", lines[1]
    )
    assert re.fullmatch(r"odd +report +@every 1h0m0s +broken +2 h 00 min ago", lines[2])
    assert re.fullmatch(r"often +packed +@every 10h0m0s +paused", lines[3])
    assert lines[4] == "odd: nobody can read it"


def test_one_is_shown_with_its_input_whatever_the_codec(flows_dsn: str) -> None:
    create(
        flows_dsn,
        "often",
        every(timedelta(hours=1)),
        packed,
        run_now=True,
        catch_up="all",
        overlap="skip",
        jitter=timedelta(minutes=3),
    )
    page = told("schedules", "show", "often", "--dsn", flows_dsn)
    for fact in (
        r"workflow +packed",
        r"rule +@every 1h0m0s",
        r"state +on",
        r"next +\d{4}-.+, in (59 min \d\d s|1 h 00 min)",
        r"last run +\d{4}-.+, packed_0:[0-9a-f-]{36}",
        r"missed ticks +all \(at most 100\)",
        r"overlap +skip",
        r"jitter +3 min 00 s",
        r"input +7",
    ):
        assert re.search(f"^{fact}$", page, re.MULTILINE), (fact, page)
    shown = json.loads(told("schedules", "show", "often", "--json", "--dsn", flows_dsn))
    assert (shown["rule"], shown["catch_up"], shown["jitter"]) == ("@every 1h0m0s", "all", 180.0)
    assert shown["input"] == {"codec": "msgpack", "size": 1, "value": 7, "undecodable": None}
    (listed,) = json.loads(told("schedules", "list", "--json", "--dsn", flows_dsn))
    assert {**listed, "read_at": shown["read_at"]} == shown


def test_a_schedule_that_is_due_and_that_nobody_fires_says_why(flows_dsn: str) -> None:
    create(flows_dsn, "often", every(timedelta(hours=1)))
    assert "no live worker" not in told("schedules", "list", "--dsn", flows_dsn)
    due = "UPDATE flows.schedules SET next_run_at = now() - interval '1 second'"
    execute(flows_dsn, due)
    why = "it is due, and no live worker executes workflow 'report': start one"
    assert told("schedules", "list", "--dsn", flows_dsn).splitlines()[2] == f"often: {why}"
    page = told("schedules", "show", "often", "--dsn", flows_dsn)
    assert re.search(rf"^why +{why}$", page, re.MULTILINE), page
    shown = json.loads(told("schedules", "show", "often", "--json", "--dsn", flows_dsn))
    assert shown["why"] == why
    execute(
        flows_dsn,
        "INSERT INTO flows.workers (worker_id, workflow_names, host, pid, lease_expires_at)"
        " VALUES (gen_random_uuid(), '{report}', 'here', 1, now() + interval '1 hour')",
    )
    (listed,) = json.loads(told("schedules", "list", "--json", "--dsn", flows_dsn))
    assert listed["why"] is None


def test_a_preview_shows_the_clock_of_the_zone_across_a_change(flows_dsn: str) -> None:
    create(flows_dsn, "nightly", parse_cron("30 2 * * *", "Europe/Berlin"))
    execute(flows_dsn, "UPDATE flows.schedules SET next_run_at = '2026-03-28 01:30+00'")
    assert told("schedules", "preview", "nightly", "--count", "3", "--dsn", flows_dsn) == (
        "Sat 2026-03-28 02:30:00+0100  2026-03-28T01:30:00Z\n"
        "Sun 2026-03-29 03:00:00+0200  2026-03-29T01:00:00Z\n"
        "Mon 2026-03-30 02:30:00+0200  2026-03-30T00:30:00Z\n"
    )
    flows("schedules", "pause", "nightly", "--dsn", flows_dsn)
    paused = told("schedules", "preview", "nightly", "--count", "1", "--dsn", flows_dsn)
    assert paused.startswith("paused: it would be due\n")


def test_a_preview_of_what_cannot_be_read_says_why(flows_dsn: str) -> None:
    create(flows_dsn, "odd", every(timedelta(hours=1)))
    execute(flows_dsn, "UPDATE flows.schedules SET cron_expr = '0 0 30 2 *'")
    done = flows("schedules", "preview", "odd", "--dsn", flows_dsn)
    assert done.returncode == 1
    assert done.stderr == (
        "flows: error: schedule 'odd' cannot be fired:"
        " cron expression '0 0 30 2 *' never matches: no such date\n"
    )


def test_pause_resume_and_delete(flows_dsn: str) -> None:
    create(flows_dsn, "often", every(timedelta(hours=1)))
    state = "SELECT enabled FROM flows.schedules"
    assert flows("schedules", "pause", "often", "--dsn", flows_dsn).stderr == "paused often\n"
    assert execute(flows_dsn, state) == [(False,)]
    assert flows("schedules", "resume", "often", "--dsn", flows_dsn).stderr == "resumed often\n"
    assert execute(flows_dsn, state) == [(True,)]
    assert flows("schedules", "delete", "often", "--dsn", flows_dsn).stderr == "deleted often\n"
    assert execute(flows_dsn, state) == []


@pytest.mark.parametrize("command", ["show", "preview", "pause", "resume", "delete"])
def test_an_unknown_schedule_is_refused_with_the_way_to_find_it(
    flows_dsn: str, command: str
) -> None:
    done = flows("schedules", command, "nobody", "--dsn", flows_dsn)
    assert done.returncode == 1
    assert done.stderr == (
        "flows: error: no schedule 'nobody' in the database of --dsn; see: flows schedules list\n"
    )


def test_a_count_that_makes_no_sense_is_refused(flows_dsn: str) -> None:
    assert "0 is not in the range" in flows("schedules", "preview", "x", "--count", "0").stderr


def test_without_tables_the_remedy_is_named(dsn: str) -> None:
    assert "flows migrate" in refused("schedules", "list", "--dsn", dsn)[1]
