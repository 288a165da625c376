"""The judge: what the ledger must hold, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.crash.soak.app import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from uuid import UUID

    import psycopg

__all__ = ["Verdict", "judge"]

EXPECTED = """
    WITH wanted (workflow_name, entry) AS (
        SELECT * FROM unnest(%(workflows)s::text[], %(entries)s::text[])
    ), expected AS (
        SELECT r.run_id, w.entry
        FROM flows.runs AS r JOIN wanted AS w USING (workflow_name)
        WHERE r.status = 'completed'
    ), found AS (
        SELECT run_id, entry, count(*) AS times FROM ledger GROUP BY run_id, entry
    )
    SELECT count(e.run_id), coalesce(sum(f.times), 0),
           count(*) FILTER (WHERE f.times IS NULL),
           coalesce(sum(f.times) FILTER (WHERE e.run_id IS NULL), 0),
           coalesce(sum(f.times - 1) FILTER (WHERE f.times > 1), 0)
    FROM expected AS e FULL JOIN found AS f USING (run_id, entry)
"""
REPLIES = """
    SELECT count(*) FILTER (WHERE workflow_name = 'ask'),
           count(*) FILTER (WHERE workflow_name = 'reply')
    FROM flows.runs
"""
STATES = "SELECT status, count(*) FROM flows.runs GROUP BY status"
CHARGED = "SELECT coalesce(sum(crashes), 0), coalesce(sum(attempts), 0) FROM flows.runs"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is in the database at the end.

    Attributes:
        completed: runs that have.
        failed: runs that have, of which there must be none.
        stuck: runs that have not ended.
        forgotten: runs whose begin was acknowledged and that are not there.
        expected_rows: of the ledger.
        rows: of the ledger.
        lost: rows that are missing.
        unexplained: rows of runs that are not completed.
        duplicated: rows that are there once more.
        replies: runs begun by runs, less those that begin one each.
        charged: crashes that runs were charged with.
        failed_attempts: of which there must be none.
    """

    completed: int
    failed: int
    stuck: int
    forgotten: int
    expected_rows: int
    rows: int
    lost: int
    unexplained: int
    duplicated: int
    replies: int
    charged: int
    failed_attempts: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        wrong = (
            self.failed,
            self.stuck,
            self.forgotten,
            self.lost,
            self.unexplained,
            self.duplicated,
            self.replies,
            self.failed_attempts,
        )
        return not any(wrong) and self.completed > 0 and self.rows == self.expected_rows


def judge(connection: psycopg.Connection[Any], acknowledged: AbstractSet[UUID]) -> Verdict:
    """Compare the ledger with the runs, once nothing is under way any more."""

    def one(query: str, values: dict[str, Any] | None = None) -> tuple[Any, ...]:
        row = connection.execute(query.encode(), values).fetchone()
        assert row is not None
        return tuple(row)

    wanted = [(name, entry) for name, entries in ENTRIES.items() for entry in entries]
    rows = one(
        EXPECTED,
        {"workflows": [name for name, _ in wanted], "entries": [entry for _, entry in wanted]},
    )
    states: dict[str, int] = dict(connection.execute(STATES).fetchall())
    known = {run for (run,) in connection.execute("SELECT run_id FROM flows.runs").fetchall()}
    asked, replied = one(REPLIES)
    charged, failed_attempts = one(CHARGED)
    ended = {"completed", "failed"}
    expected_rows, found, lost, unexplained, duplicated = map(int, rows)
    return Verdict(
        completed=states.get("completed", 0),
        failed=states.get("failed", 0),
        stuck=sum(count for state, count in states.items() if state not in ended),
        forgotten=len(acknowledged - known),
        expected_rows=expected_rows,
        rows=found,
        lost=lost,
        unexplained=unexplained,
        duplicated=duplicated,
        replies=abs(asked - replied),
        charged=charged,
        failed_attempts=failed_attempts,
    )
