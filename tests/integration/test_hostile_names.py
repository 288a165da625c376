"""Names and values from outside are data, whatever they hold."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

from flows import Client, ConfigError, Context, DBConfig, FlowsError, Registry, Worker, every

if TYPE_CHECKING:
    from tests.running import Runs

HOSTILE = [
    "'; DROP TABLE flows.runs; --",
    '"; DROP SCHEMA flows CASCADE; --',
    "\\'; SELECT pg_sleep(60); --",
    "$$; DROP TABLE flows.runs; $$",
    "%s %(shard)s %% %",
    "{} {0} {name}",
    "flows.runs flows.steps",
    "/* */ -- ; :name $1",
    "ünïcödé 名前 🦊",
    "x" * 900,
]
REFUSED = ["nul\0byte", "half \ud800 pair", "", "x" * 1001]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_run_whose_names_and_values_are_hostile(runs: Runs, name: str) -> None:
    registry = Registry()

    @registry.workflow(name)
    def hostile(wf: Context, given: str) -> list[Any]:
        wf.random_uuidv7(name)
        stepped = wf.execute(name, lambda text: text, given)
        wf.sleep(name + "s", timedelta(microseconds=1))
        return [stepped, wf.wait_for_event(name, name, str)]

    @registry.workflow(name + "f")
    def failing(wf: Context) -> None:
        raise ValueError(name)

    key = runs.execute(registry, hostile, name)
    runs.execute_due(registry)
    runs.publish(key, name, name)
    runs.execute_due(registry)
    assert runs.output(key) == [name, name]
    assert name in runs.error(runs.execute(registry, failing))
    runs.client.schedule_tx(runs.connection, hostile, name, name, every(timedelta(hours=1)))
    runs.client.pause_schedule_tx(runs.connection, name)
    runs.client.delete_schedule_tx(runs.connection, name)
    assert runs.rows("SELECT workflow_name FROM flows.runs ORDER BY 1") == [(name,), (name + "f",)]


class Name(str, Enum):  # noqa: UP042  formatted as "Name.MAIL", unlike a StrEnum
    MAIL = "mail"
    SENT = "sent"


def test_members_of_an_enumeration_of_texts_are_what_they_stand_for(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow(Name.MAIL)
    def mail(wf: Context, _: None) -> list[Any]:
        return [wf.execute(Name.SENT, lambda: 1), wf.wait_for_event(Name.SENT, Name.SENT, int)]

    keys = [runs.begin(Name.MAIL), runs.begin("mail"), runs.begin(mail)]
    keys += runs.client.begin_many_tx(runs.connection, Name.MAIL, [None])
    assert {key.workflow_name_shard for key in keys} == {"mail_0"}
    for key in keys:
        runs.client.publish_event_tx(runs.connection, key, Name.SENT, 2)
    runs.execute_due(registry)
    assert [runs.output(key) for key in keys] == [[1, 2]] * 4
    assert set(runs.rows("SELECT step_key FROM flows.steps")) == {("sent",)}


@pytest.mark.parametrize("name", REFUSED, ids=["nul", "surrogate", "empty", "long"])
def test_what_postgres_cannot_store_is_refused(runs: Runs, name: str) -> None:
    key = runs.begin("plain")
    with runs.connection.transaction() as _:
        with pytest.raises(FlowsError):
            runs.client.publish_event_tx(runs.connection, key, name)
        with pytest.raises(FlowsError):
            runs.client.delete_schedule_tx(runs.connection, name)
        with pytest.raises((FlowsError, UnicodeEncodeError)):
            runs.begin(name)
        assert runs.status(key).status == "queued"


@pytest.mark.parametrize("name", [*HOSTILE, *REFUSED])
def test_names_that_stand_in_statements_are_letters_digits_and_underscores(name: str) -> None:
    if name == "":
        pytest.skip("empty means the default channel")
    with pytest.raises(ConfigError):
        DBConfig(schema=name)
    with pytest.raises(ConfigError):
        Client(notify_channel=name)
    with pytest.raises(ConfigError):
        Worker(Registry(), "", notify_channel=name)
