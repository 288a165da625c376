"""Runs are begun as long as the soak lasts, and those are noted whose commit was answered."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import psycopg

from flows import Client
from tests.crash.soak.app import Transfer, registry

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["Load"]

BATCH = 20
UNFINISHED = 120
PAUSE_S = 0.1
BEGUN = ("transfer", "transfer-by-step", "ask")
COUNT = "SELECT count(*) FROM flows.runs WHERE status NOT IN ('completed', 'failed', 'cancelled')"


class Load(threading.Thread):
    """A thread that keeps so many runs unfinished.

    Attributes:
        acknowledged: ids of runs that have been begun for sure.
        in_doubt: how many batches were lost on the way, committed or not.
    """

    def __init__(self, dsn: str) -> None:
        super().__init__(name="load", daemon=True)
        self._dsn = dsn
        self._is_ending = threading.Event()
        self._numbers = itertools.count(1)
        self.acknowledged: set[UUID] = set()
        self.in_doubt = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Begin runs until `end`."""
        try:
            while not self._is_ending.is_set():
                try:
                    with psycopg.connect(self._dsn, autocommit=True) as connection:
                        self._begin(connection)
                except psycopg.OperationalError:
                    self._is_ending.wait(PAUSE_S)
        except BaseException as error:  # noqa: BLE001  raised again in `end`
            self.failure = error

    def end(self) -> None:
        """Begin no more runs."""
        self._is_ending.set()
        self.join()
        if self.failure is not None:
            raise self.failure

    def _begin(self, connection: psycopg.Connection[Any]) -> None:
        while not self._is_ending.wait(PAUSE_S):
            row = connection.execute(COUNT).fetchone()
            if row is None or row[0] >= UNFINISHED:
                continue
            for name in BEGUN:
                given = [Transfer(number) for number in itertools.islice(self._numbers, BATCH)]
                self.in_doubt += 1
                with connection.transaction():
                    keys = Client().begin_many_tx(connection, registry.get(name), given)
                self.in_doubt -= 1
                self.acknowledged.update(key.run_id for key in keys)
