"""What the project's folders hold, for the tests of layout and packaging."""

from __future__ import annotations

import ast
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGE_FOLDERS = ("flows", "codecs", "supervisor")
SOURCE_FOLDERS = (*PACKAGE_FOLDERS, "tests", "examples", "benchmarks")

# An unpacked sdist has neither git's list of sources nor the links for type checkers.
in_checkout = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")


def files(*folders: str, suffix: str = ".py") -> list[Path]:
    """Return the files of folders, each once: linked folders are not entered."""
    found = [path for folder in folders for path in (ROOT / folder).rglob(f"*{suffix}")]
    # A check of no file at all would hold whatever the tree looks like.
    assert found, f"no {suffix} file in {folders}"
    return sorted(found)


def package_modules() -> dict[str, Path]:
    """Return the modules of the installed package by their import names."""
    modules = {}
    for path in files(*PACKAGE_FOLDERS):
        parts = path.relative_to(ROOT).with_suffix("").parts
        prefix = () if parts[0] == "flows" else ("flows",)
        modules[".".join((*prefix, *parts)).removesuffix(".__init__")] = path
    return modules


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def imported_roots(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the top-level name of everything that import statements among `nodes` ask for."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def run_git(*arguments: str) -> str:
    # A checkout may belong to another user than the one who runs the tests in a container.
    command = ["git", "-c", "safe.directory=*", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def copy_sources(target: Path) -> None:
    """Copy what git has or would add: tools write into the tree they work on."""
    listing = run_git("ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listing.split("\0")):
        source = ROOT / name
        if source.is_symlink() or source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)
