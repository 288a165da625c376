"""Every error has its exit code, and a text of a line or two."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from flows.errors import (
    ConfigError,
    DatabaseError,
    DecodeError,
    EmbeddedError,
    LeaseLostError,
    SchemaError,
    UnknownWorkflowError,
)
from flows.supervisor.exits import ExitCode, exit_code_for, explain
from tests.supervisor.harness import ROOT


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no"), ExitCode.CONFIG),
        (DecodeError("json", "int", "text"), ExitCode.CONFIG),
        (UnknownWorkflowError("x"), ExitCode.CONFIG),
        (SchemaError("old"), ExitCode.SCHEMA),
        (DatabaseError("away"), ExitCode.DATABASE),
        (EmbeddedError("no binaries"), ExitCode.DATABASE),
        (psycopg.errors.InsufficientPrivilege("may not"), ExitCode.DATABASE),
        (LeaseLostError("lost"), ExitCode.LEASE_LOST),
        (ValueError("what"), ExitCode.INTERNAL),
        (ConnectionRefusedError("who"), ExitCode.INTERNAL),
    ],
)
def test_an_error_has_its_exit_code(error: Exception, code: ExitCode) -> None:
    assert exit_code_for(error) is code


def test_an_unforeseen_error_is_named_by_its_type() -> None:
    assert explain(ValueError("what\nwhere\nwhy")) == "ValueError: what\nwhere"
    assert explain(KeyError()) == "KeyError"


def test_a_foreseen_error_is_its_message_in_two_lines_at_most() -> None:
    assert explain(ConfigError("  what\n\n  remedy\n  more")) == "what\nremedy"
    assert explain(ConfigError()) == "ConfigError"


def test_every_exit_code_is_in_the_documentation() -> None:
    page = Path(ROOT / "docs" / "supervisor.md").read_text()
    for code in ExitCode:
        name = code.name.lower().replace("_", " ")
        assert f"| {code.value} | {name} |" in page
