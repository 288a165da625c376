"""What goes over the connections of a test: statements and round trips, counted by libpq itself."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import pq

__all__ = ["Traffic", "TrafficCounter"]

_STATEMENT = re.compile(r"^F\t\d+\t(?:Execute|Query)\t", re.MULTILINE)
_ROUND_TRIP = re.compile(r"^F\t\d+\t(?:Sync|Query)\b", re.MULTILINE)
"""The server answers all that came before a Sync, which ends a pipeline, or a simple Query."""


class Traffic(NamedTuple):
    """What was sent since it was last asked.

    Attributes:
        statements: how many were executed, BEGIN and COMMIT among them.
        round_trips: how often an answer was waited for.
    """

    statements: int
    round_trips: int


class TrafficCounter:
    """Traces every connection that is opened from now on, by its application name."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}
        self._opened = 0
        connect = psycopg.Connection.connect

        def traced(conninfo: str = "", **options: Any) -> psycopg.Connection[Any]:
            connection = connect(conninfo, **options)
            self._trace(connection)
            return connection

        monkeypatch.setattr(psycopg.Connection, "connect", traced)
        monkeypatch.setattr(psycopg, "connect", traced)

    def take(self, application: str) -> Traffic:
        """Return what an application's connections have sent since the last call."""
        counts = [0, 0]
        for path in sorted(self._folder.glob(f"{application}-*")):
            # libpq writes line by line: what was sent before is there.
            text = path.read_text("utf-8", errors="replace")
            new = text[self._read.get(path.name, 0) :]
            self._read[path.name] = len(text)
            counts[0] += len(_STATEMENT.findall(new))
            counts[1] += len(_ROUND_TRIP.findall(new))
        return Traffic(*counts)

    def round_trips(self, application: str) -> int:
        """Return how often an application's connections have waited for an answer in all."""
        return sum(
            len(_ROUND_TRIP.findall(path.read_text("utf-8", errors="replace")))
            for path in self._folder.glob(f"{application}-*")
        )

    def _trace(self, connection: psycopg.Connection[Any]) -> None:
        name = connection.info.get_parameters().get("application_name", "")
        path = self._folder / f"{name}-{self._opened}"
        # Open until the process ends: libpq writes to it for as long as the connection lives.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._opened += 1
        connection.pgconn.trace(fd)
        connection.pgconn.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
