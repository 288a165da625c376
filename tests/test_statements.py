"""SQL is never put together from text: what is executed comes from files, or is quoted."""

from __future__ import annotations

import ast
import re

from tests.source_tree import PACKAGE_FOLDERS, files, parse, relative

VERBS = re.compile(
    r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|ALTER|DROP|LISTEN|NOTIFY|SET|WITH|GRANT"
    r"|TRUNCATE|COPY|SAVEPOINT|RELEASE SAVEPOINT|ROLLBACK)\s"
)
MADE_OF_CONSTANTS = {"flows/embedded/cluster.py"}
"""The name of the embedded database is a constant, and there is no connection yet to quote with."""


def looks_like_sql(node: ast.AST) -> bool:
    texts = [
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    return bool(texts) and VERBS.match(texts[0]) is not None


def is_made(node: ast.AST) -> bool:
    """Tell whether an expression makes text of parts: f"…", "…" % x, "…" + x, "…".format(x)."""
    if isinstance(node, ast.JoinedStr):
        return True
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Mod | ast.Add)
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("format", "join", "replace")
        and isinstance(node.func.value, ast.Constant)
    )


def made_statements(tree: ast.AST) -> list[int]:
    return [
        getattr(node, "lineno", 0)
        for node in ast.walk(tree)
        if is_made(node) and looks_like_sql(node)
    ]


def test_no_statement_is_made_of_parts() -> None:
    found = [
        f"{relative(path)}:{line}"
        for path in files(*PACKAGE_FOLDERS)
        if relative(path) not in MADE_OF_CONSTANTS
        for line in made_statements(parse(path))
    ]
    assert not found


def test_the_check_sees_statements_that_are_made_of_parts() -> None:
    for line in (
        'f"SELECT * FROM {name}"',
        '"DELETE FROM %s" % name',
        '"UPDATE " + name',
        '"LISTEN {}".format(name)',
    ):
        assert made_statements(ast.parse(line)) == [1], line
    assert made_statements(ast.parse('sql.SQL("LISTEN {}").format(x); f"set {x}: why"')) == []
