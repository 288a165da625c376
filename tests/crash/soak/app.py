"""The application that is soaked: every run writes one row of the ledger in each of its steps."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import msgspec

from flows import Context, MsgspecCodec, Registry

__all__ = ["ENTRIES", "Transfer", "registry"]

MAX_CRASHES = 1_000_000
"""Here it is the test that kills processes, and no run of theirs."""

ENTRIES = {
    "transfer": ("debit", "credit"),
    "transfer-by-step": ("debit", "fee", "credit"),
    "ask": ("asked", "heard"),
    "reply": ("replied",),
}
"""By workflow, the rows that each of its runs has to write."""

WORK_S = 0.004
LEDGER = "INSERT INTO ledger (run_id, entry, amount) VALUES (%s, %s, %s)"

registry = Registry()


class Transfer(msgspec.Struct, frozen=True):
    """What is booked, and for a reply, where the answer goes."""

    amount: int
    answers: str | None = None


def book(wf: Context, entry: str, amount: int) -> int:
    """Write a row in a step, and take a little time over it."""

    def write(given: int) -> int:
        wf.tx.execute(LEDGER, (wf.run_id, entry, given))
        threading.Event().wait(WORK_S)
        return given

    return wf.execute(f"{entry}/v1", write, amount)


def compute(amount: int) -> int:
    """Do something that needs no transaction."""
    threading.Event().wait(WORK_S)
    return amount


@registry.workflow("transfer", concurrency=4, processes=2, max_crashes=MAX_CRASHES)
def transfer(wf: Context, given: Transfer) -> int:
    """Book twice; every third run sleeps in between."""
    amount = wf.execute("compute/v1", compute, given.amount)
    book(wf, "debit", amount)
    if amount % 3 == 0:
        wf.sleep("nap/v1", timedelta(milliseconds=50))
    return book(wf, "credit", amount)


@registry.workflow(
    "transfer-by-step",
    codec=MsgspecCodec(),
    commit="step",
    concurrency=4,
    max_crashes=MAX_CRASHES,
)
def transfer_by_step(wf: Context, given: Transfer) -> int:
    """Book three times, each committed on its own."""
    wf.random_uuidv7("id/v1")
    for entry in ENTRIES["transfer-by-step"]:
        book(wf, entry, given.amount)
    return given.amount


@registry.workflow("ask", concurrency=4, max_crashes=MAX_CRASHES)
def ask(wf: Context, given: Transfer) -> int:
    """Begin a run in the transaction of a row, and wait for what it publishes."""

    def begin() -> None:
        wf.tx.execute(LEDGER, (wf.run_id, "asked", given.amount))
        reply_to = Transfer(given.amount, str(wf.run_key))
        wf.client.begin_tx(wf.tx, registry.get("reply"), reply_to)

    wf.execute("asked/v1", begin)
    heard = wf.wait_for_event("heard/v1", "reply", int)
    return book(wf, "heard", heard)


@registry.workflow("reply", concurrency=4, max_crashes=MAX_CRASHES)
def reply(wf: Context, given: Transfer) -> Any:
    """Publish what another run waits for, in the transaction of a row."""

    def publish() -> None:
        wf.tx.execute(LEDGER, (wf.run_id, "replied", given.amount))
        wf.client.publish_event_tx(wf.tx, str(given.answers), "reply", given.amount)

    wf.execute("replied/v1", publish)
