"""Keys of runs as they are typed: whole, or the run's id alone, as logs and `flows top` have it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from flows import sql
from flows.cli.documents import check_text
from flows.cli.output import Refusal
from flows.cli.run_list import all_shards
from flows.errors import ConfigError, UnknownRunError
from flows.ids import RunID, RunKey

if TYPE_CHECKING:
    from flows.cli.session import Session
    from flows.config import DBConfig

__all__ = ["find_key", "read_key"]


def read_key(argument: str) -> RunKey | RunID:
    """Return what an argument names a run by.

    Raises:
        ConfigError: it is neither a key nor an id.
    """
    text = check_text("the run key", argument)
    try:
        run_id = uuid.UUID(text)
    except ValueError:
        run_id = None
    # Other ways to write one are no id that anything prints.
    if run_id is not None and str(run_id) == text.lower():
        return RunID(run_id)
    try:
        return RunKey.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{error}, or the run id alone") from error


def find_key(session: Session, config: DBConfig, named: RunKey | RunID) -> RunKey:
    """Return the key of the run that is named; one named by its id is looked for in every shard.

    A whole key is not looked for: who reads the run says whether there is one.

    Raises:
        UnknownRunError: no run has the id.
        Refusal: several have it.
    """
    if isinstance(named, RunKey):
        return named
    values = {"shards": list(all_shards(session.connection, config.schema)), "run_id": named}
    query = sql.load("find_run", config.schema)
    found = [RunKey(shard, named) for (shard,) in session.connection.execute(query, values)]
    if not found:
        raise UnknownRunError(str(named))
    if len(found) > 1:
        keys = ", ".join(map(str, found))
        raise Refusal(f"several runs have the id {named}, give the key of one: {keys}")
    return found[0]
