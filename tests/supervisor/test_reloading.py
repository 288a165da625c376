"""New code beside the old: HUP, with stand-ins for what the workers do."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows.supervisor.exits import ExitCode
from tests.supervisor.harness import title_of
from tests.waiting import DEADLINE_S, process_exists, wait_until, wait_until_gone

if TYPE_CHECKING:
    from tests.supervisor.conftest import StartStandin
    from tests.supervisor.harness import Supervised


@pytest.fixture
def changes(tmp_path: Path) -> Path:
    """The file in which a template finds what has changed."""
    return tmp_path / "changes"


def change(path: Path, **what: Any) -> None:
    # Whole at any moment: a template may be reading it.
    new = path.with_suffix(".new")
    new.write_text(json.dumps(what))
    new.replace(path)


def started(supervised: Supervised, *who: str) -> dict[str, dict[str, Any]]:
    return {each: supervised.expect("ready", each) for each in (*who, "maintenance")}


def test_a_reload_replaces_every_worker_by_one_that_is_ready_first(
    standin: StartStandin, changes: Path
) -> None:
    supervised = standin("good", "prints", changes=str(changes))
    before = started(supervised, "good", "prints")
    supervised.send(signal.SIGHUP)
    for name in ("good", "prints"):
        after = supervised.expect("ready", name)
        assert after["pid"] != before[name]["pid"]
        assert after["worker_id"] != before[name]["worker_id"]
        wait_until_gone(before[name]["pid"], what="the worker before it")
    supervised.expect_said("generation 2")
    retired = {supervised.expect("retired", "child")["pid"] for _ in range(2)}
    assert retired == {before["good"]["pid"], before["prints"]["pid"]}
    assert process_exists(before["maintenance"]["pid"])
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK


def test_the_one_before_finishes_its_runs_however_long_they_take(standin: StartStandin) -> None:
    supervised = standin("stubborn", grace_s=600)
    before = started(supervised, "stubborn")["stubborn"]
    supervised.send(signal.SIGHUP)
    supervised.expect("ready", "stubborn")
    supervised.expect("retired", "child")
    supervised.expect_said("reloaded in")
    assert process_exists(before["pid"])
    supervised.send(signal.SIGTERM)
    # Both are asked, and both are killed by the second signal.
    assert {supervised.expect("asked", "child")["pid"] for _ in range(2)} >= {before["pid"]}
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    wait_until_gone(before["pid"], what="the worker before it")


@pytest.mark.parametrize(
    ("how", "said"),
    [("refuses", "importing standin failed: SyntaxError"), ("crashes", "died by SIGSEGV")],
)
def test_code_that_cannot_be_imported_aborts_the_reload(
    standin: StartStandin, changes: Path, how: str, said: str
) -> None:
    supervised = standin("good", changes=str(changes))
    before = started(supervised, "good")["good"]
    change(changes, load=how)
    supervised.send(signal.SIGHUP)
    supervised.expect_said("reload aborted, the code before it goes on")
    assert said in supervised.stderr
    assert process_exists(before["pid"])
    # It still forks from the code before.
    os.kill(before["pid"], signal.SIGKILL)
    supervised.expect("ready", "good")


def test_a_worker_that_cannot_boot_the_new_code_brings_the_old_back(
    standin: StartStandin, changes: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "app-has-changed"
    supervised = standin("good", "refuses-later", changes=str(changes), marker=str(marker))
    before = started(supervised, "good", "refuses-later")
    marker.touch()
    supervised.send(signal.SIGHUP)
    supervised.expect_said("worker refuses-later: the app has changed")
    # Of the new code first, then of the old code again.
    second, third = (supervised.expect("ready", "good") for _ in range(2))
    wait_until_gone(second["pid"], what="the worker of the new code")
    supervised.expect_said(
        "going back to the code before it: worker refuses-later cannot boot: the app has changed\n"
    )
    assert process_exists(before["refuses-later"]["pid"])
    assert process_exists(third["pid"])
    assert supervised.stderr.count("worker refuses-later started") == 2


def test_an_import_that_hangs_is_given_up_for_the_next_reload(
    standin: StartStandin, changes: Path
) -> None:
    supervised = standin("good", changes=str(changes))
    before = started(supervised, "good")["good"]
    supervised.expect("load", "template")
    change(changes, load="hangs")
    supervised.send(signal.SIGHUP)
    hanging = supervised.expect("load", "template")
    change(changes, load="well")
    supervised.send(signal.SIGHUP)
    supervised.expect("ready", "good")
    wait_until_gone(before["pid"], what="the worker before it")
    wait_until_gone(hanging["pid"], what="the import that hangs")


def test_a_worker_that_dies_while_its_successor_boots_is_followed_by_that_one_alone(
    standin: StartStandin, tmp_path: Path, gate: Path
) -> None:
    marker = tmp_path / "app-has-changed"
    supervised = standin(
        "hesitates",
        marker=str(marker),
        gate=str(gate),
        # Its death alone would break the workflow, and have another one started at once.
        restart={"budget": 0, "broken_s": 0.0},
    )
    before = started(supervised, "hesitates")["hesitates"]
    supervised.expect("boot", "hesitates")
    marker.touch()
    supervised.send(signal.SIGHUP)
    successor = supervised.expect("boot", "hesitates")
    os.kill(before["pid"], signal.SIGKILL)
    supervised.expect_said("died by SIGKILL")
    supervised.expect("release", "maintenance")
    gate.write_text("go")
    assert supervised.expect("ready", "hesitates")["pid"] == successor["pid"]
    supervised.expect_said("reloaded in")
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    assert supervised.stderr.count("worker hesitates started") == 2


def test_a_reload_follows_the_registry(standin: StartStandin, changes: Path) -> None:
    supervised = standin("good", "prints", changes=str(changes))
    before = started(supervised, "good", "prints")
    change(changes, workflows=[["good", 2], ["stubborn", 1]])
    supervised.send(signal.SIGHUP)
    for name in ("good", "good", "stubborn"):
        supervised.expect("ready", name)
    for name in ("good", "prints"):
        wait_until_gone(before[name]["pid"], what=f"the {name} before")
    assert "worker prints (pid" in supervised.stderr.partition("importing the application")[2]


def test_a_reload_is_over_when_new_workflows_are_ready_too(
    standin: StartStandin, changes: Path, tmp_path: Path, gate: Path
) -> None:
    marker = tmp_path / "app-has-changed"
    supervised = standin("good", changes=str(changes), marker=str(marker), gate=str(gate))
    before = started(supervised, "good")
    marker.touch()
    change(changes, workflows=[["good", 1], ["hesitates", 1]])
    supervised.send(signal.SIGHUP)
    supervised.expect("boot", "hesitates")
    wait_until_gone(before["good"]["pid"], what="the good before")
    assert "reloaded in" not in supervised.stderr
    gate.write_text("go")
    supervised.expect_said("reloaded in")
    assert "worker hesitates ready" in supervised.stderr.partition("reloaded in")[0]


@pytest.mark.parametrize(
    ("name", "why"),
    [("refuses", "this app cannot work"), ("dies-at-boot", "it exited with code 9")],
)
def test_a_new_workflow_that_cannot_boot_brings_the_old_code_back(
    standin: StartStandin, changes: Path, name: str, why: str
) -> None:
    supervised = standin("good", changes=str(changes))
    started(supervised, "good")
    change(changes, workflows=[["good", 1], [name, 1]])
    supervised.send(signal.SIGHUP)
    supervised.expect_said(f"going back to the code before it: worker {name} cannot boot: {why}\n")
    # Of the new code, then of the old again.
    second, third = (supervised.expect("ready", "good") for _ in range(2))
    wait_until_gone(second["pid"], what="the worker of the new code")
    assert process_exists(third["pid"])
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK


def test_a_new_workflow_for_which_there_is_no_room_brings_the_old_code_back(
    standin: StartStandin, changes: Path
) -> None:
    supervised = standin("good", changes=str(changes), template_fork_fails=[2])
    started(supervised, "good")
    change(changes, workflows=[["good", 1], ["prints", 1]])
    supervised.send(signal.SIGHUP)
    supervised.expect_said("going back to the code before it: worker prints cannot be forked")


def test_a_reload_mends_what_is_broken(standin: StartStandin, changes: Path) -> None:
    supervised = standin(
        "dies-when-ready", changes=str(changes), restart={"base_s": 0.001, "budget": 1}
    )
    supervised.expect_said("workflow dies-when-ready is broken")
    change(changes, workflows=[["dies-when-ready", 1], ["good", 1]])
    supervised.send(signal.SIGHUP)
    supervised.expect("ready", "good")
    supervised.expect_said("reloaded in")
    wait_until(
        lambda: supervised.stderr.count("is broken") == 2, what="it is tried again, and broken"
    )
    # Not as one that is broken already: it has its whole budget again.
    assert supervised.stderr.count("exited with code 3; restarting now") == 2


def test_after_a_reload_the_schedules_of_its_workflows_are_fired(
    standin: StartStandin, changes: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "app-has-changed"
    supervised = standin("good", "refuses-later", changes=str(changes), marker=str(marker))
    started(supervised, "good", "refuses-later")
    marker.touch()
    change(changes, workflows=[["good", 1], ["refuses-later", 1], ["prints", 1]])
    supervised.send(signal.SIGHUP)
    served = [supervised.expect("serve", "maintenance")["workflows"] for _ in range(2)]
    # Those of the new code, then those of the old again, because the new does not boot.
    assert served == [["good", "refuses-later", "prints"], ["good", "refuses-later"]]


def test_a_dead_template_is_replaced_and_nobody_else_is(
    standin: StartStandin, changes: Path
) -> None:
    supervised = standin("good", changes=str(changes))
    worker = started(supervised, "good")["good"]
    template = supervised.expect("load", "template")
    assert title_of(template["pid"]) == "flows: template standin:registry"
    change(changes, load="refuses")
    os.kill(template["pid"], signal.SIGKILL)
    supervised.expect_said("the template died by SIGKILL")
    supervised.expect_said("cannot import the application: importing standin failed")
    change(changes, load="well")
    supervised.expect_said("the application is imported again")
    os.kill(worker["pid"], signal.SIGKILL)
    supervised.expect("ready", "good")


def test_a_reload_that_fails_leaves_nobody_without_a_template(
    standin: StartStandin, changes: Path
) -> None:
    supervised = standin("good", changes=str(changes))
    started(supervised, "good")
    template = supervised.expect("load", "template")
    change(changes, load="hangs")
    supervised.send(signal.SIGHUP)
    hanging = supervised.expect("load", "template")
    # Of the reload that is under way a new template will come: nothing else is begun.
    os.kill(template["pid"], signal.SIGKILL)
    supervised.expect_said("the template died by SIGKILL")
    change(changes, load="well")
    os.kill(hanging["pid"], signal.SIGKILL)
    supervised.expect_said("reload aborted")
    supervised.expect_said("the application is imported again")
    assert supervised.expect("load", "template")["pid"] not in (template["pid"], hanging["pid"])
    assert supervised.stderr.count("importing the application again") == 2


def test_a_reload_takes_the_place_of_a_repair(
    standin: StartStandin, changes: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    supervised = standin("good", changes=str(changes), gate=str(gate))
    before = started(supervised, "good")["good"]
    template = supervised.expect("load", "template")
    change(changes, load="refuses")
    os.kill(template["pid"], signal.SIGKILL)
    supervised.expect_said("cannot import the application")
    change(changes, load="hesitates")
    supervised.send(signal.SIGHUP)
    supervised.expect_said("received SIGHUP")
    # The time of the next repair, a fifth of a second after the first, goes by.
    with pytest.raises(AssertionError):
        supervised.expect("repaired", "template", timeout_s=1)
    gate.write_text("go")
    supervised.expect("ready", "good")
    wait_until_gone(before["pid"], what="the worker before")
    supervised.expect_said("reloaded in")


def test_systemd_hears_which_workflows_are_broken(
    standin: StartStandin, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"flows-broken-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hears:
        hears.settimeout(DEADLINE_S)
        hears.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        supervised = standin("dies-when-ready", restart={"base_s": 0.001, "budget": 1})
        while hears.recv(4096) != b"STATUS=broken: dies-when-ready":
            assert supervised.process.poll() is None


def test_a_template_that_does_not_answer_is_replaced(standin: StartStandin) -> None:
    supervised = standin("good")
    worker = started(supervised, "good")["good"]
    template = supervised.expect("load", "template")
    os.kill(template["pid"], signal.SIGSTOP)
    os.kill(worker["pid"], signal.SIGKILL)
    supervised.expect("ready", "good")
    assert supervised.expect("load", "template")["pid"] != template["pid"]


@pytest.mark.timeout(600)  # a hundred imports, on whatever machine
def test_descriptors_do_not_grow_over_a_hundred_reloads(standin: StartStandin) -> None:
    supervised = standin("good")
    started(supervised, "good")
    supervised.expect_said("worker good ready")
    supervised.expect_said("maintenance ready")
    folder = Path(f"/proc/{supervised.pid}/fd")
    before = len(list(folder.iterdir()))
    for generation in range(2, 102):
        supervised.send(signal.SIGHUP)
        supervised.expect("ready", "good")
        supervised.expect("stopped", "good")
        supervised.expect_said(f"s: generation {generation}\n")
    # Some of what a process had is closed a moment after its death is told.
    wait_until(lambda: len(list(folder.iterdir())) == before, what=f"{before} descriptors are open")


@pytest.mark.parametrize(("signum", "count"), [(signal.SIGTTIN, 2), (signal.SIGTTOU, 1)])
def test_ttin_and_ttou_change_the_number_of_processes(
    standin: StartStandin, signum: signal.Signals, count: int
) -> None:
    supervised = standin("good")
    first = started(supervised, "good")["good"]
    supervised.send(signum)
    supervised.expect_said(f"workflow good: {count} process")
    if count == 2:
        second = supervised.expect("ready", "good")
        assert title_of(second["pid"]) == "flows: worker good [2/2]"
        supervised.send(signal.SIGTTOU)
        wait_until_gone(second["pid"], what="the second process")
    assert process_exists(first["pid"])


def test_usr1_tells_where_everybody_is(standin: StartStandin) -> None:
    supervised = standin("good")
    started(supervised, "good")
    supervised.send(signal.SIGUSR1)
    # The supervisor, its template, maintenance and a worker.
    for where in ("in _on_signal", "template.py", "in keep_maintaining", "in work_as"):
        supervised.expect_said(where)
