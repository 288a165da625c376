"""The embedded server as root and beside root: who runs it, and what that user must reach."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows import embedded
from flows.embedded import account as accounts
from flows.embedded.account import Account, server_account
from flows.embedded.binaries import candidate_folders
from flows.errors import EmbeddedError
from tests.embedded_processes import (
    Starter,
    data_of,
    execute,
    needs_root,
    project,
    server_pid,
    spawn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_root


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store of the test's own."""
    folder = Path(tempfile.mkdtemp(prefix="flows-store-"))
    folder.chmod(0o755)
    monkeypatch.setenv("FLOWS_PG_STORE", str(folder / "pgflows"))
    yield folder / "pgflows"
    shutil.rmtree(folder)


@dataclass(frozen=True)
class Ordinary:
    """A user who is not root, and an interpreter with flows in it that is open to him."""

    account: Account
    python: str

    def spawn(self, home: Path) -> contextlib.AbstractContextManager[Starter]:
        return spawn(home, account=self.account, python=self.python)


@pytest.fixture(scope="module")
def nobody() -> Ordinary:
    """A user who is not root, or a skipped test."""
    account = server_account(Path("/nonexistent"))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        path = f"PYTHONPATH={os.pathsep.join(sys.path)}"
        program = ["-c", "import flows.embedded, psycopg"]
        if account.run(["/usr/bin/env", path, python, *program]).returncode == 0:
            return Ordinary(account, python)
    pytest.skip(f"user {account.name} has no {version} that can import flows")


def _owner(path: Path | str) -> int:
    return Path(path).stat().st_uid


def test_as_root_the_server_runs_as_another_user_with_its_data_in_the_project() -> None:
    with project() as home, embedded.start(home) as server:
        expected = server_account(Path("/nonexistent")).uid
        assert expected != 0
        assert _owner(f"/proc/{server_pid(home)}") == expected
        assert _owner(home / "data") == expected
        assert not (home / "data").is_symlink()
        assert execute(server.dsn, "SELECT 1") == 1


def test_in_roots_own_folder_the_data_goes_to_the_store_and_no_folder_is_opened(
    store: Path,
) -> None:
    with project(mode=0o700) as home:
        with embedded.start(home) as server:
            execute(server.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        embedded.stop(home)
        assert data_of(home).is_relative_to(store)
        assert (data_of(home).parent / "HOME").read_text(encoding="utf-8") == f"{home}\n"
        assert home.parent.parent.stat().st_mode & 0o777 == 0o700
        with embedded.start(home) as server:
            assert execute(server.dsn, "SELECT answer FROM kept") == 42
        embedded.stop(home)
        shutil.rmtree(data_of(home).parent)
        with pytest.raises(EmbeddedError, match=r"that is gone; remove .*data to begin"):
            embedded.start(home)


def test_a_throwaway_server_leaves_nothing_in_the_store(store: Path) -> None:
    with project(mode=0o700) as home:
        with embedded.start(home, throwaway=True):
            assert data_of(home).is_relative_to(store)
            embedded.stop(home)
        assert list(store.iterdir()) == []


def test_programs_that_only_root_can_read_are_copied_once(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = next((f for f in candidate_folders({}) if "pginstall" in f.parent.name), None)
    if wheel is None:
        pytest.skip("no wheel with PostgreSQL's programs is installed")
    package = wheel.parent.parent
    with project() as home:
        private = home.parent.parent / "private"
        private.mkdir(mode=0o700)
        shutil.copytree(wheel.parent, private / package.name / wheel.parent.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, private / libraries.name)
        (private / package.name).chmod(0o700)
        programs = private / package.name / wheel.parent.name / wheel.name
        monkeypatch.setenv("FLOWS_PG_BIN", str(programs))
        for _ in range(2):
            with embedded.start(home) as server:
                program = Path(f"/proc/{server_pid(home)}/exe").readlink()
                assert program.is_relative_to(store)
                assert execute(server.dsn, "SELECT 1") == 1
            embedded.stop(home)
        assert len(list(store.iterdir())) == 1
        assert private.stat().st_mode & 0o777 == 0o700


def test_an_ordinary_user_has_a_server_that_root_can_use_as_well(nobody: Ordinary) -> None:
    with project(owner=nobody.account.name) as home:
        with nobody.spawn(home) as starter:
            dsn = starter.dsn()
            assert _owner(f"/proc/{server_pid(home)}") == nobody.account.uid
            execute(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        embedded.stop(home)
        for name in ("lock", "socket", "server.log"):
            (home / name).unlink()
        with embedded.start(home) as server:
            assert _owner(f"/proc/{server_pid(home)}") == nobody.account.uid
            assert execute(server.dsn, "SELECT answer FROM kept") == 42
        embedded.stop(home)
        # Root's start has left nothing behind that locks the owner out.
        with nobody.spawn(home) as starter:
            assert execute(starter.dsn(), "SELECT answer FROM kept") == 42


def test_an_ordinary_user_is_told_that_the_server_is_roots(nobody: Ordinary) -> None:
    with project() as home:
        with embedded.start(home):
            pass
        embedded.stop(home)
        with nobody.spawn(home) as starter:
            message = starter.error()
        assert "belongs to user id 0" in message
        assert "Traceback" not in message


def test_an_ordinary_user_in_a_folder_that_is_not_his_is_told_so(nobody: Ordinary) -> None:
    with project() as home, nobody.spawn(home) as starter:
        assert "cannot create" in (message := starter.error())
        assert "Permission denied" in message


def test_a_user_without_a_name_is_told_what_postgres_needs(nobody: Ordinary) -> None:
    stranger = Account("stranger", 54321, 54321, is_stand_in=True)
    with project() as home:
        home.mkdir(parents=True)
        os.chown(home, stranger.uid, stranger.gid)
        home.parent.chmod(0o755)
        with spawn(home, account=stranger, python=nobody.python) as starter:
            assert "54321 has no entry in the system's list of users" in starter.error()


def test_without_a_user_to_stand_in_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_STAND_INS_FOR_ROOT", ("no-such-user",))
    with project() as home, pytest.raises(EmbeddedError, match="does not run as root"):
        embedded.start(home)
