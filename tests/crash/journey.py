"""A run that uses every primitive, in processes that can be killed at each point of it.

`python -m tests.crash.journey ORDERS_FD MARKS_FD` imports everything once and then forks a worker
for each order that it reads: killing those is all that is done to them. A worker tells of each step
boundary before it goes on, so that whoever listens can kill it there.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NoReturn
from uuid import UUID

import msgspec

from flows import (
    Context,
    JSONCodec,
    MsgspecCodec,
    OrjsonCodec,
    Registry,
    RetryPolicy,
    Worker,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows import Codec

__all__ = ["CODECS", "COMMITS", "Order", "Parcel", "Receipt", "drain", "registry", "workflow_of"]

CODECS: dict[str, Codec] = {
    "json": JSONCodec(),
    "orjson": OrjsonCodec(),
    "msgpack": MsgspecCodec(),
    "msgspec-json": MsgspecCodec(format="json"),
}
COMMITS: tuple[Literal["attempt", "step"], ...] = ("attempt", "step")

NAP = timedelta(milliseconds=2)
LEDGER = "INSERT INTO ledger (run_id, entry, amount) VALUES (%s, %s, %s)"

registry = Registry()


class Order(msgspec.Struct, frozen=True):
    """What the parent process of the workers is told: fork one."""

    dsn: str
    workflow: str
    worker_id: UUID


class Parcel(msgspec.Struct, frozen=True):
    """The input: the amount to book, and for the run that answers another one, whom."""

    amount: Decimal
    answers: str | None = None


class Receipt(msgspec.Struct, frozen=True):
    """The output."""

    price: Decimal
    uid: UUID
    salt: int
    tries: int
    answer: int


class Marks:
    """Where a worker tells of the step boundaries that it has reached."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None

    def reach(self, point: str) -> None:
        """Tell of a boundary, and wait to be let on, or killed."""
        if self.socket is not None:
            self.socket.send(point.encode())
            self.socket.recv(1)


marks = Marks()


def step(wf: Context, key: str, function: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Execute a step, and tell when it begins, when it ends, and when it has returned."""

    def bounded(*values: Any) -> Any:
        marks.reach(f"step {key} begins")
        value = function(*values)
        marks.reach(f"step {key} ends")
        return value

    returned = wf.execute(key, bounded, *given, **options)
    marks.reach(f"step {key} has returned")
    return returned


def journey(wf: Context, parcel: Parcel) -> Receipt:
    """Use every primitive, and book a row in each step that uses `wf.tx`."""
    if parcel.answers is not None:
        return answer(wf, parcel)
    price = step(wf, "price/v1", price_of, str(parcel.amount))
    uid, salt = wf.random_uuidv7("uid/v1"), wf.random_uint64("salt/v1")
    step(wf, "book/v1", lambda: book(wf, "booked", parcel.amount))
    tries = step(wf, "retried/v1", retried(wf), retry=RetryPolicy(max_retries=2))
    step(wf, "ask/v1", lambda: ask(wf, parcel))
    wf.sleep("nap/v1", NAP)
    marks.reach("awake")
    answered = wf.wait_for_event("answer/v1", "answer", int)
    marks.reach("answered")
    step(wf, "close/v1", lambda: book(wf, "closed", -parcel.amount))
    return Receipt(Decimal(price), uid, salt, tries, answered)


def price_of(amount: str) -> str:
    """Compute: no transaction is needed for this."""
    return str(Decimal(amount) * 2)


def book(wf: Context, entry: str, amount: Decimal) -> None:
    """Write a row of the ledger."""
    wf.tx.execute(LEDGER, (wf.run_id, entry, amount))


def retried(wf: Context) -> Callable[[], int]:
    """Return a step whose first try books something and fails."""
    tries: list[str] = []

    def attempt() -> int:
        tries.append("one more")
        book(wf, "retried", Decimal(len(tries)))
        if len(tries) == 1:
            raise ConnectionError("the first try")
        return len(tries)

    return attempt


def ask(wf: Context, parcel: Parcel) -> None:
    """Begin a run that will publish what this one waits for, in the same transaction as a row."""
    book(wf, "asked", Decimal(0))
    wf.client.begin_tx(
        wf.tx, registry.get(wf.workflow_name), Parcel(parcel.amount, str(wf.run_key))
    )


def answer(wf: Context, parcel: Parcel) -> Receipt:
    """Publish the event that another run waits for, with a row."""

    def publish() -> int:
        book(wf, "answered", parcel.amount)
        number = int(parcel.amount) * 10
        wf.client.publish_event_tx(wf.tx, str(parcel.answers), "answer", number)
        return number

    number = step(wf, "publish/v1", publish)
    return Receipt(parcel.amount, wf.random_uuidv7("uid/v1"), 0, 1, number)


def workflow_of(codec: str, commit: str) -> str:
    """Return the name of the workflow with these options."""
    return f"{codec}-by-{commit}"


for name, codec in CODECS.items():
    for commit in COMMITS:
        registry.workflow(workflow_of(name, commit), codec=codec, commit=commit)(journey)


def work(order: Order) -> NoReturn:
    """Be a worker, under a supervisor that will release what it leaves behind."""
    logging.basicConfig(level=logging.ERROR)
    # Its lease is nobody's business here: it has a supervisor, which renews none.
    supervisor_id = UUID(int=1)
    worker = Worker(
        registry.only((order.workflow,)),
        order.dsn,
        worker_id=order.worker_id,
        supervisor_id=supervisor_id,
        poll_interval=timedelta(milliseconds=50),
    )
    worker.run()
    os._exit(0)


def drain(end: socket.socket) -> None:
    """Drop what has come and nobody has read."""
    end.setblocking(False)
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while end.recv(4096):
            pass
    end.setblocking(True)


def main(orders_fd: int, marks_fd: int) -> None:
    """Fork workers, one after the other, and tell how each has ended."""
    orders = socket.socket(fileno=orders_fd)
    marks.socket = socket.socket(fileno=marks_fd)
    while data := orders.recv(4096):
        order = msgspec.json.decode(data, type=Order)
        pid = os.fork()
        if pid == 0:
            orders.close()
            # Nobody kills it where the test is killed.
            signal.alarm(120)
            faulthandler.dump_traceback_later(45)
            work(order)
        orders.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        # An answer that came too late for this one would let the next one on.
        drain(marks.socket)
        orders.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
