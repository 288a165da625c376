"""The address at which metrics are served: read and bound before anything is started.

The supervisor keeps the socket and lends it to maintenance, one process after the other. So a port
that is taken is found once, at the start, and between two of them whoever connects only waits.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
from typing import TYPE_CHECKING

from flows.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["listen", "url_of"]

_HIGHEST_PORT = 65_535
_BACKLOG = 128


@contextlib.contextmanager
def listen(address: str | None) -> Iterator[socket.socket | None]:
    """Listen at HOST:PORT for the length of a block; nowhere where there is no address.

    Raises:
        ConfigError: it cannot be read or used, or what serves metrics is not installed.
    """
    if address is None:
        yield None
        return
    host, port = _parse(address)
    if importlib.util.find_spec("prometheus_client") is None:
        raise ConfigError("--metrics needs prometheus-client: pip install 'pgflows[metrics]'")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # What the system says of the name of a host has a number of its own kind.
        is_name = isinstance(error, socket.gaierror) or error.errno is None
        why = error.strerror if is_name else os.strerror(error.errno or 0)
        raise ConfigError(f"--metrics {address}: cannot listen there: {why}") from error
    with listener:
        yield listener


def url_of(listener: socket.socket) -> str:
    """Return where metrics are served."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    is_number = port.isascii() and port.isdigit()
    if (
        not host
        or not is_number
        or int(port) > _HIGHEST_PORT
        or ("[" not in address and ":" in host)
    ):
        raise ConfigError(
            f"--metrics {address!r}: expected HOST:PORT, as in 127.0.0.1:9464 or [::1]:9464"
        )
    return host, int(port)
