"""What a workload is given: a server, its size, the peers that can be had, and the figures."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from benchmarks.figures import Figures

__all__ = ["Bench"]


@dataclass(slots=True)
class Bench:
    """One run of the suite.

    Attributes:
        dsn: the server.
        scale: of the numbers of runs; a tenth for a quick look.
        repetitions: how often each is measured.
        figures: where the measurements go.
        peers: those that could be installed, with their versions.
    """

    dsn: str
    scale: float
    repetitions: int
    figures: Figures = field(default_factory=Figures)
    peers: dict[str, str] = field(default_factory=dict)

    def runs(self, count: int) -> int:
        """Return so many, scaled."""
        return max(10, int(count * self.scale))

    def measure(
        self, workload: str, name: str, measured: Callable[[], float], unit: str = "runs/s"
    ) -> None:
        """Add one repetition; what fails is written down, and the others go on."""
        try:
            value = measured()
        except (Exception, SystemExit) as error:  # noqa: BLE001  it is reported
            self.fail(f"{workload} {name}", error)
        else:
            self.figures.add(workload, name, value, unit)
            print(f"  {workload} {name}: {value:,.4g} {unit}", flush=True)

    def fail(self, what: str, error: BaseException) -> None:
        """Write down what could not be measured."""
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
        text = said.decode(errors="replace") if isinstance(said, bytes) else said or ""
        reason = f"{type(error).__name__}: {error} {text[-200:]}"
        reason = " ".join(reason.split())[:400]
        self.figures.failures.append((what, reason))
        print(f"  {what} failed: {reason}", flush=True)

    def query(self, dsn: str, text: str) -> float:
        """Return the number that a query answers with."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            row = connection.execute(text.encode()).fetchone()
        assert row is not None
        return float(row[0])
