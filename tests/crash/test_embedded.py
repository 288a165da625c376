"""The embedded server when something is killed: a user, the starter, the watchdog, the server."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows import embedded
from flows.embedded import locks
from flows.embedded.account import server_account
from flows.embedded.binaries import find_binaries
from tests.embedded_processes import (
    data_of,
    execute,
    is_running,
    postgres_by_hand,
    project,
    server_pid,
    spawn,
    wait_until_stopped,
    watchdog_pid,
)
from tests.waiting import DEADLINE_S, read_line, wait_until, wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Iterator


_KEEP = "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 42 AS answer"


def test_the_server_goes_when_its_last_user_is_killed_and_keeps_what_was_committed(
    home: Path,
) -> None:
    with spawn(home) as first, spawn(home) as second:
        dsn = first.dsn()
        assert second.dsn() == dsn
        execute(dsn, _KEEP)
        pid = server_pid(home)
        first.kill()
        assert execute(dsn, "SELECT answer FROM kept") == 42
        second.kill()
        wait_until_gone(pid, what="the server")
    wait_until_stopped(home)
    with embedded.start(home) as server:
        assert execute(server.dsn, "SELECT answer FROM kept") == 42


def test_a_forked_child_holds_the_server_after_its_parent_was_killed(home: Path) -> None:
    with spawn(home) as starter:
        dsn = starter.dsn()
        # The child waits for a signal; its parent's end is not its own.
        child = int(
            starter.do("import os, signal; pid = os.fork(); pid or signal.pause(); print(pid)")
        )
        try:
            starter.kill()
            assert execute(dsn, "SELECT 1") == 1
            assert is_running(home)
        finally:
            os.kill(child, signal.SIGKILL)
        wait_until_stopped(home)


def test_a_child_that_closes_its_copy_does_not_take_the_server_from_its_parent(home: Path) -> None:
    with embedded.start(home) as server:
        pid = os.fork()
        if pid == 0:
            server.close()
            os._exit(0)
        os.waitpid(pid, 0)
        # An unlock in the child would have let the watchdog in; so would a lock of ours now.
        assert _is_held_by_users(home)
        assert execute(server.dsn, "SELECT 1") == 1


def _is_held_by_users(home: Path) -> bool:
    fd = os.open(home / "users", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def test_a_child_forked_during_a_start_does_not_block_later_starts(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locks.exclusive(lock, timeout_s=1, what="is first"):
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
    try:
        assert not locks.is_held(lock)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_starter_killed_while_it_creates_the_data_harms_nobody(
    new_home: Path, tmp_path: Path
) -> None:
    """Arranged with an initdb that writes half a cluster, says so and never ends."""
    real = find_binaries()
    with _halting_programs(real.folder) as (programs, fifo):
        with spawn(new_home, environment={"FLOWS_PG_BIN": str(programs)}) as starter:
            said = os.open(fifo, os.O_RDWR)
            initdb = int(read_line(said, what="initdb is at work"))
            os.close(said)
            assert list(new_home.glob("new-data-*/half"))
            starter.kill()
        os.kill(initdb, signal.SIGKILL)
        wait_until_gone(initdb, what="initdb")
    with embedded.start(new_home) as server:
        assert execute(server.dsn, "SELECT 1") == 1
    assert not list(new_home.glob("new-data-*"))


@contextlib.contextmanager
def _halting_programs(real: Path) -> Iterator[tuple[Path, Path]]:
    with project() as other:
        folder = other.parent.parent
        for name in ("said", "never"):
            os.mkfifo(folder / name)
            (folder / name).chmod(0o666)
        programs = {
            "initdb": f'touch "$2/half"; echo $$ > {folder}/said; read line < {folder}/never',
            "postgres": f'exec {real}/postgres "$@"',
        }
        for name, script in programs.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            (folder / name).chmod(0o755)
        yield folder, folder / "said"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_server_goes_with_its_watchdog_and_comes_back_at_the_next_start(home: Path) -> None:
    with embedded.start(home) as server:
        execute(server.dsn, _KEEP)
        pid = server_pid(home)
        os.kill(watchdog_pid(home), signal.SIGKILL)
        wait_until_gone(pid, what="the server")
        with embedded.start(home) as again:
            assert execute(again.dsn, "SELECT answer FROM kept") == 42
            assert again.dsn == server.dsn


def test_a_killed_server_is_started_again_for_those_who_use_it(home: Path) -> None:
    with embedded.start(home) as server:
        execute(server.dsn, _KEEP)
        killed = server_pid(home)
        os.kill(killed, signal.SIGKILL)
        wait_until_gone(killed, what="the first server")
        wait_until(lambda: _answers(server.dsn), what="the second server answers")
        assert server_pid(home) != killed
        assert execute(server.dsn, "SELECT answer FROM kept") == 42


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize("action", ["start", "stop"])
def test_an_orphaned_server_is_found_by_its_lock_and_stopped(home: Path, action: str) -> None:
    """A server whose watchdog was killed, as it stays where the system does not end it too."""
    with _orphan(home) as orphan:
        if action == "start":
            with embedded.start(home) as server:
                assert execute(server.dsn, "SELECT 1") == 1
                assert server_pid(home) != orphan.pid
                assert orphan.wait(DEADLINE_S) == 0
        else:
            assert embedded.stop(home) is True
            assert orphan.wait(DEADLINE_S) == 0
            assert not is_running(home)


@contextlib.contextmanager
def _orphan(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    lock = os.open(home / "server", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    data = data_of(home)
    with postgres_by_hand(data, server_account(data), inherits=lock) as process:
        os.close(lock)
        yield process
