"""What a supervisor tells maintenance of its numbers: everything once, and nothing twice."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from flows.metrics import CRASHES, RECOVERY_SECONDS, RESTARTS, Tally, zeros
from flows.supervisor.fleet import Fleet, Member, Slot
from flows.supervisor.happenings import ChildProcess
from flows.supervisor.jobs import WorkflowPlan
from flows.supervisor.measuring import Measuring
from flows.supervisor.messages import Channel, Measured, Message, Notice, Standing
from flows.supervisor.restart import RestartPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.metrics import Key

CRASHED: tuple[Key, list[float]] = ((CRASHES.name, "demo"), [1])


class Maintenance:
    """A process that hears what it is told."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.channel, self.end = Channel(ours), Channel(theirs)
        self.totals = Tally()
        self.standings: list[Standing] = []

    def hear(self) -> list[Message]:
        heard = self.end.receive()
        for message in heard:
            if isinstance(message, Measured):
                self.totals.add(message.changes)
            elif isinstance(message, Standing):
                self.standings.append(message)
        return heard

    def close(self) -> None:
        self.channel.close()
        self.end.close()


@pytest.fixture
def maintenance() -> Iterator[Maintenance]:
    maintenance = Maintenance()
    yield maintenance
    maintenance.close()


@pytest.fixture
def measuring() -> Iterator[Measuring]:
    with socket.socket() as listener:
        yield Measuring(listener)


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet.of(RestartPolicy())
    fleet.shape([WorkflowPlan("demo", 2)], 0.0)
    return fleet


def test_a_new_process_is_told_the_totals_and_then_what_is_new(
    measuring: Measuring, maintenance: Maintenance, fleet: Fleet
) -> None:
    measuring.count(CRASHES, "demo")
    measuring.act_on_time(0.0, "running", fleet)
    measuring.begin(maintenance.channel)
    measuring.act_on_time(0.0, "running", fleet)
    measuring.count(CRASHES, "demo")
    measuring.count(RESTARTS, "demo", by=2)
    measuring.observe(RECOVERY_SECONDS, 0.25, "demo")
    measuring.act_on_time(0.0, "running", fleet)
    maintenance.hear()
    told = dict(maintenance.totals.read())
    assert told[CRASHES.name, "demo"] == [2]
    assert told[RESTARTS.name, "demo"] == [2]
    assert told[RECOVERY_SECONDS.name, "demo"][-1] == 0.25
    assert told.keys() >= dict(zeros("demo")).keys()
    measuring.act_on_time(5.0, "running", fleet)
    assert maintenance.hear() == []


def test_the_next_process_is_told_all_that_the_one_before_was(
    measuring: Measuring, maintenance: Maintenance, fleet: Fleet
) -> None:
    lost = Maintenance()
    measuring.begin(lost.channel)
    measuring.add((CRASHED,))
    measuring.act_on_time(0.0, "running", fleet)
    lost.close()
    measuring.add((CRASHED,))
    measuring.act_on_time(0.0, "running", fleet)
    measuring.add((CRASHED,))
    measuring.begin(maintenance.channel)
    measuring.act_on_time(0.0, "running", fleet)
    maintenance.hear()
    assert dict(maintenance.totals.read())[CRASHES.name, "demo"] == [3]
    assert maintenance.standings[-1].phase == "running"


def test_a_process_that_does_not_read_is_told_later_and_in_one_message(
    measuring: Measuring, maintenance: Maintenance, fleet: Fleet
) -> None:
    measuring.begin(maintenance.channel)
    measuring.act_on_time(0.0, "running", fleet)
    while not maintenance.channel.backlog:
        maintenance.channel.send(Notice("x" * 10_000))
    backlog = maintenance.channel.backlog
    for number in range(100):
        measuring.add((CRASHED,))
        measuring.act_on_time(float(number), "running", fleet)
    assert maintenance.channel.backlog == backlog
    while maintenance.channel.backlog:
        maintenance.hear()
        maintenance.channel.flush()
    maintenance.hear()
    measuring.act_on_time(0.0, "running", fleet)
    assert maintenance.hear() == [Measured(((CRASHED[0], [100]),))]


def test_how_the_processes_stand_is_told_when_it_changes(
    measuring: Measuring, maintenance: Maintenance, fleet: Fleet
) -> None:
    one, two = fleet.workers
    measuring.begin(maintenance.channel)
    nobody = dict.fromkeys(("ready", "booting", "waiting", "broken", "retiring"), 0)

    def told() -> dict[str, int]:
        measuring.act_on_time(0.0, "running", fleet)
        measuring.act_on_time(0.0, "running", fleet)
        maintenance.hear()
        return maintenance.standings[-1].processes["demo"]

    def member() -> Member:
        return Member("worker", ChildProcess(1, maintenance.channel, None), "demo")

    assert told() == {**nobody, "waiting": 2}
    one.member, two.broken = member(), True
    assert told() == {**nobody, "booting": 1, "broken": 1}
    one.became_ready(one.member, 0.0)
    one.successor = member()
    fleet.leaving.append(member())
    assert told() == {**nobody, "ready": 1, "booting": 1, "broken": 1, "retiring": 1}
    assert len(maintenance.standings) == 3
    fleet.leaving.clear()
    fleet.workers[:] = [Slot("worker other", "other", one.backoff)]
    measuring.act_on_time(0.0, "running", fleet)
    maintenance.hear()
    assert maintenance.standings[-1].processes == {"other": {**nobody, "waiting": 1}}


def test_where_nobody_wants_to_know_nothing_is_kept_or_told(
    maintenance: Maintenance, fleet: Fleet
) -> None:
    measuring = Measuring()
    measuring.begin(maintenance.channel)
    measuring.add((CRASHED,))
    measuring.count(CRASHES, "demo")
    measuring.act_on_time(0.0, "running", fleet)
    assert maintenance.hear() == []
    assert measuring.due_s is None
    assert measuring._totals.read() == ()
