"""The application is named as module:attribute; what is wrong with it is told in a line or two."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from flows.errors import ConfigError
from flows.supervisor.application import load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMPORT = "from flows.registry import Registry\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The present folder is an empty one, and what is imported from it is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_in_the_present_folder_is_found(elsewhere: Path) -> None:
    (elsewhere / "shop").mkdir()
    (elsewhere / "shop" / "orders.py").write_text(
        IMPORT + "class Shop: registry = Registry()\n"
        "@Shop.registry.workflow('one')\n"
        "def one(wf): return 1\n"
    )
    assert load_registry("shop.orders:Shop.registry").names() == ("one",)


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("", "app", "'app' does not name a registry; expected module:attribute"),
        ("", "app:", "'app:' does not name a registry"),
        ("", "missing:registry", "no module named 'missing'"),
        ("", "missing.module:registry", "no module named 'missing'"),
        ("", "app:registry", "app:registry: no attribute 'registry'"),
        ("registry = {}", "app:registry", "app:registry is of type dict, not a flows.Registry"),
        (IMPORT + "registry = Registry()", "app:registry", "empty registry"),
        (IMPORT + "flow = Registry()", "app:registry", "it has app:flow"),
        ("import nowhere", "app:registry", "ModuleNotFoundError: No module named 'nowhere'"),
        ("x = 1\nraise ValueError('no way')", "app:registry", "ValueError: no way"),
        ("x = 1\nraise ValueError('no way')", "app:registry", "app.py, line 2"),
        ("def f(:", "app:registry", "importing app failed: SyntaxError"),
        ("import sys; sys.exit(5)", "app:registry", "importing app failed: SystemExit: 5"),
    ],
)
def test_an_app_that_cannot_be_used_is_told(
    elsewhere: Path, source: str, target: str, said: str
) -> None:
    (elsewhere / "app.py").write_text(source)
    with pytest.raises(ConfigError) as caught:
        load_registry(target)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
