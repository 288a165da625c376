"""What an attempt leaves behind: memos of its primitives and the outcome of the attempt.

These are values on their way to the database; `flows.writes` turns them into statements. Thousands
of them wait for a commit at once, and they hold nothing that could hold them: so they are structs
that the garbage collector does not count. Counted, they had it look at the whole process, for a
fifth of the worker's time.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import Any, cast

import msgspec

from flows.payloads import NO_PAYLOAD, Payload

__all__ = [
    "Outcome",
    "OutcomeKind",
    "RandomRecord",
    "RunRecord",
    "StepRecord",
    "WaitRecord",
]


_NOTHING = cast("dict[str, Any]", MappingProxyType({}))
"""What most runs have of waits and random values: a dictionary of its own for each would cost."""


class StepRecord(msgspec.Struct, frozen=True, gc=False):
    """A finished try of a step.

    Attributes:
        key: the step's key.
        is_completed: whether it returned; otherwise `error_text` says why not.
        input: what it was called with.
        output: what it returned.
        input_digest: BLAKE2b of the input, 16 bytes.
        error_text: type, message and traceback.
        attempts: tries so far in this attempt of the run.
        seconds: how long this try took.
        ended_s: when it ended, on this process's monotonic clock.
        place: its place in the run, as `flows.places` counts it.
    """

    key: str
    is_completed: bool
    input: Payload
    output: Payload
    input_digest: bytes
    error_text: str | None
    attempts: int
    seconds: float
    ended_s: float
    place: int | None = None

    @property
    def size(self) -> int:
        """How many bytes its payloads take."""
        return self.input.size + self.output.size


class WaitRecord(msgspec.Struct, frozen=True, gc=False):
    """A durable sleep or a wait for an event, open or satisfied."""

    key: str
    type: str
    event_name: str | None
    is_satisfied: bool
    payload: Payload = NO_PAYLOAD
    place: int | None = None


class RandomRecord(msgspec.Struct, frozen=True, gc=False):
    """A random value: `text` for a UUID, `number` (as a signed 64-bit integer) for a uint64."""

    key: str
    kind: str
    text: str | None
    number: int | None
    place: int | None = None


class OutcomeKind(Enum):
    """How an attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SLEEPING = "sleeping"
    WAITING_EVENT = "waiting_event"
    RELEASED = "queued"
    NOT_BEGUN = "not begun"


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How an attempt ended.

    Attributes:
        kind: the end.
        output: of a completed run.
        error_text: of a failed attempt.
        wake_in_s: seconds until a sleeping run wakes, or a failed one tries again; None for a
            failure that is final.
        later_s: of a run that was not begun, as `ClaimedRun` has it.
    """

    kind: OutcomeKind
    output: Payload = NO_PAYLOAD
    error_text: str | None = None
    wake_in_s: float | None = None
    later_s: float | None = None


class RunRecord(msgspec.Struct, eq=False):
    """What one attempt of one run has to write; memos are taken out as they are written.

    Attributes:
        shard: the run's `workflow_name_shard`.
        run_id: its id as text.
        claim: the fencing token of the attempt.
        steps: memos of steps by key; the last one of a key counts.
        waits: sleeps and waits by key.
        randoms: random values by key.
        outcome: how the attempt ended, None while it runs.
        refused: why the database would not take a memo of the attempt, None while it takes all.
        is_stale: whether a random value was dropped because the run has another claim by now.
        size: bytes of the payloads that were given to the committer with it.
        took_s: how long its attempt had an executor, in seconds; 0 where nobody measures.
        is_first: whether no attempt came before and no step has failed in this one, so that no memo
            with a key of its steps should be there.
    """

    shard: str
    run_id: str
    claim: int
    steps: dict[str, StepRecord] = {}
    waits: dict[str, WaitRecord] = _NOTHING
    randoms: dict[str, RandomRecord] = _NOTHING
    outcome: Outcome | None = None
    refused: Exception | None = None
    is_stale: bool = False
    size: int = 0
    took_s: float = 0.0
    is_first: bool = False

    def add_wait(self, wait: WaitRecord) -> None:
        """Add a sleep or a wait, in the place of one with its key."""
        if self.waits is _NOTHING:
            self.waits = {}
        self.waits[wait.key] = wait

    def add_random(self, value: RandomRecord) -> None:
        """Add a random value."""
        if self.randoms is _NOTHING:
            self.randoms = {}
        self.randoms[value.key] = value

    def take(self) -> RunRecord:
        """Return all that is to be written now, leaving none of it here.

        An open sleep or wait stays until its outcome is here too. Written before, it would have
        no instant to end at, and a crash in between would make the sleep seem over.
        """
        taken = RunRecord(
            self.shard,
            self.run_id,
            self.claim,
            steps=self.steps,
            waits=self.waits,
            randoms=self.randoms,
            outcome=self.outcome,
            size=self.size,
            took_s=self.took_s,
            is_first=self.is_first,
        )
        self.steps, self.waits, self.randoms = {}, _NOTHING, _NOTHING
        self.outcome, self.size = None, 0
        if taken.waits and taken.outcome is None:
            self.waits = {key: wait for key, wait in taken.waits.items() if not wait.is_satisfied}
            taken.waits = {key: wait for key, wait in taken.waits.items() if wait.is_satisfied}
        return taken

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.steps or self.waits or self.randoms or self.outcome)
