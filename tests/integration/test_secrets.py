"""Passwords and payloads: not in errors, not in tracebacks, not in logs, not in `ps`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.conninfo import make_conninfo

from flows import Codec, Context, MsgspecCodec, Registry, RetryPolicy, register_codec
from tests.integration.command import flows

if TYPE_CHECKING:
    from tests.running import Runs

SECRET = "s3cr3tOfTheHouse"
APP = "tests.integration.cli_app:registry"
KEY = "asking_0:01988f2e-7d1c-7aa0-9d5e-0a4b1c2d3e4f"
COMMANDS: list[tuple[str, ...]] = [
    ("migrate",),
    ("begin", "asking"),
    ("publish", KEY, "Told"),
    ("runs", "show", KEY),
    ("schedules", "list"),
    ("supervise", APP, "--drain"),
]
BROKEN = {
    "unreachable": f"postgresql://ann:{SECRET}@127.0.0.1:1/shop",
    "no such host": f"host=nowhere.invalid password={SECRET} user=ann",
    "no DSN": f"host=localhost password '{SECRET}",
    "no pair": f"host=localhost password=it {SECRET}",
    "no URL": f"postgresql://ann:{SECRET}%zz@localhost/shop",
    "unknown option": f"postgresql://localhost/shop?{SECRET}=1",
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_errors_and_their_tracebacks_hold_no_password(
    command: tuple[str, ...], fault: str, tmp_path: Any
) -> None:
    dsn = BROKEN[fault]
    done = flows(*command, "--debug", "--dsn", dsn)
    assert done.returncode in (3, 5), done.stderr
    assert "Traceback" in done.stderr or command[0] == "supervise"
    assert SECRET not in done.stdout + done.stderr


def test_what_works_tells_no_password_either(runs: Runs) -> None:
    dsn = make_conninfo(runs.dsn, password=SECRET)
    key = str(runs.begin("asking"))
    for command in (
        ("migrate",),
        ("publish", key, "Answer"),
        ("runs", "show", key),
        ("runs", "show", KEY),
        ("schedules", "list"),
        ("supervise", APP, "--drain", "--only", "asking", "--log-level", "debug"),
    ):
        done = flows(*command, "--debug", env={"FLOWS_DATABASE_URL": dsn})
        assert SECRET not in done.stdout + done.stderr


class ForgetfulCodec(Codec):
    """Says JSON and writes none, which only the database notices."""

    name = "forgetful"
    storage = "jsonb"

    def encode(self, value: Any) -> bytes:
        return f'{{"token": {value}}}'.encode()

    def decode(self, data: Any, type: Any) -> Any:  # noqa: A002  as in the base class
        return bytes(data).decode()


register_codec(ForgetfulCodec())


def test_payloads_are_not_logged_whatever_becomes_of_their_run(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()

    @registry.workflow("keeps")
    def keeps(wf: Context, text: str) -> str:
        wf.execute("step", lambda given: given, text)
        return wf.wait_for_event("wait", "Told", str) + text

    @registry.workflow("fails", codec=MsgspecCodec())
    def fails(wf: Context, text: str) -> None:
        def step(given: str) -> None:
            raise ValueError("nothing is said of what it was given")

        wf.execute("step", step, text, RetryPolicy(max_retries=1))

    @registry.workflow("typed")
    def typed(wf: Context, text: str) -> int:
        return text  # type: ignore[return-value]

    @registry.workflow("forgets", codec=ForgetfulCodec())
    def forgets(wf: Context) -> str:
        return SECRET

    with caplog.at_level(logging.DEBUG):
        key = runs.execute(registry, keeps, SECRET)
        runs.publish(key, "Told", SECRET)
        runs.execute_due(registry)
        assert runs.status(key).status == "completed"
        for workflow in (fails, typed):
            assert runs.status(runs.execute(registry, workflow, SECRET)).status == "failed"
        runs.connection.execute(
            """
            INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status)
            VALUES ('forgets_0', gen_random_uuid(), 'forgets', 'queued')
            """
        )
        runs.execute_due(registry)
    failed = runs.rows("SELECT count(*) FROM flows.runs WHERE status = 'failed'")
    assert failed == [(3,)]
    assert "cannot be recorded" in caplog.text
    assert SECRET not in caplog.text


def test_the_first_line_of_an_exception_is_logged_and_no_more(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()

    @registry.workflow("fails")
    def fails(wf: Context) -> None:
        raise ValueError(f"what is logged\n{SECRET}")

    key = runs.execute(registry, fails)
    assert "ValueError: what is logged" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET in runs.error(key)
