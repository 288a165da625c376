"""How long the database has not answered, in memory that supervisor and maintenance share.

Maintenance asks something of it every second. A message could not tell: maintenance may be waiting
for the very answer, or be on its way back after the database has ended it.
"""

from __future__ import annotations

import mmap
import struct

from flows import clock

__all__ = ["Silence"]

_MOMENT = struct.Struct("=d")

_NOTABLE_S = 2.0
"""What takes no longer is no silence."""


class Silence:
    """Since when maintenance waits for the database."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _MOMENT.size)

    def asked(self) -> None:
        """Maintenance asks; it may do so again and again before there is an answer."""
        if not self._since_s:
            _MOMENT.pack_into(self._memory, 0, clock.monotonic())

    def answered(self) -> None:
        """The database has answered, whatever it was."""
        _MOMENT.pack_into(self._memory, 0, 0.0)

    @property
    def lasts_s(self) -> float | None:
        """For how long the database has not answered; None if it does."""
        since_s = self._since_s
        lasts_s = clock.monotonic() - since_s if since_s else 0.0
        return lasts_s if lasts_s >= _NOTABLE_S else None

    @property
    def _since_s(self) -> float:
        return float(_MOMENT.unpack_from(self._memory)[0])
