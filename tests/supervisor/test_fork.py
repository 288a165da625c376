"""A forked child is no copy of the supervisor: its signals, descriptors and parent are its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows.supervisor.exits import ExitCode
from tests.supervisor.harness import ROOT, title_of
from tests.waiting import read_line, wait_until, wait_until_gone

if TYPE_CHECKING:
    from tests.supervisor.conftest import StartStandin

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def descriptors_of(pid: int) -> list[str]:
    return [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]


def test_titles_tell_what_each_process_is(standin: StartStandin) -> None:
    supervised = standin(workflows=[["good", 2], ["prints", 1]])
    entries = [supervised.expect("ready", who) for who in ("good", "good", "prints", "maintenance")]
    assert {title_of(entry["pid"]) for entry in entries} == {
        "flows: worker good [1/2]",
        "flows: worker good [2/2]",
        "flows: worker prints",
        "flows: maintenance",
    }


def test_a_signal_to_a_child_is_not_taken_for_one_to_the_supervisor(standin: StartStandin) -> None:
    supervised = standin("good")
    first = supervised.expect("ready", "good")
    os.kill(first["pid"], signal.SIGINT)
    supervised.expect("stopped", "good")
    supervised.expect("ready", "good")
    assert "received" not in supervised.stderr
    assert "exited with code 0; restarting now" in supervised.stderr


def test_handlers_of_the_application_do_not_reach_its_children(standin: StartStandin) -> None:
    supervised = standin("good", handlers_of_the_app=True)
    first = supervised.expect("ready", "good")
    os.kill(first["pid"], signal.SIGHUP)
    os.kill(first["pid"], signal.SIGUSR2)
    supervised.expect("ready", "good")
    supervised.expect_said("died by SIGUSR2; restarting now")


def test_no_signal_is_left_blocked_in_a_child(standin: StartStandin) -> None:
    assert standin("good").expect("boot", "good")["blocked"] == []


def test_a_child_holds_nothing_of_the_supervisor_or_its_siblings(standin: StartStandin) -> None:
    supervised = standin("good", "prints")
    supervised.expect("ready", "good")
    last = supervised.expect("ready", "prints")
    held = descriptors_of(last["pid"])
    assert sum(each.startswith("socket:") for each in held) == 1
    assert sum("eventpoll" in each for each in held) == 1
    assert not any("pidfd" in each for each in held)
    # The diary, both ends for its signals, and what it prints: twice.
    assert sum(each.startswith("pipe:") for each in held) == 5
    assert str(Path(f"/proc/{last['pid']}/fd/0").readlink()) == "/dev/null"


def test_the_supervisor_holds_nothing_of_dead_children(standin: StartStandin) -> None:
    supervised = standin("good")
    worker = supervised.expect("ready", "good")
    # Told by the supervisor itself: what it opens to start them is closed by then.
    supervised.expect_said("worker good ready")
    supervised.expect_said("maintenance ready")
    before = len(descriptors_of(supervised.pid))
    for _ in range(5):
        os.kill(worker["pid"], signal.SIGKILL)
        worker = supervised.expect("ready", "good")
    wait_until(
        lambda: len(descriptors_of(supervised.pid)) == before,
        what=f"{before} descriptors are open as before",
    )


def test_what_the_supervisor_has_imported_is_frozen_for_the_collector(
    standin: StartStandin,
) -> None:
    assert standin("good").expect("boot", "good")["frozen"] > 10_000


def test_where_no_death_signal_is_sent_the_closed_channel_ends_the_children(
    standin: StartStandin,
) -> None:
    supervised = standin("good", "stubborn", without_death_signal=True)
    entries = [supervised.expect("ready", who) for who in ("good", "stubborn", "maintenance")]
    supervised.send(signal.SIGKILL)
    supervised.wait()
    for entry in entries:
        wait_until_gone(entry["pid"], what=entry["who"])


@pytest.mark.parametrize(
    ("refused", "who"),
    [
        ({"fork_fails": [2]}, "maintenance"),
        ({"template_fork_fails": [2]}, "worker good"),
        ({"template_fork_fails": [-1], "middle_fork_fails": [2]}, "worker good"),
    ],
)
def test_a_fork_that_the_system_refuses_is_tried_again(
    standin: StartStandin, refused: dict[str, list[int]], who: str
) -> None:
    supervised = standin("good", **refused)
    supervised.expect("ready", "good")
    supervised.expect("ready", "maintenance")
    supervised.expect_said(f"{who} cannot be forked: [Errno 11]")
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK


def test_a_child_that_fails_before_it_is_one_does_not_go_on_as_a_template(
    standin: StartStandin,
) -> None:
    supervised = standin("good", unreadable_orders=True, restart={"base_s": 0.001, "budget": 1})
    supervised.expect_said("workflow good is broken")
    assert "AssertionError: this order cannot be read" in supervised.stderr
    assert supervised.stderr.count(f"exited with code {ExitCode.INTERNAL}") == 2
    assert "flows: error: " not in supervised.stderr
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK


ORPHAN = """
import os, sys
from flows.supervisor.child import die_with_parent
parent_pid = os.getpid()
if os.fork() == 0:
    os.write(1, f"{os.getpid()}\\n".encode())
    os.read(0, 1)
    die_with_parent(parent_pid)
    os.write(1, b"went on\\n")
    os._exit(0)
os.wait()
"""


def test_a_parent_that_died_before_the_request_is_noticed(tmp_path: Path) -> None:
    """The child asks to die with its parent only when the parent is dead already."""
    go_read, go_write = os.pipe()
    options: dict[str, Any] = {"stdin": go_read, "stdout": subprocess.PIPE, "cwd": ROOT}
    with subprocess.Popen([sys.executable, "-c", ORPHAN], **options) as parent:
        os.close(go_read)
        assert parent.stdout is not None
        child_pid = int(read_line(parent.stdout.fileno(), what="the child has started"))
        parent.kill()
        parent.wait()
        os.write(go_write, b"\n")
        assert parent.stdout.read() == b""
        wait_until_gone(child_pid, what="the orphan")
    os.close(go_write)
