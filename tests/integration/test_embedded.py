"""The embedded server in ordinary days: started, joined, kept, stopped, refused with a reason."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows import embedded
from flows.embedded import locks
from flows.embedded.account import server_account
from flows.embedded.binaries import candidate_folders, find_binaries, read_version
from flows.errors import EmbeddedError
from flows.testing import databases, throwaway_server
from tests.embedded_processes import (
    data_of,
    execute,
    is_running,
    postgres_by_hand,
    server_pid,
    spawn,
    wait_until_stopped,
    watchdog_pid,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_server_is_started_joined_and_gone_after_its_last_user(home: Path) -> None:
    first = embedded.start(home)
    second = embedded.start(home)
    assert first.dsn == second.dsn == embedded.url(home)
    assert execute(first.dsn, "SELECT current_database()") == "flows"
    first.close()
    first.close()
    assert execute(second.dsn, "SELECT 1") == 1
    second.close()
    wait_until_stopped(home)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(second.dsn)


def test_data_and_address_stay_from_one_start_to_the_next(home: Path) -> None:
    with embedded.start(home) as server:
        execute(server.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        dsn = server.dsn
    wait_until_stopped(home)
    with embedded.start(home) as server:
        assert server.dsn == dsn
        assert execute(server.dsn, "SELECT answer FROM kept") == 42


def test_users_data_is_safe_and_nobody_else_gets_in(home: Path) -> None:
    with embedded.start(home) as server, psycopg.connect(server.dsn) as connection:
        for setting, expected in (
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("full_page_writes", "on"),
            ("listen_addresses", ""),
            ("max_connections", "200"),
        ):
            row = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone()
            assert row == (expected,), setting
        socket_folder = Path(connection.info.host)
        assert socket_folder.stat().st_mode & 0o777 == 0o700
        assert data_of(home).stat().st_mode & 0o777 == 0o700


def test_a_kept_server_runs_until_it_is_stopped(home: Path) -> None:
    with embedded.start(home) as other, embedded.start(home, keep=True) as kept:
        assert kept.dsn == other.dsn
        pid = server_pid(home)
    wait_until(lambda: not _waits_for_users(home), what="the watchdog saw the last user go")
    # If it had stopped the server, or was about to, it would not let a new user in before.
    embedded.start(home).close()
    assert server_pid(home) == pid
    assert execute(embedded.url(home), "SELECT 1") == 1
    assert embedded.stop(home) is True
    assert not is_running(home)
    with pytest.raises(EmbeddedError, match="not running; start it: flows db start"):
        embedded.url(home)
    assert embedded.stop(home) is False


def _waits_for_users(home: Path) -> bool:
    tasks = Path(f"/proc/{watchdog_pid(home)}/task")
    if not tasks.exists():
        pytest.skip("reads /proc")
    return len(list(tasks.iterdir())) > 1


def test_stopping_ends_a_server_that_is_in_use(home: Path) -> None:
    with embedded.start(home) as server, psycopg.connect(server.dsn) as connection:
        assert embedded.stop(home) is True
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        # Whoever comes next gets a server again, at the same address.
        with embedded.start(home) as again:
            assert again.dsn == server.dsn
            assert execute(server.dsn, "SELECT 1") == 1


def test_stop_and_url_of_a_project_that_never_had_a_server(tmp_path: Path) -> None:
    assert embedded.stop(tmp_path / ".flows" / "pg") is False
    with pytest.raises(EmbeddedError, match="there is no embedded database in"):
        embedded.url(tmp_path / ".flows" / "pg")
    assert list(tmp_path.iterdir()) == []


def test_concurrent_starters_end_with_one_server(new_home: Path) -> None:
    with contextlib.ExitStack() as stack:
        starters = [stack.enter_context(spawn(new_home)) for _ in range(6)]
        dsns = {starter.dsn() for starter in starters}
        assert len(dsns) == 1
        systems = {
            execute(dsn, "SELECT system_identifier::text FROM pg_control_system()") for dsn in dsns
        }
        assert len(systems) == 1
        pid = server_pid(new_home)
        assert execute(dsns.pop(), "SELECT 1") == 1
        assert server_pid(new_home) == pid
    wait_until_stopped(new_home)
    assert not list(new_home.glob("new-data-*"))


def test_a_start_leaves_no_thread_and_no_child(home: Path) -> None:
    with spawn(home) as starter:
        starter.dsn()
        assert starter.do("import threading; print(threading.active_count())") == "1"
        counted = starter.do(
            "import os, contextlib; exec('with contextlib.suppress(ChildProcessError):"
            " os.waitpid(-1, os.WNOHANG); print(1)'); print('none')"
        )
        assert counted == "none"


def test_the_secrets_of_the_starter_stay_out_of_the_server(home: Path) -> None:
    with spawn(home, environment={"API_KEY": "s3cret", "PGPORT": "1", "PGDATA": "/x"}) as starter:
        starter.dsn()
        environment = Path(f"/proc/{server_pid(home)}/environ")
        if not environment.exists():
            pytest.skip("reads /proc")
        assert b"s3cret" not in environment.read_bytes()


def test_the_path_of_the_project_may_be_long(new_home: Path) -> None:
    deep = new_home.parent.joinpath(*["a-rather-long-name-of-a-folder"] * 8, "pg")
    deep.parent.mkdir(parents=True)
    try:
        with embedded.start(deep) as server:
            assert execute(server.dsn, "SELECT 1") == 1
    finally:
        embedded.stop(deep)


def test_a_throwaway_server_takes_everything_with_it(new_home: Path) -> None:
    with embedded.start(new_home, throwaway=True, settings={"fsync": "off"}) as server:
        assert execute(server.dsn, "SHOW fsync") == "off"
        with psycopg.connect(server.dsn) as connection:
            socket_folder = Path(connection.info.host)
        (socket_folder / "left-over").touch()
    wait_until(lambda: not new_home.exists(), what="the home is removed")
    assert not socket_folder.exists()


def test_a_server_of_tests_is_in_memory_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = databases.MEMORY
    has_room = memory.is_mount() and shutil.disk_usage(memory).free > databases.ROOM
    for is_wanted in (True, False):
        monkeypatch.setattr(databases, "ROOM", databases.ROOM if is_wanted else 1 << 62)
        with throwaway_server() as dsn:
            data = Path(execute(dsn, "SHOW data_directory"))
        assert data.is_relative_to(memory) == (is_wanted and has_room)
        assert not data.exists()


def test_a_server_of_tests_removes_those_that_were_killed_with_their_watchdogs(
    monkeypatch: pytest.MonkeyPatch, new_home: Path
) -> None:
    memory = new_home.parent
    monkeypatch.setattr(databases, "_folder", lambda: memory)
    monkeypatch.setattr(databases, "MEMORY", memory)
    killed, used = memory / "flows-test-1-killed", memory / "flows-test-2-used"
    with embedded.start(killed, throwaway=True):
        socket_folder = Path((killed / "socket").read_text(encoding="utf-8").strip())
        os.kill(watchdog_pid(killed), signal.SIGKILL)
        embedded.stop(killed)
    (memory / "flows-test-3-starting").mkdir()
    elsewhere = memory / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "server").touch()
    (elsewhere / "socket").write_text(str(elsewhere), encoding="utf-8")
    (memory / "flows-test-4-link").symlink_to(elsewhere)
    with embedded.start(used, throwaway=True) as server, throwaway_server():
        assert execute(server.dsn, "SELECT 1") == 1
        names = {path.name for path in memory.glob("flows-test-?-*")}
        embedded.stop(used)
    assert names == {"flows-test-2-used", "flows-test-3-starting", "flows-test-4-link"}
    assert not socket_folder.exists()
    assert (elsewhere / "server").exists()


@contextlib.contextmanager
def _changed(path: Path, text: str) -> Iterator[None]:
    before = path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(before, encoding="utf-8")


def test_data_of_another_major_version_is_refused_with_both_versions(home: Path) -> None:
    installed = find_binaries().major
    with (
        _changed(data_of(home) / "PG_VERSION", "9\n"),
        pytest.raises(EmbeddedError, match=rf"PostgreSQL 9,.*PostgreSQL {installed}\b") as caught,
    ):
        embedded.start(home)
    assert "FLOWS_PG_BIN" in str(caught.value)
    assert not is_running(home)


def test_data_keeps_the_version_that_wrote_it(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preferred = find_binaries().major
    folders = candidate_folders(os.environ)
    other = next((folder for folder in folders if read_version(folder) != preferred), None)
    if other is None:
        pytest.skip("only one major version of PostgreSQL is installed")
    monkeypatch.setenv("FLOWS_PG_BIN", str(other))
    embedded.start(new_home).close()
    wait_until_stopped(new_home)
    monkeypatch.delenv("FLOWS_PG_BIN")
    with embedded.start(new_home) as server:
        version = execute(server.dsn, "SHOW server_version_num")
    assert int(version) // 10000 == read_version(other)


def test_a_folder_that_is_not_postgres_is_left_alone(new_home: Path) -> None:
    (new_home / "data").mkdir(parents=True)
    (new_home / "data" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(EmbeddedError, match="not a data folder of PostgreSQL"):
        embedded.start(new_home)
    assert (new_home / "data" / "thesis.txt").exists()


def test_a_server_that_does_not_start_shows_the_end_of_its_log(home: Path) -> None:
    with (
        _changed(data_of(home) / "postgresql.conf", "max_connections = plenty\n"),
        pytest.raises(EmbeddedError, match="exited with status 1") as caught,
    ):
        embedded.start(home)
    assert 'invalid value for parameter "max_connections": "plenty"' in str(caught.value)
    wait_until_stopped(home)


def test_a_full_disk_is_told_and_leaves_nothing_half_made(new_home: Path) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    with spawn(new_home, preexec_fn=small_files_only) as starter:
        message = starter.error()
    assert "cannot create a database" in message
    assert "PostgreSQL said" in message
    assert not list(new_home.glob("*data*"))
    with embedded.start(new_home) as server:
        assert execute(server.dsn, "SELECT 1") == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=r"cannot create .*file/pg.*FLOWS_DATABASE_URL"):
        embedded.start(tmp_path / "file" / "pg")


def test_a_stale_process_id_that_another_process_has_now_does_not_matter(home: Path) -> None:
    account = server_account(data_of(home))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd="/", **account.identity) as bystander:
        # PostgreSQL itself refuses to start: the number belongs to a process of its own user.
        lines = [bystander.pid, data_of(home), 1, 5432, "/nowhere", "", "", "ready"]
        stale = data_of(home) / "postmaster.pid"
        stale.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        with embedded.start(home) as server:
            assert execute(server.dsn, "SELECT 1") == 1
        assert bystander.poll() is None
        assert bystander.stdin is not None
        bystander.stdin.close()


def test_a_server_that_somebody_else_started_is_not_disturbed(home: Path) -> None:
    data, account = data_of(home), server_account(data_of(home))
    with postgres_by_hand(data, account) as by_hand:
        with pytest.raises(EmbeddedError, match=rf"flows did not start .*process {by_hand.pid}\)"):
            embedded.start(home)
        assert by_hand.poll() is None


def test_a_lock_that_is_not_to_be_had_is_given_up_with_a_reason(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        locks.exclusive(lock, timeout_s=1, what="is first"),
        pytest.raises(EmbeddedError, match=r"gave up after 0.05 s: another process is first"),
        locks.exclusive(lock, timeout_s=0.05, what="is first"),
    ):
        pass
    with locks.exclusive(lock, timeout_s=0, what="is first"):
        assert locks.is_held(lock)
    assert not locks.is_held(lock)
