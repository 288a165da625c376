"""Fixtures: a database whose workers come to harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.harness import Battlefield
from tests.running import Runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def runs(flows_dsn: str) -> Iterator[Runs]:
    """Runs in the default schema, with one shard a workflow."""
    runs = Runs(flows_dsn)
    yield runs
    runs.close()


@pytest.fixture
def battlefield(runs: Runs, tmp_path: Path) -> Iterator[Battlefield]:
    """A database with a ledger, and the worker processes started on it."""
    battlefield = Battlefield(runs, tmp_path)
    yield battlefield
    battlefield.close()
