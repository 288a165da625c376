"""The raw limit: pgbench doing one transaction per run, on tables made for nothing else."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import psycopg

from flows.embedded.binaries import find_binaries

__all__ = ["one_transaction_per_run"]

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
CREATE TABLE bench_steps (
    run_id uuid, step_key text, output jsonb, PRIMARY KEY (run_id, step_key)
);
"""

FILL = "INSERT INTO bench_runs (status, input) SELECT 'queued', '1' FROM generate_series(1, %s)"

SCRIPT = """
BEGIN;
SELECT run_id AS id FROM bench_runs WHERE status = 'queued'
    ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED \\gset
INSERT INTO bench_steps VALUES (:id, 'nothing/v1', '1');
UPDATE bench_runs SET status = 'completed', output = '1', updated_at = now() WHERE run_id = :id;
END;
"""


def one_transaction_per_run(dsn: str, clients: int, runs: int) -> float:
    """Drain `runs` queued rows and return the runs per second."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in TABLES.split(";")[:-1]:
            connection.execute(statement.encode())
        connection.execute(FILL, (runs + clients,))
        connection.execute("VACUUM ANALYZE bench_runs")
    program = find_binaries().initdb.with_name("pgbench")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "run.sql"
        script.write_text(SCRIPT, encoding="utf-8")
        done = subprocess.run(
            [
                program, "--no-vacuum", "--protocol=prepared", f"--client={clients}", "--jobs=2",
                f"--transactions={runs // clients}", f"--file={script}", dsn,
            ],
            check=False,
            capture_output=True,
            text=True,
        )  # fmt: skip
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if found is None or done.returncode:
        raise SystemExit(f"pgbench failed: {done.stderr}")
    return float(found[1])
