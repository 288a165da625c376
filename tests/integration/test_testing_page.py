"""The code on the page about testing runs as it stands there, as the tests of a project."""

from __future__ import annotations

import re
from pathlib import Path

from tests.citus import not_on_citus
from tests.integration.test_pytest_plugin import run_tests

pytestmark = not_on_citus("its databases are on one server")

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"

WITHOUT_PYTEST = """

def test_without_pytest() -> None:
    assert bill_without_pytest() == 1
"""


def test_the_tests_on_the_page_pass(server_dsn: str, tmp_path: Path) -> None:
    app, *tests = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "app.py").write_text(app, "utf-8")
    source = "\n\n".join(tests) + WITHOUT_PYTEST
    code, output = run_tests(tmp_path, source, FLOWS_TEST_DSN=server_dsn)
    assert code == 0, output
    assert "4 passed" in output
