"""What a soak has come to, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.clock import seconds
from tests.crash.soak.recovery import Figures
from tests.crash.soak.supervise import LEASE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.crash.soak.actions import Actions
    from tests.crash.soak.hosts import Host
    from tests.crash.soak.judge import Verdict
    from tests.crash.soak.recovery import Recoveries

__all__ = ["Outcome"]

WIDTH = 50


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a soak.

    Attributes:
        seed: what drew the actions.
        seconds: how long there were any.
        settled_s: how long the last runs took afterwards, None if some have not ended.
        actions: what was done.
        hosts: to whom.
        recoveries: how long it took to go on.
        verdict: the judge's.
        in_doubt: batches of runs of which it is not known whether they were begun.
        exit_codes: of the supervisors that were asked to end; None of one that did not.
    """

    seed: int
    seconds: float
    settled_s: float | None
    actions: Actions
    hosts: Sequence[Host]
    recoveries: Recoveries
    verdict: Verdict
    in_doubt: int
    exit_codes: Sequence[int | None]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return self.verdict.is_clean and self.settled_s is not None and not any(self.bad_exits)

    @property
    def bad_exits(self) -> list[int | None]:
        """The exit codes of supervisors that did not end as they should."""
        return [code if code is not None else -1 for code in self.exit_codes if code != 0]

    def report(self) -> str:
        """Return the table."""
        lines = [f"{name:<{WIDTH}}{value}" for name, value in self._rows()]
        return "\n".join([*lines, f"verdict: {'CLEAN' if self.is_clean else 'WRONG'}"])

    def _rows(self) -> Iterator[tuple[str, object]]:
        yield "seed", self.seed
        yield "disturbed for", f"{self.seconds:.0f} s, lease {seconds(LEASE):g} s"
        for name, count in self.actions.done.most_common():
            yield f"  {name}", count
        yield "sessions terminated", self.actions.terminated
        yield "supervisors started", sum(host.supervisors for host in self.hosts)
        ended = [code for host in self.hosts for code in host.ended_by_itself]
        yield "supervisors that ended by themselves", f"{len(ended)} {ended or ''}"
        yield "their processes started", sum(host.processes_started for host in self.hosts)
        yield from self._recovery_rows()
        yield from self._verdict_rows()

    def _recovery_rows(self) -> Iterator[tuple[str, object]]:
        for kind, times_s in sorted(self.recoveries.times_s.items()):
            figures = Figures.of(times_s)
            if figures is not None:
                times = [f"{each * 1000:.0f} ms" for each in figures[1:]]
                yield (
                    f"recovery, {kind}",
                    f"{figures.times} times: median {times[0]}, p99 {times[1]}, max {times[2]}",
                )
        yield "recoveries not measured: the server was away", self.recoveries.disturbed

    def _verdict_rows(self) -> Iterator[tuple[str, object]]:
        verdict = self.verdict
        settled = "never" if self.settled_s is None else f"after {self.settled_s:.1f} s"
        yield "the last runs had ended", settled
        yield "runs completed", verdict.completed
        yield "runs failed", verdict.failed
        yield "runs stuck", verdict.stuck
        yield "runs begun and gone", verdict.forgotten
        yield "runs begun twice, or not, by others", verdict.replies
        yield "batches begun with an unknown outcome", self.in_doubt
        yield "crashes charged to runs", verdict.charged
        yield "attempts failed", verdict.failed_attempts
        yield "ledger rows expected", verdict.expected_rows
        yield "ledger rows found", verdict.rows
        yield "ledger rows lost", verdict.lost
        yield "ledger rows duplicated", verdict.duplicated
        yield "ledger rows of no completed run", verdict.unexplained
        yield "exit codes of the supervisors", ", ".join(map(str, self.exit_codes))
