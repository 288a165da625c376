"""Processes are forked, watched and replaced: with stand-ins for what they do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.supervisor.exits import ExitCode
from flows.supervisor.happenings import Died
from flows.supervisor.messages import Channel
from flows.supervisor.processes import CAN_ADOPT, Processes
from tests.waiting import DEADLINE_S, process_exists, wait_until, wait_until_gone

if TYPE_CHECKING:
    from flows.supervisor.happenings import Happening
    from tests.supervisor.conftest import StartStandin


@pytest.mark.parametrize("without_pidfd", [False, True])
def test_a_killed_worker_is_replaced_and_its_runs_are_released(
    standin: StartStandin, without_pidfd: bool
) -> None:
    supervised = standin("good", without_pidfd=without_pidfd)
    first = supervised.expect("ready", "good")
    os.kill(first["pid"], signal.SIGKILL)
    assert supervised.expect("release", "maintenance")["worker_id"] == first["worker_id"]
    second = supervised.expect("ready", "good")
    assert second["worker_id"] != first["worker_id"]
    assert second["pid"] != first["pid"]
    supervised.expect_said(f"worker good (pid {first['pid']}) died by SIGKILL; restarting now")
    supervised.expect_said("worker good: 2 runs given back")
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK


def test_what_is_seen_dead_gets_no_signal_before_its_death_is_acted_upon() -> None:
    processes = Processes()
    ours, theirs = socket.socketpair()
    child = processes.adopt(
        os.posix_spawn("/bin/true", ["true"], {}), Channel(ours), None, title="flows: true"
    )
    happened: list[Happening] = []
    while not happened:
        happened = processes.wait(DEADLINE_S)
    assert isinstance(happened[-1], Died)
    child.send_signal(signal.SIGTERM)
    child.kill_group()
    theirs.close()
    processes.close()


def test_a_replacement_knows_how_fast_the_one_before_was(standin: StartStandin) -> None:
    supervised = standin(workflows=[["fast", 1]])
    first = supervised.expect("ready", "fast")
    supervised.expect("shown", "fast")
    os.kill(first["pid"], signal.SIGKILL)
    second = supervised.expect("ready", "fast")
    supervised.expect("shown", "fast")
    # A successor, too, which begins beside it.
    supervised.send(signal.SIGHUP)
    third = supervised.expect("ready", "fast")
    assert [each["rate"] for each in (first, second, third)] == [0.0, 4000.0, 8000.0]


def test_a_worker_that_exits_by_itself_is_replaced_with_growing_waits_then_broken(
    standin: StartStandin,
) -> None:
    supervised = standin(
        "dies-when-ready", "good", restart={"base_s": 0.01, "budget": 3, "window_s": 60}
    )
    good = supervised.expect("ready", "good")
    for _ in range(4):
        supervised.expect("ready", "dies-when-ready")
    supervised.expect_said(
        "workflow dies-when-ready is broken: its runs are not executed, the next try is in 180 s"
    )
    said = supervised.stderr
    assert said.count("exited with code 3; restarting now") == 1
    assert said.count("exited with code 3; restarting in 0.0 s") == 2
    assert process_exists(good["pid"])
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK


def test_of_a_broken_workflow_the_other_processes_go_on(standin: StartStandin) -> None:
    supervised = standin(workflows=[["good", 2]], restart={"budget": 0})
    one, other = (supervised.expect("ready", "good") for _ in range(2))
    os.kill(one["pid"], signal.SIGKILL)
    supervised.expect_said("workflow good is broken: its other processes go on")
    assert process_exists(other["pid"])
    os.kill(other["pid"], signal.SIGKILL)
    supervised.expect_said("workflow good is broken: its runs are not executed")


def test_a_broken_workflow_is_tried_again_after_a_while(standin: StartStandin) -> None:
    supervised = standin("dies-when-ready", restart={"budget": 0, "broken_s": 0.05})
    # It is broken with the first death, and the second process is that of the next try.
    for count in (1, 2):
        supervised.expect("ready", "dies-when-ready")
        wait_until(
            lambda: supervised.stderr.count("is broken") >= count,  # noqa: B023  called here
            what=f"it is broken for the {count}. time",
        )
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK, supervised.stderr


def test_a_lost_lease_is_not_charged_to_the_budget(standin: StartStandin) -> None:
    supervised = standin(
        "dies-when-ready",
        lease_lost=True,
        restart={"base_s": 0.001, "maximum_s": 0.01, "budget": 2},
    )
    ids = {supervised.expect("ready", "dies-when-ready")["worker_id"] for _ in range(6)}
    assert len(ids) == 6
    assert "broken" not in supervised.stderr


def test_a_worker_that_cannot_boot_ends_the_start_with_its_own_code(standin: StartStandin) -> None:
    supervised = standin("good", "refuses")
    assert supervised.wait() == ExitCode.CONFIG
    assert "worker refuses: this app cannot work" in supervised.stderr
    assert "Traceback" not in supervised.stderr
    assert "restarting" not in supervised.stderr


def test_a_database_that_goes_away_later_is_waited_for_and_never_charged(
    standin: StartStandin, tmp_path: Path
) -> None:
    marker = tmp_path / "database-is-gone"
    supervised = standin(
        "loses-database",
        marker=str(marker),
        restart={"base_s": 0.001, "maximum_s": 0.01, "budget": 2},
    )
    first = supervised.expect("ready", "loses-database")
    supervised.expect("boot", "loses-database")
    marker.touch()
    os.kill(first["pid"], signal.SIGKILL)
    for _ in range(6):
        supervised.expect("boot", "loses-database")
    marker.unlink()
    supervised.expect("ready", "loses-database")
    assert "cannot connect to the database: gone" in supervised.stderr


def test_a_worker_that_cannot_boot_any_more_breaks_its_workflow_at_once(
    standin: StartStandin, tmp_path: Path
) -> None:
    marker = tmp_path / "app-has-changed"
    supervised = standin("refuses-later", "good", marker=str(marker))
    first = supervised.expect("ready", "refuses-later")
    supervised.expect("ready", "good")
    marker.touch()
    os.kill(first["pid"], signal.SIGKILL)
    supervised.expect_said("workflow refuses-later is broken")
    assert "worker refuses-later: the app has changed" in supervised.stderr
    assert supervised.stderr.count("worker refuses-later started") == 2
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK


def test_a_dead_maintenance_is_replaced_and_told_again_what_it_has_not_acknowledged(
    standin: StartStandin,
) -> None:
    supervised = standin("good", deaf=True)
    worker = supervised.expect("ready", "good")
    maintenance = supervised.expect("ready", "maintenance")
    os.kill(worker["pid"], signal.SIGKILL)
    assert supervised.expect("release", "maintenance")["pid"] == maintenance["pid"]
    os.kill(maintenance["pid"], signal.SIGKILL)
    again = supervised.expect("release", "maintenance")
    assert again["worker_id"] == worker["worker_id"]
    assert again["pid"] != maintenance["pid"]


def test_an_acknowledged_release_is_not_told_again(standin: StartStandin) -> None:
    supervised = standin("good")
    worker = supervised.expect("ready", "good")
    maintenance = supervised.expect("ready", "maintenance")
    os.kill(worker["pid"], signal.SIGKILL)
    supervised.expect("release", "maintenance")
    supervised.expect_said("2 runs given back")
    os.kill(maintenance["pid"], signal.SIGKILL)
    supervised.expect("ready", "maintenance")
    second = supervised.expect("ready", "good")
    os.kill(second["pid"], signal.SIGKILL)
    assert supervised.expect("release", "maintenance")["worker_id"] == second["worker_id"]


def test_what_a_dead_worker_has_left_in_its_group_dies_too(standin: StartStandin) -> None:
    supervised = standin("leaves-a-grandchild")
    worker = supervised.expect("ready", "leaves-a-grandchild")
    grandchild = supervised.expect("grandchild", "leaves-a-grandchild")
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until_gone(grandchild["pid"], what="the grandchild")
    second = supervised.expect("grandchild", "leaves-a-grandchild")
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    wait_until_gone(second["pid"], what="the grandchild of a worker that was stopped")


def test_the_children_of_a_killed_supervisor_are_gone_within_a_second(
    standin: StartStandin,
) -> None:
    supervised = standin("good", "wedged")
    entries = [supervised.expect("ready", who) for who in ("good", "wedged", "maintenance")]
    supervised.send(signal.SIGKILL)
    supervised.wait()
    for entry in entries:
        wait_until_gone(entry["pid"], what=entry["who"], timeout_s=1.0)


def test_workers_are_direct_children_in_groups_of_their_own(standin: StartStandin) -> None:
    supervised = standin("good")
    boot = supervised.expect("boot", "good")
    assert boot["parent"] == supervised.pid
    assert boot["group"] == boot["pid"]


@pytest.mark.skipif(not CAN_ADOPT, reason="workers are spawned by the supervisor itself here")
def test_a_worker_waits_until_the_supervisor_has_adopted_it() -> None:
    script = Path(__file__).with_name("lingering.py")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=30, check=True
    )
    supervisor, parent = done.stdout.split()
    assert parent == supervisor


def test_two_processes_of_one_workflow_draw_different_random_numbers(
    standin: StartStandin,
) -> None:
    supervised = standin(workflows=[["good", 2]])
    one, other = (supervised.expect("ready", "good") for _ in range(2))
    assert one["random"] != other["random"]


def test_the_random_numbers_of_numpy_are_seeded_anew_in_each_child(standin: StartStandin) -> None:
    supervised = standin("good", numpy=True)
    worker = supervised.expect("ready", "good")
    # Of prepare and the worker.
    seeded = {supervised.expect("seeded", "numpy")["pid"] for _ in range(2)}
    assert worker["pid"] in seeded
