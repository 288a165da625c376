"""Which database is used when several are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.embedded import database
from flows.embedded.database import open_database
from flows.embedded.server import Server
from flows.errors import ConfigError

_HOME = Path("/project/.flows/pg")
_ONE = "postgresql://ada@one/first"
_TWO = "host=two dbname=second"
_THREE = "postgresql://three/third"


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The homes whose server was asked for, instead of a server."""
    homes: list[Path] = []

    def start(home: Path) -> Server:
        homes.append(home)
        return Server("postgresql://flows@/flows?host=%2Fsocket", home, home / "server.log", None)

    monkeypatch.setattr(database, "start", start)
    return homes


@pytest.mark.parametrize(
    ("explicit", "environment", "expected"),
    [
        (_ONE, {"FLOWS_DATABASE_URL": _TWO, "DATABASE_URL": _THREE}, (_ONE, "--dsn")),
        (None, {"FLOWS_DATABASE_URL": _TWO, "DATABASE_URL": _THREE}, (_TWO, "FLOWS_DATABASE_URL")),
        (None, {"DATABASE_URL": _THREE}, (_THREE, "DATABASE_URL")),
        (None, {"FLOWS_DATABASE_URL": "", "DATABASE_URL": _THREE}, (_THREE, "DATABASE_URL")),
    ],
)
def test_the_nearest_name_wins_and_no_server_is_started(
    explicit: str | None,
    environment: dict[str, str],
    expected: tuple[str, str],
    started: list[Path],
) -> None:
    with open_database(explicit, _HOME, environment) as found:
        assert (found.dsn, found.source) == expected
        assert not found.is_embedded
    assert started == []


def test_without_a_name_it_is_the_embedded_server_of_the_project(started: list[Path]) -> None:
    with open_database(None, _HOME, {}) as found:
        assert found.is_embedded
        assert found.dsn.startswith("postgresql://flows@/flows")
    assert started == [_HOME]


def test_the_project_is_the_present_folder(
    started: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_database(None, None, {}).close()
    assert started == [tmp_path / ".flows" / "pg"]


def test_a_dsn_that_cannot_be_read_is_refused_with_its_source_and_without_its_password() -> None:
    with pytest.raises(ConfigError, match=r"^DATABASE_URL: ") as caught:
        open_database(None, _HOME, {"DATABASE_URL": "mysql://ada:hunter2@host/name"})
    assert "hunter2" not in str(caught.value)


def test_an_empty_option_is_a_mistake_and_not_the_embedded_server(started: list[Path]) -> None:
    with pytest.raises(ConfigError, match="--dsn is empty"):
        open_database(" ", _HOME, {})
    assert started == []


@pytest.mark.parametrize(
    ("option", "environment", "expected"),
    [
        (_TWO, {"FLOWS_LISTEN_URL": _THREE}, _TWO),
        (None, {"FLOWS_LISTEN_URL": _THREE}, _THREE),
        (None, {"FLOWS_LISTEN_URL": ""}, None),
        (None, {}, None),
    ],
)
def test_the_way_past_a_pooler_is_named_beside_the_database(
    option: str | None, environment: dict[str, str], expected: str | None
) -> None:
    with open_database(_ONE, _HOME, environment, listen=option) as found:
        assert (found.dsn, found.listen_dsn) == (_ONE, expected)


def test_the_embedded_server_has_no_pooler_to_get_past(started: list[Path]) -> None:
    with pytest.raises(ConfigError, match="--listen-dsn needs --dsn"):
        open_database(None, _HOME, {}, listen=_ONE)
    assert started == []
    with open_database(None, _HOME, {"FLOWS_LISTEN_URL": _ONE}) as found:
        assert found.listen_dsn is None


@pytest.mark.parametrize(
    ("option", "environment", "source"),
    [
        (" ", {}, "--listen-dsn is empty; leave it out to do without"),
        ("mysql://ada:hunter2@host/x", {}, "^--listen-dsn: "),
        (None, {"FLOWS_LISTEN_URL": "mysql://ada:hunter2@host/x"}, "^FLOWS_LISTEN_URL: "),
    ],
)
def test_a_way_that_cannot_be_read_is_refused(
    option: str | None, environment: dict[str, str], source: str
) -> None:
    with pytest.raises(ConfigError, match=source) as caught:
        open_database(_ONE, _HOME, environment, listen=option)
    assert "hunter2" not in str(caught.value)
