"""What the command refuses: one clear line or two, and an exit code."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from flows.cli import cli
from flows.cli.errors import run_rendered
from flows.supervisor.exits import ExitCode
from tests.supervisor.harness import APP, FLOWS, ROOT
from tests.waiting import DEADLINE_S

if TYPE_CHECKING:
    from pathlib import Path


def flows(
    *arguments: str, cwd: Path = ROOT, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FLOWS, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "nobody"], "no workflow named 'nobody' is registered"),
        (["--begin", "nobody=1"], "--begin nobody: no such workflow"),
        (["--begin", "double=1", "--only", "report"], "--begin double: no such workflow"),
        (["--begin", "double={"], "--begin double: the input is not JSON"),
        (["--begin", "=1"], "expected NAME=JSON"),
        (["--schema", "no-schema"], "schema 'no-schema' is not a valid identifier"),
        (["--shards", "0"], "shard_count must be from 1"),
        (["--dsn", ""], "--dsn is empty"),
        (["--dsn", "nonsense"], "--dsn: the database's DSN cannot be read"),
    ],
)
def test_a_wrong_option_is_named(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_rendered(cli, ["supervise", APP, *arguments]) == ExitCode.CONFIG
    output = capfd.readouterr().err
    assert said in output
    assert len(output.splitlines()) <= 2


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        ('double="x"', "--begin double: "),
        ("report={}", "--begin report: "),
        ("napping=1", "--begin napping: the workflow takes no input"),
    ],
)
def test_an_input_that_does_not_fit_is_named(begin: str, said: str) -> None:
    done = flows("supervise", APP, "--begin", begin, "--dsn", "postgresql://127.0.0.1:1/nowhere")
    assert done.returncode == ExitCode.CONFIG, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_where_an_error_happened(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("raise ValueError('no way')")
    done = flows("supervise", "app:registry", "--debug", cwd=tmp_path)
    assert done.returncode == ExitCode.CONFIG
    assert "Traceback" in done.stderr
    assert "ValueError: no way" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["supervise", APP, "--grace", "-1"],
        ["supervise", APP, "--grace", "inf"],
        ["supervise", APP, "--grace", "nan"],
        ["supervise", APP, "--poll", "1e9"],
        ["supervise"],
        ["no-such-command"],
    ],
)
def test_options_that_do_not_parse_are_a_matter_of_usage(arguments: list[str]) -> None:
    assert run_rendered(cli, arguments) == ExitCode.USAGE


def test_a_database_without_tables_names_the_command_to_run(dsn: str) -> None:
    done = flows("supervise", APP, "--dsn", dsn)
    assert done.returncode == ExitCode.SCHEMA
    assert "run: flows migrate" in done.stderr
    assert "worker" not in done.stderr


def test_a_database_that_cannot_be_reached_is_told_without_its_password() -> None:
    done = flows("supervise", APP, "--dsn", "postgresql://user:s3cret@127.0.0.1:1/nowhere")
    assert done.returncode == ExitCode.DATABASE
    assert "cannot connect to the database" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_help_loads_no_command() -> None:
    program = (
        "import sys; from flows.cli import cli;"
        " cli.main(['--help'], standalone_mode=False);"
        " assert not [name for name in sys.modules if name.startswith('flows.cli.')"
        "             and name not in ('flows.cli.errors', 'flows.cli.options')];"
        " assert 'rich' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "supervise" in done.stdout


def test_threads_that_the_import_has_started_are_named(tmp_path: Path, flows_dsn: str) -> None:
    (tmp_path / "app.py").write_text(
        "import threading\nfrom flows.registry import Registry\n"
        "registry = Registry()\n"
        "@registry.workflow('one')\n"
        "def one(wf): return 1\n"
        "threading.Thread(target=threading.Event().wait, name='sampler', daemon=True).start()\n"
    )
    done = flows("supervise", "app:registry", "--drain", "--dsn", flows_dsn, cwd=tmp_path)
    assert done.returncode == ExitCode.OK, done.stderr
    assert "has started the thread sampler, which no worker will have" in done.stderr
