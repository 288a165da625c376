"""Kills for want of memory: by the count of the cgroup, wherever that is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.supervisor.memory import OomKills

V1 = "9:name=systemd:/\n4:cpu,memory:/box/7\n0::/\n"
V2 = "0::/box/7\n"


@pytest.mark.parametrize(
    ("own", "file"),
    [
        (V1, "memory/box/7/memory.oom_control"),
        (V1, "memory/memory.oom_control"),
        (V2, "box/7/memory.events"),
        (V2, "memory.events"),
    ],
)
def test_a_kill_is_told_once(tmp_path: Path, own: str, file: str) -> None:
    cgroups, counter = tmp_path / "cgroup", tmp_path / "mount" / file
    cgroups.write_text(own)
    counter.parent.mkdir(parents=True)
    counter.write_text("low 0\noom 5\noom_kill 2\n")
    kills = OomKills(cgroups, tmp_path / "mount")
    assert not kills.explain_one()
    counter.write_text("low 0\noom 5\noom_kill 4\n")
    assert [kills.explain_one() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("own", [V1, V2, None])
def test_without_a_count_nothing_is_told(tmp_path: Path, own: str | None) -> None:
    cgroups = tmp_path / "cgroup"
    if own is not None:
        cgroups.write_text(own)
    assert not OomKills(cgroups, tmp_path / "mount").explain_one()


def test_a_cgroup_that_goes_away_tells_nothing_more(tmp_path: Path) -> None:
    cgroups, counter = tmp_path / "cgroup", tmp_path / "memory.events"
    cgroups.write_text(V2)
    counter.write_text("oom_kill 1\n")
    kills = OomKills(cgroups, tmp_path)
    counter.unlink()
    assert not kills.explain_one()
