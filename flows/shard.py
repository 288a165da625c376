"""Which shard a run belongs to: the same function as in the reference package."""

from __future__ import annotations

from flows.errors import ConfigError

__all__ = ["fnv1a_32", "shard_for_run", "shard_index", "shard_values_for_workflow"]

_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193


def fnv1a_32(data: bytes) -> int:
    """Return the 32-bit FNV-1a hash (Fowler, Noll, Vo; draft-eastlake-fnv)."""
    value = _FNV_OFFSET
    for byte in data:
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return value


def shard_for_run(workflow_name: str, run_id: str, shard_count: int) -> str:
    """Return the shard `<workflow_name>_<k>` of a run.

    Args:
        workflow_name: name of the workflow.
        run_id: the run's id as lower-case hyphenated text.
        shard_count: shards per workflow; with 1 every run is in shard 0.
    """
    index = fnv1a_32(run_id.encode()) % shard_count if shard_count > 1 else 0
    return f"{workflow_name}_{index}"


def shard_values_for_workflow(workflow_name: str, shard_count: int) -> list[str]:
    """Return every shard of a workflow, `["name_0", …]`.

    Raises:
        ConfigError: `shard_count` is below 1.
    """
    if shard_count < 1:
        raise ConfigError(f"shard_count must be at least 1, not {shard_count}")
    return [f"{workflow_name}_{index}" for index in range(shard_count)]


def shard_index(shard: str) -> int | None:
    """Return the number of a shard `<workflow_name>_<k>`, None where it is not named so."""
    name, _, number = shard.rpartition("_")
    if not name or not number.isascii() or not number.isdigit():
        return None
    index = int(number)
    return index if str(index) == number else None
