"""The wheel and the sdist hold what they should, and work where the sources are not."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.source_tree import (
    PACKAGE_FOLDERS,
    SOURCE_FOLDERS,
    copy_sources,
    files,
    imported_roots,
    in_checkout,
    parse,
    relative,
    settings,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

IMPORT_ALL = """
import flows, flows.cli, flows.codecs, flows.supervisor
from flows.schema import SCHEMA_SQL
assert "CREATE TABLE" in SCHEMA_SQL
print(*(module.__file__ for module in (flows, flows.codecs, flows.supervisor)), sep="\\n")
"""


@dataclass(frozen=True)
class Artifacts:
    """What one build made.

    Attributes:
        tree: the copy of the sources that was built.
        sdist: the source distribution.
        wheel: the wheel built from the sdist, as an installer would.
        direct_wheel: the wheel built from the tree.
    """

    tree: Path
    sdist: Path
    wheel: Path
    direct_wheel: Path


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program and return its output; show what it said if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    base = tmp_path_factory.mktemp("packaging")
    tree = base / "tree"
    copy_sources(tree)
    build = (sys.executable, "-m", "build", "--no-isolation")
    run(*build, "--wheel", "--outdir", base / "direct", tree, cwd=base)
    shutil.rmtree(tree / "build")
    run(*build, "--outdir", base / "dist", tree, cwd=base)
    (sdist,) = (base / "dist").glob("*.tar.gz")
    (wheel,) = (base / "dist").glob("*.whl")
    (direct_wheel,) = (base / "direct").glob("*.whl")
    return Artifacts(tree, sdist, wheel, direct_wheel)


def sources(tree: Path, *folders: str) -> set[str]:
    """Return the files of folders, each once, without what Python compiled."""
    return {
        path.relative_to(tree).as_posix()
        for folder in folders
        for path in (tree / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def new_environment(folder: Path) -> Path:
    """Make a virtual environment that sees our dependencies, and return its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    purelib = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
    )
    # A path that is listed so is searched, but the .pth files in it are not run: what is
    # installed editable there stays invisible.
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(purelib.strip(), "dependencies.pth").write_text("\n".join(sorted(paths)), "utf-8")
    return python


def install(python: Path, *what: str | Path, cwd: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index")
    run(*pip, "--no-deps", "--no-build-isolation", *what, cwd=cwd)


@in_checkout
def test_the_wheel_holds_every_file_of_the_package_once(artifacts: Artifacts) -> None:
    own = sources(artifacts.tree, "flows")
    mapped = {f"flows/{name}" for name in sources(artifacts.tree, "codecs", "supervisor")}
    with zipfile.ZipFile(artifacts.wheel) as archive:
        packed = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert sorted(packed) == sorted(own | mapped)
    assert {"flows/py.typed", "flows/sql/migrations/0001_initial.sql"} <= set(packed)


@in_checkout
def test_the_sdist_holds_sources_tests_and_documents_once(artifacts: Artifacts) -> None:
    with tarfile.open(artifacts.sdist) as archive:
        members = [member.name.partition("/")[2] for member in archive if member.isfile()]
    generated = ("PKG-INFO", "setup.cfg", "pgflows.egg-info/")
    packed = [name for name in members if not name.startswith(generated)]
    top = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"}
    assert sorted(packed) == sorted(top | sources(artifacts.tree, *SOURCE_FOLDERS, "docs"))


@in_checkout
def test_the_sdist_builds_the_same_wheel_as_the_tree(artifacts: Artifacts) -> None:
    assert contents(artifacts.wheel) == contents(artifacts.direct_wheel)


@in_checkout
def test_the_installed_wheel_works_away_from_the_sources(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    python = new_environment(tmp_path / "venv")
    install(python, artifacts.wheel, cwd=tmp_path)
    imported = run(python, "-c", IMPORT_ALL, cwd=tmp_path).split()
    assert all(Path(path).is_relative_to(tmp_path / "venv") for path in imported), imported
    assert "supervise" in run(python.parent / "flows", "--help", cwd=tmp_path)


@in_checkout
def test_an_editable_install_needs_no_links(artifacts: Artifacts, tmp_path: Path) -> None:
    run(sys.executable, "-m", "tarfile", "--extract", artifacts.sdist, tmp_path, cwd=tmp_path)
    (tree,) = tmp_path.iterdir()
    assert not (tree / "flows" / "codecs").exists()
    python = new_environment(tmp_path / "venv")
    install(python, "--editable", tree, cwd=tmp_path)
    imported = run(python, "-c", IMPORT_ALL, cwd=tmp_path).split()
    folders = [str(tree / folder / "__init__.py") for folder in PACKAGE_FOLDERS]
    assert imported == folders


def import_names() -> dict[str, set[str]]:
    """Return what can be imported from each installed distribution."""
    names: dict[str, set[str]] = {}
    for name, distributions in importlib.metadata.packages_distributions().items():
        for distribution in distributions:
            names.setdefault(canonicalize_name(distribution), set()).add(name)
    return names


def dependencies() -> list[Requirement]:
    return [Requirement(text) for text in settings()["project"]["dependencies"]]


def provided_by(dependency: Requirement) -> set[str]:
    """Return what can be imported once `dependency` is installed, by its extras too."""
    installed = import_names()
    names = set(installed[canonicalize_name(dependency.name)])
    for text in importlib.metadata.requires(dependency.name) or ():
        further = Requirement(text)
        for extra in dependency.extras:
            if further.marker and "extra" in text and further.marker.evaluate({"extra": extra}):
                names |= installed[canonicalize_name(further.name)]
    return names


def executed_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements that importing a module runs, without those that may fail."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Try):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from executed_at_import(child)


def test_what_importing_the_package_needs_is_declared() -> None:
    provided = {"flows", *sys.stdlib_module_names}
    provided |= {name for dependency in dependencies() for name in provided_by(dependency)}
    missing = {
        (relative(path), name)
        for path in files(*PACKAGE_FOLDERS)
        for name in imported_roots(executed_at_import(parse(path)))
        if name not in provided
    }
    # Imported only where an application has brought pydantic in; see the test that importing
    # flows does not. The plugin is imported by pytest, and the other where somebody asks for
    # metrics, which needs the extra.
    assert missing <= {
        ("codecs/losses.py", "pydantic"),
        ("codecs/models.py", "pydantic"),
        ("flows/pytest_plugin.py", "pytest"),
        ("supervisor/exposition.py", "prometheus_client"),
    }


def test_every_declared_dependency_is_used() -> None:
    imported = {
        name for path in files(*PACKAGE_FOLDERS) for name in imported_roots(ast.walk(parse(path)))
    }
    unused = [str(one) for one in dependencies() if not provided_by(one) & imported]
    assert not unused
