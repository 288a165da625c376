"""The database goes away under a working supervisor: what people are told of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import embedded, migrate
from tests.embedded_processes import project, server_pid
from tests.supervisor.harness import APP, FLOWS, Supervised, begin
from tests.supervisor.test_control import run, status
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

AWAY_S = 6.0
"""Long enough for each thread to have tried to come back several times."""


@pytest.fixture
def home() -> Iterator[Path]:
    with project() as home:
        with embedded.start(home, keep=True) as server, psycopg.connect(server.dsn) as connection:
            migrate(connection)
        yield home


@pytest.fixture
def supervised(home: Path, control: Path, tmp_path: Path) -> Iterator[Supervised]:
    with embedded.start(home, keep=True) as server:
        dsn = server.dsn
    command = [*FLOWS, "supervise", APP, "--dsn", dsn, "--only", "held", "--only", "double"]
    supervised = Supervised([*command, "--control", str(control)], tmp_path)
    supervised.dsn = dsn
    yield supervised
    supervised.end()


def test_a_database_that_is_away_is_told_by_status_and_once_by_each_thread(
    supervised: Supervised, home: Path, control: Path, gate: Path
) -> None:
    for name in ("held", "double"):
        supervised.expect_said(f"worker {name} ready")
    begin(supervised.dsn, "held", str(gate))
    supervised.expect("executing", "held")
    assert status(control)["database_silent_s"] is None
    embedded.stop(home)
    gate.write_text("go")

    def silent() -> dict[str, Any] | None:
        state = status(control)
        return state if (state["database_silent_s"] or 0.0) > AWAY_S else None

    state = wait_until(silent, what="the database has been away for long") or {}
    assert {each["state"] for each in state["processes"]} == {"ready"}
    for page in ("status", "top"):
        shown = run(page, control=control).stdout.splitlines()
        assert re.fullmatch(r"the database has not answered for \d+(\.\d)? s", shown[1])
    with embedded.start(home, keep=True):
        pass
    for thread in ("commit", "claim", "fire schedules"):
        supervised.expect_said(f"can {thread} again, after ")
    wait_until(lambda: status(control)["database_silent_s"] is None, what="it is back")
    wait_until(lambda: supervised.stderr.count("can claim again") == 2, what="both claim")
    said = supervised.stderr
    assert said.count("cannot claim, trying again") == 2
    assert said.count("cannot commit, trying again") == 1
    assert said.count("cannot fire schedules, trying again") == 1
    assert "error ignored terminating" not in said


def test_a_database_that_hangs_is_told_by_status(
    supervised: Supervised, home: Path, control: Path
) -> None:
    supervised.expect_said("worker held ready")
    pid = server_pid(home)
    sessions = [pid, *children_of(pid)]
    for each in sessions:
        os.kill(each, signal.SIGSTOP)
    try:
        wait_until(lambda: status(control)["database_silent_s"], what="status tells it")
        assert "cannot" not in supervised.stderr
    finally:
        for each in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)
    wait_until(lambda: status(control)["database_silent_s"] is None, what="it is back")


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]
