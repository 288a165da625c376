"""Values that cannot pass: the error says which value of the run it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from flows import Client, Codec, Context, EncodeError, Registry

if TYPE_CHECKING:
    from tests.running import Runs


def lying() -> int:
    return cast("int", "three")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            lambda wf: wf.execute("a", lying),
            "DecodeError: what step 'a' returned: codec 'json' cannot decode into int",
        ),
        (
            lambda wf: wf.execute("a", lambda: [float("nan")]),
            "EncodeError: what step 'a' returned: codec 'json' cannot keep $[0]: ",
        ),
        (
            lambda wf: {"n": float("nan")},
            "EncodeError: what workflow 'demo' returned: codec 'json' cannot keep $.n: ",
        ),
    ],
)
def test_a_value_that_cannot_be_kept_is_named(
    runs: Runs, caplog: pytest.LogCaptureFixture, function: Any, expected: str
) -> None:
    registry = Registry()
    demo = registry.workflow("demo")(function)
    key = runs.execute(registry, demo)
    assert runs.error(key).startswith(f"flows.errors.{expected}")
    assert expected in caplog.text


def test_an_output_that_does_not_fit_its_annotation_is_named(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> int:
        return lying()

    expected = "DecodeError: what workflow 'demo' returned: codec 'json' cannot decode into int"
    assert expected in runs.error(runs.execute(registry, demo))


def test_a_memo_that_no_longer_fits_is_named(runs: Runs) -> None:
    registry = Registry()
    versions: list[Any] = [dict, list]

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        kind = versions.pop(0)

        def step() -> Any:
            return kind()

        step.__annotations__["return"] = kind
        wf.execute("a", step)
        wf.wait_for_event("go", "Go")

    key = runs.execute(registry, demo)
    runs.publish(key, "Go")
    runs.execute_due(registry)
    expected = "DecodeError: the memo of step 'a': codec 'json' cannot decode into list"
    assert expected in runs.error(key)


class Precise(Codec):
    """Says itself which value it is."""

    name = "precise"
    storage = "jsonb"

    def encode(self, value: Any) -> bytes:
        error = EncodeError(self.name, "$", "it is never kept")
        error.of = "the third film"
        raise error

    def decode(self, data: bytes, type: Any) -> Any:  # noqa: A002
        raise NotImplementedError


def test_what_a_codec_itself_says_of_a_value_stands(runs: Runs) -> None:
    key, client = runs.begin("demo"), Client(codec=Precise())
    for refused in (
        lambda: client.begin_tx(runs.connection, "demo", 1),
        lambda: client.begin_many_tx(runs.connection, "demo", [1]),
        lambda: client.publish_event_tx(runs.connection, key, "Number", 1),
    ):
        with pytest.raises(EncodeError, match=r"^the third film: "):
            refused()
