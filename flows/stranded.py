"""Runs that nobody would claim: in shards beyond the configured count.

More shards than before read all that was written under fewer. With fewer, what is unfinished in the
shards that are left out would stay there for ever, without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows import sql
from flows.errors import ConfigError
from flows.shard import shard_index

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from flows.config import DBConfig
    from flows.database import Connection

__all__ = ["check_shard_count"]


def check_shard_count(
    connection: Connection, config: DBConfig, workflow_names: Collection[str]
) -> None:
    """Check that no unfinished run of these workflows is in a shard that is not read.

    Costs one look for each shard that has unfinished runs, however many runs there are.

    Raises:
        ConfigError: one is; the message tells where, and the count to start with.
    """
    beyond: dict[str, int] = {}
    for shard in _unfinished_shards(connection, config):
        index = shard_index(shard)
        name = shard.rpartition("_")[0]
        if index is not None and index >= config.shard_count and name in workflow_names:
            beyond[name] = max(index, beyond.get(name, 0))
    if not beyond:
        return
    name, index = max(beyond.items(), key=lambda item: item[1])
    raise ConfigError(
        f"workflow {name!r} has unfinished runs in shard {name}_{index}, which nobody reads with a"
        f" shard count of {config.shard_count}; start with --shards {index + 1}, or more if there"
        " were more, until they are finished"
    )


def _unfinished_shards(connection: Connection, config: DBConfig) -> Iterator[str]:
    for (shard,) in connection.execute(sql.load("read_running_shards", config.schema)):
        yield shard
    query = sql.load("read_unfinished_shard", config.schema)
    after = ""
    while (row := connection.execute(query, {"after": after}).fetchone()) and row[0] is not None:
        after = row[0]
        yield after
