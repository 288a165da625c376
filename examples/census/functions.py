"""Measure one source file: code lines, and the complexity and tokens of each function.

Cyclomatic complexity is T. J. McCabe's ("A Complexity Measure", IEEE Transactions on Software
Engineering 2(4), 1976): decisions + 1. A decision is each `if`, `elif`, conditional expression,
`for`, `while`, `except`, `assert`, further operand of `and` or `or`, `for` and `if` of a
comprehension, guard of a `case`, and each `case` that can fail to match. A nested function is
counted by itself and adds nothing to the function around it; a lambda belongs to the function
around it.

The tokens of a function are the nodes of its syntax tree in source order, normalised so that
copies with other local names and other constants (clones of "type 2" in the literature: Roy,
Cordy and Koschke, Science of Computer Programming 74(7), 2009) read alike: names bound in the
function become one token, constants their type; attributes, globals and keywords keep their
name. Comments, layout, docstrings and type annotations of results play no part.
"""

from __future__ import annotations

import ast
import threading
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .similarity import shingles

__all__ = ["FileMeasure", "Function", "code_lines", "functions_of", "measure_file"]

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED = (ast.Module, ast.ClassDef, *_FUNCTIONS)


class Function(NamedTuple):
    """One function.

    Attributes:
        line: where its `def` stands.
        name: its name within the module, as `Class.method.inner`.
        lines: from the `def` to the last line.
        complexity: cyclomatic complexity.
        shingles: its fingerprint, see `similarity.shingles`; empty if it is too short.
    """

    line: int
    name: str
    lines: int
    complexity: int
    shingles: bytes


class FileMeasure(NamedTuple):
    """One file.

    Attributes:
        path: path under the root.
        code_lines: lines that hold code.
        functions: by line.
        error: why the file could not be measured; it then counts neither lines nor functions.
    """

    path: str
    code_lines: int
    functions: list[Function]
    error: str | None = None


_parse_lock = threading.Lock()


