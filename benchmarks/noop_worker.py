"""A worker process with the workflow that does nothing: `python -m benchmarks.noop_worker DSN`."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import flows

__all__ = ["main", "registry_for"]


def nothing(number: int) -> int:
    """Do nothing, as a step."""
    return number


def registry_for(concurrency: int) -> flows.Registry:
    """Return a registry with one workflow of one step."""
    registry = flows.Registry()

    @registry.workflow("noop", concurrency=concurrency)
    def noop(wf: flows.Context, number: int) -> int:
        return wf.execute("nothing/v1", nothing, number)

    del noop
    return registry


def main(dsn: str, concurrency: str = "10", shards: str = "1", **options: Any) -> None:
    """Work until SIGTERM; print `ready` once runs can be claimed."""
    config = flows.DBConfig(shard_count=int(shards))
    worker = flows.Worker(registry_for(int(concurrency)), dsn, db_config=config, **options)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())

    def announce() -> None:
        worker.ready.wait()
        print("ready", flush=True)

    threading.Thread(target=announce, daemon=True).start()
    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
