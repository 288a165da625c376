"""An application for the tests of the command line."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec

from flows import Context, MsgspecCodec, Registry, RetryPolicy

print("imported")  # noqa: T201  what applications do

registry = Registry()


class Job(msgspec.Struct, frozen=True):
    name: str
    price: Decimal
    count: int = 1


class Shop:
    """What steps call; it is out of order the first time."""

    def __init__(self) -> None:
        self._calls = 0

    def order(self, count: int) -> list[str]:
        self._calls += 1
        if self._calls == 1:
            raise ConnectionError("out of order")
        return [f"piece {number}" for number in range(count)]


def reject(name: str) -> None:
    raise ValueError(f"not \x1b[2J this: {name}")


@registry.workflow("priced", codec=MsgspecCodec())
def priced(wf: Context, job: Job) -> dict[str, Any]:
    pieces = wf.execute("order/v1", Shop().order, job.count, RetryPolicy(max_retries=2))
    wf.sleep("rest/v1", timedelta(microseconds=1))
    wf.random_uuidv7("uid/v1")
    salt = wf.random_uint64("salt/v1")
    answer = wf.wait_for_event("answer/v1", "Answer", int)
    return {"answer": answer, "pieces": len(pieces), "salt": salt, "raw": b"\x00\xff"}


@registry.workflow("asking")
def asking(wf: Context) -> Any:
    return wf.wait_for_event("answer/v1", "Answer")


@registry.workflow("rejecting")
def rejecting(wf: Context, name: str) -> None:
    wf.execute("reject/v1", reject, name)


@registry.workflow("resting")
def resting(wf: Context) -> None:
    wf.sleep("long/v1", timedelta(hours=30))
