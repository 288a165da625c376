"""One soak, from an empty database to the verdict."""

from __future__ import annotations

import random
import threading
from functools import partial
from typing import TYPE_CHECKING

import psycopg

from flows import clock, migrate
from tests.crash.proxy import Proxy
from tests.crash.soak.actions import Actions, deal
from tests.crash.soak.hosts import Host
from tests.crash.soak.judge import judge
from tests.crash.soak.load import Load
from tests.crash.soak.outcome import Outcome
from tests.crash.soak.recovery import Recoveries
from tests.crash.soak.server import Postgres
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Soak"]

SETTLE_S = 180.0
"""How long the last runs have to end once nothing is done to them any more."""

STOP_S = 60.0
PROCESSES = 6
"""Of each host: maintenance, and the workers of the application."""

UNFINISHED = "SELECT count(*) FROM flows.runs WHERE status NOT IN ('completed', 'failed')"


class Soak:
    """A database, two hosts, and what happens to them."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Prepare a soak; logs go to `folder`."""
        self._folder = folder
        self._seed = seed

    def run(self, seconds: float, every_s: float) -> Outcome:
        """Disturb for so long, wait until all is settled, and judge."""
        with Postgres() as server:
            with psycopg.connect(server.dsn) as connection:
                migrate(connection)
                connection.execute(
                    "CREATE TABLE ledger (run_id uuid NOT NULL, entry text NOT NULL, amount bigint)"
                )
            with Proxy(server.dsn) as proxy:
                hosts = [
                    Host("host 1", server.dsn, self._folder),
                    Host("host 2", proxy.dsn, self._folder),
                ]
                try:
                    outcome = self._soak(server, proxy, hosts, seconds, every_s)
                finally:
                    for host in hosts:
                        host.close()
                    (self._folder / "server.log").write_text(server.log)
                return outcome

    def _soak(
        self, server: Postgres, proxy: Proxy, hosts: list[Host], seconds: float, every_s: float
    ) -> Outcome:
        for host in hosts:
            host.start()
            wait_until(partial(_is_ready, host), what=f"{host.name} is ready")
        choose = random.Random(self._seed)
        recoveries = Recoveries(server.dsn)
        actions = Actions(choose, hosts, server, proxy, recoveries)
        load = Load(server.dsn)
        recoveries.start()
        load.start()
        began_s = clock.monotonic()
        try:
            self._disturb(actions, deal(choose), began_s + seconds, every_s)
        finally:
            load.end()
            actions.let_all_go_on()
        took_s = clock.monotonic() - began_s
        settled_s = self._settle(server, actions)
        recoveries.stop()
        codes = [host.stop(STOP_S) for host in hosts]
        with psycopg.connect(server.dsn) as connection:
            verdict = judge(connection, load.acknowledged)
        return Outcome(
            seed=self._seed,
            seconds=took_s,
            settled_s=settled_s,
            actions=actions,
            hosts=hosts,
            recoveries=recoveries,
            verdict=verdict,
            in_doubt=load.in_doubt,
            exit_codes=codes,
        )

    def _disturb(
        self, actions: Actions, deck: Iterator[str], until_s: float, every_s: float
    ) -> None:
        pause = threading.Event()
        next_s = clock.monotonic() + every_s
        while (now_s := clock.monotonic()) < until_s:
            moments = [next_s, until_s, now_s + 0.1]
            later_s = actions.next_s()
            if later_s is not None:
                moments.append(later_s)
            pause.wait(max(0.0, min(moments) - now_s))
            actions.catch_up()
            if clock.monotonic() >= next_s:
                actions.do(next(deck))
                next_s += every_s

    def _settle(self, server: Postgres, actions: Actions) -> float | None:
        """Wait until no run is unfinished; return how long it took, None if some stay."""
        began_s = clock.monotonic()
        with psycopg.connect(server.dsn, autocommit=True) as connection:

            def is_settled() -> bool:
                actions.catch_up()
                row = connection.execute(UNFINISHED).fetchone()
                return row is not None and row[0] == 0

            try:
                wait_until(is_settled, what="every run has ended", timeout_s=SETTLE_S)
            except AssertionError:
                return None
        return clock.monotonic() - began_s


def _is_ready(host: Host) -> bool:
    return host.log.count(" ready in ") >= PROCESSES
