"""Statements as files: each says what it locks and which index it uses, and names its tables."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from flows import sql
from tests.statement_marks import NO_TABLE

QUERIES = sorted(
    entry.name.removesuffix(".sql")
    for entry in resources.files("flows.sql").joinpath("queries").iterdir()
    if entry.name.endswith(".sql")
)
TABLES = "runs|crashes|steps|waits|events|random|cancellations|schedules|workers|migrations"


def text_of(name: str) -> str:
    return resources.files("flows.sql").joinpath("queries", f"{name}.sql").read_text("utf-8")


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_says_what_it_does_what_it_locks_and_which_index_it_uses(name: str) -> None:
    header = re.match(r"(?:--[^\n]*\n)+", text_of(name))
    assert header is not None
    does, locks, index = re.split(r"^-- (?:Locks|Index): ", header[0], flags=re.MULTILINE)
    assert does.removeprefix("--").strip()
    assert locks.strip()
    assert index.strip()


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_is_one_statement_without_its_header(name: str) -> None:
    statement = sql.load(name).decode()
    assert ";" not in statement
    assert "--" not in statement
    assert statement == statement.strip()


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_names_every_table_with_its_schema(name: str) -> None:
    statement = sql.load(name, "Other").decode()
    assert "flows" not in statement
    assert re.findall(rf"(?:FROM|JOIN|INTO|UPDATE)\s+({TABLES})\b", statement) == []
    assert re.search(rf'"Other"\.(?:{TABLES})\b', statement) or name in NO_TABLE


def test_parameters_are_numbered_as_they_first_come() -> None:
    text, names = sql.numbered("notify", "flows")
    assert (text, names) == (b"SELECT pg_notify($1, $2)", ("channel", "payload"))
    for query in QUERIES:
        text, names = sql.numbered(query, "flows")
        assert b"%(" not in text
        assert {int(number) for number in re.findall(rb"\$(\d+)", text)} == {
            position + 1 for position in range(len(names))
        }
        assert len(set(names)) == len(names)


def test_only_names_of_tables_are_replaced() -> None:
    text = "SELECT 'flows.runs', x.flows.y FROM flows.runs; CREATE SCHEMA IF NOT EXISTS flows;"
    expected = 'SELECT \'flows.runs\', x.flows.y FROM "S".runs; CREATE SCHEMA IF NOT EXISTS "S";'
    assert sql.with_schema(text, "S") == expected
    assert sql.with_schema("'flows.runs'::regclass", "S") == "'\"S\".runs'::regclass"


def test_what_distributes_the_tables_names_them_all_and_only_in_the_schema() -> None:
    text = sql.with_schema(sql.citus_file(), "Other")
    assert "flows." not in text
    assert set(re.findall(r"'\"Other\"\.(\w+)'::regclass", text)) == set(TABLES.split("|"))


def test_a_migration_is_taken_apart_into_its_statements() -> None:
    text = "-- Why; and how.\nCREATE x (\n    y int\n);\n\n-- Then.\nDROP z;\n"
    assert sql.statements_of(text) == ["CREATE x (\n    y int\n)", "DROP z"]
    for _, migration in sql.migration_files():
        statements = sql.statements_of(migration)
        assert not [each for each in statements if ";" in each or "--" in each]
        assert all(re.match("CREATE|ALTER|DROP|INSERT|UPDATE", each) for each in statements)


def test_migrations_are_numbered_from_1_and_record_themselves() -> None:
    migrations = sql.migration_files()
    assert [number for number, _ in migrations] == list(range(1, len(migrations) + 1))
    for number, text in migrations:
        assert f"INSERT INTO flows.migrations (version, name) VALUES ({number}, " in text
