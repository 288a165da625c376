"""Both type checkers accept what users write and refuse what they must not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_tree import ROOT

FOLDER = Path(__file__).resolve().parent
REFUSED_LINES = {
    number
    for number, line in enumerate((FOLDER / "refused.py").read_text("utf-8").splitlines(), 1)
    if "# refused: " in line
}

Findings = dict[str, dict[int, str]]
"""The messages of a type checker, by file and line."""


def run_checker(*command: str) -> str:
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    # 1 says that something was found; anything else, that the checker did not run.
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def findings_of_mypy(files: list[str]) -> Findings:
    found: Findings = {name: {} for name in files}
    output = run_checker("mypy", "--strict", *files)
    for name, line, message in re.findall(r"^(\S+?):(\d+): error: (.*)$", output, re.MULTILINE):
        found.setdefault(name, {})[int(line)] = message
    return found


def findings_of_pyright(files: list[str]) -> Findings:
    found: Findings = {name: {} for name in files}
    # It takes its packages from the Python on PATH, which may be another one.
    options = ("--outputjson", "--pythonpath", sys.executable)
    report = json.loads(run_checker("pyright", *options, *files))
    for diagnostic in report["generalDiagnostics"]:
        name = Path(diagnostic["file"]).relative_to(ROOT).as_posix()
        line = diagnostic["range"]["start"]["line"] + 1
        found.setdefault(name, {})[line] = diagnostic["message"]
    return found


@pytest.fixture(scope="module", params=[findings_of_mypy, findings_of_pyright])
def findings(request: pytest.FixtureRequest) -> Findings:
    found: Findings = request.param(["tests/typing/usage.py", "tests/typing/refused.py"])
    return found


def test_what_users_write_is_accepted_and_its_types_are_inferred(findings: Findings) -> None:
    assert findings["tests/typing/usage.py"] == {}


def test_what_users_must_not_write_is_refused(findings: Findings) -> None:
    refused = findings["tests/typing/refused.py"]
    assert REFUSED_LINES - refused.keys() == set(), "these lines are accepted"
    assert {line: refused[line] for line in refused.keys() - REFUSED_LINES} == {}


def test_what_users_write_runs() -> None:
    # The annotations are resolved when a workflow is registered.
    from tests.typing import usage  # noqa: PLC0415

    assert usage.registry.names() == ("render", "nightly", "demo")
