"""Signals to the supervisor, and the order in which things end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from flows.supervisor.arbiter import _KILL_MARGIN_S
from flows.supervisor.exits import ExitCode
from tests.waiting import wait_until_gone

if TYPE_CHECKING:
    from tests.supervisor.conftest import StartStandin


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_workers_finish_first_and_maintenance_ends_last(
    standin: StartStandin, signum: signal.Signals
) -> None:
    supervised = standin("good")
    supervised.expect("ready", "good")
    supervised.expect("ready", "maintenance")
    supervised.send(signum)
    supervised.expect("asked", "child")
    supervised.expect("stopped", "maintenance")
    assert supervised.wait() == ExitCode.OK
    events = [(entry["event"], entry["who"]) for entry in supervised.diary]
    assert events.index(("stopped", "good")) < events.index(("release", "maintenance"))
    assert supervised.stderr.endswith("flows: stopped\n")


def test_a_second_signal_kills_workers_that_would_take_longer(standin: StartStandin) -> None:
    supervised = standin("stubborn", grace_s=600)
    stubborn = supervised.expect("ready", "stubborn")
    supervised.expect("ready", "maintenance")
    supervised.send(signal.SIGTERM)
    supervised.expect("asked", "child")
    supervised.send(signal.SIGTERM)
    assert supervised.expect("release", "maintenance")["worker_id"] == stubborn["worker_id"]
    assert supervised.wait() == ExitCode.OK
    wait_until_gone(stubborn["pid"], what="the stubborn worker")


def test_quit_does_not_wait_for_workers(standin: StartStandin) -> None:
    supervised = standin("stubborn", grace_s=600)
    supervised.expect("ready", "stubborn")
    supervised.send(signal.SIGQUIT)
    assert supervised.wait() == ExitCode.OK


def test_a_worker_that_ignores_the_grace_period_is_killed(standin: StartStandin) -> None:
    supervised = standin("stubborn", grace_s=0.1 - _KILL_MARGIN_S)
    supervised.expect("ready", "stubborn")
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    assert "killing what is left" in supervised.stderr


@pytest.mark.parametrize("is_urgent", [False, True])
def test_a_maintenance_that_does_not_answer_does_not_hold_the_end(
    standin: StartStandin, is_urgent: bool
) -> None:
    supervised = standin("good", deaf=True)
    supervised.expect("ready", "good")
    supervised.expect("ready", "maintenance")
    supervised.send(signal.SIGTERM)
    supervised.expect("release", "maintenance")
    if is_urgent:
        supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    assert ("not stopped in time" in supervised.stderr) is not is_urgent


def test_maintenance_is_replaced_while_workers_finish(standin: StartStandin) -> None:
    supervised = standin("stubborn", grace_s=600)
    supervised.expect("ready", "stubborn")
    maintenance = supervised.expect("ready", "maintenance")
    supervised.send(signal.SIGTERM)
    supervised.expect("asked", "child")
    os.kill(maintenance["pid"], signal.SIGKILL)
    supervised.expect("ready", "maintenance")


def test_a_worker_that_dies_while_stopping_is_not_replaced(standin: StartStandin) -> None:
    supervised = standin("stubborn", grace_s=600)
    stubborn = supervised.expect("ready", "stubborn")
    supervised.send(signal.SIGTERM)
    supervised.expect("asked", "child")
    os.kill(stubborn["pid"], signal.SIGKILL)
    assert supervised.wait() == ExitCode.OK
    assert supervised.stderr.count("worker stubborn started") == 1


def test_a_worker_with_a_stuck_thread_is_not_replaced_while_stopping(
    standin: StartStandin,
) -> None:
    supervised = standin("stuck-when-asked", grace_s=600)
    stuck = supervised.expect("ready", "stuck-when-asked")
    supervised.send(signal.SIGTERM)
    supervised.expect_said("a thread is given up")
    os.kill(stuck["pid"], signal.SIGKILL)
    assert supervised.wait() == ExitCode.OK
    assert supervised.stderr.count("worker stuck-when-asked started") == 1


def test_a_worker_that_waits_for_its_restart_is_not_forked_any_more(standin: StartStandin) -> None:
    supervised = standin(
        "dies-when-ready",
        "stubborn",
        grace_s=0.5 - _KILL_MARGIN_S,
        restart={"base_s": 0.3, "maximum_s": 0.3, "budget": 100},
    )
    supervised.expect("ready", "stubborn")
    supervised.expect_said("restarting in 0.")
    supervised.send(signal.SIGTERM)
    # It would have been due long before the stubborn one is killed.
    assert supervised.wait() == ExitCode.OK
    before, _, after = supervised.stderr.partition("received SIGTERM")
    assert "dies-when-ready started" in before
    assert "started" not in after


def test_a_signal_while_preparing_ends_it_at_once(standin: StartStandin) -> None:
    supervised = standin("good", prepare="waits")
    supervised.expect("prepare", "prepare")
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    assert "worker good started" not in supervised.stderr


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("refuses", ExitCode.CONFIG, "--begin census: no such workflow"),
        ("crashes", ExitCode.INTERNAL, "SIGSEGV"),
        ("breaks", ExitCode.INTERNAL, "AssertionError: nobody foresaw this"),
    ],
)
def test_nothing_is_started_where_preparation_fails(
    standin: StartStandin, how: str, code: ExitCode, said: str
) -> None:
    supervised = standin("good", prepare=how)
    assert supervised.wait() == code
    assert said in supervised.stderr
    assert "worker good started" not in supervised.stderr


def test_a_drain_ends_with_the_report_of_the_runs_that_were_begun(standin: StartStandin) -> None:
    supervised = standin("good", drained={}, begun=["good_0:1"])
    assert supervised.expect("report", "report")["keys"] == ["good_0:1"]
    assert supervised.wait() == ExitCode.OK


def test_a_drain_without_begun_runs_reports_nothing(standin: StartStandin) -> None:
    supervised = standin("good", drained={})
    assert supervised.wait() == ExitCode.OK
    supervised.expect("stopped", "maintenance")
    assert all(entry["event"] != "report" for entry in supervised.diary)


def test_failed_runs_give_a_drain_its_exit_code(standin: StartStandin) -> None:
    supervised = standin("good", drained={"good": 3}, begun=["good_0:1"])
    supervised.expect("report", "report")
    assert supervised.wait() == ExitCode.FAILED
    assert "good 3" in supervised.stderr


def test_a_report_that_fails_gives_a_drain_its_exit_code(standin: StartStandin) -> None:
    supervised = standin("good", drained={}, begun=["good_0:1"], report="fails")
    assert supervised.wait() == ExitCode.DATABASE
    assert "cannot connect to the database: gone" in supervised.stderr


def test_a_drain_that_only_broken_workflows_hold_up_ends_as_broken(standin: StartStandin) -> None:
    supervised = standin(
        "dies-at-boot",
        "good",
        unfinished={"dies-at-boot": {"queued": 1}, "good": {"queued": 0}},
        drain_on_release=True,
        restart={"base_s": 0.001, "budget": 1},
    )
    assert supervised.wait() == ExitCode.BROKEN
    assert "only runs of broken workflows are left (dies-at-boot)" in supervised.stderr


def test_what_stands_in_buffers_is_written_once(standin: StartStandin) -> None:
    supervised = standin("prints", unflushed="of the supervisor; ")
    supervised.expect("ready", "prints")
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    assert supervised.stdout == "of the supervisor; "
    assert supervised.stderr.count("flows: worker prints | half a line\n") == 1
