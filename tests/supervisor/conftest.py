"""Fixtures: supervisors as real processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.supervisor.harness import APP, FLOWS, ROOT, Supervised, standin_command

if TYPE_CHECKING:
    from collections.abc import Iterator


class StartStandin(Protocol):
    def __call__(self, *workflows: str, **options: Any) -> Supervised: ...


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[StartStandin]:
    """Start a supervisor of stand-in children: one process for each workflow named."""
    started: list[Supervised] = []

    def start(*workflows: str, **options: Any) -> Supervised:
        plan = {"workflows": [[name, 1] for name in workflows], **options}
        supervised = Supervised(standin_command(plan), tmp_path, diary_as_argument=True)
        started.append(supervised)
        return supervised

    yield start
    for supervised in started:
        supervised.end()


class StartApp(Protocol):
    def __call__(self, *options: str) -> Supervised: ...


@pytest.fixture
def app(flows_dsn: str, tmp_path: Path) -> Iterator[StartApp]:
    """Start `flows supervise` for the application of these tests, on a database of its own."""
    started: list[Supervised] = []

    def start(*options: str) -> Supervised:
        command = [*FLOWS, "supervise", APP, "--dsn", flows_dsn, *options]
        supervised = Supervised(command, tmp_path)
        supervised.dsn = flows_dsn
        started.append(supervised)
        return supervised

    yield start
    for supervised in started:
        supervised.end()


class StartSource(Protocol):
    def __call__(self, source: str, *options: str, prefix: tuple[str, ...] = ()) -> Supervised: ...


@pytest.fixture
def supervise(flows_dsn: str, tmp_path: Path) -> Iterator[StartSource]:
    """Start supervisors of an application whose source is given, each in a folder of its own."""
    started: list[Supervised] = []

    def start(source: str, *options: str, prefix: tuple[str, ...] = ()) -> Supervised:
        folder = tmp_path / f"supervisor-{len(started)}"
        folder.mkdir()
        (folder / "shop.py").write_text(source)
        command = [*prefix, *FLOWS, "supervise", "shop:registry", "--dsn", flows_dsn, *options]
        supervised = Supervised(command, folder, cwd=folder, env={"PYTHONPATH": str(ROOT)})
        supervised.dsn = flows_dsn
        started.append(supervised)
        return supervised

    yield start
    for each in started:
        each.end()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A named pipe at which runs wait until somebody writes to it."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@pytest.fixture
def control() -> Iterator[Path]:
    """Where a supervisor listens: in a folder with a short path."""
    folder = Path(f"/tmp/flows-control-{os.getpid()}")
    folder.mkdir(mode=0o700)
    yield folder / "control.sock"
    for left in folder.iterdir():
        left.unlink()
    folder.rmdir()
