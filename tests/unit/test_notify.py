"""What a service manager hears, over real sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows import clock
from flows.supervisor.notify import ServiceManager

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str]]:
    """A socket that hears, and how the environment names it."""
    if request.param == "abstract" and not Path("/proc/net/unix").exists():
        pytest.skip("abstract sockets are of Linux")
    name = f"flows-notify-{os.getpid()}"
    path = Path("/tmp") / name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hears:
        hears.settimeout(5)
        hears.bind(str(path) if request.param == "path" else f"\0{name}")
        yield hears, str(path) if request.param == "path" else f"@{name}"
    path.unlink(missing_ok=True)


def test_a_service_manager_hears_how_it_goes(manager: tuple[socket.socket, str]) -> None:
    hears, name = manager
    environment = {"NOTIFY_SOCKET": name, "OTHER": "stays"}
    service = ServiceManager(environment)
    assert environment == {"OTHER": "stays"}
    assert service.due_s is None
    service.reloading()  # before it is ready there is nothing to reload
    service.ready("2 workflows,\n3 processes")
    assert hears.recv(4096).decode() == (
        f"READY=1\nSTATUS=2 workflows, 3 processes\nMAINPID={os.getpid()}"
    )
    service.reloading()
    first, second, third = hears.recv(4096).decode().split("\n")
    assert (first, third) == ("RELOADING=1", "STATUS=reloading")
    assert abs(int(second.removeprefix("MONOTONIC_USEC=")) / 1e6 - clock.monotonic()) < 10
    service.status("fine")
    assert hears.recv(4096) == b"STATUS=fine"
    service.stopping("received SIGTERM")
    assert hears.recv(4096) == b"STOPPING=1\nSTATUS=received SIGTERM"
    service.close()
    service.status("nobody hears this")


def test_the_watchdog_is_told_twice_in_its_time(manager: tuple[socket.socket, str]) -> None:
    hears, name = manager
    service = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000"})
    assert service.due_s is not None
    now_s = service.due_s
    service.act_on_time(now_s)
    assert hears.recv(4096) == b"WATCHDOG=1"
    assert service.due_s == now_s + 1.5
    service.act_on_time(now_s + 1.4)
    service.act_on_time(now_s + 1.5)
    assert hears.recv(4096) == b"WATCHDOG=1"
    hears.setblocking(False)
    with pytest.raises(BlockingIOError):
        hears.recv(4096)
    service.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "3000000"},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "often"},
    ],
)
def test_without_a_watchdog_of_our_own_nothing_is_due(environment: dict[str, str]) -> None:
    service = ServiceManager(environment)
    assert service.due_s is None
    assert environment == {}
    service.ready("nobody hears this")
    service.act_on_time(clock.monotonic() + 1000)
    service.close()


def test_a_service_manager_that_reads_nothing_holds_nobody_up(
    manager: tuple[socket.socket, str],
) -> None:
    hears, name = manager
    service = ServiceManager({"NOTIFY_SOCKET": name})
    for number in range(5000):
        service.status(f"{number}")
    assert hears.recv(4096) == b"STATUS=0"
    service.close()
