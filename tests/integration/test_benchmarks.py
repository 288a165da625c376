"""The program that measures: one small workload, from the command to the report."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.source_tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_a_small_workload_ends_in_a_report(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--only", "W11", "--scale", "0.01"]
    subprocess.run([*command, "--repetitions", "1", "--out", tmp_path], check=True, cwd=ROOT)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["failures"] == []
    assert "msgpack, 10 kB" in {each["name"] for each in results["series"]}
    report = (tmp_path / "report.md").read_text()
    assert "| W11 | msgpack beside the best other |" in report
    assert (tmp_path / "W11.png").exists()
