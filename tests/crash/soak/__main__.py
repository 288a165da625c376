"""Soak flows: `python -m tests.crash.soak --minutes 5 --seed 1`.

Two supervisors on one database, the second through a proxy, execute runs that each write one row
of a ledger in each of their steps. Meanwhile processes are killed and stopped, sessions terminated,
commits cut, the server restarted and killed. At the end the ledger must be exact and no run left.
The exit code is 1 where it is not.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.crash.soak.soaking import Soak

EXIT_WRONG = 1


def main() -> int:
    """Soak, print the report, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to disturb")
    parser.add_argument("--seed", type=int, default=None, help="draws the same actions again")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two of them")
    parser.add_argument("--logs", type=Path, default=None, help="where to leave the logs")
    given = parser.parse_args()
    seed = secrets.randbits(32) if given.seed is None else given.seed
    print(f"soaking for {given.minutes:g} minutes, seed {seed}", flush=True)  # noqa: T201
    if given.logs is None:
        with tempfile.TemporaryDirectory(prefix="flows-soak-logs-") as folder:
            outcome = Soak(Path(folder), seed).run(given.minutes * 60, given.every)
    else:
        given.logs.mkdir(parents=True, exist_ok=True)
        outcome = Soak(given.logs, seed).run(given.minutes * 60, given.every)
    print(outcome.report(), flush=True)  # noqa: T201
    return 0 if outcome.is_clean else EXIT_WRONG


if __name__ == "__main__":
    sys.exit(main())
