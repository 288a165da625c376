"""Names and numbers that are configured: what cannot work is refused at once, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from flows import DEFAULT_SCHEMA, DBConfig
from flows.config import (
    MAX_KEY_BYTES,
    MAX_SHARD_COUNT,
    MAX_WORKFLOW_NAME_BYTES,
    check_identifier,
    check_workflow_name,
    why_no_key,
)
from flows.errors import ConfigError
from flows.ids import RunID, RunKey, uuid7

NOTIFY_PAYLOAD_BYTES = 8000


def test_the_schema_is_flows_and_a_workflow_has_one_shard_by_default() -> None:
    assert DEFAULT_SCHEMA == "flows"
    assert DBConfig() == DBConfig(schema="flows", shard_count=1)


@pytest.mark.parametrize("schema", ["flows", "Flows_2", "_x", "a" * 63])
def test_a_schema_may_be_any_plain_identifier(schema: str) -> None:
    assert DBConfig(schema=schema).schema == schema


@pytest.mark.parametrize(
    "schema",
    ["", " ", "2flows", "a-b", "a.b", 'a"b', "flows\n", "flüsse", "a" * 64, "pg_flows", "PG_x"],
)
def test_a_schema_that_postgres_would_read_otherwise_is_refused(schema: str) -> None:
    with pytest.raises(ConfigError, match="schema") as caught:
        DBConfig(schema=schema)
    assert repr(schema) in str(caught.value)


@pytest.mark.parametrize("schema", [None, 5, b"flows"])
def test_a_schema_that_is_no_text_is_refused(schema: Any) -> None:
    with pytest.raises(ConfigError, match="schema"):
        DBConfig(schema=schema)


@pytest.mark.parametrize("count", [1, 2, MAX_SHARD_COUNT])
def test_a_shard_count_from_one_on_is_taken(count: int) -> None:
    assert DBConfig(shard_count=count).shard_count == count


@pytest.mark.parametrize("count", [0, -1, MAX_SHARD_COUNT + 1, True, 1.0, "2", None])
def test_another_shard_count_is_refused(count: Any) -> None:
    with pytest.raises(ConfigError, match="shard_count"):
        DBConfig(shard_count=count)


def test_what_is_refused_is_named() -> None:
    with pytest.raises(ConfigError, match=r"notify_channel 'a b' is not a valid identifier"):
        check_identifier("notify_channel", "a b")


@pytest.mark.parametrize("name", ["demo", "a:b/c 1", "Überweisung", "x_0"])
def test_a_workflow_may_have_any_printable_name(name: str) -> None:
    assert check_workflow_name(name) == name


@pytest.mark.parametrize("name", [None, 5, "", "  ", "a\0b", "a\nb", "a\ud800"])
def test_a_name_that_is_empty_or_cannot_be_printed_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="name"):
        check_workflow_name(name)


def test_the_longest_name_fits_a_notification_and_one_more_byte_is_refused() -> None:
    longest = "ü" * (MAX_WORKFLOW_NAME_BYTES // 2)
    key = RunKey(f"{check_workflow_name(longest)}_{MAX_SHARD_COUNT - 1}", RunID(uuid7()))
    assert len(str(key).encode()) < NOTIFY_PAYLOAD_BYTES
    with pytest.raises(ConfigError, match="longer than 1000 bytes"):
        check_workflow_name(longest + "x")


def test_a_key_may_be_any_text_of_moderate_length() -> None:
    assert why_no_key("trace/v1") is None
    assert why_no_key("\n ü") is None
    assert why_no_key("ü" * (MAX_KEY_BYTES // 2)) is None


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "non-empty"),
        (None, "not None"),
        (b"key", "text"),
        ("a\0", "NUL"),
        ("\ud800", "surrogate"),
        ("ü" * (MAX_KEY_BYTES // 2) + "x", "longer than 1000 bytes"),
    ],
)
def test_why_a_key_cannot_be_one(key: Any, reason: str) -> None:
    fault = why_no_key(key)
    assert fault is not None
    assert reason in fault
