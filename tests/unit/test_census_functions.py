"""Lines, complexity and tokens against values counted by hand."""

from __future__ import annotations

import ast
import textwrap
import warnings
from pathlib import Path

import pytest

from examples.census.functions import Function, code_lines, functions_of, measure_file

NEVER = 10_000
ALWAYS = 1


def functions(source: str, min_tokens: int = NEVER) -> list[Function]:
    return functions_of(ast.parse(textwrap.dedent(source)), min_tokens)


def lines(source: str) -> int:
    text = textwrap.dedent(source)
    return code_lines(text, ast.parse(text))


def in_function(body: str) -> int:
    (function,) = functions(f"def f(a, b, c):\n{textwrap.indent(textwrap.dedent(body), '    ')}")
    return function.complexity


@pytest.mark.parametrize(
    ("complexity", "body"),
    [
        (1, "pass"),
        (1, "with a: b()"),
        (1, "try:\n    a()\nfinally:\n    b()"),
        (2, "if a: b()"),
        (2, "if a:\n    b()\nelse:\n    c()"),
        (3, "if a:\n    b()\nelif b:\n    c()\nelse:\n    a()"),
        (2, "return b if a else c"),
        (2, "for x in a: b()"),
        (2, "for x in a:\n    b()\nelse:\n    c()"),
        (2, "while a: b()"),
        (2, "assert a"),
        (3, "try:\n    a()\nexcept OSError:\n    b()\nexcept ValueError:\n    c()"),
        (2, "return a and b"),
        (3, "return a and b and c"),
        (3, "return a and b or c"),
        (4, "if a and b or c: pass"),
        (2, "return [x for x in a]"),
        (4, "return {x for x in a if x if b}"),
        (3, "return {x: y for x in a for y in b}"),
        (2, "return lambda: a if b else c"),
        (2, "match a:\n    case 1: pass\n    case _: pass"),
        (2, "match a:\n    case 1: pass\n    case other: pass"),
        (3, "match a:\n    case 1: pass\n    case _ if b: pass"),
        (3, "match a:\n    case [1, _]: pass\n    case int() as n: pass"),
        (3, "match a:\n    case 1 | 2 if b: pass"),
    ],
)
def test_complexity_is_the_number_of_decisions_plus_one(complexity: int, body: str) -> None:
    assert in_function(body) == complexity


def test_asynchronous_loops_decide_too() -> None:
    (function,) = functions("""
        async def f(a):
            async for x in a:
                await x
            return [x async for x in a]
        """)
    assert function.complexity == 3


def test_a_nested_function_is_counted_by_itself() -> None:
    found = functions("""
        def outer(a):
            if a:
                return 1

            class Local:
                def method(self):
                    while a:
                        for x in a:
                            pass

            @decorate(1 if a else 2)
            def inner():
                return a or a

            return inner
        """)
    assert [(one.name, one.complexity, one.line, one.lines) for one in found] == [
        ("outer", 3, 2, 15),
        ("outer.Local.method", 3, 7, 4),
        ("outer.inner", 2, 13, 2),
    ]


def test_code_outside_of_functions_is_no_functions() -> None:
    assert functions("if a:\n    b = [x for x in a]\n") == []


def test_lines_are_counted_without_blanks_comments_and_docstrings() -> None:
    source = '''\
        """Module.

        More.
        """
        # comment

        import os  # 1

        class C:  # 2
            """One line."""

            def f(self):  # 3
                """Two
                lines."""  # with a comment
                return 1  # 4

        def g(): """with the code"""  # 5
        '''
    assert lines(source) == 5


def test_lines_of_a_text_are_code_whatever_they_look_like() -> None:
    source = '''\
        text = """
        # not a comment

        last"""
        """a text that is
        no docstring"""
        values = f"""
        {text}
        # nor this
        """
        '''
    assert lines(source) == 10


def test_a_docstring_that_shares_its_last_line_with_code_leaves_that_line() -> None:
    assert lines('def f():\n    """One\n    two"""; return 1\n') == 2


