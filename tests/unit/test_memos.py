"""Memos as a claim brings them: JSON text of rows, read into what the primitives ask."""

from __future__ import annotations

import base64
import json
from typing import Any

from flows.memos import Memos, WaitMemo, read_memos
from flows.payloads import Payload

BINARY = bytes(range(256))


def prefetched(**rows: Any) -> str:
    return json.dumps({"steps": None, "waits": None, "events": None, "random": None, **rows})


def wrapped(data: bytes) -> str:
    """Return base64 with line ends, as Postgres writes it."""
    return base64.encodebytes(data).decode().rstrip("\n")


def test_a_run_that_never_ran_has_no_memos() -> None:
    assert read_memos(None) == Memos()


def test_a_run_without_rows_has_no_memos() -> None:
    assert read_memos(prefetched()) == Memos()


def test_steps_keep_their_bytes_and_their_codec() -> None:
    memos = read_memos(
        prefetched(
            steps=[
                ["a", {"n": [1, 2.50]}, None, None, "00ff", 1000],
                ["b", None, wrapped(BINARY), "msgpack", None, 2001],
                ["c", None, "", "own", None, None],
                ["d", None, None, None, None, None],
            ]
        )
    )
    assert memos.digests == {"a": "00ff"}
    assert memos.places == {("step", "a"): 1000, ("step", "b"): 2001}
    assert memos.steps == {
        "a": Payload(b'{"n": [1, 2.5]}', None, None),
        "b": Payload(None, BINARY, "msgpack"),
        "c": Payload(None, b"", "own"),
        "d": Payload(b"null", None, None),
    }


def test_numbers_are_handed_on_as_they_are_written() -> None:
    huge = '{"steps": [["a", 123456789012345678901234567890.10, null, null, null, 1]]'
    memos = read_memos(huge + ', "waits": null, "events": null, "random": null}')
    assert memos.steps["a"].json == b"123456789012345678901234567890.10"


def test_waits_tell_whether_they_are_over_and_what_remains() -> None:
    memos = read_memos(
        prefetched(
            waits=[
                ["slept", "sleep", True, -1.5, None, None, None, None, 1000],
                ["sleeps", "sleep", False, 2.25, None, None, None, None, 2000],
                ["waits", "event", False, None, None, None, None, "Number", 3000],
                ["waited", "event", True, None, [3], None, "orjson", "Number", None],
            ]
        )
    )
    assert memos.waits["slept"][:3] == ("sleep", True, -1.5)
    assert memos.waits["sleeps"][:3] == ("sleep", False, 2.25)
    assert memos.waits["waits"][:3] == ("event", False, None)
    payload = Payload(b"[3]", None, "orjson")
    assert memos.waits["waited"] == WaitMemo("event", True, None, payload, "Number")
    assert memos.places == {
        ("wait", "slept"): 1000,
        ("wait", "sleeps"): 2000,
        ("wait", "waits"): 3000,
    }


def test_events_are_known_by_name() -> None:
    memos = read_memos(prefetched(events=[["Number", 3, None, None]]))
    assert memos.events == {"Number": Payload(b"3", None, None)}


def test_random_values_come_back_from_a_signed_column() -> None:
    memos = read_memos(
        prefetched(
            random=[
                ["uid", "uuidv7", "0190f0b1-2c3d-7e4f-8a5b-6c7d8e9f0a1b", None, 1000],
                ["low", "uint64", None, 5, 2000],
                ["high", "uint64", None, -1, None],
                ["middle", "uint64", None, -(2**63), None],
            ]
        )
    )
    assert memos.uuids == {"uid": "0190f0b1-2c3d-7e4f-8a5b-6c7d8e9f0a1b"}
    assert memos.uint64s == {"low": 5, "high": 2**64 - 1, "middle": 2**63}
    assert memos.places == {("random", "uid"): 1000, ("random", "low"): 2000}
