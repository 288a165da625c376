"""The pytest plugin, as the tests of a project that has installed flows see it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.citus import not_on_citus

pytestmark = not_on_citus("its databases are on one server")

TWICE = """
import psycopg, pytest

open_ones = []

@pytest.mark.parametrize("number", [1, 2])
def test_there_is_a_database(flows_dsn, number):
    with psycopg.connect(flows_dsn) as connection:
        connection.execute("CREATE TABLE mine (n int)")
        assert connection.execute("SELECT count(*) FROM flows.runs").fetchone() == (0,)
    open_ones.append(psycopg.connect(flows_dsn))  # which does not keep the database
"""

UNUSED = """
import sys

def test_nothing_is_imported():
    heavy = {"psycopg", "msgspec", "flows.embedded", "flows.testing", "flows.worker"}
    assert set(sys.modules) & heavy == set()
"""


def run_tests(folder: Path, source: str, *options: str, **variables: str) -> tuple[int, str]:
    """Run tests of a project in a process of their own."""
    (folder / "test_project.py").write_text(source, "utf-8")
    inherited = {name: value for name, value in os.environ.items() if name != "FLOWS_TEST_DSN"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={**inherited, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=90,
    )
    return done.returncode, done.stdout


def databases(dsn: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()


def test_each_test_has_a_database_of_its_own_on_a_server_that_is_given(
    server_dsn: str, tmp_path: Path
) -> None:
    before = databases(server_dsn)
    code, output = run_tests(tmp_path, TWICE, FLOWS_TEST_DSN=server_dsn)
    assert code == 0, output
    assert "2 passed" in output
    option = f"flows_test_dsn={server_dsn}"
    code, output = run_tests(tmp_path, TWICE, "-o", option, FLOWS_PG_BIN=str(tmp_path))
    assert code == 0, output
    assert databases(server_dsn) == before


def test_without_one_a_server_is_started_and_is_gone_afterwards(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code, output = run_tests(tmp_path, TWICE, TMPDIR=str(scratch))
    assert code == 0, output
    assert list(scratch.iterdir()) == []


def test_where_there_is_none_it_says_what_to_do(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code, output = run_tests(tmp_path, TWICE, FLOWS_PG_BIN=str(tmp_path), TMPDIR=str(scratch))
    assert code == 1
    assert list(scratch.iterdir()) == []
    assert "flows_dsn cannot use a server of its own" in output
    assert "A server for tests is named by FLOWS_TEST_DSN" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("dsn", ["postgresql://user:secret@127.0.0.1:1/x", "secret of nobody"])
def test_a_server_that_cannot_be_used_is_told_without_its_password(
    tmp_path: Path, dsn: str
) -> None:
    code, output = run_tests(tmp_path, TWICE, FLOWS_TEST_DSN=dsn)
    assert code == 1
    assert "flows_dsn cannot use the server named by FLOWS_TEST_DSN or flows_test_dsn" in output
    assert "secret" not in output


def test_nobody_who_does_not_ask_for_it_pays(tmp_path: Path) -> None:
    code, output = run_tests(tmp_path, UNUSED)
    assert code == 0, output
