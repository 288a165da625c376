"""The raw limit: pgbench doing one transaction per run, on tables made for nothing else."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import psycopg

from flows.embedded.binaries import find_binaries

__all__ = ["LEDGER", "hundred_runs_per_transaction", "one_transaction_per_run"]

TIMEOUT_S = 120

TABLES = """
DROP TABLE IF EXISTS bench_steps, bench_runs;
CREATE TABLE bench_runs (
    run_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    status text NOT NULL,
    input jsonb,
    output jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz
);
CREATE INDEX ON bench_runs (created_at) WHERE status = 'queued';
CREATE TABLE IF NOT EXISTS public.ledger (id bigserial PRIMARY KEY, amount int);
CREATE TABLE bench_steps (
    run_id uuid, step_key text, output jsonb, PRIMARY KEY (run_id, step_key)
);
"""

FILL = "INSERT INTO bench_runs (status, input) SELECT 'queued', '1' FROM generate_series(1, %s)"

SCRIPT = """
BEGIN;
SELECT run_id AS id FROM bench_runs WHERE status = 'queued'
    ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED \\gset
{write}
UPDATE bench_runs SET status = 'completed', output = '1', updated_at = now() WHERE run_id = :id;
END;
"""


MEMO = "INSERT INTO bench_steps VALUES (:id, 'nothing/v1', '1');"
LEDGER = "INSERT INTO public.ledger (amount) VALUES (1);"
HUNDRED = """
WITH due AS (
    SELECT run_id FROM bench_runs WHERE status = 'queued'
    ORDER BY created_at LIMIT 100 FOR UPDATE SKIP LOCKED
), done AS (
    UPDATE bench_runs AS r SET status = 'completed', output = '1', updated_at = now()
    FROM due WHERE r.run_id = due.run_id RETURNING r.run_id
)
INSERT INTO bench_steps SELECT run_id, 'nothing/v1', '1' FROM done;
"""


def hundred_runs_per_transaction(dsn: str, runs: int) -> float:
    """Drain `runs` queued rows by the hundred with one client; return the runs per second."""
    return 100 * _pgbench(dsn, 1, runs // 100, HUNDRED, runs)


def one_transaction_per_run(dsn: str, clients: int, runs: int, write: str = MEMO) -> float:
    """Drain `runs` queued rows and return the runs per second."""
    return _pgbench(dsn, clients, runs // clients, SCRIPT.replace("{write}", write), runs + clients)


def _pgbench(dsn: str, clients: int, transactions: int, text: str, rows: int) -> float:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in TABLES.split(";")[:-1]:
            connection.execute(statement.encode())
        connection.execute(FILL, (rows,))
        connection.execute("VACUUM ANALYZE bench_runs")
    program = find_binaries().initdb.with_name("pgbench")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "run.sql"
        script.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [
                program, "--no-vacuum", "--protocol=prepared", f"--client={clients}", "--jobs=2",
                f"--transactions={transactions}", f"--file={script}", dsn,
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )  # fmt: skip
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if found is None or done.returncode:
        raise SystemExit(f"pgbench failed: {done.stderr}")
    return float(found[1])
