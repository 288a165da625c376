"""Which runs a command is about: the filter, and what it asks of each shard.

Pages go by run id, which is the order in which runs were begun: ids hold the time. That order is
the primary key's, so a page of millions costs no more than a page of few, and no index of its own.
Ids of other programs may be random; a shard that has such is told by its greatest id, and is
filtered by the stored time alone.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from flows.cli.documents import check_text
from flows.errors import ConfigError
from flows.run_options import check_tag

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from flows.ids import RunKey

__all__ = ["EVERY_ID", "RunFilter", "id_bounds"]

EVERY_ID = (uuid.UUID(int=0), uuid.UUID(int=2**128 - 1))

_SKEW_S = 3600.0
"""How wrong the clocks may be of hosts that begin runs, against the database's."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are chosen; by default all.

    Attributes:
        workflow: whose runs, None for all.
        statuses: which they may have, None for any.
        older_s: they were begun so many seconds ago at least.
        newer_s: they were begun so many seconds ago at most.
        error: text in their error, in capitals or not.
        tags: which they all have.
    """

    workflow: str | None = None
    statuses: tuple[str, ...] | None = None
    older_s: float | None = None
    newer_s: float | None = None
    error: str | None = None
    tags: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        workflow: str | None,
        statuses: Sequence[str],
        older_than: float | None,
        newer_than: float | None,
        error: str | None,
        tags: Sequence[str] = (),
    ) -> Self:
        """Return the filter of a command's options.

        Raises:
            ConfigError: one cannot be asked for, or they let nothing through.
        """
        for what, text in (("the workflow", workflow), ("the error's text", error)):
            if text is not None:
                check_text(what, text)
                if not text or "\0" in text:
                    raise ConfigError(f"{what} cannot be {text!r}")
        if older_than is not None and newer_than is not None and older_than >= newer_than:
            raise ConfigError("no run is both older and newer: --older-than must be the shorter")
        chosen = tuple(dict.fromkeys(statuses)) or None
        wanted = tuple(check_tag(check_text("a tag", tag)) for tag in tags)
        return cls(workflow, chosen, older_than, newer_than, error, wanted)

    @property
    def is_empty(self) -> bool:
        """Whether it lets every run through."""
        return self == RunFilter()

    def for_list(self) -> RunFilter:
        """Return the filter of a list: of failed runs, where it asks for an error and no status."""
        if self.error is None or self.statuses is not None:
            return self
        return replace(self, statuses=("failed",))

    def within(self, allowed: Sequence[str], usual: Sequence[str] | None = None) -> RunFilter:
        """Return the filter for those of its runs that have one of these statuses.

        Args:
            allowed: what it may ask for.
            usual: what it asks for without a status; by default all that is allowed.

        Raises:
            ConfigError: it asks for others.
        """
        if self.statuses is None:
            return replace(self, statuses=tuple(usual or allowed))
        others = [status for status in self.statuses if status not in allowed]
        if others:
            raise ConfigError(
                f"runs that are {' or '.join(others)} cannot be chosen here, only those that are"
                f" {', '.join(allowed)}"
            )
        return self

    def has_shard(self, shard: str) -> bool:
        """Tell whether runs of this shard may be among them."""
        return self.workflow is None or shard.rpartition("_")[0] == self.workflow

    def values(self) -> dict[str, Any]:
        """Return the parameters of statements that filter, but for the bounds of ids."""
        return {
            "statuses": None if self.statuses is None else list(self.statuses),
            # What an index of the running ones has: all but those of other programs' workers.
            "is_held": self.statuses == ("running",),
            "older_s": self.older_s,
            "newer_s": self.newer_s,
            "error": self.error,
            "tags": list(self.tags) or None,
        }

    def bounds(self, last: uuid.UUID, now: datetime) -> tuple[uuid.UUID, uuid.UUID]:
        """Return between which ids the runs of a shard are, given its greatest id."""
        if self.older_s is None and self.newer_s is None:
            return EVERY_ID
        return id_bounds(last, now.timestamp(), self.older_s, self.newer_s)

    def before(self, shard: str, after: RunKey | None) -> dict[str, Any]:
        """Return what of a shard comes after a run in the list: a greatest and an excluded id."""
        if after is None:
            return {"greatest": EVERY_ID[1], "excluded": None}
        # The same id in two shards: those of the first shard come first.
        is_behind = shard > after.workflow_name_shard
        return {"greatest": after.run_id, "excluded": None if is_behind else after.run_id}


def id_bounds(
    last: uuid.UUID, now_s: float, older_s: float | None, newer_s: float | None
) -> tuple[uuid.UUID, uuid.UUID]:
    """Return between which ids runs of some age are, as far as ids tell the time.

    Args:
        last: the greatest id of the shard. Among random ones it is hardly ever of the present.
        now_s: the time.
        older_s: begun so long ago at least.
        newer_s: begun so long ago at most.
    """
    least, greatest = EVERY_ID
    if last.version != 7 or (last.int >> 80) / 1000 > now_s + 24 * 3600:
        return least, greatest
    if newer_s is not None:
        least = _first_id(now_s - newer_s - _SKEW_S)
    if older_s is not None:
        greatest = _first_id(now_s - older_s + _SKEW_S)
    return least, greatest


def _first_id(at_s: float) -> uuid.UUID:
    return uuid.UUID(int=max(0, int(at_s * 1000)) << 80)
