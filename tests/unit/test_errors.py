"""Errors: what a caller can catch them as, and what they say."""

from __future__ import annotations

import pytest

from flows import errors


class MuteExit(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (errors.ConfigError, ValueError),
        (errors.EncodeError, errors.PayloadError),
        (errors.DecodeError, errors.PayloadError),
        (errors.PayloadSizeError, errors.PayloadError),
        (errors.UnknownWorkflowError, LookupError),
        (errors.UnknownRunError, LookupError),
        (errors.StepTimeoutError, TimeoutError),
        (errors.RunTimeoutError, TimeoutError),
    ],
)
def test_an_error_can_be_caught_as_what_it_is(error: type, parent: type) -> None:
    assert issubclass(error, parent)
    assert issubclass(error, errors.FlowsError)


def test_a_suspension_is_no_exception() -> None:
    assert issubclass(errors.Suspend, BaseException)
    assert not issubclass(errors.Suspend, Exception)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            errors.EncodeError("json", "$.jobs[3].name", "it holds a NUL"),
            "codec 'json' cannot keep $.jobs[3].name: it holds a NUL",
        ),
        (
            errors.DecodeError("json", "Job", "Expected `int` at $.n"),
            "codec 'json' cannot decode into Job: Expected `int` at $.n",
        ),
        (
            errors.UnknownWorkflowError("demo", ("census", "render")),
            "no workflow named 'demo' is registered (registered: census, render)",
        ),
        (
            errors.UnknownWorkflowError("demo"),
            "no workflow named 'demo' is registered (registered: none)",
        ),
        (errors.UnknownRunError("demo_0:17"), "no run demo_0:17"),
        (
            errors.RunStateError("demo_0:17", "running", "be cancelled"),
            "run demo_0:17 is running and cannot be cancelled",
        ),
        (
            errors.RunStateError("demo_0:17", "failed", "give an output", "ValueError: no"),
            "run demo_0:17 is failed and cannot give an output: ValueError: no",
        ),
        (
            errors.StepTimeoutError("trace/v1", 2.0, 2.5),
            "step 'trace/v1' took 2.500 s, longer than its timeout of 2 s",
        ),
        (errors.RunTimeoutError("demo_0:17"), "run demo_0:17 was not done by its deadline"),
        (errors.StepPanicError(SystemExit(3)), "step panicked: SystemExit: 3"),
        (errors.WorkflowPanicError(KeyboardInterrupt()), "workflow panicked: KeyboardInterrupt: "),
        (errors.StepPanicError(MuteExit()), "step panicked: MuteExit"),
    ],
)
def test_what_an_error_says(error: errors.FlowsError, text: str) -> None:
    assert str(error) == text
