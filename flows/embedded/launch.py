"""One start of a server: everything it needs, its watchdog, and the watchdog's answer."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import clock
from flows.embedded import cluster, locks, placement
from flows.embedded.account import program_environment, server_account
from flows.embedded.binaries import find_binaries
from flows.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Launch", "prepare_launch"]

_MAX_LOG_BYTES = 16 * 1024 * 1024
_WATCHDOG = Path(__file__).with_name("watchdog.py")


@dataclass(frozen=True, slots=True)
class Launch:
    """A server that is ready to be started."""

    home: Path
    data: Path
    order: dict[str, Any]

    def run(self, deadline: float) -> bool:
        """Start the watchdog and wait for its word; False if another one was faster."""
        for name in ("watchdog", "server"):
            os.close(locks.open_owned(self.home / name, os.O_RDWR))
        log = self.home / "server.log"
        if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        log_fd = locks.open_owned(log, os.O_WRONLY | os.O_APPEND)
        try:
            log_start = os.fstat(log_fd).st_size
            answer = self._ask(log_fd, deadline)
        finally:
            os.close(log_fd)
        if answer["state"] == "failed":
            raise EmbeddedError(
                f"the server of {self.home} did not start: {answer['reason']}. The end of {log}:"
                f"{cluster.last_lines(log, log_start)}"
            )
        return bool(answer["state"] == "ready")

    def _ask(self, log_fd: int, deadline: float) -> dict[str, str]:
        reply_fd, watchdog_fd = os.pipe()
        try:
            try:
                command = [sys.executable, "-I", "-S", str(_WATCHDOG)]
                watchdog = subprocess.Popen(  # noqa: S603  our own program
                    [*command, json.dumps({**self.order, "reply_fd": watchdog_fd})],
                    stdin=subprocess.DEVNULL,
                    stdout=log_fd,
                    stderr=log_fd,
                    cwd="/",
                    env=program_environment(),
                    pass_fds=(watchdog_fd,),
                    start_new_session=True,  # the Ctrl-C of a terminal is not for it
                )
            finally:
                os.close(watchdog_fd)
            watchdog.wait()
            return _read_answer(reply_fd, deadline)
        finally:
            os.close(reply_fd)


def _read_answer(fd: int, deadline: float) -> dict[str, str]:
    received = b""
    while True:
        remaining_s = max(0.0, deadline - clock.monotonic())
        if not select.select([fd], [], [], remaining_s)[0]:
            return {"state": "failed", "reason": "it is not ready yet; it may be recovering"}
        chunk = os.read(fd, 4096)
        if not chunk:
            break
        received += chunk
    if not received:
        return {"state": "failed", "reason": "its watchdog died"}
    answer: dict[str, str] = json.loads(received)
    return answer


def prepare_launch(home: Path, settings: Mapping[str, str], *, throwaway: bool) -> Launch:
    """Make everything ready for a start: programs, data, the folder of the socket."""
    account = server_account(home / "data")
    data = placement.place_data(home, account)
    written_by = cluster.data_version(data)
    binaries = find_binaries(written_by)
    cluster.check_version(data, written_by, binaries)
    binaries = placement.reachable_binaries(binaries, account)
    if written_by is None:
        cluster.create_cluster(data, binaries, account)
    cluster.forget_dead_server(data)
    socket_folder = placement.socket_folder(home, account)
    given = {**settings, "unix_socket_directories": str(socket_folder), "port": "5432"}
    options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
    order = {
        "home": str(home),
        "data": str(data),
        "socket_folder": str(socket_folder),
        "command": [str(binaries.postgres), "-D", str(data), *options],
        "identity": account.identity,
        "environment": program_environment(),
        "is_throwaway": throwaway,
    }
    return Launch(home, data, order)
