"""What `flows status` and `flows top` show, on terminals of any width."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console, Group

from flows.cli import top
from flows.cli.control import ControlError
from flows.cli.status_page import headline, process_table
from flows.supervisor.state import ExecutingState, ProcessState, SupervisorState

RUN = "0190aaaa-aaaa-7aaa-8aaa-aaaaaaaaaaaa"
BUSY = ExecutingState(RUN, 1, 12.0, "trace/v1", 3.0)
STATE = SupervisorState(
    "app:registry",
    4711,
    "running",
    3,
    7500.0,
    (
        ProcessState("maintenance", None, "ready", 4715, age_s=7500.0, rss=32 << 20),
        ProcessState(
            "worker render [1/2]",
            "render",
            "ready",
            4719,
            3,
            722.0,
            restarts=1,
            executors=4,
            executing=(BUSY,),
            finished=118,
            rss=96 << 20,
        ),
        ProcessState("worker demo", "demo", "broken", restarts=5),
    ),
)


def shown(page: object, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(page)
    return out.getvalue()


@pytest.mark.parametrize("width", [24, 40, 60, 80, 120])
def test_nothing_is_cut_off_at_any_width(width: int) -> None:
    page = shown(process_table(STATE, width), width)
    assert "…" not in page
    assert max(map(len, page.splitlines())) <= width
    for word in ("maintenance", "ready", "broken", "1/4", "12 min 02 s", "96 MiB"):
        assert word in page


def test_a_wide_terminal_has_a_table_and_a_narrow_one_blocks() -> None:
    wide, usual, narrow = (shown(process_table(STATE, width), width) for width in (120, 80, 40))
    assert "gen" in wide
    assert "finished" in wide
    assert usual.splitlines()[0].split() == [
        *("process", "state", "pid", "up", "busy", "restarts", "memory")
    ]
    assert narrow.split("\n\n")[1].splitlines() == [
        "worker render [1/2]",
        "  state: ready",
        "  pid: 4719",
        "  gen: 3",
        "  up: 12 min 02 s",
        "  busy: 1/4",
        "  finished: 118",
        "  restarts: 1",
        "  memory: 96 MiB",
    ]


@pytest.mark.parametrize("width", [40, 120])
def test_top_names_runs_and_steps_at_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(_path: Path, what: dict[str, str], *, patient: bool) -> dict[str, object]:
        if what["do"] == "queues":
            raise ControlError("the database has not answered for 12 s")
        return {"status": msgspec.to_builtins(STATE)}

    monkeypatch.setattr(top, "ask", ask)
    frame = top._Frames(Path()).next(width)
    assert isinstance(frame, Group)
    page = shown(frame, width)
    assert "…" not in page
    for word in ("render", "broken", "1/4", RUN, "trace/v1", "12 s", "?"):
        assert word in page


def test_a_database_that_does_not_answer_is_told_above_the_table() -> None:
    silent = msgspec.structs.replace(STATE, database_silent_s=12.3)
    _, line = shown(headline(silent), 120).splitlines()
    assert line == "the database has not answered for 12 s"
    assert len(shown(headline(STATE), 120).splitlines()) == 1
