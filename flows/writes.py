"""Write what attempts left behind: a handful of statements for any number of runs.

Statements go by shard, so that each carries one shard as a parameter, and by runs in the order of
their ids. Of these the order is the lock order: outcomes first, which lock their runs, then memos.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from flows import round_trip, sql
from flows.clock import monotonic
from flows.records import OutcomeKind
from flows.sql.arrays import (
    ByteaArray,
    Float8Array,
    Int8Array,
    JsonbArray,
    TextArray,
    UuidArray,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import psycopg

    from flows.awaited import Awaited
    from flows.payloads import Payload
    from flows.records import Outcome, RandomRecord, RunRecord, StepRecord, WaitRecord
    from flows.round_trip import Answered, Query

__all__ = [
    "Sent",
    "Statement",
    "commit",
    "looks_after",
    "notifications",
    "send",
    "shards_to_look_at",
    "statements_for",
]


_QUEUED = (OutcomeKind.RELEASED, OutcomeKind.NOT_BEGUN)
_STATUS_OF_STEP = {True: "completed", False: "failed"}
_UNFINISHED = {OutcomeKind.SLEEPING, OutcomeKind.WAITING_EVENT, *_QUEUED}


MAX_ROWS = 1500
"""Of runs and of their steps, in statements that are made together: the server has these while the
next ones are made."""

MAX_STATEMENT_BYTES = 32 * 1024 * 1024
"""Of the memos of steps in one statement, though it has one memo at least."""


class Statement(NamedTuple):
    """A query with its parameters.

    Attributes:
        query: its name in `flows/sql/queries`.
        values: the parameters.
        outcomes: how many runs it must update, 0 where it writes memos.
        randoms_of: the records whose random values it writes.
    """

    query: str
    values: dict[str, Any]
    outcomes: int = 0
    randoms_of: tuple[RunRecord, ...] = ()


class Sent(NamedTuple):
    """Statements and their answers, which are there when the pipeline has ended."""

    answers: list[tuple[Answered, Statement]]

    @property
    def stale(self) -> int:
        """How many outcomes were dropped because their claim is stale."""
        return sum(
            statement.outcomes - answer.rowcount
            for answer, statement in self.answers
            if statement.outcomes
        )

    @property
    def woken(self) -> list[str]:
        """The shards where a run was queued because its event is there."""
        return [
            statement.values["shard"]
            for answer, statement in self.answers
            if statement.query == "wake_satisfied" and answer.rowcount
        ]

    def mark_stale(self) -> None:
        """Mark the records whose random values were dropped because their claim is stale."""
        for answer, statement in self.answers:
            if statement.randoms_of:
                written = {run_id for (run_id,) in answer.fetchall()}
                for record in statement.randoms_of:
                    record.is_stale = record.run_id not in written


def send(connection: psycopg.Connection[Any], schema: str, statements: Iterable[Statement]) -> Sent:
    """Send statements in the transaction that is open on `connection`.

    Call it in a pipeline and they travel together. Commits nothing.
    """
    return Sent(
        [
            (connection.execute(sql.load(statement.query, schema), statement.values), statement)
            for statement in statements
        ]
    )


def commit(
    connection: psycopg.Connection[Any],
    schema: str,
    statements: Iterable[Statement],
    looks: Iterable[Statement],
) -> Sent:
    """Execute statements in a transaction of their own, and `looks` once that is committed.

    The server executes what is made already while `statements` makes the next one.

    Raises:
        psycopg.Error: one failed; no transaction is open.
    """
    together: list[Statement] = []
    after = list(looks)
    answers = round_trip.execute(
        connection,
        schema,
        [(look.query, look.values) for look in after],
        _queries(statements, together),
    )
    return Sent(list(zip(answers, together + after, strict=True)))


def _queries(statements: Iterable[Statement], made: list[Statement]) -> Iterator[Query]:
    for statement in statements:
        made.append(statement)
        yield statement.query, statement.values


def notifications(
    records: Sequence[RunRecord], notify_channel: str | None, awaited: Awaited | None
) -> Iterator[Statement]:
    """Yield the statements that tell others of what the records' statements do.

    Other workers are told on `notify_channel` of shards where a run is due now or at a known time,
    and who waits for a run that ends is told where `awaited` says.
    """
    if notify_channel is not None:
        for shard in sorted(shards_to_look_at(records)):
            yield Statement("notify", {"channel": notify_channel, "payload": shard})
    if awaited is not None and awaited.channel is not None:
        for key in awaited.among(records):
            yield Statement("notify", {"channel": awaited.channel, "payload": key})


def shards_to_look_at(records: Sequence[RunRecord]) -> set[str]:
    """Return the shards where a run is due now or at a known time once this is committed."""
    return {
        record.shard
        for record in records
        if (outcome := record.outcome) is not None
        and (outcome.wake_in_s is not None or outcome.kind in _QUEUED)
    }


def looks_after(records: Sequence[RunRecord]) -> Iterator[Statement]:
    """Yield the statements that look, once `records` are committed, at what happened meanwhile.

    A publisher saw a run that was going to wait still running, and left it; so did who wanted a
    run cancelled.
    """
    waiting: dict[str, list[str]] = defaultdict(list)
    unfinished: dict[str, list[str]] = defaultdict(list)
    for record in records:
        outcome = record.outcome
        if outcome is None:
            continue
        if outcome.kind is OutcomeKind.WAITING_EVENT:
            waiting[record.shard].append(record.run_id)
        if outcome.kind in _UNFINISHED or outcome.wake_in_s is not None:
            unfinished[record.shard].append(record.run_id)
    for shard, run_ids in sorted(unfinished.items()):
        values = {"shard": shard, "run_ids": UuidArray(run_ids)}
        yield Statement("cancel_requested", values)
    for shard, run_ids in sorted(waiting.items()):
        values = {"shard": shard, "run_ids": UuidArray(run_ids)}
        yield Statement("wake_satisfied", values)


def statements_for(records: Sequence[RunRecord]) -> Iterator[Statement]:
    """Yield the statements that write `records`, one shard after the other and in lock order.

    Each is made when it is asked for.
    """
    by_shard: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        by_shard[record.shard].append(record)
    for shard in sorted(by_shard):
        group = sorted(by_shard[shard], key=_run_id)
        for part in _portions(group):
            yield from _outcome_statements(shard, group[part])
            yield from _memo_statements(shard, group[part])


def _portions(records: list[RunRecord]) -> Iterator[slice]:
    """Yield parts of the records, each of which has about as many rows as are written together."""
    first = rows = 0
    for index, record in enumerate(records, start=1):
        rows += 1 + len(record.steps)
        if rows >= MAX_ROWS:
            yield slice(first, index)
            first, rows = index, 0
    yield slice(first, len(records))


def _run_id(record: RunRecord) -> str:
    return record.run_id


def _outcome_statements(shard: str, records: list[RunRecord]) -> Iterator[Statement]:
    ended: dict[OutcomeKind, list[tuple[RunRecord, Outcome]]] = defaultdict(list)
    for record in records:
        if record.outcome is not None:
            ended[record.outcome.kind].append((record, record.outcome))
    completed = ended.pop(OutcomeKind.COMPLETED, None)
    failed = ended.pop(OutcomeKind.FAILED, None)
    cancelled = ended.pop(OutcomeKind.CANCELLED, None)
    not_begun = ended.pop(OutcomeKind.NOT_BEGUN, None)
    yielded = sorted(chain(*ended.values()), key=lambda pair: _run_id(pair[0]))
    if completed:
        yield _completed(shard, completed)
    if failed:
        yield Statement(
            "fail_runs",
            {
                **_identify(shard, [record for record, _ in failed]),
                "error_texts": TextArray([outcome.error_text for _, outcome in failed]),
                "retry_in_s": Float8Array([outcome.wake_in_s for _, outcome in failed]),
            },
            len(failed),
        )
    if cancelled:
        identity = _identify(shard, [record for record, _ in cancelled])
        yield Statement("cancel_runs", identity, len(cancelled))
    if not_begun:
        yield Statement(
            "give_back_runs",
            {
                **_identify(shard, [record for record, _ in not_begun]),
                "later_s": Float8Array([outcome.later_s for _, outcome in not_begun]),
            },
            len(not_begun),
        )
    if yielded:
        yield Statement(
            "yield_runs",
            {
                **_identify(shard, [record for record, _ in yielded]),
                "statuses": TextArray([outcome.kind.value for _, outcome in yielded]),
                "wake_in_s": Float8Array([outcome.wake_in_s for _, outcome in yielded]),
            },
            len(yielded),
        )


def _completed(shard: str, completed: list[tuple[RunRecord, Outcome]]) -> Statement:
    if len(completed) == 1:
        ((record, outcome),) = completed
        return Statement("complete_run", _values_of_one(record, outcome.output), 1)
    outputs = [outcome.output for _, outcome in completed]
    values = {
        **_identify(shard, [record for record, _ in completed]),
        "output_json": JsonbArray([output.json for output in outputs]),
        "output_bytes": ByteaArray([output.binary for output in outputs]),
        "codecs": TextArray([output.codec for output in outputs]),
    }
    return Statement("complete_runs", values, len(completed))


def _values_of_one(record: RunRecord, output: Payload) -> dict[str, Any]:
    return {
        "shard": record.shard,
        "run_id": record.run_id,
        "claim": record.claim,
        "output_json": None if output.json is None else str(output.json, "utf-8"),
        "output_bytes": output.binary,
        "codec": output.codec,
    }


def _memo_statements(shard: str, records: list[RunRecord]) -> Iterator[Statement]:
    owners: dict[str, list[RunRecord]] = {"insert_steps": [], "write_steps": []}
    steps: dict[str, list[StepRecord]] = {"insert_steps": [], "write_steps": []}
    for record in records:
        for step in record.steps.values():
            is_new = record.is_first and step.is_completed and step.attempts == 1
            query = "insert_steps" if is_new else "write_steps"
            owners[query].append(record)
            steps[query].append(step)
    for query, some in steps.items():
        for part in _parts(some):
            yield Statement(query, _step_values(query, shard, owners[query][part], some[part]))
    waits = [(record, wait) for record in records for wait in record.waits.values()]
    if waits:
        yield Statement("write_waits", _wait_values(shard, waits))
    randoms = [(record, value) for record in records for value in record.randoms.values()]
    if randoms:
        yield Statement(
            "write_random",
            _random_values(shard, randoms),
            randoms_of=tuple(record for record in records if record.randoms),
        )


def _parts(steps: list[StepRecord]) -> Iterator[slice]:
    """Yield parts of the steps, of a bounded size: a message of the protocol has 1 GB at most."""
    if sum(step.size for step in steps) <= MAX_STATEMENT_BYTES:  # nearly always
        if steps:
            yield slice(len(steps))
        return
    first = size = 0
    for index, step in enumerate(steps):
        size += step.size
        if index > first and size > MAX_STATEMENT_BYTES:
            yield slice(first, index)
            first, size = index, step.size
    yield slice(first, len(steps))


def _identify(shard: str, records: Sequence[RunRecord]) -> dict[str, Any]:
    run_ids = [record.run_id for record in records]
    return {
        "shard": shard,
        "run_ids": UuidArray(run_ids),
        "claims": Int8Array([record.claim for record in records]),
    }


def _step_values(
    query: str, shard: str, records: list[RunRecord], steps: list[StepRecord]
) -> dict[str, Any]:
    # By columns, without a tuple or an iterator for each row: thousands of these at once would have
    # the garbage collector look at every object of the process.
    inputs = [step.input for step in steps]
    outputs = [step.output for step in steps]
    now_s = monotonic()
    values = {
        **_identify(shard, records),
        "keys": TextArray([step.key for step in steps]),
        "input_json": JsonbArray([payload.json for payload in inputs]),
        "input_bytes": ByteaArray([payload.binary for payload in inputs]),
        "output_json": JsonbArray([payload.json for payload in outputs]),
        "output_bytes": ByteaArray([payload.binary for payload in outputs]),
        "codecs": TextArray([payload.codec for payload in inputs]),
        "input_digests": ByteaArray([step.input_digest for step in steps]),
        "seconds": Float8Array([step.seconds for step in steps]),
        "ages": Float8Array([now_s - step.ended_s for step in steps]),
        "places": Int8Array([step.place for step in steps]),
    }
    if query == "write_steps":
        values["statuses"] = TextArray([_STATUS_OF_STEP[step.is_completed] for step in steps])
        values["error_texts"] = TextArray([step.error_text for step in steps])
        values["attempts"] = Int8Array([step.attempts for step in steps])
    return values


def _wait_values(shard: str, waits: list[tuple[RunRecord, WaitRecord]]) -> dict[str, Any]:
    memos = [wait for _, wait in waits]
    return {
        **_identify(shard, [record for record, _ in waits]),
        "keys": TextArray([wait.key for wait in memos]),
        "types": TextArray([wait.type for wait in memos]),
        "event_names": TextArray([wait.event_name for wait in memos]),
        "payload_json": JsonbArray([wait.payload.json for wait in memos]),
        "payload_bytes": ByteaArray([wait.payload.binary for wait in memos]),
        "codecs": TextArray([wait.payload.codec for wait in memos]),
        "satisfied": Int8Array([int(wait.is_satisfied) for wait in memos]),
        "places": Int8Array([wait.place for wait in memos]),
    }


def _random_values(shard: str, randoms: list[tuple[RunRecord, RandomRecord]]) -> dict[str, Any]:
    memos = [value for _, value in randoms]
    return {
        **_identify(shard, [record for record, _ in randoms]),
        "keys": TextArray([value.key for value in memos]),
        "kinds": TextArray([value.kind for value in memos]),
        "texts": TextArray([value.text for value in memos]),
        "numbers": Int8Array([value.number for value in memos]),
        "places": Int8Array([value.place for value in memos]),
    }
