"""Statements on Citus: each is marked with what it needs, and those of one shard say so throughout.

A statement is routed to one node only if the shard stands as an equality on every table of runs
that it mentions; joined through another table it goes to all nodes, or is refused.
"""

from __future__ import annotations

import re
from importlib import resources

import pytest

from flows import sql
from tests.statement_marks import ANY_SHARD, NO_TABLE, ONE_SHARD, WHOLE_TABLE
from tests.statement_values import values_of

RUN_TABLES = {"runs", "steps", "waits", "events", "random", "crashes", "cancellations"}
WHOLE_TABLES = {"schedules", "workers", "migrations"}

_MENTION = re.compile(
    r"\b(?P<verb>FROM|JOIN|UPDATE|INTO)\s+flows\.(?P<table>\w+)(?:\s+AS\s+(?P<alias>\w+))?"
)
_INSERTED = re.compile(
    r"INSERT INTO flows\.\w+(?: AS \w+)? \(\s*(?P<column>\w+),.*?"
    r"\)\s*(?:VALUES \(|SELECT)\s*(?P<value>[^\s,]+),",
    re.DOTALL,
)
SHARD = "%(shard)s"


def queries() -> list[str]:
    folder = resources.files("flows.sql").joinpath("queries")
    return sorted(entry.name.removesuffix(".sql") for entry in folder.iterdir())


def text_of(name: str) -> str:
    return sql.load(name).decode().replace('"flows".', "flows.")


def faults(statement: str) -> list[str]:
    """Return which mentions of tables of runs are not held to the shard of the parameter."""
    found = []
    mentions = [match for match in _MENTION.finditer(statement) if match["table"] in RUN_TABLES]
    for alias in {match["alias"] for match in mentions if match["verb"] != "INTO"}:
        read = [each for each in mentions if each["alias"] == alias and each["verb"] != "INTO"]
        column = rf"\b{alias}\.workflow_name_shard" if alias else r"(?<![.\w])workflow_name_shard"
        held = re.findall(rf"{column} = {re.escape(SHARD)}", statement)
        if len(held) != len(read):
            found.append(f"{len(read)} mentions of {read[0][0]!r}, held {len(held)} times")
    for match in mentions:
        if match["verb"] == "INTO":
            inserted = _INSERTED.match(statement[statement.index("INSERT INTO") :])
            if inserted is None or inserted["column"] != "workflow_name_shard":
                found.append("the shard is not the first column that is inserted")
            elif not _is_held(inserted["value"], statement):
                found.append(f"{inserted['value']} is inserted as shard")
    return found


def _is_held(value: str, statement: str) -> bool:
    return value == SHARD or (
        value.endswith(".workflow_name_shard") and f"{value} = {SHARD}" in statement
    )


def test_every_statement_is_marked_once() -> None:
    marks = [*ONE_SHARD, *ANY_SHARD, *WHOLE_TABLE, *NO_TABLE]
    assert sorted(marks) == queries()


@pytest.mark.parametrize("name", sorted(ONE_SHARD))
def test_a_statement_of_one_shard_holds_every_table_of_runs_to_it(name: str) -> None:
    statement = text_of(name)
    tables = {match["table"] for match in _MENTION.finditer(statement)}
    assert tables
    assert tables <= RUN_TABLES, "a table that is whole may be on another node"
    assert faults(statement) == []


@pytest.mark.parametrize("name", sorted(ANY_SHARD))
def test_a_statement_of_any_shard_only_reads(name: str) -> None:
    statement = text_of(name)
    assert not re.search(r"\b(?:UPDATE|INSERT|DELETE|FOR SHARE)\b", statement)
    assert {match["table"] for match in _MENTION.finditer(statement)} & RUN_TABLES


@pytest.mark.parametrize("name", sorted(WHOLE_TABLE))
def test_a_statement_of_whole_tables_mentions_one_and_no_table_of_runs(name: str) -> None:
    tables = {match["table"] for match in _MENTION.finditer(text_of(name))}
    assert len(tables) == 1
    assert tables <= WHOLE_TABLES


@pytest.mark.parametrize("name", sorted(NO_TABLE))
def test_a_statement_of_no_table_mentions_none(name: str) -> None:
    assert "flows." not in text_of(name)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 FROM flows.runs WHERE run_id = %(run_id)s",
        "SELECT 1 FROM flows.runs AS r WHERE workflow_name_shard = %(shard)s",
        (
            "SELECT 1 FROM flows.runs AS r JOIN flows.waits AS w USING (workflow_name_shard)"
            " WHERE r.workflow_name_shard = %(shard)s"
        ),
        "SELECT 1 FROM flows.runs AS r WHERE r.workflow_name_shard = ANY(%(shards)s)",
        "SELECT (SELECT 1 FROM flows.runs) FROM flows.runs WHERE workflow_name_shard = %(shard)s",
        "UPDATE flows.runs AS r SET x = 1 FROM u WHERE r.workflow_name_shard = u.shard",
        "INSERT INTO flows.runs (workflow_name_shard, run_id) SELECT u.shard, u.run_id FROM u",
        "INSERT INTO flows.runs (run_id, workflow_name_shard) VALUES (%(run_id)s, %(shard)s)",
        (
            "INSERT INTO flows.steps (workflow_name_shard, run_id)"
            " SELECT r.workflow_name_shard, r.run_id FROM flows.runs AS r WHERE r.run_id = u.run_id"
        ),
    ],
)
def test_a_table_that_is_not_held_to_the_shard_is_found(statement: str) -> None:
    assert faults(statement)


@pytest.mark.parametrize("name", sorted([*ONE_SHARD, *ANY_SHARD, *WHOLE_TABLE]))
def test_there_are_values_for_a_statement_that_citus_is_asked(name: str) -> None:
    wanted = set(re.findall(r"%\((\w+)\)s", sql.load(name).decode()))
    assert wanted <= set(values_of(name))
