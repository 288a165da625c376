"""What becomes of a process that has died, decided without a process."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.board import Board
from flows.supervisor.exits import ExitCode
from flows.supervisor.fleet import Broken, Fleet, Member, Restart, Slot, StartFailed
from flows.supervisor.jobs import WorkflowPlan
from flows.supervisor.messages import Refused
from flows.supervisor.restart import RestartPolicy

POLICY = RestartPolicy(base_s=1.0, maximum_s=10.0, healthy_s=5.0, budget=2, window_s=60.0)


def fleet(*workflows: tuple[str, int]) -> Fleet:
    made = Fleet.of(POLICY)
    made.shape([WorkflowPlan(*each) for each in workflows or (("render", 1),)], 0.0)
    for slot in made.slots:
        slot.backoff.jitter = lambda: 0.0
        slot.due_s = None
    return made


def live(
    slot: Slot,
    *,
    started_s: float = 0.0,
    ready_s: float | None = None,
    said: ExitCode | None = None,
) -> None:
    """Fill a slot with a process, as far as the policy sees one."""
    process: Any = SimpleNamespace(started_s=started_s)
    member = Member(slot.name, process)
    slot.fill(member)
    if ready_s is not None:
        slot.became_ready(member, ready_s)
    if said is not None:
        member.refused = Refused(said, "because")


def test_slots_are_named_by_their_place_where_a_workflow_has_several() -> None:
    made = fleet(("render", 2), ("demo", 1))
    assert [slot.name for slot in made.slots] == [
        "maintenance",
        "worker render [1/2]",
        "worker render [2/2]",
        "worker demo",
    ]


def test_processes_are_called_as_their_places_are_after_the_number_has_changed() -> None:
    made = fleet(("render", 1))
    live(made.workers[0], ready_s=0.0)
    [member] = made.workers[0].members
    for count, name in ((3, "worker render [1/3]"), (1, "worker render")):
        made.scale("render", count, 1.0)
        assert made.workers[0].name == member.name == name
        assert member.child.title == f"flows: {name}"


def test_a_new_workflow_that_cannot_boot_does_not_end_what_has_worked() -> None:
    made = fleet(("render", 1))
    live(made.workers[0], ready_s=0.0)
    made.shape([WorkflowPlan("render", 1), WorkflowPlan("demo", 1)], 1.0)
    demo = made.workers[1]
    live(demo, said=ExitCode.CONFIG)
    assert isinstance(made.judge(demo, 2.0), Broken)


def test_a_crash_is_restarted_until_the_budget_is_spent_and_then_broken() -> None:
    made = fleet()
    slot = made.workers[0]
    verdicts = []
    for now_s in (1.0, 2.0, 3.0):
        live(slot, ready_s=now_s)
        verdicts.append(made.judge(slot, now_s))
    assert verdicts == [Restart(0.0), Restart(1.0), Broken(ExitCode.BROKEN, 180.0)]
    assert slot.broken
    assert made.working == set()


def test_the_processes_of_a_workflow_share_its_budget_and_their_fate() -> None:
    made = fleet(("render", 2), ("demo", 1))
    one, other, demo = made.workers
    for slot in (one, other, demo):
        live(slot, ready_s=0.0)
    assert made.judge(one, 1.0) == Restart(0.0)
    assert made.judge(other, 1.0) == Restart(0.0)
    live(one, ready_s=1.0)
    live(other, ready_s=1.0)
    assert isinstance(made.judge(one, 1.5), Broken)
    # What lives goes on, and is the last of its kind for a while.
    assert made.working == {"render", "demo"}
    assert isinstance(made.judge(other, 2.0), Broken)
    assert made.working == {"demo"}
    assert (one.due_s, other.due_s) == (182.0, 182.0)
    assert demo.due_s is None
    assert made.judge(demo, 1000.0) == Restart(0.0)


def test_a_broken_workflow_whose_process_stays_healthy_is_mended() -> None:
    made = fleet(("render", 2))
    one, other = made.workers
    for now_s in (0.0, 0.0, 0.0):
        live(one, ready_s=now_s)
        made.judge(one, now_s)
    assert one.broken
    live(other, ready_s=180.0)
    # Short of healthy by a moment: it stays broken.
    assert isinstance(made.judge(other, 184.9), Broken)
    live(other, ready_s=360.0)
    assert made.judge(other, 365.0) == Restart(0.0)
    assert not one.broken


def test_a_scaled_workflow_has_its_slots_renamed_and_tells_whose_place_is_gone() -> None:
    made = fleet(("render", 1), ("demo", 1))
    live(made.workers[0], ready_s=0.0)
    first = made.workers[0].member
    assert made.scale("render", 2, 5.0) == []
    assert [slot.due_s for slot in made.of_workflow("render")] == [None, 5.0]
    assert [slot.name for slot in made.of_workflow("render")] == [
        "worker render [1/2]",
        "worker render [2/2]",
    ]
    assert made.scale("render", 0, 5.0) == [first]
    assert made.working == {"demo"}


def test_the_fleet_takes_the_shape_of_the_application() -> None:
    made = fleet(("render", 1), ("demo", 1))
    live(made.workers[0], ready_s=0.0)
    gone = made.workers[0].member
    assert made.shape([WorkflowPlan("new", 2), WorkflowPlan("demo")], 7.0) == [gone]
    assert [slot.name for slot in made.workers] == [
        "worker new [1/2]",
        "worker new [2/2]",
        "worker demo",
    ]
    assert [slot.due_s for slot in made.workers] == [7.0, 7.0, None]


def test_a_successor_takes_the_place_when_it_is_ready() -> None:
    made = fleet()
    slot = made.workers[0]
    live(slot, ready_s=0.0)
    before, process = slot.member, cast("Any", SimpleNamespace())
    slot.successor = Member(slot.name, process)
    assert slot.became_ready(slot.successor, 1.0) is before
    assert slot.member is not None
    assert slot.member.child is process
    assert slot.successor is None


def test_time_spent_booting_is_not_healthy_time() -> None:
    made = fleet()
    slot = made.workers[0]
    live(slot)
    made.judge(slot, 100.0)
    live(slot, started_s=100.0)
    assert made.judge(slot, 200.0) == Restart(1.0)
    live(slot, started_s=200.0, ready_s=200.0)
    assert made.judge(slot, 300.0) == Restart(0.0)


@pytest.mark.parametrize("said", [ExitCode.CONFIG, ExitCode.SCHEMA, ExitCode.DATABASE])
def test_a_boot_failure_before_the_slot_was_ever_ready_fails_the_start(said: ExitCode) -> None:
    made = fleet()
    live(made.workers[0], said=said)
    assert made.judge(made.workers[0], 1.0) == StartFailed(said)
    live(made.maintenance, said=said)
    assert made.judge(made.maintenance, 1.0) == StartFailed(said)


@pytest.mark.parametrize("said", [ExitCode.CONFIG, ExitCode.SCHEMA])
def test_a_later_boot_failure_breaks_the_workflow(said: ExitCode) -> None:
    made = fleet()
    slot = made.workers[0]
    live(slot, ready_s=0.0)
    made.judge(slot, 1.0)
    live(slot, said=said)
    assert made.judge(slot, 2.0) == Broken(said, 180.0)


@pytest.mark.parametrize("said", [ExitCode.DATABASE, ExitCode.LEASE_LOST])
def test_what_passes_by_itself_is_waited_for_and_never_charged(said: ExitCode) -> None:
    made = fleet()
    slot = made.workers[0]
    live(slot, ready_s=0.0)
    made.judge(slot, 1.0)
    waits = []
    for now_s in range(2, 8):
        live(slot, said=said, ready_s=now_s if said is ExitCode.LEASE_LOST else None)
        verdict = made.judge(slot, now_s)
        assert isinstance(verdict, Restart)
        waits.append(verdict.after_s)
    assert waits == [1, 2, 4, 8, 10, 10]


def test_an_exit_code_that_the_application_has_chosen_is_a_crash() -> None:
    """Only what the child says counts: `os._exit(3)` before it is ready refuses nothing."""
    made = fleet()
    live(made.workers[0])
    assert made.judge(made.workers[0], 1.0) == Restart(0.0)


def test_maintenance_is_never_broken() -> None:
    made = fleet()
    waits = []
    for now_s in range(8):
        live(made.maintenance, ready_s=now_s)
        verdict = made.judge(made.maintenance, now_s)
        assert isinstance(verdict, Restart)
        waits.append(verdict.after_s)
    assert waits == [0, 1, 2, 4, 8, 10, 10, 10]


def test_only_slots_whose_time_has_come_are_due() -> None:
    made = fleet(("render", 2))
    one, other = made.workers
    assert made.next_due_s() is None
    one.due_s, other.due_s = 3.0, 5.0
    assert made.next_due_s() == 3.0
    assert made.due(2.999) == []
    assert made.due(3.0) == [one]
    assert made.due(5.0) == [one, other]


def test_the_busiest_workflow_has_the_largest_share_of_its_executors_busy() -> None:
    made = fleet(("idle", 2), ("half", 1), ("full", 1), ("idler", 1))
    boards = []
    for slot, executors, busy in zip(made.workers, (1, 1, 8, 2, 4), (0, 0, 4, 2, 0), strict=True):
        fd = Board.open(executors)
        board = Board(fd)
        os.close(fd)
        boards.append(board)
        for index in range(busy):
            board.cell(index).begin("0190aaaa-aaaa-7aaa-8aaa-aaaaaaaaaaaa", 1, 1)
        live(slot)
        assert slot.member is not None
        slot.member.child.board = board
    assert made.busiest() == "full"
    boards[3].cell(0).end()
    boards[3].cell(1).end()
    assert made.busiest() == "half"
    for board in boards:
        board.close()
