"""What is done to the hosts, the server and the connections between them."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import signal
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import psycopg

from flows import clock
from flows.clock import seconds
from tests.crash.soak.hosts import send
from tests.crash.soak.server import FAST, IMMEDIATE, POWER
from tests.crash.soak.supervise import LEASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.crash.proxy import Proxy
    from tests.crash.soak.hosts import Host
    from tests.crash.soak.recovery import Recoveries
    from tests.crash.soak.server import Postgres

__all__ = ["Actions", "deal"]

DECK = {
    "kill a worker": 10,
    "kill maintenance": 2,
    "kill the template": 1,
    "kill the supervisor": 1,
    "stop a worker for a while": 1,
    "stop maintenance beyond the lease": 1,
    "stop a whole host beyond the lease": 1,
    "terminate sessions": 3,
    "cut a commit before the server sees it": 2,
    "cut a commit after the server has done it": 2,
    "cut a claim after the server has done it": 1,
    "reload": 1,
    "restart the server, fast": 1,
    "restart the server, immediate": 1,
    "kill the server": 1,
}
"""How often each is done in one round; a round comes in an order of its own."""

BEYOND_LEASE_S = 2 * seconds(LEASE)
SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name LIKE 'flows %' ORDER BY pid"
)


def deal(choose: random.Random) -> Iterator[str]:
    """Yield what is done next, without an end."""
    while True:
        deck = [name for name, count in DECK.items() for _ in range(count)]
        choose.shuffle(deck)
        yield from deck


class Actions:
    """Does one thing after the other.

    Attributes:
        done: how often each was done.
        terminated: how many sessions were.
        cuts: what the proxy was told to cut.
    """

    def __init__(
        self,
        choose: random.Random,
        hosts: Sequence[Host],
        server: Postgres,
        proxy: Proxy,
        recoveries: Recoveries,
    ) -> None:
        self._choose = choose
        self._hosts = hosts
        self._server = server
        self._proxy = proxy
        self._recoveries = recoveries
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.done: Counter[str] = Counter()
        self.terminated = 0
        self.by_name: dict[str, Callable[[], object]] = {
            "kill a worker": self._kill_worker,
            "kill maintenance": lambda: self._kill("maintenance"),
            "kill the template": lambda: self._kill("template"),
            "kill the supervisor": self._kill_supervisor,
            "stop a worker for a while": self._stop_worker,
            "stop maintenance beyond the lease": self._stop_maintenance,
            "stop a whole host beyond the lease": self._stop_host,
            "terminate sessions": self._terminate,
            "cut a commit before the server sees it": self._cut_before,
            "cut a commit after the server has done it": self._cut_after,
            "cut a claim after the server has done it": self._cut_claim,
            "reload": lambda: self._host().reload(),
            "restart the server, fast": lambda: self._restart(FAST),
            "restart the server, immediate": lambda: self._restart(IMMEDIATE),
            "kill the server": lambda: self._restart(POWER),
        }

    def do(self, name: str) -> None:
        """Do one thing, to a target that is drawn."""
        self.done[name] += 1
        self.by_name[name]()

    def next_s(self) -> float | None:
        """Return when something that was stopped is to go on."""
        return self._later[0][0] if self._later else None

    def catch_up(self) -> None:
        """Let go on what has been stopped for long enough, and start what was killed."""
        while self._later and self._later[0][0] <= clock.monotonic():
            heapq.heappop(self._later)[2]()
        for host in self._hosts:
            host.ensure_started()

    def let_all_go_on(self) -> None:
        """Let go on what is stopped."""
        while self._later:
            heapq.heappop(self._later)[2]()
        for host in self._hosts:
            host.ensure_started()

    def _after(self, wait_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._later, (clock.monotonic() + wait_s, next(self._order), what))

    def _host(self) -> Host:
        return self._choose.choice(self._hosts)

    def _kill_worker(self) -> None:
        if workers := self._host().workers():
            pid = self._choose.choice(workers)
            held = self._recoveries.executed_by([pid])
            send(pid, signal.SIGKILL)
            self._recoveries.watch("worker killed", held)

    def _kill(self, kind: str) -> None:
        for pid in self._host().processes(kind):
            send(pid, signal.SIGKILL)

    def _kill_supervisor(self) -> None:
        host = self._host()
        held = self._recoveries.executed_by(host.workers())
        host.kill()
        self._recoveries.watch("host lost", held)

    def _stop_worker(self) -> None:
        if workers := self._host().workers():
            pid = self._choose.choice(workers)
            send(pid, signal.SIGSTOP)
            self._after(self._choose.uniform(1.0, 4.0), lambda: send(pid, signal.SIGCONT))

    def _stop_maintenance(self) -> None:
        # Nobody renews the leases of its workers, which go on.
        for pid in self._host().processes("maintenance"):
            send(pid, signal.SIGSTOP)
            self._after(BEYOND_LEASE_S, partial(send, pid, signal.SIGCONT))

    def _stop_host(self) -> None:
        host = self._host()
        held = self._recoveries.executed_by(host.workers())
        stopped = host.tell_all(signal.SIGSTOP)
        self._recoveries.watch("host stopped", held)

        def go_on() -> None:
            for pid in stopped:
                send(pid, signal.SIGCONT)

        self._after(BEYOND_LEASE_S, go_on)

    def _terminate(self) -> None:
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(self._server.dsn, autocommit=True) as connection,
        ):
            pids = [pid for (pid,) in connection.execute(SESSIONS).fetchall()]
            chosen = self._choose.sample(pids, min(len(pids), self._choose.randint(1, 4)))
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", (chosen,)
            )
            self.terminated += len(chosen)

    def _session(self) -> str:
        return self._choose.choice(("flows committer", "flows transaction"))

    def _cut_before(self) -> None:
        self._proxy.cut_before(self._session(), b"COMMIT")

    def _cut_after(self) -> None:
        self._proxy.cut_after(self._session(), b"COMMIT", answer=b"COMMIT\0")

    def _cut_claim(self) -> None:
        # Without a trigger: whatever comes next of a dispatcher, mostly a claim.
        self._proxy.cut_after("flows dispatcher", b"E\0\0\0", answer=b"C\0\0\0")

    def _restart(self, how: signal.Signals) -> None:
        self._recoveries.disturb()
        self._server.restart(how)
