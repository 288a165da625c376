"""What a client and `migrate` say of what they were never meant to be given."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest

from flows import (
    AsyncClient,
    Client,
    ConfigError,
    ConnectedClient,
    Context,
    DecodeError,
    EncodeError,
    Registry,
    every,
    migrate,
)
from flows.async_connected import AsyncConnectedClient


class Mail(msgspec.Struct):
    to: str


registry = Registry()


@registry.workflow("mail")
def mail(wf: Context, letter: Mail) -> None: ...


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("dsn", [None, 5, b"dbname=x"])
def test_a_dsn_that_is_no_text_is_refused(kind: Any, dsn: Any) -> None:
    with pytest.raises(ConfigError, match=r"a DSN is text, not (None|5|b')"):
        kind.connect(dsn)


@pytest.mark.parametrize("given", ["postgresql://localhost/app", None])
def test_migrate_refuses_what_is_no_connection(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"with psycopg\.connect\(dsn\) as connection: migrate"):
        migrate(given)


def test_migrate_refuses_an_asynchronous_connection() -> None:
    given: Any = object.__new__(psycopg.AsyncConnection)
    with pytest.raises(ConfigError, match="not on AsyncConnection"):
        migrate(given)


@pytest.mark.parametrize(
    ("plain", "connected"), [(Client, ConnectedClient), (AsyncClient, AsyncConnectedClient)]
)
def test_what_only_a_connected_client_has_says_what_to_use(plain: Any, connected: Any) -> None:
    names = {name for name in dir(connected) if not name.startswith("_")} - set(dir(plain))
    client = plain()
    assert {"begin", "wait", "status"} < names
    for name in names - {"open"}:
        assert not hasattr(client, name)
        with pytest.raises(AttributeError) as refusal:
            getattr(client, name)
        said = str(refusal.value)
        assert "has no connection of its own; use " in said
        assert f"{plain.__name__}.connect(dsn)" in said
        in_tx = said.partition("use ")[2].partition("(tx, …)")
        assert not in_tx[1] or hasattr(client, in_tx[0])
    with pytest.raises(AttributeError, match="begin_tx"):
        _ = client.begin
    with pytest.raises(AttributeError, match=r"no attribute 'begni'$"):
        _ = client.begni


def test_an_input_that_does_not_fit_names_the_workflow() -> None:
    said = "workflow 'mail' takes Mail, and the input does not fit: codec 'json' cannot decode"
    wrong: Any = {"from": "Ada"}
    nobody: Any = None
    client = Client()
    with pytest.raises(DecodeError, match=said):
        client.begin_tx(nobody, mail, wrong)
    with pytest.raises(DecodeError, match=said):
        client.begin_many_tx(nobody, mail, [Mail("Ada"), wrong])
    with pytest.raises(DecodeError, match=said):
        client.schedule_tx(nobody, mail, wrong, None, every(timedelta(hours=1)))
    unfit: Any = object()
    with pytest.raises(EncodeError, match=r"the input of workflow 'mail': codec 'json' cannot"):
        client.begin_tx(nobody, mail, unfit)
