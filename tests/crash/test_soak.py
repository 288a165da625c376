"""A minute of soaking: whatever is killed, cut and restarted, no run and no row is lost or double.

`python -m tests.crash.soak --minutes N --seed S` does it for longer.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.crash.soak.judge import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.running import Runs

ROOT = Path(__file__).resolve().parents[2]
SEED = os.environ.get("FLOWS_SEED") or str(secrets.randbits(32))


@pytest.mark.timeout(600)
def test_a_minute_of_everything_that_can_go_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.crash.soak", "--minutes", "1", "--seed", SEED]
    soak = subprocess.run(
        [*command, "--logs", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(soak.stdout)  # noqa: T201  the seed and the table, shown where the test fails
    assert soak.returncode == 0, soak.stderr
    assert "verdict: CLEAN" in soak.stdout
    assert "ledger rows duplicated" in soak.stdout


def judged(
    runs: Runs, entries: Sequence[str], *, status: str = "completed", is_there: bool = True
) -> Verdict:
    """Judge a single run that has written these rows."""
    run_id = uuid.uuid4()
    runs.connection.execute("CREATE TABLE ledger (run_id uuid, entry text, amount bigint)")
    if is_there:
        runs.connection.execute(
            "INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status)"
            " VALUES ('transfer_0', %s, 'transfer', %s)",
            (run_id, status),
        )
    for entry in entries:
        runs.connection.execute("INSERT INTO ledger VALUES (%s, %s, 1)", (run_id, entry))
    return judge(runs.connection, {run_id})


def test_the_judge_lets_an_exact_ledger_pass(runs: Runs) -> None:
    verdict = judged(runs, ["debit", "credit"])
    assert verdict.is_clean
    assert (verdict.completed, verdict.expected_rows, verdict.rows) == (1, 2, 2)


def test_the_judge_sees_a_lost_row(runs: Runs) -> None:
    verdict = judged(runs, ["debit"])
    assert (verdict.is_clean, verdict.lost) == (False, 1)


def test_the_judge_sees_a_row_that_is_there_twice(runs: Runs) -> None:
    verdict = judged(runs, ["debit", "credit", "credit"])
    assert (verdict.is_clean, verdict.duplicated, verdict.lost) == (False, 1, 0)


def test_the_judge_sees_a_row_of_no_completed_run(runs: Runs) -> None:
    verdict = judged(runs, ["debit"], status="failed")
    assert (verdict.is_clean, verdict.failed, verdict.unexplained) == (False, 1, 1)


def test_the_judge_sees_a_run_that_is_stuck(runs: Runs) -> None:
    verdict = judged(runs, [], status="waiting_event")
    assert (verdict.is_clean, verdict.stuck) == (False, 1)


def test_the_judge_sees_a_run_that_was_begun_and_is_gone(runs: Runs) -> None:
    verdict = judged(runs, [], is_there=False)
    assert (verdict.is_clean, verdict.forgotten) == (False, 1)
