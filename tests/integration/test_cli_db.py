"""`flows db`, and the commands on the embedded database of the present folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from flows import embedded
from flows.supervisor.exits import ExitCode
from tests.integration.command import flows, refused, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder whose server, if it has one, is stopped at the end."""
    yield tmp_path
    embedded.stop(tmp_path / ".flows" / "pg")


def test_a_project_without_a_database_gets_one_that_start_keeps_and_stop_ends(
    project: Path,
) -> None:
    home = project / ".flows" / "pg"
    code, error = refused("db", "url", cwd=project)
    assert code == ExitCode.DATABASE
    assert error == (
        f"there is no embedded database in {home}\n"
        "go to the folder where it is; flows db start would create an empty one here\n"
    )
    assert told("db", "stop", cwd=project) == f"no server runs in {home}\n"
    assert not home.exists()

    begun = flows("begin", "demo", "1", cwd=project)
    assert (begun.returncode, begun.stderr) == (
        ExitCode.OK,
        f"flows: created the embedded database of {home}\n",
    )
    key = begun.stdout.strip()

    url = told("db", "start", cwd=project)
    assert told("db", "start", cwd=project) == url
    assert told("db", "url", cwd=project) == url
    with psycopg.connect(url.strip()) as connection:
        assert connection.execute("SELECT status FROM flows.runs").fetchall() == [("queued",)]
    assert told("publish", key, "go", cwd=project) == ""
    shown = told("runs", "show", key, cwd=project)
    assert shown.startswith(f"{key}\nstatus  queued\n")
    assert told("migrate", cwd=project).startswith(
        f"schema 'flows' of the embedded database of {home} is up to date"
    )

    assert told("db", "stop", cwd=project) == f"stopped the server of {home}\n"
    code, error = refused("db", "url", cwd=project)
    assert code == ExitCode.DATABASE
    assert error == f"the embedded server of {home} is not running; start it: flows db start\n"