def test_columns_count_bytes_before_a_docstring() -> None:
    assert lines('def größe(): "äöü"\n') == 1


def shingles(source: str) -> bytes:
    (function,) = functions(source, ALWAYS)
    assert function.shingles
    return function.shingles


ORIGINAL = '''
    def total(items, rate):
        """Sum it."""
        result = 0
        for item in items:
            result += item.price * rate
        return round(result, 2)
    '''


def test_local_names_constants_docstrings_and_layout_do_not_matter() -> None:
    copied = """
        def compute(rows, factor):  # no docstring
            acc = 17

            for row in rows:
                acc += row.price * factor
            return round(
                acc,
                5,
            )
        """
    assert shingles(copied) == shingles(ORIGINAL)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("price", "weight"),  # another attribute
        ("round", "floor"),  # another global
        ("*", "+"),  # another operator
        ("result = 0", "result = '0'"),  # a constant of another type
        ("result, 2", "result, ndigits=2"),  # a keyword
    ],
)
def test_attributes_globals_operators_and_types_matter(old: str, new: str) -> None:
    assert old in ORIGINAL
    assert shingles(ORIGINAL.replace(old, new)) != shingles(ORIGINAL)


def test_names_bound_by_imports_handlers_patterns_and_classes_are_local() -> None:
    source = """
        def f(a):
            import os.path
            from json import loads as load
            try:
                os.stat(load(a))
            except OSError as error:
                print(error)
            match a:
                case [first, *rest]:
                    print(first, rest)
            class Local: pass
            return Local
        """
    renamed = source
    for old, new in {
        "as load": "as decode",
        "load(a)": "decode(a)",
        "error": "problem",
        "first": "head",
        "rest": "tail",
        "Local": "Inner",
    }.items():
        renamed = renamed.replace(old, new)
    assert shingles(renamed) == shingles(source)


def test_a_function_shorter_than_the_minimum_has_no_fingerprint() -> None:
    # arguments, arg, Return, UnaryOp, USub, name: the def itself is a token of what is around it.
    source = "def f(a):\n    return -a\n"
    assert functions(source, 6)[0].shingles != b""
    assert functions(source, 7)[0].shingles == b""


def test_trees_may_be_deeper_than_python_recurses() -> None:
    tree = ast.parse("def f(a):\n    pass\n")
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    deep: ast.expr = ast.Name("a", ast.Load())
    for _ in range(5000):
        deep = ast.UnaryOp(ast.Not(), deep)
    function.body = [ast.Expr(ast.IfExp(deep, deep, deep))]
    assert [one.complexity for one in functions_of(tree, NEVER)] == [2]


def test_a_file_that_is_not_python_says_so(tmp_path: Path) -> None:
    cases = {
        "syntax.py": b"def f(:\n",
        "coding.py": b"# coding: no-such-coding\n",
        "bytes.py": b"x = '\xff'\n",
        "null.py": b"x = 1\0\n",
        "deep.py": b"(" * 10_000 + b")" * 10_000,
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    measures = {name: measure_file(str(tmp_path), name, ALWAYS) for name in cases}
    assert all(measure.error for measure in measures.values()), measures
    assert {(measure.code_lines, len(measure.functions)) for measure in measures.values()} == {
        (0, 0)
    }


def test_a_file_is_read_in_its_own_encoding(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"# coding: latin-1\r\ndef gr\xf6\xdfe():\r\n    pass\r\n")
    measure = measure_file(str(tmp_path), "latin.py", NEVER)
    assert measure.error is None
    assert measure.code_lines == 2
    assert [function.name for function in measure.functions] == ["größe"]


def test_warnings_about_the_files_measured_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "escape.py").write_text('x = "\\d"\nassert (x, 1)\n', "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure = measure_file(str(tmp_path), "escape.py", NEVER)
    assert (measure.error, measure.code_lines) == (None, 2)


def test_a_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        measure_file(str(tmp_path), "gone.py", NEVER)
