"""The files in examples/deploy and examples/citus name options and commands that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from flows.cli import cli

DEPLOY = Path(__file__).resolve().parents[1] / "examples" / "deploy"
UNIT = (DEPLOY / "flows.service").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = (DEPLOY / "compose.yaml").read_text()
CITUS_COMPOSE = (DEPLOY.parent / "citus" / "compose.yaml").read_text()


def commands() -> list[list[str]]:
    """Return every command line of flows that the files run."""
    lines = [
        line.partition("=")[2].split() for line in UNIT.splitlines() if line.startswith("Exec")
    ]
    lines += [json.loads(each) for each in re.findall(r"CMD (\[.*\])", DOCKERFILE)]
    lines += [json.loads(each) for each in re.findall(r"command: (\[.*\])", COMPOSE)]
    lines += [json.loads(each) for each in re.findall(r'command: (\["flows".*\])', CITUS_COMPOSE)]
    return lines


@pytest.mark.parametrize("line", commands(), ids=" ".join)
def test_each_command_and_option_exists(line: list[str]) -> None:
    program, name, *arguments = line
    assert Path(program).name == "flows"
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    command.make_context(name, arguments, obj={})


def test_there_are_commands_in_each_file() -> None:
    assert [line[1] for line in commands()] == [
        "supervise",
        "reload",
        "supervise",
        "status",
        "migrate",
        "migrate",
        "supervise",
    ]


def test_stopping_is_given_more_time_than_attempts_are() -> None:
    grace = float(re.search(r"--grace (\d+)", UNIT)[1])  # type: ignore[index]
    assert float(re.search(r"TimeoutStopSec=(\d+)", UNIT)[1]) > grace + 12  # type: ignore[index]
    assert float(re.search(r"stop_grace_period: (\d+)s", COMPOSE)[1]) > 30 + 12  # type: ignore[index]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    # What does not exist here is put in the place of what does not exist here.
    unit = UNIT.replace("/srv/shop/.venv/bin/flows", "/bin/true").replace("User=shop\n", "")
    path = tmp_path / "flows.service"
    path.write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert "flows.service" not in done.stderr, done.stderr
