"""What a service manager is told: systemd's protocol of `sd_notify(3)`.

Datagrams of `NAME=value` lines to the socket that `$NOTIFY_SOCKET` names. Without one, as without
systemd, nothing is told; and nothing that goes wrong here is a reason to stop working.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from flows import clock

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["ServiceManager"]


class ServiceManager:
    """Tells a service manager how the supervisor fares.

    Attributes:
        due_s: when `act_on_time` has something to do; None without a watchdog.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take what the service manager has left in the environment: children must not have it."""
        self._address = environment.pop("NOTIFY_SOCKET", "")
        watchdog_us = environment.pop("WATCHDOG_USEC", "")
        watchdog_pid = environment.pop("WATCHDOG_PID", str(os.getpid()))
        self._socket: socket.socket | None = None
        self._interval_s: float | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            if watchdog_us.isdecimal() and int(watchdog_us) and watchdog_pid == str(os.getpid()):
                self._interval_s = int(watchdog_us) / 1e6 / 2
        self._is_ready = False
        self.due_s = None if self._interval_s is None else clock.monotonic()

    def ready(self, status: str) -> None:
        """The workers work: for the first time, or again after `reloading`."""
        self._is_ready = True
        self._tell("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def status(self, status: str) -> None:
        """Say how it is, in a line."""
        self._tell(f"STATUS={status}")

    def reloading(self) -> None:
        """New code is being imported."""
        if self._is_ready:
            now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}", "STATUS=reloading")

    def stopping(self, status: str) -> None:
        """The supervisor ends."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def act_on_time(self, now_s: float) -> None:
        """Tell the watchdog that the loop goes round, if it is time to."""
        if self._interval_s is not None and self.due_s is not None and self.due_s <= now_s:
            self.due_s = now_s + self._interval_s
            self._tell("WATCHDOG=1")

    def close(self) -> None:
        """Release the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is None:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            self._socket.sendto(text.encode(), address)
        except OSError:
            # It is gone, or reads nothing: it will see for itself how we fare.
            return
