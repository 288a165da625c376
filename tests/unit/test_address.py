"""The address of metrics is read, and what is wrong with it is said in a line."""

from __future__ import annotations

import importlib.util
import socket

import pytest

from flows.errors import ConfigError
from flows.supervisor.address import listen, url_of


def test_nothing_listens_where_nobody_wants_to_know() -> None:
    with listen(None) as listener:
        assert listener is None


def test_an_address_is_listened_at_for_the_length_of_a_block() -> None:
    with listen("127.0.0.1:0") as listener:
        assert listener is not None
        address = listener.getsockname()
        socket.create_connection(address).close()
        assert url_of(listener) == f"http://127.0.0.1:{address[1]}/metrics"
        with (
            pytest.raises(ConfigError, match="Address already in use"),
            listen(f"127.0.0.1:{address[1]}"),
        ):
            pass
    with listen(f"localhost:{address[1]}"):
        pass


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_an_address_of_version_six_stands_in_brackets() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no loopback of version six")
    with listen("[::1]:0") as listener:
        assert listener is not None
        assert url_of(listener) == f"http://[::1]:{listener.getsockname()[1]}/metrics"


@pytest.mark.parametrize(
    "address",
    [
        *("", "9464", ":9464", "localhost", "localhost:", "localhost:http", "localhost:65536"),
        *("localhost:-1", "localhost:٣", "::1:9", "[]:1", "[::1]"),
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"), listen(address):
        pass


def test_a_host_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError) as refused, listen("no-such-host.invalid:1"):
        pass
    assert str(refused.value).startswith("--metrics no-such-host.invalid:1: cannot listen there: ")
    assert "None" not in str(refused.value)
    assert "Unknown error" not in str(refused.value)


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError) as refused, listen("127.0.0.1:0"):
        pass
    assert str(refused.value) == (
        "--metrics needs prometheus-client: pip install 'pgflows[metrics]'"
    )
