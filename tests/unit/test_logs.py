"""Lines of children, and a stderr that may be stuck: over real pipes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from flows.supervisor.console import LineConsole
from flows.supervisor.logs import ChildOutput, LineSplitter
from flows.supervisor.outlet import Outlet
from flows.supervisor.stack_records import StackRecords
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
        {"process": "supervisor", "pid": os.getpid(), "level": "info", "message": "started"},
        {"process": "worker render", "pid": 7, "message": "hello"},
        {"process": "worker render", "pid": 7, "level": "warning", "message": "m", "step": "s"},
        {"process": "worker render", "pid": 7, "message": "garbage"},
    ]


def test_json_events_carry_their_level_and_fields(capfd: pytest.CaptureFixture[str]) -> None:
    for style in (LogStyle("json"), LogStyle()):
        LineConsole(style).say(
            "it died", level="error", event="died", exit="SIGSEGV", workflow=None
        )
    as_json, as_text = capfd.readouterr().err.splitlines()
    document = json.loads(as_json)
    del document["time"], document["pid"]
    assert document == {
        "process": "supervisor",
        "level": "error",
        "message": "it died",
        "event": "died",
        "exit": "SIGSEGV",
    }
    assert as_text == "flows: it died"


DUMP = [
    "Fatal Python error: Segmentation fault",
    "",
    "Current thread 0x00007f (most recent call first):",
    '  File "/srv/shop.py", line 7 in <lambda>',
    '  File "/srv/flows/steps.py", line 99 in call',
    "",
    "Thread 0x00008f (most recent call first):",
    "  <no Python frame>",
    "",
    "Extension modules: msgspec._core (total: 1)",
]


def test_the_stack_of_a_dying_child_is_one_record(capfd: pytest.CaptureFixture[str]) -> None:
    console = LineConsole(LogStyle("json"))
    for line in [
        "before",
        *DUMP[:4],
        '  File "/srv/shop.py", line 3, in of_a_traceback',
        *DUMP[4:],
    ]:
        console.pass_on("worker render", 7, line)
    console.say("worker render (pid 7) died by SIGSEGV")
    before, between, crash, died = map(json.loads, capfd.readouterr().err.splitlines())
    assert before["message"] == "before"
    assert between["message"].endswith("in of_a_traceback")
    assert (crash["process"], crash["pid"], crash["level"]) == ("worker render", 7, "error")
    assert (crash["event"], crash["message"]) == ("crash", DUMP[0])
    assert crash["stack"] == "\n".join(DUMP)
    assert died["message"].endswith("died by SIGSEGV")


def test_stacks_that_were_asked_for_come_when_nothing_more_does() -> None:
    records = StackRecords()
    for pid, at_s in ((7, 100.0), (8, 100.2)):
        for line in DUMP[2:6]:
            assert records.feed("worker render", pid, line, at_s).is_of_stack
    assert records.take_whole(100.2) == []
    [first] = records.take_whole(100.3)
    assert (first.pid, first.level, first.event) == (7, "info", "stacks")
    assert first.stack == "\n".join(DUMP[2:5])
    assert records.is_open
    assert [each.pid for each in records.take()] == [8]
    assert not records.is_open


def test_a_dump_that_is_too_long_for_a_line_becomes_several_records() -> None:
    records = StackRecords()
    frames = [f'  File "/srv/{"x" * 990}.py", line {number} in call' for number in range(100)]
    found = []
    for line in [DUMP[2], *frames]:
        taken = records.feed("worker render", 7, line, 100.0)
        found += taken.records
        # Who goes on after a cut begins with a frame.
        assert taken.is_of_stack
    found += records.take()
    assert len(found) == 2
    assert "\n".join(each.stack for each in found).splitlines() == [DUMP[2], *frames]


@pytest.mark.parametrize(
    "line", ["hello", "", "  ...", '  File "/srv/shop.py", line 7 in f', RECORD + "{}"]
)
def test_a_line_that_begins_no_dump_is_a_line(line: str) -> None:
    assert not StackRecords().feed("worker render", 7, line, 100.0).is_of_stack