def measure_file(root: str, path: str, min_tokens: int) -> FileMeasure:
    """Measure a file; one that is not valid Python is reported in `error`.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with tokenize.open(Path(root, path)) as file:
            text = file.read()
        tree = _parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # Not a defect of the census: the standard library's own tests hold such files.
        return FileMeasure(path, 0, [], type(error).__name__)
    return FileMeasure(path, code_lines(text, tree), functions_of(tree, min_tokens))


def _parse(text: str) -> ast.Module:
    # Parsing warns of invalid escapes in the files measured. `catch_warnings` swaps a global of
    # the process, so threads take turns; the parser holds the GIL anyway.
    with _parse_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def code_lines(text: str, tree: ast.Module) -> int:
    """Count the lines that hold more than blanks, comments and docstrings."""
    lines = text.split("\n")
    code = {number for number, line in enumerate(lines, 1) if line.strip()[:1] not in {"", "#"}}
    docstrings: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and node.end_lineno != node.lineno:
            # Lines of a text may look like comments or be blank: the text is code as a whole.
            code.update(range(node.lineno, _end_line(node) + 1))
        elif isinstance(node, _DOCUMENTED):
            docstrings += _docstring(node)
    for docstring in docstrings:
        code.difference_update(_lines_of_its_own(docstring, lines))
    return len(code)


def _end_line(node: ast.expr) -> int:
    return node.lineno if node.end_lineno is None else node.end_lineno


def _docstring(node: ast.Module | ast.ClassDef | FunctionNode) -> list[ast.expr]:
    """Return the docstring, or nothing."""
    first = node.body[0] if node.body else None
    if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
        return []
    return [first.value] if isinstance(first.value.value, str) else []


def _lines_of_its_own(text: ast.expr, lines: list[str]) -> Iterator[int]:
    """Yield the lines of a text but for those it shares with code, as in `def f(): "doc"`."""
    end_line = _end_line(text)
    for number in range(text.lineno, end_line + 1):
        line = lines[number - 1].encode()
        before = line[: text.col_offset] if number == text.lineno else b""
        after = line[text.end_col_offset :] if number == end_line else b""
        if not before.strip() and after.strip()[:1] in {b"", b"#"}:
            yield number


_DECISIONS: dict[type[ast.AST], int] = dict.fromkeys(
    (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert), 1
)
_KEPT_NAMES: dict[type[ast.AST], str] = {
    ast.Attribute: "attr",
    ast.ImportFrom: "module",
    ast.alias: "name",
    ast.keyword: "arg",
}
_BOUND_NAMES: dict[type[ast.AST], str] = {
    ast.AsyncFunctionDef: "name",
    ast.ClassDef: "name",
    ast.ExceptHandler: "name",
    ast.FunctionDef: "name",
    ast.MatchAs: "name",
    ast.MatchStar: "name",
    ast.arg: "arg",
}
_IGNORED = frozenset({ast.Load, ast.Store, ast.Del})


class _Scope:
    """What is gathered about one function, or about the code outside of functions."""

    __slots__ = ("bound", "complexity", "name", "node", "tokens")

    def __init__(self, name: str, node: FunctionNode | None) -> None:
        self.name = name
        self.node = node
        self.complexity = 1
        self.tokens: list[str] = []
        self.bound: set[str] = set()

    def add(self, node: ast.AST) -> None:
        kind = type(node)
        if kind is ast.Name:
            self._add_name(node)  # type: ignore[arg-type]
            return
        self.complexity += _DECISIONS.get(kind, 0) or _decisions(node)
        self.tokens.append(_token(node))
        if kind in _BOUND_NAMES:
            self.bound.add(f"name {getattr(node, _BOUND_NAMES[kind])}")
        elif kind is ast.alias:
            self.bound.add(f"name {node.asname or node.name.partition('.')[0]}")  # type: ignore[attr-defined]

    def _add_name(self, name: ast.Name) -> None:
        token = f"name {name.id}"
        self.tokens.append(token)
        if type(name.ctx) is not ast.Load:
            self.bound.add(token)

    def function(self, node: FunctionNode, min_tokens: int) -> Function:
        tokens = ["name" if token in self.bound else token for token in self.tokens]
        return Function(
            line=node.lineno,
            name=self.name,
            lines=(node.end_lineno or node.lineno) - node.lineno + 1,
            complexity=self.complexity,
            shingles=shingles(tokens) if len(tokens) >= min_tokens else b"",
        )


def _decisions(node: ast.AST) -> int:
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        always = isinstance(node.pattern, ast.MatchAs) and node.pattern.pattern is None
        return (not always) + (node.guard is not None)
    return 0


def _token(node: ast.AST) -> str:
    kind = type(node)
    if isinstance(node, ast.Constant):
        return f"constant {type(node.value).__name__}"
    if kind in _KEPT_NAMES:
        return f"{kind.__name__} {getattr(node, _KEPT_NAMES[kind])}"
    return kind.__name__


def functions_of(tree: ast.Module, min_tokens: int) -> list[Function]:
    """Return every function of a module, nested ones and methods included, by line.

    The walk keeps its own stack: generated sources nest deeper than Python recurses.
    """
    outside = _Scope("", None)
    scopes: list[_Scope] = []
    pending: list[tuple[ast.AST, _Scope, str]] = [(tree, outside, "")]
    while pending:
        node, scope, prefix = pending.pop()
        scope.add(node)
        children: Iterator[ast.AST] | list[ast.AST]
        if isinstance(node, _FUNCTIONS):
            # Decorators run in the scope around; they are few, and come after the function's
            # own token there.
            pending.extend((child, scope, prefix) for child in reversed(node.decorator_list))
            scope = _Scope(prefix + node.name, node)
            scopes.append(scope)
            prefix = f"{prefix}{node.name}."
            children = [node.args, *_without_docstring(node)]
        elif isinstance(node, ast.ClassDef):
            prefix = f"{prefix}{node.name}."
            children = ast.iter_child_nodes(node)
        else:
            children = ast.iter_child_nodes(node)
        below = [(child, scope, prefix) for child in children if type(child) not in _IGNORED]
        pending.extend(reversed(below))
    return [scope.function(scope.node, min_tokens) for scope in scopes if scope.node is not None]


def _without_docstring(node: FunctionNode) -> list[ast.stmt]:
    return node.body[1:] if _docstring(node) else node.body
