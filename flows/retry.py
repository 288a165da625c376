"""When to try again: policies of steps and of runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from flows.clock import LONGEST, seconds
from flows.errors import ConfigError

__all__ = ["Backoff", "RetryPolicy", "RunRetryPolicy", "exponential_backoff", "wait_s"]

Backoff = Callable[[int], timedelta]
"""How long to wait before trying again, by the number of the attempt that failed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a step is tried again within one attempt of its run.

    Attributes:
        max_retries: tries after the first one.
        backoff: wait before a retry, by the failed try, counted from 0; None is no wait.
        step_timeout: longest time of one try; a try that took longer counts as failed.

    Raises:
        ConfigError: a negative count, a timeout that is not positive or longer than a thousand
            years, or a backoff that is no function.
    """

    max_retries: int = 0
    backoff: Backoff | None = None
    step_timeout: timedelta | None = None

    def __post_init__(self) -> None:
        _check_number("max_retries", self.max_retries, at_least=0)
        _check_backoff(self.backoff)
        timeout = self.step_timeout
        if timeout is not None and not (
            isinstance(timeout, timedelta) and timedelta() < timeout <= LONGEST
        ):
            raise ConfigError(
                "step_timeout must be a positive timedelta of at most a thousand years,"
                f" not {timeout!r}"
            )


@dataclass(frozen=True, slots=True)
class RunRetryPolicy:
    """How often a failing run is tried in all, and how long it sleeps in between.

    Attributes:
        max_attempts: attempts in all; 1 fails the run at its first error.
        backoff: durable sleep after a failure, by the number of failed attempts, from 1.

    Raises:
        ConfigError: `max_attempts` is below 1, or the backoff is no function.
    """

    max_attempts: int = 1
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        _check_number("max_attempts", self.max_attempts, at_least=1)
        _check_backoff(self.backoff)


def exponential_backoff(base: timedelta, maximum: timedelta) -> Backoff:
    """Return a backoff that starts at `base`, doubles each time and never exceeds `maximum`.

    Nor does it exceed a thousand years, however large `maximum` is. It suits runs, whose failures
    count from 1, and steps, whose failures count from 0: the first wait is `base` for both 0 and 1.

    Raises:
        ConfigError: `base` is not positive, or above `maximum`.
    """
    if not timedelta() < base <= maximum:
        raise ConfigError(f"a backoff needs 0 < base <= maximum, not {base} and {maximum}")
    base, maximum = min(base, LONGEST), min(maximum, LONGEST)
    doublings = (maximum // base).bit_length() - 1

    def backoff(failed: int) -> timedelta:
        exponent = max(failed - 1, 0)
        if exponent > doublings:
            return maximum
        factor: int = 2**exponent
        return base * factor

    return backoff


def wait_s(backoff: Backoff | None, failed: int) -> float:
    """Return how many seconds to wait after a failure.

    Raises:
        ConfigError: the backoff returns something else than a duration of up to a thousand years.
        Exception: whatever the backoff raises.
    """
    if backoff is None:
        return 0.0
    try:
        delay: object = backoff(failed)
    except Exception:
        raise
    except BaseException as left:
        raise ConfigError(f"a backoff must not end its thread: {left!r}") from left
    if not isinstance(delay, timedelta) or delay > LONGEST:
        raise ConfigError(
            f"a backoff returns a timedelta of at most a thousand years, not {delay!r}"
        )
    return max(0.0, seconds(delay))


def _check_number(what: str, number: object, *, at_least: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < at_least:
        raise ConfigError(f"{what} must be a whole number from {at_least}, not {number!r}")


def _check_backoff(backoff: object) -> None:
    if backoff is not None and not callable(backoff):
        raise ConfigError(f"a backoff is a function of the failed attempt, not {backoff!r}")
