"""The gate can fail: its tools see the mapped folders, and no process escapes it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_tree import ROOT, copy_sources, in_checkout
from tests.waiting import wait_until_gone

NO_ORPHANS = ROOT / ".ci" / "no_orphans.py"
TOOLS = Path(sys.executable).parent

# One fault for each kind of tool: a type that does not fit, a name that is not used.
FAULT = '''"""A fault."""

import shutil

count: int = "three"
'''

CHECKED = [
    "benchmarks/__init__.py",
    "examples/__init__.py",
    "flows/__init__.py",
    "flows/codecs/__init__.py",
    "flows/supervisor/__init__.py",
    "tests/typing/usage.py",
]
LINKED = ("flows/codecs", "flows/supervisor")

# Starts a process that leaves its session and its parent, as a daemon does, and says its pid.
DAEMON = """
import os, signal
if os.fork() == 0:
    os.setsid()
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        os._exit(0)
    signal.pause()
os.wait()
raise SystemExit(int(os.environ["CODE"]))
"""

on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux has child subreapers"
)


def run_tool(*command: str, cwd: Path) -> str:
    """Run a linter over a tree with faults, check that it objects, and return its output."""
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(
        [str(TOOLS / command[0]), *command[1:]],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def faulty_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("faulty")
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name in [*CHECKED, "codecs/__init__.py", "supervisor/__init__.py"]:
        if not name.startswith(LINKED):
            (tree / name).parent.mkdir(parents=True)
            (tree / name).write_text(FAULT, "utf-8")
    for folder in ("codecs", "supervisor"):
        (tree / "flows" / folder).symlink_to(Path("..", folder))
    return tree


def test_mypy_checks_every_folder_and_the_mapped_ones_once(faulty_tree: Path) -> None:
    output = run_tool("mypy", cwd=faulty_tree)
    faults = re.findall(r"^(\S+?):\d+: error:.*\[assignment\]$", output, re.MULTILINE)
    assert sorted(faults) == CHECKED


def test_pyright_checks_every_folder_and_the_mapped_ones_once(faulty_tree: Path) -> None:
    output = run_tool("pyright", cwd=faulty_tree)
    faults = re.findall(rf"^ +{faulty_tree}/(\S+?):\d+:\d+ - error:", output, re.MULTILINE)
    assert sorted(faults) == CHECKED


def test_ruff_checks_every_folder_and_the_mapped_ones_once(faulty_tree: Path) -> None:
    output = run_tool("ruff", "check", "--output-format=concise", "--no-cache", cwd=faulty_tree)
    faults = re.findall(r"^(\S+?):\d+:\d+: F401", output, re.MULTILINE)
    assert sorted(faults) == sorted(
        name.removeprefix("flows/") if name.startswith(LINKED) else name for name in CHECKED
    )


@in_checkout
@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("codecs/__init__.py", "from flows import clock"),
        ("supervisor/__init__.py", "from flows.cli import main"),
        ("flows/clock.py", "from flows import retry"),
        ("flows/newcomer.py", "from flows import errors"),
    ],
)
def test_an_import_against_the_layers_is_found(tmp_path: Path, file: str, fault: str) -> None:
    copy_sources(tmp_path)
    with (tmp_path / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{fault}\n")
    output = run_tool("lint-imports", "--no-cache", cwd=tmp_path)
    module = "flows." + file.removeprefix("flows/").removesuffix(".py").removesuffix("/__init__")
    assert module in output


def run_no_orphans(code: int, program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(NO_ORPHANS), "0.2", sys.executable, "-c", program]
    environment = {**os.environ, "CODE": str(code)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@on_linux
@pytest.mark.parametrize(("code", "expected"), [(0, 1), (5, 5)])
def test_a_process_that_outlives_the_tests_is_named_and_killed(code: int, expected: int) -> None:
    done = run_no_orphans(code, DAEMON)
    pid = int(done.stdout)
    assert f"left running: {pid} {sys.executable}" in done.stderr
    assert done.returncode == expected
    wait_until_gone(pid, what="the process left behind")


@on_linux
@pytest.mark.parametrize("code", [0, 5])
def test_the_exit_code_of_the_tests_is_the_exit_code_of_the_gate(code: int) -> None:
    done = run_no_orphans(code, f"raise SystemExit({code})")
    assert (done.returncode, done.stderr) == (code, "")
