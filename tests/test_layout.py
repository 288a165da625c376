"""Where things stand in the tree, and the habits of style that no linter checks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.source_tree import (
    PACKAGE_FOLDERS,
    ROOT,
    SOURCE_FOLDERS,
    files,
    imported_roots,
    in_checkout,
    package_modules,
    parse,
    relative,
    run_git,
    settings,
)

LINKS = {"flows/codecs": "../codecs", "flows/supervisor": "../supervisor"}
MAX_LINES = 500
MAX_FUNCTION_LINES = 50
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle"}
UNSAFE_CALLS = {"eval", "exec"}
TABLES = "runs|steps|waits|events|random|schedules|workers|migrations"


def query_ids(path: Path) -> str:
    return path.stem


def test_the_packages_listed_for_the_build_are_those_on_disk() -> None:
    on_disk = {
        name if path.name == "__init__.py" else name.rpartition(".")[0]
        for name, path in package_modules().items()
    }
    listed = settings()["tool"]["setuptools"]["packages"]
    assert listed == sorted(on_disk)


def test_every_folder_of_modules_is_a_package() -> None:
    bare = {
        relative(path.parent)
        for path in files(*PACKAGE_FOLDERS)
        if not (path.parent / "__init__.py").exists()
    }
    assert not bare


@in_checkout
@pytest.mark.parametrize(("link", "target"), LINKS.items())
def test_the_mapped_folders_are_linked_into_the_package(link: str, target: str) -> None:
    assert (ROOT / link).readlink() == Path(target)
    assert (ROOT / link / "__init__.py").is_file()


@in_checkout
def test_git_keeps_the_links_as_links() -> None:
    listing = run_git("ls-files", "--stage", *LINKS)
    # 120000 is git's mode of a symbolic link; a folder would be listed by its files.
    modes = {line.split("\t")[1]: line.split()[0] for line in listing.splitlines()}
    assert modes == dict.fromkeys(LINKS, "120000")


def test_no_file_is_too_long() -> None:
    sources = [*files(*SOURCE_FOLDERS), *files("flows", suffix=".sql")]
    lengths = {relative(path): len(path.read_text("utf-8").splitlines()) for path in sources}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [
        relative(path)
        for path in files(*SOURCE_FOLDERS)
        if VAGUE_NAMES & {*path.relative_to(ROOT).with_suffix("").parts, *path.stem.split("_")}
    ]
    assert not vague


def test_a_module_that_lists_its_names_lists_all_of_them() -> None:
    unlisted = {}
    for name, path in package_modules().items():
        tree = parse(path)
        listed = [
            set(ast.literal_eval(node.value))
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        defined = {node.name for node in tree.body if isinstance(node, definitions)}
        if listed:
            unlisted[name] = {one for one in defined - listed[0] if not one.startswith("_")}
    assert {name: names for name, names in unlisted.items() if names} == {}


def length_without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    described = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if described else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_no_function_of_the_package_is_too_long() -> None:
    lengths = {
        f"{relative(path)}:{node.lineno} {node.name}": length_without_docstring(node)
        for path in files(*PACKAGE_FOLDERS)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_nothing_in_the_package_loads_or_runs_what_it_was_given() -> None:
    found = []
    for path in files(*PACKAGE_FOLDERS):
        tree = parse(path)
        roots = set(imported_roots(ast.walk(tree)))
        called = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        found += [(relative(path), name) for name in (roots & UNSAFE_MODULES)]
        found += [(relative(path), name) for name in (called & UNSAFE_CALLS)]
    assert not found


def test_no_test_sleeps_to_let_something_happen() -> None:
    # In text, so that programs which tests write out and run are looked at too.
    sleep = re.compile(
        r"\btime\.sleep\b|\bfrom time import [^\n]*\bsleep\b|\basyncio\.sleep\([^0)]"
    )
    sleeping = [
        f"{relative(path)}:{number}"
        for path in files("tests")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if sleep.search(line)
    ]
    assert not sleeping


@pytest.mark.parametrize("path", files("flows/sql/queries", suffix=".sql"), ids=query_ids)
def test_a_query_says_what_it_does_what_it_locks_and_which_index_it_uses(path: Path) -> None:
    text = path.read_text("utf-8")
    header = re.match(
        r"-- (?!Locks:|Index:)\S.*\n(?:-- (?!Locks:|Index:)\S.*\n){0,3}"
        r"-- Locks:  \S.*\n(?:--         \S.*\n){0,2}"
        r"-- Index:  \S.*\n(?:--         \S.*\n){0,2}(?!--)",
        text,
    )
    assert header, "the header is: what it does; -- Locks:  …; -- Index:  …"
    indexes = set(re.findall(r"\b\w+_idx\b", header[0]))
    migrations = "".join(
        path.read_text("utf-8")
        for path in files("flows/sql", suffix=".sql")
        if path.parent.name == "migrations"
    )
    assert indexes <= set(re.findall(r"\b\w+_idx\b", migrations))


@pytest.mark.parametrize("path", files("flows/sql/queries", suffix=".sql"), ids=query_ids)
def test_a_query_is_one_statement_on_tables_of_the_schema(path: Path) -> None:
    body = re.sub(r"--[^\n]*", "", path.read_text("utf-8"))
    assert ";" not in body
    bare = re.findall(rf"(?i)\b(?:from|join|update|into|using)\s+(?:{TABLES})\b", body)
    assert not bare, "another schema is put in place of the prefix `flows.`"


def test_every_query_is_loaded_by_some_code() -> None:
    texts = {
        node.value
        for path in files(*PACKAGE_FOLDERS)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    queries = {path.stem for path in files("flows/sql/queries", suffix=".sql")}
    assert queries <= texts, f"nobody loads {sorted(queries - texts)}"
