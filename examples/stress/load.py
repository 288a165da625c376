"""How much of what: the load of each workflow, and the options that say so."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from .workflows import CODECS

__all__ = ["PROGRAM", "Load", "Settings", "load_options", "loads_from", "seconds"]

PROGRAM = "python -m examples.stress"

F = TypeVar("F", bound="Callable[..., Any]")


class Load(msgspec.Struct, frozen=True):
    """What the runs of one workflow are given.

    Attributes:
        runs: how many there are.
        iterations: of the hash, in each of their steps.
        sleep_seconds: of the durable sleep after the first step.
        steps: how many each has.
    """

    runs: int
    iterations: int
    sleep_seconds: float
    steps: int

    def __str__(self) -> str:
        sleep = f", sleep {self.sleep_seconds:g} s" if self.sleep_seconds else ""
        steps = f"{self.steps} step{'' if self.steps == 1 else 's'}"
        return f"{steps} of {self.iterations:,} hashes{sleep}"


class Settings(msgspec.Struct, frozen=True):
    """What a generation was asked for, as it is noted beside it.

    Attributes:
        shards: over how many shards the runs of each workflow are spread.
        batch_size: runs begun in one transaction.
        loads: by workflow.
    """

    shards: int
    batch_size: int
    loads: dict[str, Load]


DEFAULTS = {
    "stress_a": Load(2000, 0, 0.0, 3),
    "stress_b": Load(500, 1_000, 0.1, 3),
    "stress_c": Load(100, 20_000, 0.5, 3),
    "stress_d": Load(20, 200_000, 1.0, 3),
}
"""Ten or twenty seconds of one processor: from many runs without work to few that have much."""

_A_YEAR_S = 366 * 86_400


def seconds(value: str | float) -> float:
    """Return a duration that was given as text: seconds, not negative and at most a year.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= _A_YEAR_S:  # nor is NaN
        raise click.BadParameter(f"{value!r} is no number of seconds from 0 to {_A_YEAR_S}")
    return number


def load_options(function: F) -> F:
    """Add the options of all workflows; `loads_from` reads them."""
    # What is added last is listed first.
    for workflow in reversed(CODECS):
        letter, default = workflow[-1], DEFAULTS[workflow]
        for kind, value, what, number in (
            ("steps", default.steps, "steps of each run", click.IntRange(1, 1000)),
            ("sleep", default.sleep_seconds, "seconds of durable sleep in each run", seconds),
            ("cpu", default.iterations, "hashes in each step", click.IntRange(0, 10**9)),
            ("total", default.runs, "runs", click.IntRange(0, 10**8)),
        ):
            function = click.option(
                f"--{kind}-{letter}",
                type=number,
                default=value,
                show_default=True,
                envvar=f"FLOWS_STRESS_{kind}_{letter}".upper(),
                show_envvar=True,
                metavar="N",
                help=f"Of {workflow}: {what}.",
            )(function)
    return function


def loads_from(options: dict[str, Any]) -> dict[str, Load]:
    """Return the load of each workflow that has runs.

    Raises:
        click.UsageError: none has.
    """
    loads = {}
    for workflow in CODECS:
        values = [options[f"{kind}_{workflow[-1]}"] for kind in ("total", "cpu", "sleep", "steps")]
        loads[workflow] = Load(*values)
    chosen = {workflow: load for workflow, load in loads.items() if load.runs}
    if not chosen:
        raise click.UsageError("there is nothing to begin: give one of --total-a … --total-d")
    return chosen
