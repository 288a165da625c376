"""What a supervisor hears while it starts: the import of an application may take long."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.supervisor.exits import ExitCode
from tests.supervisor.harness import GREET, begin, rows, title_of
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.supervisor.conftest import StartSource


@pytest.fixture
def held(gate: Path) -> str:
    """The source of an application whose import waits at the gate."""
    return f"""
import os
os.write(int(os.environ['FLOWS_DIARY_FD']), b'{{"event": "importing", "who": "app"}}\\n')
open({str(gate)!r}).read()
{GREET}
"""


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        (signal.SIGTERM, ExitCode.OK),
        (signal.SIGQUIT, ExitCode.OK),
        (signal.SIGINT, ExitCode.INTERRUPTED),
    ],
)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_signal_to_stop_ends_a_start_in_the_middle_of_the_import(
    supervise: StartSource, held: str, signum: signal.Signals, code: ExitCode, method: str
) -> None:
    supervised = supervise(held, "--start-method", method)
    supervised.expect("importing", "app")
    supervised.send(signum)
    assert supervised.wait() == code
    assert "Traceback" not in supervised.stderr
    if signum is not signal.SIGINT:
        assert f"received {signum.name}: nothing was started yet" in supervised.stderr


def test_signals_that_ask_for_something_else_do_not_harm_a_start(
    supervise: StartSource, held: str, gate: Path
) -> None:
    supervised = supervise(held)
    supervised.expect("importing", "app")
    for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
        supervised.send(signum)
    gate.write_text("go")
    supervised.expect_said("worker greet ready")
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs a namespace of processes"
)
def test_process_1_of_a_container_hears_that_it_is_to_end_while_it_starts(
    supervise: StartSource, held: str
) -> None:
    supervised = supervise(
        held, prefix=("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    )
    supervised.expect("importing", "app")
    inner = int(Path(f"/proc/{supervised.pid}/task/{supervised.pid}/children").read_text())
    assert title_of(inner) == "flows: supervisor shop:registry"
    os.kill(inner, signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_streams_that_are_closed_get_nothing_of_what_is_meant_for_others(
    supervise: StartSource, method: str
) -> None:
    supervised = supervise(
        GREET, "--start-method", method,
        prefix=("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"),
    )  # fmt: skip
    begin(supervised.dsn, "greet", "you")
    wait_until(
        lambda: rows(supervised.dsn) == [("greet", "completed", 0)], what="the run is completed"
    )
    for number in range(3):
        assert str(Path(f"/proc/{supervised.pid}/fd/{number}").readlink()) == os.devnull
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
