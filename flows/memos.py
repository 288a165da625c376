"""Memos of a run that has run before: as its claim brought them along, or read when it begins."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from flows import sql
from flows.payloads import Payload
from flows.places import MemoKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

__all__ = ["Memos", "WaitMemo", "read_heavy", "read_memos"]


class WaitMemo(NamedTuple):
    """A sleep or wait begun by an earlier attempt.

    Attributes:
        type: `sleep` or `event`.
        is_satisfied: whether it has ended, and a wait its payload.
        remaining_s: seconds until a sleep's time comes, by the database's clock at the claim;
            None where it has no time.
        payload: of a satisfied wait.
        event_name: what a wait is for, None of a sleep.
    """

    type: str
    is_satisfied: bool
    remaining_s: float | None
    payload: Payload
    event_name: str | None = None


class Memos(msgspec.Struct):
    """Everything that earlier attempts of a run have memoized, by key.

    Attributes:
        steps: outputs of completed steps.
        digests: of the inputs that these were made from, in hexadecimal, where they are known.
        waits: sleeps and waits.
        events: payloads published for the run, by event name.
        uuids: random UUIDs, as text.
        uint64s: random numbers.
        places: of all these but events, by kind and key, where they were counted.
        is_cancelled: whether somebody had asked for the run to be cancelled.
    """

    steps: dict[str, Payload] = {}
    digests: dict[str, str] = {}
    waits: dict[str, WaitMemo] = {}
    events: dict[str, Payload] = {}
    uuids: dict[str, str] = {}
    uint64s: dict[str, int] = {}
    places: dict[tuple[MemoKind, str], int] = {}
    is_cancelled: bool = False

    def put(self, kind: MemoKind, key: str, place: int | None) -> None:
        """Note the place of a memo, None where it was not counted."""
        if place is not None:
            self.places[kind, key] = place


_StepRow = tuple[str, msgspec.Raw, str | None, str | None, str | None, int | None]
_WaitRow = tuple[
    str, str, bool, float | None, msgspec.Raw, str | None, str | None, str | None, int | None
]


class _Prefetched(msgspec.Struct):
    steps: list[_StepRow] | None
    waits: list[_WaitRow] | None
    events: list[tuple[str, msgspec.Raw, str | None, str | None]] | None
    random: list[tuple[str, str, str | None, int | None, int | None]] | None
    is_cancelled: bool = False


_decode = msgspec.json.Decoder(_Prefetched).decode


def read_memos(prefetched: str | None) -> Memos:
    """Return the memos that were read after a claim; None means a run that never ran."""
    memos = Memos()
    if prefetched is None:
        return memos
    rows = _decode(prefetched)
    memos.is_cancelled = rows.is_cancelled
    _read_steps(rows, memos)
    _read_waits(rows, memos)
    for name, document, binary, codec in rows.events or ():
        memos.events[name] = _payload(document, binary, codec)
    for row in rows.random or ():
        _add_random(memos, *row)
    return memos


def _read_steps(rows: _Prefetched, memos: Memos) -> None:
    for key, document, binary, codec, digest, place in rows.steps or ():
        memos.steps[key] = _payload(document, binary, codec)
        if digest is not None:
            memos.digests[key] = digest
        memos.put("step", key, place)


def _read_waits(rows: _Prefetched, memos: Memos) -> None:
    for key, wait_type, is_over, left_s, document, binary, codec, event, place in rows.waits or ():
        payload = _payload(document, binary, codec)
        memos.waits[key] = WaitMemo(wait_type, is_over, left_s, payload, event)
        memos.put("wait", key, place)


def read_heavy(
    connection: psycopg.Connection[Any], schema: str, shard: str, run_id: str
) -> tuple[Payload, Memos]:
    """Return input and memos of a run whose claim has left them behind.

    They come row by row, so that they are in memory once; what is read is not locked.
    """

    def rows(query: str) -> Iterator[tuple[Any, ...]]:
        # Not by json_agg: Postgres refuses texts of more than 1 GB.
        with connection.cursor() as cursor:
            yield from cursor.stream(sql.load(query, schema), {"shard": shard, "run_id": run_id})

    memos = Memos()
    ((*given, memos.is_cancelled),) = rows("read_input")
    for key, digest, place, *payload in rows("read_steps"):
        memos.steps[key] = _stored(*payload)
        if digest is not None:
            memos.digests[key] = digest
        memos.put("step", key, place)
    for key, wait_type, is_over, left_s, event, place, *payload in rows("read_waits"):
        memos.waits[key] = WaitMemo(wait_type, is_over, left_s, _stored(*payload), event)
        memos.put("wait", key, place)
    for name, *payload in rows("read_events"):
        memos.events[name] = _stored(*payload)
    for row in rows("read_random"):
        _add_random(memos, *row)
    return _stored(*given), memos


def _add_random(
    memos: Memos, key: str, kind: str, text: str | None, number: int | None, place: int | None
) -> None:
    memos.put("random", key, place)
    if kind == "uuidv7" and text is not None:
        memos.uuids[key] = text
    elif number is not None:
        # uint64 is stored in a signed column.
        memos.uint64s[key] = number & 0xFFFF_FFFF_FFFF_FFFF


def _stored(document: str | None, binary: bytes | None, codec: str | None) -> Payload:
    return Payload(None if document is None else document.encode(), binary, codec)


def _payload(document: msgspec.Raw, binary: str | None, codec: str | None) -> Payload:
    if binary is not None:
        return Payload(None, binascii.a2b_base64(binary), codec)
    return Payload(bytes(document), None, codec)
