"""The scoreboard: whole at any moment, also when its writer is killed in the middle."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows import clock
from flows.board import Board, Executing
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "0190aaaa-aaaa-7aaa-8aaa-aaaaaaaaaaaa"
CELL_0 = 512
"""Where the byte is that says which half of the first cell counts."""
OTHER = "0190bbbb-bbbb-7bbb-8bbb-bbbbbbbbbbbb"


@pytest.fixture
def board() -> Iterator[Board]:
    fd = Board.open(3)
    made = Board(fd)
    os.close(fd)
    yield made
    made.close()


def test_a_new_board_says_nothing(board: Board) -> None:
    state = board.read()
    assert state.executing == (None, None, None)
    assert (state.heartbeat_s, state.database_since_s, state.finished, state.busy) == (0, 0, 0, 0)


def test_an_executor_shows_its_run_and_its_step(board: Board) -> None:
    before_s = clock.monotonic()
    cell = board.cell(1)
    cell.begin(RUN, 7, 2)
    shown = board.read().executing[1]
    assert shown is not None
    assert (shown.run_id, shown.claim, shown.attempt, shown.step) == (RUN, 7, 2, None)
    assert before_s <= shown.since_s <= clock.monotonic()
    cell.step("trace/v1")
    stepping = board.read().executing[1]
    assert stepping is not None
    assert (stepping.run_id, stepping.step, stepping.since_s) == (RUN, "trace/v1", shown.since_s)
    assert stepping.step_since_s >= shown.since_s
    cell.step(None)
    assert board.read().executing[1] == shown
    cell.end()
    assert board.read().executing == (None, None, None)
    assert board.read().finished == 1


def test_an_executor_shows_when_its_time_is_up(board: Board) -> None:
    cell = board.cell(0)
    cell.begin(RUN, 7, 2, 30.0)
    cell.step("trace/v1", 20.0)
    deadlines = [each.deadline_s for each in board.read().executing if each]
    cell.step(None)
    deadlines += [each.deadline_s for each in board.read().executing if each]
    cell.begin(RUN, 8, 2)
    deadlines += [each.deadline_s for each in board.read().executing if each]
    assert deadlines == [20.0, 30.0, 0.0]


def test_a_cell_that_was_handed_over_shows_only_what_its_heir_does(board: Board) -> None:
    cell = board.cell(0)
    cell.begin(RUN, 7, 2)
    heir = cell.hand_over()
    assert (board.read().executing[0], board.read().finished) == (None, 1)
    heir.begin(OTHER, 8, 1)
    cell.step("late/v1")
    cell.end()
    shown = board.read().executing[0]
    assert shown is not None
    assert (shown.run_id, shown.step, board.read().finished) == (OTHER, None, 1)
    heir.end()
    assert board.read().finished == 2


def test_executors_do_not_write_into_each_others_cells(board: Board) -> None:
    cells = [board.cell(index) for index in range(3)]
    cells[0].begin(RUN, 1, 1)
    cells[2].begin(OTHER, 2, 1)
    cells[2].step("x" * 400)
    state = board.read()
    assert state.busy == 2
    assert state.executing[1] is None
    assert state.executing[0] is not None
    assert state.executing[0].run_id == RUN
    cells[0].end()
    cells[2].end()
    assert board.read().finished == 2


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("x" * 152, "x" * 152),
        ("x" * 153, "x" * 149 + "…"),
        ("ä" * 80, "ä" * 74 + "…"),
        ("\ud800", "?"),
    ],
)
def test_a_long_step_key_is_cut_visibly(board: Board, key: str, shown: str) -> None:
    cell = board.cell(0)
    cell.begin(RUN, 1, 1)
    cell.step(key)
    executing = board.read().executing[0]
    assert executing is not None
    assert executing.step == shown


def test_a_heartbeat_is_seen_by_another_process(board: Board) -> None:
    pid = os.fork()
    if pid == 0:
        board.beat(12.5)
        os._exit(0)
    os.waitpid(pid, 0)
    state = board.read()
    assert state.database_since_s == 12.5
    assert 0 < clock.monotonic() - state.heartbeat_s < 10


def test_a_board_travels_through_a_socket() -> None:
    ours, theirs = socket.socketpair()
    fd = Board.open(2)
    here = Board(fd)
    socket.send_fds(ours, [b"board"], [fd])
    os.close(fd)
    _, (received,), _, _ = socket.recv_fds(theirs, 16, 1)
    there = Board(received)
    os.close(received)
    there.cell(1).begin(RUN, 3, 1)
    assert here.read().busy == 1
    for each in (ours, theirs, here, there):
        each.close()


def test_boards_leave_no_descriptor_behind() -> None:
    def held() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    before = held()
    for _ in range(50):
        fd = Board.open(4)
        board = Board(fd)
        os.close(fd)
        board.cell(0).begin(RUN, 1, 1)
        board.close()
    assert held() == before


@pytest.mark.parametrize("write", ["begin", "step", "leave", "end"])
def test_what_is_written_is_seen_with_the_last_byte_only(write: str) -> None:
    """As if the writer were killed right before that byte."""
    fd = Board.open(1)
    board = Board(fd)
    cell = board.cell(0)
    cell.begin(RUN, 1, 1)
    cell.step("one")
    before, flipped = board.read(), os.pread(fd, 1, CELL_0)
    {
        "begin": lambda: cell.begin(OTHER, 2, 2),
        "step": lambda: cell.step("two"),
        "leave": lambda: cell.step(None),
        "end": cell.end,
    }[write]()
    assert board.read().executing != before.executing
    os.pwrite(fd, flipped, CELL_0)
    assert board.read().executing == before.executing
    os.close(fd)
    board.close()


def test_what_a_killed_writer_leaves_is_whole(board: Board) -> None:
    """Two runs whose parts are told apart, written as fast as can be by one who is killed."""
    for _ in range(40):
        pid = os.fork()
        if pid == 0:
            cell = board.cell(0)
            while True:
                cell.begin(RUN, 1, 1)
                cell.step("one")
                cell.begin(OTHER, 2, 2)
                cell.step("two")
        wait_until(lambda: board.read().busy, what="it writes")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        shown = board.read().executing[0]
        assert isinstance(shown, Executing)
        assert (shown.run_id, shown.claim, shown.attempt) in [(RUN, 1, 1), (OTHER, 2, 2)]
        assert shown.step in (None, "one" if shown.run_id == RUN else "two")
        board.cell(0).end()
        board.cell(0).end()


def test_a_board_shows_how_many_runs_a_second_are_done() -> None:
    fd = Board.open(2, 123.5)
    board = Board(fd)
    os.close(fd)
    board.beat(0.0)
    assert board.rate == board.read().rate == 123.5
    board.show_rate(4711.25)
    board.beat(1.0)
    state = board.read()
    assert (state.rate, state.database_since_s, len(state.executing)) == (4711.25, 1.0, 2)
    board.close()
    assert board.rate == 0.0
