"""Lines of children, and a stderr that may be stuck: over real pipes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from flows.supervisor.console import LineConsole
from flows.supervisor.logs import ChildOutput, LineSplitter
from flows.supervisor.outlet import Outlet
from flows.supervisor.streams import RECORD, LogStyle

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_fd, write_fd = os.pipe()
    yield read_fd, write_fd
    os.close(read_fd)
    os.close(write_fd)


@pytest.mark.parametrize(
    ("pieces", "lines", "rest"),
    [
        ([b"one\ntwo\n"], ["one", "two"], []),
        ([b"o", b"ne\nt", b"wo"], ["one"], ["two"]),
        ([b"\n\n"], ["", ""], []),
        ([b"windows\r\n"], ["windows"], []),
        ([b" 10 %\r 20 %\r100 %\n"], [" 10 %", " 20 %", "100 %"], []),
        (["schön".encode()[:4], "schön\n".encode()[4:]], ["schön"], []),
        ([b"\xff\x00\n"], ["\\xff\x00"], []),
        ([b""], [], []),
    ],
)
def test_pieces_become_lines(pieces: list[bytes], lines: list[str], rest: list[str]) -> None:
    splitter = LineSplitter()
    assert [line for piece in pieces for line in splitter.feed(piece)] == lines
    assert splitter.finish() == rest
    assert splitter.finish() == []


def test_a_line_without_end_is_broken_into_pieces() -> None:
    splitter = LineSplitter()
    lines = [line for _ in range(5) for line in splitter.feed(b"x" * 30_000)]
    assert [len(line) for line in lines] == [65_536, 65_536]
    assert splitter.finish() == ["x" * (150_000 - 2 * 65_536)]


def test_the_output_of_a_dead_child_is_read_to_its_end() -> None:
    read_fd, write_fd = os.pipe()
    output = ChildOutput(read_fd)
    assert output.read() == []
    os.write(write_fd, b"first\nlast words")
    os.close(write_fd)
    assert output.finish() == ["first", "last words"]
    assert not output.is_open
    output.close()


def test_a_stuck_outlet_keeps_lines_then_drops_and_says_how_many(pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    os.set_blocking(read_fd, False)
    outlet = Outlet(write_fd, "note: {}".format)
    line = "x" * 999
    for _ in range(1500):  # one and a half megabytes, into 64 KiB of pipe and 1 MiB of memory
        outlet.write(line)
    assert outlet.is_behind
    taken = b""
    while outlet.is_behind:
        taken += os.read(read_fd, 1 << 20)
        outlet.flush()
    outlet.write("and on")
    taken += os.read(read_fd, 1 << 20)
    *lines, dropped, last = taken.decode().splitlines()
    assert set(lines) == {line}
    assert dropped == f"note: {1500 - len(lines)} lines were dropped here: nobody was reading"
    assert 1000 < len(lines) < 1400
    assert last == "and on"


def test_an_outlet_that_nobody_has_open_any_more_is_no_error() -> None:
    read_fd, write_fd = os.pipe()
    outlet = Outlet(write_fd, "note: {}".format)
    os.close(read_fd)
    outlet.write("to nobody")
    outlet.write("again")
    assert not outlet.is_behind
    os.close(write_fd)


def test_the_note_of_dropped_lines_is_json_where_lines_are(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_fd, write_fd = pipe
    os.set_blocking(read_fd, False)
    console = LineConsole(LogStyle("json"))
    monkeypatch.setattr(console._outlet, "_fd", write_fd)
    for _ in range(1500):
        console.say("x" * 999)
    taken = b""
    while console.is_behind:
        taken += os.read(read_fd, 1 << 20)
        console.catch_up()
    console.say("and on")
    taken += os.read(read_fd, 1 << 20)
    *_, dropped, last = map(json.loads, taken.decode().splitlines())
    assert "lines were dropped here" in dropped["message"]
    assert (dropped["process"], last["message"]) == ("supervisor", "and on")


def test_lines_are_told_of_their_process(capfd: pytest.CaptureFixture[str]) -> None:
    console = LineConsole()
    console.say("started\nat once")
    console.pass_on("worker render [1/2]", 7, "hello")
    assert capfd.readouterr().err.splitlines() == [
        "flows: started",
        "flows: at once",
        "worker render [1/2] | hello",
    ]


def test_json_lines_carry_what_a_record_carries(capfd: pytest.CaptureFixture[str]) -> None:
    console = LineConsole(LogStyle("json"))
    console.say("started")
    console.pass_on("worker render", 7, "hello")
    console.pass_on("worker render", 7, RECORD + '{"level":"warning","message":"m","step":"s"}')
    console.pass_on("worker render", 7, RECORD + "garbage")
    documents = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert all(document.pop("time").endswith("+00:00") for document in documents)
    assert documents == [
        {"process": "supervisor", "pid": os.getpid(), "message": "started"},
        {"process": "worker render", "pid": 7, "message": "hello"},
        {"process": "worker render", "pid": 7, "level": "warning", "message": "m", "step": "s"},
        {"process": "worker render", "pid": 7, "message": "garbage"},
    ]
