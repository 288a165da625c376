"""A worker in a process of its own, whose memory is measured from outside.

python memory_worker.py DSN      says "ready", works until its stdin ends
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from flows import Context, JSONCodec, MsgspecCodec, Registry, Worker
from flows.config import LARGEST_PAYLOAD

registry = Registry()


@registry.workflow("swallow")
def swallow(wf: Context, text: str) -> int:
    return len(text)


@registry.workflow("emit")
def emit(wf: Context, size: int) -> str:
    return "x" * size


@registry.workflow("recount")
def recount(wf: Context, steps: int) -> int:
    return sum(len(wf.execute(f"step/{number}", str)) for number in range(steps))


@registry.workflow("hoard")
def hoard(wf: Context, given: list[int]) -> int:
    steps, size = given
    return sum(len(wf.execute(f"step/{number}", lambda: "x" * size)) for number in range(steps))


@registry.workflow("hoard-in-transaction")
def hoard_in_transaction(wf: Context, given: list[int]) -> int:
    wf.tx.execute("SELECT 1")
    return hoard(wf, given)


@registry.workflow("carry-text", codec=JSONCodec(), max_payload=LARGEST_PAYLOAD)
def carry_text(wf: Context, text: str) -> str:
    return wf.execute("step/v1", lambda given: given, text)


@registry.workflow("carry-bytes", codec=MsgspecCodec(), max_payload=LARGEST_PAYLOAD)
def carry_bytes(wf: Context, data: bytes) -> Any:
    return wf.execute("step/v1", lambda given: given, data)


def main() -> None:
    worker = Worker(registry, sys.argv[1])
    thread = threading.Thread(target=worker.run)
    thread.start()
    worker.ready.wait()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    worker.stop()
    thread.join()


if __name__ == "__main__":
    main()
