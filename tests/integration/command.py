"""The command `flows` as a process, with no database in its environment but what a test names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.embedded.database import LISTEN_VARIABLE, VARIABLES
from tests.waiting import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FLOWS", "flows", "refused", "start_flows", "told"]

ROOT = Path(__file__).resolve().parents[2]
FLOWS = [sys.executable, "-c", "from flows.cli import main; main()"]


def start_flows(
    *arguments: str,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stdout: Any = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start the command with pipes for what it reads and says."""
    named = (*VARIABLES, LISTEN_VARIABLE)
    inherited = {name: value for name, value in os.environ.items() if name not in named}
    return subprocess.Popen(
        [*FLOWS, *arguments],
        cwd=cwd,
        # Buffered, as at a shell: what fails late must be told as what fails at once.
        env={**inherited, "COLUMNS": "200", "PYTHONUNBUFFERED": "", **(env or {})},
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def flows(
    *arguments: str,
    stdin: str = "",
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stdout: Any = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    """Run the command and return what it said."""
    process = start_flows(*arguments, cwd=cwd, env=env, stdout=stdout)
    try:
        out, err = process.communicate(stdin.encode(), timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(
        arguments, process.returncode, (out or b"").decode(), err.decode()
    )


def told(*arguments: str, **options: Any) -> str:
    """Run the command, check that it succeeded without a word on stderr, and return stdout."""
    done = flows(*arguments, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(*arguments: str, **options: Any) -> tuple[int, str]:
    """Run the command, check that it told its error properly, and return exit code and error."""
    done = flows(*arguments, **options)
    assert done.returncode != 0
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("flows: error: "), done.stderr
    assert len(lines) <= 2, done.stderr
    return done.returncode, done.stderr.removeprefix("flows: error: ")
