"""The four workflows, which differ in their codecs and in the load they are given."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import timedelta

import msgspec

from flows import Codec, ConfigError, Context, JSONCodec, MsgspecCodec, OrjsonCodec, Registry

__all__ = [
    "CODECS",
    "CONCURRENCY_VARIABLE",
    "DEFAULT_CONCURRENCY",
    "PROCESSES_VARIABLE",
    "Job",
    "Outcome",
    "Piece",
    "burn",
    "registry_by_environment",
    "registry_for",
]

CODECS: dict[str, Codec] = {
    "stress_a": JSONCodec(),
    "stress_b": MsgspecCodec(),
    "stress_c": OrjsonCodec(),
    "stress_d": MsgspecCodec(format="json", storage="bytea"),
}
"""The workflows, and how each stores its payloads."""

CONCURRENCY_VARIABLE = "FLOWS_STRESS_CONCURRENCY"
PROCESSES_VARIABLE = "FLOWS_STRESS_PROCESSES"
DEFAULT_CONCURRENCY = 4


class Job(msgspec.Struct, frozen=True):
    """Input of a run: the load travels with it, so that one worker serves any.

    Attributes:
        number: which of its workflow's runs it is.
        steps: how many steps it has.
        iterations: of `burn`, in each step.
        sleep_seconds: of the durable sleep after the first step; 0 for none.
    """

    number: int
    steps: int
    iterations: int
    sleep_seconds: float


class Piece(msgspec.Struct, frozen=True):
    """Input of a step: what the one before it returned, and how much to do with it."""

    digest: str
    iterations: int


class Outcome(msgspec.Struct, frozen=True):
    """Output of a run; the digest depends on every step of it."""

    number: int
    digest: str


def burn(piece: Piece) -> str:
    """Keep a processor busy: a chain of hashes, each of the one before, so none can be skipped."""
    digest = piece.digest.encode()
    for _ in range(piece.iterations):
        digest = hashlib.sha256(digest).digest()
    return hashlib.sha256(digest).hexdigest()


def stress(wf: Context, job: Job) -> Outcome:
    """Go through the steps of a job, with a durable sleep after the first."""
    digest = str(job.number)
    for step in range(job.steps):
        digest = wf.execute(f"burn/v1/{step}", burn, Piece(digest, job.iterations))
        if step == 0 and job.sleep_seconds:
            wf.sleep("sleep/v1", timedelta(seconds=job.sleep_seconds))
    return Outcome(job.number, digest)


def registry_for(concurrency: int, processes: int = 1) -> Registry:
    """Return a registry of the four.

    Args:
        concurrency: executor threads of each workflow in each of its processes.
        processes: processes of each workflow under a supervisor.
    """
    registry = Registry()
    for name, codec in CODECS.items():
        decorate = registry.workflow(
            name, codec=codec, concurrency=concurrency, processes=processes
        )
        decorate(stress)
    return registry


def registry_by_environment(environment: Mapping[str, str] = os.environ) -> Registry:
    """Return the registry that two variables describe.

    Raises:
        ConfigError: the value of one of them is no number from 1.
    """
    concurrency = _count(environment, CONCURRENCY_VARIABLE, DEFAULT_CONCURRENCY)
    return registry_for(concurrency, _count(environment, PROCESSES_VARIABLE, 1))


def _count(environment: Mapping[str, str], variable: str, default: int) -> int:
    text = environment.get(variable) or str(default)
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ConfigError(f"{variable}={text!r}: expected a whole number from 1")
    return int(text)
