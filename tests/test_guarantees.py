"""The page of guarantees names tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
PAGE = ROOT.parent / "docs" / "guarantees.md"
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text("utf-8"))))


def test_it_names_some() -> None:
    assert len(NAMED) > 50


@pytest.mark.parametrize(("path", "test"), NAMED, ids=[test for _, test in NAMED])
def test_a_test_that_is_named_is_there(path: str, test: str) -> None:
    module = ast.parse((ROOT / path).read_text("utf-8"))
    assert test in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_in_the_table_names_one() -> None:
    table = PAGE.read_text("utf-8").partition("| promise |")[2].partition("\n\n")[0]
    rows = table.splitlines()[2:]
    assert rows
    assert [row for row in rows if "::test_" not in row] == []
